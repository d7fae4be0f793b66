"""Mirror group of SOLO8: reflections left-right and front-back, and both.

All joints turn about +y, so each mirror image of a motion is a motion. An element is an integer:
bit 0 reflects left and right, bit 1 front and back. Elements compose by exclusive or, and each is
its own inverse. Element `l` takes leg `l` of `solo8_constants.LEGS` to the front left, so that one
policy for a failed front left leg serves all four. arXiv:2402.08996 breaks that leg only; the group
is an addition of this project. The reflections are exact for `solo8_model.symmetric`. Front-back
turns walking forwards into walking backwards.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from envs.faults import Fault

IDENTITY, LEFT_RIGHT, FRONT_BACK, HALF_TURN = range(4)


class Table(NamedTuple):
    """Action of each element on a vector: a permutation, then signs.

    Attributes:
        index: `[4, n]` integers, the permutation.
        sign: `[4, n]`, ones and minus ones.
    """

    index: np.ndarray
    sign: np.ndarray


def _signs(left_right: list[int], front_back: list[int]) -> Table:
    lr, fb = np.array(left_right), np.array(front_back)
    sign = np.stack([np.ones_like(lr), lr, fb, lr * fb])
    return Table(np.tile(np.arange(len(lr)), (4, 1)), sign)


def _join(*tables: Table) -> Table:
    starts = np.cumsum([0, *(table.index.shape[1] for table in tables)])
    index = [table.index + start for table, start in zip(tables, starts, strict=False)]
    return Table(np.hstack(index), np.hstack([table.sign for table in tables]))


# leg l goes where the bits of the element take it: l xor element
_LEG = np.arange(4)[:, None] ^ np.arange(4)
LEGS = Table(_LEG, np.ones_like(_LEG))
"""Table of scalars of the legs, `[4]`."""
JOINTS = Table(
    (2 * _LEG[:, :, None] + np.arange(2)).reshape(4, 8), np.repeat([[1], [1], [-1], [-1]], 8, 1)
)
"""Table of angles (absolute or from the default pose), velocities, torques and actions, `[8]`."""
VECTOR = _signs([1, -1, 1], [-1, 1, 1])
"""Table of positions, velocities and gravity, `[3]`."""
ROTATION = _signs([-1, 1, -1], [1, -1, -1])
"""Table of angular velocities, `[3]`."""
QUATERNION = _signs([1, -1, 1, -1], [1, 1, -1, -1])
"""Table of quaternions, `[4]`: w, x, y, z."""
COMMAND = _signs([1, -1], [-1, -1])
"""Table of commands, `[2]`: forward speed and yaw rate."""
QPOS = _join(VECTOR, QUATERNION, JOINTS)
"""Table of MuJoCo's `qpos`, `[15]`."""
QVEL = _join(VECTOR, ROTATION, JOINTS)
"""Table of MuJoCo's `qvel`, `[14]`."""
OBSERVATION = {
    "quat": _join(QUATERNION, COMMAND, JOINTS, JOINTS, JOINTS),
    "gravity": _join(VECTOR, COMMAND, JOINTS, JOINTS, JOINTS),
}
"""Tables of observations, `[30]` and `[29]`, by the observation mode of `Solo8`."""


def mirror(x: Array, table: Table, element: Array | int) -> Array:
    """Image of an array under an element of the group.

    Args:
        x: `[..., n]`.
        table: table of the quantity, such as `mirror.QPOS`.
        element: 0 to 3; may be traced, one for the whole array (use `vmap` for more).

    Returns:
        `[..., n]`, a NumPy array for a NumPy array.
    """
    # in NumPy for NumPy: exact tests need its float64
    xp = np if isinstance(x, np.ndarray) else jnp
    index, sign = xp.asarray(table.index)[element], xp.asarray(table.sign, x.dtype)[element]
    return x[..., index] * sign


def mirror_fault(fault: Fault, element: Array | int) -> Fault:
    """Fault of the mirrored robot.

    Args:
        fault: fault of a robot.
        element: as in `mirror`.

    Returns:
        `Fault` with the same onset.
    """
    index = jnp.asarray(JOINTS.index)[element]
    return fault._replace(
        power_loss=jnp.asarray(fault.power_loss)[..., index],
        locked=jnp.asarray(fault.locked)[..., index],
    )
