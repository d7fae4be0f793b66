"""Joints that lose power or seize, at any step, without another compilation.

A fault is data, not program: three arrays in the state of an environment. Power loss sets a motor's
torque to zero. Locking switches on an equality constraint that every joint has
(`solo8_model.mjcf`), at the angle of that moment. The paper's code clips the joint instead and
leaves its velocity alone (arXiv:2402.08996, released code); `clip_joints` does that.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from envs import solo8_constants as c

HEALTHY, POWER_LOSS, LOCKED = range(3)
"""Condition of a joint, and the order of the probabilities in `Mixture`."""

LAST_STEP = c.EPISODE_STEPS - 1
"""Last control step of an episode."""

Model = TypeVar("Model")
Data = TypeVar("Data")


class Fault(NamedTuple):
    """Failed joints and the step of their failure. Every attribute may be batched.

    Attributes:
        power_loss: `[8]` bool, joints whose motor gives no torque.
        locked: `[8]` bool, joints that seize.
        onset: `[]` int, first control step with the fault, which then stays.
    """

    power_loss: Array
    locked: Array
    onset: Array


class Mixture(NamedTuple):
    """Distribution of faults: one leg at a time.

    Attributes:
        probabilities: probabilities of a healthy robot, of power loss and of locking.
        legs: legs that may fail, equally often.
        both: probability that hip and knee fail together; otherwise one does, either equally.
        onset: first and last control step at which a fault may begin, both included.
    """

    probabilities: tuple[float, float, float] = (0.5, 0.25, 0.25)
    legs: tuple[str, ...] = c.LEGS
    both: float = 0.5
    onset: tuple[int, int] = (0, c.EPISODE_STEPS - 2)


ANY_LEG = Mixture()
"""Faults of any leg, one joint or both, beginning at any step."""

PAPER = Mixture(legs=("FL",), both=1.0, onset=(0, 0))
"""Faults of the paper's training: front left leg, both joints, from the first step. [FMT]"""


def fault(condition: int, joints: tuple[str, ...], onset: int = 0) -> Fault:
    """Fault by name.

    Args:
        condition: `HEALTHY`, `POWER_LOSS` or `LOCKED`.
        joints: names of `solo8_constants.JOINTS`, such as `("FL_HFE", "FL_KFE")`.
        onset: control step of an episode; set a traced one by `_replace(onset=...)`.

    Returns:
        `Fault`.

    Raises:
        ValueError: an unknown joint or condition, or an onset beyond the episode.
    """
    if condition not in (HEALTHY, POWER_LOSS, LOCKED):
        raise ValueError(f"condition: {condition} not in 0, 1, 2 (healthy, power loss, locked)")
    if unknown := set(joints) - set(c.JOINTS):
        raise ValueError(f"joints: {sorted(unknown)} not in {c.JOINTS}")
    if not 0 <= onset < c.EPISODE_STEPS:
        raise ValueError(f"onset: {onset}; an episode has control steps 0 to {LAST_STEP}")
    return _fault(jnp.asarray(condition), np.isin(c.JOINTS, joints), jnp.asarray(onset))


def check(mixture: Mixture) -> None:
    """Refuse a distribution of faults that could not be drawn, or would never begin.

    Args:
        mixture: the distribution.

    Raises:
        ValueError: a field is out of its range; the message says which would do.
    """
    total = sum(mixture.probabilities)
    if min(mixture.probabilities) < 0 or abs(total - 1) > 1e-6:
        raise ValueError(f"faults.probabilities: {mixture.probabilities}; three, adding up to 1")
    if unknown := [leg for leg in mixture.legs if leg not in c.LEGS]:
        raise ValueError(f"faults.legs: {unknown[0]!r} not in {c.LEGS}")
    if not mixture.legs:
        raise ValueError(f"faults.legs: name at least one of {c.LEGS}")
    if not 0 <= mixture.both <= 1:
        raise ValueError(f"faults.both: {mixture.both} is no probability")
    first, last = mixture.onset
    if not 0 <= first <= last <= LAST_STEP:
        raise ValueError(
            f"faults.onset: {mixture.onset}; first and last of an episode's control steps, 0 to "
            f"{LAST_STEP}"
        )


