"""From a detector's probabilities to the head that drives: history, persistence, hysteresis.

Pure functions of one robot, for `vmap` and `scan`; nothing about a fault is static, so nothing is
compiled again. The rule is ours, since the paper (arXiv:2402.08996) gives none: a fault must be
seen with confidence for some control steps before another head takes over, health for longer.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jax import Array

from corrkd_jax.ranges import Fraction, Positive
from envs.faults import HEALTHY

WINDOW = 25
"""Control steps that a detector sees: 0.5 s."""


@dataclass(frozen=True)
class Rule:
    """When a detector's verdicts change the head that drives."""

    confidence: Annotated[float, Fraction] = 0.8
    """Probability up to which a verdict counts for nothing."""
    strike: Annotated[int, Positive] = 3
    """Number of consecutive confident verdicts before the head of a fault takes over."""
    recovery: Annotated[int, Positive] = 25
    """Number of consecutive confident verdicts before the healthy head takes over again."""


class Memory(NamedTuple):
    """What a switch remembers of one robot.

    Attributes:
        window: `[time, features]`, the last control steps, oldest first; zeros before the first.
        kind, leg: `[]` int, of the fault that is believed in: the condition of `envs.faults`, which
            is the head that drives, and the leg, 0 in health.
        next_kind, next_leg: of the verdict that is building up.
        streak: `[]` int, how many confident steps it has lasted.
    """

    window: Array
    kind: Array
    leg: Array
    next_kind: Array
    next_leg: Array
    streak: Array


def start(features: int, window: int = WINDOW) -> Memory:
    """Memory of a robot that has done nothing yet and counts as healthy.

    Args:
        features: that a detector reads of a control step.
        window: control steps that it sees.
    """
    zero = jnp.zeros((), jnp.int32)
    return Memory(jnp.zeros((window, features)), zero, zero, zero, zero, zero)


def remember(memory: Memory, features: Array) -> Memory:
    """Take in the features `[features]` of a control step."""
    return memory._replace(window=jnp.concatenate([memory.window[1:], features[None]]))


def verdict(probabilities: Array) -> tuple[Array, Array, Array]:
    """What one step's probabilities say of the robot.

    A fault is as likely as its likeliest joint has it, health as the least healthy joint has it.

    Args:
        probabilities: `[joints, 3]`, each joint's own; joints of a leg lie together.

    Returns:
        Kind and leg, int, the leg 0 in health; and the probability, which is above a half for one
        kind at most unless two joints fail differently.
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
    """Believe in another kind or leg once it has been seen for long enough.

    Args:
        memory: of the robot.
        probabilities: `[joints, 3]` of this control step.
        rule: what is long enough.
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
