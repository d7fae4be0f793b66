"""The mirror group of SOLO8: reflections left-right and front-back, and both.

All joints turn about +y, so each mirror image of a motion is a motion. An element is an integer:
bit 0 reflects left and right, bit 1 front and back. Elements compose by exclusive or, each is its
own inverse, and element `l` takes leg `l` of `solo8_constants.LEGS` to the front left: one policy
for a broken front left leg serves all four (arXiv:2402.08996 breaks that leg only; the group is
ours). The reflections are exact for `solo8_model.symmetric`. Front-back turns walking forwards
into walking backwards.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from envs.faults import Fault

IDENTITY, LEFT_RIGHT, FRONT_BACK, HALF_TURN = range(4)


class Table(NamedTuple):
    """How each element acts on a vector: a permutation, then signs. Both are `[4, n]`."""

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
"""`[4]`, scalars of the legs"""
JOINTS = Table(
    (2 * _LEG[:, :, None] + np.arange(2)).reshape(4, 8), np.repeat([[1], [1], [-1], [-1]], 8, 1)
)
"""`[8]`, angles (absolute or from the default pose), velocities, torques and actions"""
VECTOR = _signs([1, -1, 1], [-1, 1, 1])
"""`[3]`, positions, velocities, gravity"""
ROTATION = _signs([-1, 1, -1], [1, -1, -1])
"""`[3]`, angular velocities"""
QUATERNION = _signs([1, -1, 1, -1], [1, 1, -1, -1])
"""`[4]`, w, x, y, z"""
COMMAND = _signs([1, -1], [-1, -1])
"""`[2]`, forward speed and yaw rate"""
QPOS = _join(VECTOR, QUATERNION, JOINTS)
QVEL = _join(VECTOR, ROTATION, JOINTS)
OBSERVATION = {
    "quat": _join(QUATERNION, COMMAND, JOINTS, JOINTS, JOINTS),
    "gravity": _join(VECTOR, COMMAND, JOINTS, JOINTS, JOINTS),
}
"""`[30]` and `[29]`, by the observation mode of `Solo8`"""


def mirror(x: Array, table: Table, element: Array | int) -> Array:
    """Image of an array under an element of the group.

    Args:
        x: `[..., n]`.
        table: of what x is, such as `mirror.QPOS`.
        element: 0 to 3; may be traced, one for the whole array (use `vmap` for more).
    """
    # in NumPy for NumPy: exact tests need its float64
    xp = np if isinstance(x, np.ndarray) else jnp
    index, sign = xp.asarray(table.index)[element], xp.asarray(table.sign, x.dtype)[element]
    return x[..., index] * sign


def mirror_fault(fault: Fault, element: Array | int) -> Fault:
    """The fault of the mirrored robot."""
    index = jnp.asarray(JOINTS.index)[element]
    return fault._replace(
        power_loss=jnp.asarray(fault.power_loss)[..., index],
        locked=jnp.asarray(fault.locked)[..., index],
    )
