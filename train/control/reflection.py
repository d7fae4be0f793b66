"""Does a faulty episode of the surrogate begin where its healthy partners are? A test of that."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from corrkd_jax.models.policies import MultiTaskPolicy
from train.control import worlds
from train.control.episodes import drive
from train.control.robot import Robot
from train.control.worlds import GROUPS

SAMPLES = 2000


class Gate(NamedTuple):
    """Two samples compared, of speed and of tilt: p-values, and the difference of means."""

    p: tuple[float, float]
    difference: tuple[float, float]


def gates(
    robot: Robot, policy: MultiTaskPolicy, params: Any, key: Array
) -> dict[float, list[Gate]]:
    """First states of faulty episodes against what healthy robots do, with and without reflection.

    Args:
        robot: the surrogate.
        policy: network.
        params: its trained parameters, `[seeds, ...]`.
        key: random key.

    Returns:
        Probability of reflection, 1 and 0 -> for each seed a Kolmogorov-Smirnov test on speed and
        on tilt. The healthy sample is one moment of each robot, at random, of the run without
        reflection: of other robots than the ones copied from.
    """
    from scipy.stats import ks_2samp

    follow = jax.jit(lambda params, key, rho: _follow(robot, policy, params, key, rho))
    gates_of: dict[float, list[Gate]] = {1.0: [], 0.0: []}
    for seed in range(jax.tree.leaves(params)[0].shape[0]):
        one = jax.tree.map(lambda x: jnp.asarray(x[seed]), params)  # noqa: B023 — used here only
        *keys, time_key = jax.random.split(jax.random.fold_in(key, seed), 3)
        runs = {
            rho: jax.tree.map(np.asarray, follow(one, k, rho))
            for rho, k in zip(gates_of, keys, strict=True)
        }
        bodies, _ = runs[0.0]
        times = jax.random.randint(time_key, (SAMPLES,), robot.steps, 2 * robot.steps)
        healthy = bodies[np.asarray(times), np.arange(SAMPLES)]
        for rho, (bodies, began) in runs.items():
            # the first episode to begin after all robots have begun one
            first = robot.steps + began[robot.steps :, SAMPLES:].argmax(axis=0)
            faulty = bodies[first, SAMPLES + np.arange(SAMPLES)]
            pairs = list(zip(faulty.T, healthy.T, strict=True))
            gates_of[rho].append(
                Gate(
                    tuple(float(ks_2samp(a, b).pvalue) for a, b in pairs),
                    tuple(float(a.mean() - b.mean()) for a, b in pairs),
                )
            )
    return gates_of


def _follow(
    robot: Robot, policy: MultiTaskPolicy, params: Any, key: Array, reflection: Array
) -> tuple[Array, Array]:
    """Speeds and tilts `[steps, worlds, 2]` of two episodes' time, and where episodes began."""
    count = 2 * SAMPLES
    heads = jnp.repeat(jnp.array(GROUPS), count // 4)
    start_key, move_key = jax.random.split(key)

    def draw(key: Array) -> Any:
        return jax.vmap(robot.fault, in_axes=(None, 0, None))(key, heads, 0)

    def move(robots: worlds.Worlds, key: Array) -> tuple[worlds.Worlds, tuple]:
        actions = drive(policy, params, robots.states.obs, heads)
        robots, outcome = worlds.advance(robot, robots, actions, draw, key, reflection)
        body = robots.states.pipeline_state
        return robots, (jnp.stack([body.speed, body.tilt], -1), outcome.fell | outcome.timeout)

    robots = worlds.start(robot, draw, start_key, count)
    return lax.scan(move, robots, jax.random.split(move_key, 2 * robot.steps))[1]
