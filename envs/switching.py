"""Switch between a policy's heads by a detector: history, persistence, hysteresis.

All are pure functions of one robot, for `vmap` and `scan`. Nothing about a fault is static, so
nothing is compiled again. arXiv:2402.08996 gives no rule; the one here is chosen. A fault must be
detected with confidence for some control steps before another head takes over, health for longer.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jax import Array

from corrkd_jax.ranges import Fraction, Positive
from envs.faults import HEALTHY

WINDOW = 25
"""Number of control steps that a detector sees: 0.5 s."""


@dataclass(frozen=True)
class Rule:
    """Rule by which a detector's verdicts change the head that drives."""

    confidence: Annotated[float, Fraction] = 0.8
    """Probability that a verdict must exceed to count."""
    strike: Annotated[int, Positive] = 3
    """Number of consecutive confident verdicts before the head of a fault takes over."""
    recovery: Annotated[int, Positive] = 25
    """Number of consecutive confident verdicts before the healthy head takes over again."""


class Memory(NamedTuple):
    """Memory of the switch of one robot.

    Attributes:
        window: `[time, features]`, the last control steps, oldest first; zeros before the first.
        kind: `[]` int, condition of `envs.faults` that is currently assumed, and the head that
            drives.
        leg: `[]` int, leg of the fault that is currently assumed; 0 in health.
        next_kind: `[]` int, kind of the latest verdict.
        next_leg: `[]` int, leg of the latest verdict.
        streak: `[]` int, number of consecutive confident steps with that verdict.
    """

    window: Array
    kind: Array
    leg: Array
    next_kind: Array
    next_leg: Array
    streak: Array


def start(features: int, window: int = WINDOW) -> Memory:
    """Memory of a robot at its start, which counts as healthy.

    Args:
        features: number of features that a detector reads of a control step.
        window: number of control steps that it sees.

    Returns:
        `Memory` of zeros.
    """
    zero = jnp.zeros((), jnp.int32)
    return Memory(jnp.zeros((window, features)), zero, zero, zero, zero, zero)


def remember(memory: Memory, features: Array) -> Memory:
    """Memory with the features of one more control step.

    Args:
        memory: memory of the robot.
        features: `[features]` of the control step.

    Returns:
        `Memory`.
    """
    return memory._replace(window=jnp.concatenate([memory.window[1:], features[None]]))


def verdict(probabilities: Array) -> tuple[Array, Array, Array]:
    """Kind and leg that one step's probabilities speak for.

    The probability of a kind of fault is the largest of any joint, that of health the smallest.

    Args:
        probabilities: `[joints, 3]`, one distribution a joint; joints of a leg lie together.

    Returns:
        Kind, `[]` int; leg, `[]` int, 0 in health; and the kind's probability. Above a half it
        belongs to one kind at most, unless two joints fail differently.
    """
    joints = probabilities.shape[0]
    health = jnp.min(probabilities[:, HEALTHY])
    faulty = jnp.max(probabilities[:, HEALTHY + 1 :], axis=0)
    likelihood = jnp.concatenate([health[None], faulty])
    kind = jnp.argmax(likelihood).astype(jnp.int32)
    joint = jnp.argmax(probabilities[:, kind])
    leg = jnp.where(kind == HEALTHY, 0, joint // (joints // 4)).astype(jnp.int32)
    return kind, leg, likelihood[kind]


def decide(memory: Memory, probabilities: Array, rule: Rule) -> Memory:
    """Memory after a control step, with another kind or leg once it was detected for long enough.

    Args:
        memory: memory of the robot.
        probabilities: `[joints, 3]` of this control step.
        rule: thresholds of the switch.

    Returns:
        `Memory`.
    """
    kind, leg, probability = verdict(probabilities)
    confident = probability > rule.confidence
    same = (kind == memory.next_kind) & (leg == memory.next_leg)
    # the count need not outgrow what is asked of it
    enough = max(rule.strike, rule.recovery)
    streak = jnp.minimum(jnp.where(same, memory.streak, 0) + 1, enough)
    streak = jnp.where(confident, streak, 0)
    switch = streak >= jnp.where(kind == HEALTHY, rule.recovery, rule.strike)
    return memory._replace(
        kind=jnp.where(switch, kind, memory.kind),
        leg=jnp.where(switch, leg, memory.leg),
        next_kind=kind,
        next_leg=leg,
        streak=streak,
    )
