"""A detector on the hung robot's scripted trot, where every answer is known."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from corrkd_jax import losses
from corrkd_jax.models.detector import CLASSES, FaultDetector
from envs import switching, trot
from envs.faults import HEALTHY, LOCKED, POWER_LOSS
from envs.solo8_constants import CONTROL_DT
from envs.switching import Rule
from train.control.episodes import Episodes
from train.control.watching import SETTLED, Watched, measure

STEPS = 200
"""Control steps of a robot that may break."""
HEALTHY_STEPS = 3000
"""Control steps of a robot that is watched for false alarms: a minute."""
BALANCE = 0.1
"""Exponent of a class's rarity in its weight; a larger one is quicker, with more false alarms."""


def recordings(
    rng: np.random.Generator, robots: int, evaluated: int, minutes: int
) -> tuple[trot.Recording, Sequence[trot.Recording]]:
    """What to learn from, and to evaluate on the healthy, the powerless and the locked robots.

    Args:
        rng: random numbers.
        robots: to learn from, a third of each condition.
        evaluated: number of robots of each fault to evaluate on.
        minutes: of health to evaluate on.
    """
    kinds = np.arange(robots) % CLASSES
    train = trot.record(rng, kinds, STEPS, (0, STEPS - 50))
    test = [trot.record(rng, [HEALTHY] * minutes, HEALTHY_STEPS)]
    for kind in (POWER_LOSS, LOCKED):
        test.append(trot.record(rng, [kind] * evaluated, STEPS, (50, 125)))
    return train, test


def fit(
    detector: FaultDetector,
    recording: trot.Recording,
    key: Array,
    updates: int,
    batch: int,
    rate: float = 5e-3,
) -> Any:
    """Train a detector on windows that end anywhere, in one compiled program.

    Args:
        detector: network.
        recording: robots to learn from.
        key: random key.
        updates: steps of AdamW, their rate falling to zero along a cosine.
        batch: windows a step.
        rate: learning rate at the start.
    """
    before = switching.WINDOW - 1
    features = jnp.pad(recording.features, ((0, 0), (before, 0), (0, 0)))
    conditions = jnp.asarray(recording.conditions)
    robots, steps, _ = conditions.shape
    shares = jnp.bincount(conditions.ravel(), length=CLASSES) / conditions.size
    weights = shares**-BALANCE
    descent = optax.adamw(optax.cosine_decay_schedule(rate, updates))

    def loss(params: Any, key: Array, features: Array, conditions: Array) -> Array:
        keys = jax.random.split(key)
        robot = jax.random.randint(keys[0], (batch,), 0, robots)
        last = jax.random.randint(keys[1], (batch,), 0, steps)
        windows = features[robot[:, None], last[:, None] + jnp.arange(switching.WINDOW)]
        true = conditions[robot, last]
        return losses.cross_entropy(detector.apply(params, windows), true, weights[true])

    # the recording is an argument: a constant of the program would be lowered and folded with it
    @jax.jit
    def run(key: Array, features: Array, conditions: Array) -> Any:
        def update(carry: tuple, key: Array) -> tuple[tuple, None]:
            params, state = carry
            gradient = jax.grad(loss)(params, key, features, conditions)
            direction, state = descent.update(gradient, state, params)
            return (optax.apply_updates(params, direction), state), None

        first_key, key = jax.random.split(key)
        params = detector.init(first_key, features[:1, : switching.WINDOW])
        keys = jax.random.split(key, updates)
        return lax.scan(update, (params, descent.init(params)), keys)[0][0]

    return run(key, features, conditions)["params"]


def watch(detector: FaultDetector, params: Any, recording: trot.Recording, rule: Rule) -> Episodes:
    """What the detector and the switch say all along, as `train.control.watching` reads it."""

    def one(features: Array) -> tuple[Array, Array]:
        def step(memory: switching.Memory, now: Array) -> tuple[switching.Memory, tuple]:
            memory = switching.remember(memory, now)
            logits = detector.apply({"params": params}, memory.window)
            memory = switching.decide(memory, jax.nn.softmax(logits), rule)
            return memory, (jnp.argmax(logits, axis=-1), memory.kind)

        return lax.scan(step, switching.start(features.shape[-1]), features)[1]

    verdict, head = jax.jit(jax.vmap(one, out_axes=1))(recording.features)
    steps, robots, _ = verdict.shape
    trail = {"verdict": verdict, "head": head, "true": recording.conditions.swapaxes(0, 1)}
    # before the first control step all is well, as far as anyone knows
    trail = {
        name: np.pad(np.asarray(x), ((1, 0), *((0, 0),) * (x.ndim - 1)))
        for name, x in trail.items()
    }
    trail["step"] = np.tile(np.arange(steps + 1)[:, None], (1, robots))
    trail["onset"] = np.tile(recording.onset, (steps + 1, 1))
    trail["alive"] = np.ones((steps + 1, robots), bool)
    return Episodes(np.ones(robots, bool), np.zeros(robots), trail)


def evaluate(
    detector: FaultDetector, params: Any, recordings: Sequence[trot.Recording], rule: Rule
) -> tuple[Watched, np.ndarray]:
    """Confusion, delays and false alarms on the robots of each condition.

    Returns:
        Everything by the common measure, and for each joint the counts `[joints, 3, 3]`, true
        condition by verdict, of robots whose fault is half a second old.
    """
    seen = [watch(detector, params, each, rule) for each in recordings]
    late = np.zeros((detector.joints, CLASSES, CLASSES), int)
    for trail in (episodes.trail for episodes in seen[HEALTHY + 1 :]):
        old = trail["step"] - trail["onset"] > round(SETTLED / CONTROL_DT)
        joint = np.broadcast_to(np.arange(detector.joints), trail["true"].shape)
        np.add.at(late, (joint[old], trail["true"][old], trail["verdict"][old]), 1)
    return measure([seen], CONTROL_DT), late