def sample(key: Array, mixture: Mixture) -> Fault:
    """Fault drawn at random.

    Args:
        key: random key.
        mixture: distribution of faults; static.

    Returns:
        `Fault`.
    """
    keys = jax.random.split(key, 5)
    condition = jax.random.choice(keys[0], 3, p=jnp.asarray(mixture.probabilities))
    legs = jnp.asarray([c.LEGS.index(leg) for leg in mixture.legs])
    leg = jax.random.choice(keys[1], legs)
    both = jax.random.bernoulli(keys[2], mixture.both)
    joint = jax.random.randint(keys[3], (), 0, 2)
    first, last = mixture.onset
    onset = jax.random.randint(keys[4], (), first, last + 1)
    broken = (jnp.arange(4) == leg)[:, None] & (both | (jnp.arange(2) == joint))
    return _fault(condition, broken.reshape(8), onset)


def _fault(condition: Array, broken: Array, onset: Array) -> Fault:
    return Fault(
        (condition == POWER_LOSS) & broken, (condition == LOCKED) & broken, onset.astype(jnp.int32)
    )


def active(fault: Fault, step: Array) -> tuple[Array, Array]:
    """Joints without power and locked joints at a control step.

    Args:
        fault: fault of a robot.
        step: `[]` int, control step.

    Returns:
        `[8]` bool, without power, and `[8]` bool, locked.
    """
    on = step >= fault.onset
    return fault.power_loss & on, fault.locked & on


def condition(fault: Fault, step: Array) -> Array:
    """Condition of each joint at a control step, the label of a detector.

    A joint that is locked and without power counts as locked.

    Args:
        fault: fault of a robot.
        step: `[]` int, control step.

    Returns:
        `[8]` int: `HEALTHY`, `POWER_LOSS` or `LOCKED`.
    """
    power_loss, locked = active(fault, step)
    return jnp.where(locked, LOCKED, jnp.where(power_loss, POWER_LOSS, HEALTHY))


def leg(fault: Fault) -> Array:
    """Leg that has failed or will fail, by its first joint.

    Any number of joints will do whose legs stand one after the other.

    Args:
        fault: fault of a robot.

    Returns:
        `[]` int, index into `solo8_constants.LEGS`; 0 if none fails.
    """
    broken = fault.power_loss | fault.locked
    return jnp.argmax(broken, axis=-1) // (broken.shape[-1] // 4)


def lock(
    model: Model, data: Data, locked: Array, angle: Array, play: tuple[float, float]
) -> tuple[Model, Data]:
    """Physics with the locks of this moment; call it before every physics step.

    Args:
        model: MJX model of `solo8_model.mjcf`.
        data: MJX data.
        locked: as in `engage`.
        angle: as in `engage`.
        play: as in `engage`.

    Returns:
        Model and data with new `eq_data` and `eq_active`.
    """
    target, engaged = engage(data.qpos[7:], data.qvel[6:], locked, angle, play)
    return (
        model.replace(eq_data=model.eq_data.at[:, 0].set(target)),
        data.replace(eq_active=engaged),
    )


def engage(
    q: Array, velocity: Array, locked: Array, angle: Array, play: tuple[float, float]
) -> tuple[Array, Array]:
    """Targets of the joints' equality constraints in the next physics step.

    With play a joint moves freely between two edges, and the constraint holds it at the edge that
    it would pass. NumPy arrays give NumPy arrays.

    Args:
        q: `[8]`, joint angles, rad.
        velocity: `[8]`, rad/s.
        locked: `[8]` bool.
        angle: `[8]`, rad, angle of each joint when it locked.
        play: rad that a locked joint may move below and above that angle; zeros for none.

    Returns:
        Angles `[8]` to hold, rad, and whether each constraint is on, `[8]` bool.
    """
    below, above = angle - play[0], angle + play[1]
    # looking one step ahead, a fast joint overshoots the edge several times less
    q = q + c.PHYSICS_DT * velocity
    # without play no angle lies strictly between the edges: the constraint is always on
    return q.clip(below, above), locked & ~((below < q) & (q < above))


def clip_joints(q: Array, locked: Array, angle: Array, play: tuple[float, float]) -> Array:
    """Joint angles after the lock of the paper's code, a clip after each physics step.

    Its own play is `solo8_constants.PAPER_LOCK_PLAY`. It leaves the velocity alone, which then
    winds up: a detector trained on that reads what no seized joint shows. It is there for
    comparison only.

    Args:
        q: `[8]`, joint angles, rad.
        locked: as in `engage`.
        angle: as in `engage`.
        play: as in `engage`.

    Returns:
        `[8]`, rad.
    """
    return jnp.where(locked, jnp.clip(q, angle - play[0], angle + play[1]), q)
