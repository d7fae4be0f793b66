"""Many robots at once: groups by fault, episodes that start anew by themselves, partners.

A batch of worlds is four equal groups in a row: two of healthy robots, one that loses power, one
whose joints seize. World `i` of the last two has the healthy world `i - worlds / 2` as its
partner, which lies on the same device. When a faulty episode starts, it may start from where its
partner is ("reflection initialisation", arXiv:2402.08996): the fault then strikes a robot that
walks as the healthy policy does.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from brax.envs.base import State
from jax import Array

from envs.faults import HEALTHY, LOCKED, POWER_LOSS, Fault
from train.control.robot import Robot
from train.engine.stage import Limit

GROUPS = (HEALTHY, HEALTHY, POWER_LOSS, LOCKED)
"""Condition of the robots in each quarter of the worlds."""
LOST = Limit(0.01, "part of the robots whose physics broke, a number in it not finite")


class Worlds(NamedTuple):
    """Simulated robots.

    Attributes:
        states: `[worlds]`, of the environment. Random keys in it are raw, for checkpoints.
        template: physics of some first state, which new episodes are made from.
        variation: `[worlds]`, how each robot differs from the nominal one for good.
    """

    states: State
    template: Any
    variation: Any


class Outcome(NamedTuple):
    """What a control step did, `[worlds]` each.

    Attributes:
        reward: 0 where the physics was lost.
        fell: the robot did, or its physics was lost; the episode is over.
        timeout: the clock ended the episode.
        lost: something in the physics was not finite.
        terms: of the reward, weighted, as the environment names them; likewise 0.
    """

    reward: Array
    fell: Array
    timeout: Array
    lost: Array
    terms: dict[str, Array]


DrawFaults = Callable[[Array], Fault]
"""Key -> one fault a world, for episodes that start."""


def start(robot: Robot, draw: DrawFaults, key: Array, count: int) -> Worlds:
    """Robots at their spawn, their clocks anywhere in an episode so that they stay out of step.

    Args:
        robot: which.
        draw: their faults.
        key: random key.
        count: number of worlds.
    """
    reset_key, begin_key, clock_key, own_key = jax.random.split(jax.random.key_data(key), 4)
    template = robot.env.reset(reset_key).pipeline_state
    states = _begin(robot, template, draw, begin_key, count)
    clock = jax.random.randint(clock_key, (count,), 0, robot.steps)
    variation = robot.vary(jax.random.split(own_key, count))
    return Worlds(states.replace(info=states.info | {"step": clock}), template, variation)


def advance(
    robot: Robot,
    worlds: Worlds,
    actions: Array,
    draw: DrawFaults,
    key: Array,
    reflection: Array | float = 0.0,
) -> tuple[Worlds, Outcome]:
    """One control step of every robot; who fell or ran out of time starts anew.

    Args:
        robot: which.
        worlds: of `start`.
        actions: `[worlds, actions]`.
        draw: faults of episodes that start.
        key: random key.
        reflection: probability that the faulty episodes of this step start from their partners.
            Healthy robots are reset first: a partner that starts anew in this very step is copied
            as it starts.

    Returns:
        The worlds, and what happened before any reset.
    """
    begin_key, copy_key = jax.random.split(jax.random.key_data(key))
    states = jax.vmap(robot.step)(worlds.variation, worlds.states, actions)
    count = actions.shape[0]
    lost = ~finite(states, count)
    fell = (states.done > 0) | lost
    timeout = (states.info["step"] >= robot.steps) & ~fell
    over = fell | timeout
    fresh = _begin(
        robot,
        worlds.template,
        draw,
        begin_key,
        count,
        bodies=(states.pipeline_state, over),
        copied=jax.random.uniform(copy_key) < reflection,
    )
    earned = states.reward, states.metrics
    reward, terms = jax.tree.map(lambda x: jnp.where(lost, 0.0, x), earned)
    outcome = Outcome(reward, fell, timeout, lost, terms)
    return worlds._replace(states=choose(over, fresh, states)), outcome


def eased(worlds: Worlds, factor: Array) -> Worlds:
    """The worlds, the negative terms of their robots' next rewards multiplied by a factor."""
    info = worlds.states.info
    penalty = jnp.full_like(info["penalty"], factor)
    return worlds._replace(states=worlds.states.replace(info=info | {"penalty": penalty}))


def _begin(
    robot: Robot,
    template: Any,
    draw: DrawFaults,
    key: Array,
    count: int,
    bodies: tuple[Any, Array] | None = None,
    copied: Array | None = None,
) -> State:
    """New episodes in all worlds; with `bodies`, where they are and which of them end."""
    spawn_key, fault_key, episode_key = jax.random.split(key, 3)
    body = jax.vmap(robot.spawn, in_axes=(None, 0))(template, jax.random.split(spawn_key, count))
    if bodies is not None:
        old, over = bodies
        body = choose(over, body, old)
        partner = jax.tree.map(lambda x: jnp.roll(x, count // 2, axis=0), body)
        faulty = jnp.arange(count) >= count // 2
        body = choose(faulty & copied, partner, body)
    return jax.vmap(robot.env.begin)(body, jax.random.split(episode_key, count), draw(fault_key))


def finite(states: State, count: int) -> Array:
    """Whether all numbers of each world are finite, `[worlds]` bool."""
    parts = (states.pipeline_state, states.obs, states.reward)
    floats = [x for x in jax.tree.leaves(parts) if jnp.issubdtype(x.dtype, jnp.floating)]
    each = [jnp.all(jnp.isfinite(x.reshape(count, -1)), axis=1) for x in floats]
    return jnp.all(jnp.stack(each), axis=0)


def choose(which: Array, new: Any, old: Any) -> Any:
    """`new` in the worlds where `which` `[worlds]` is true, else `old`, leaf by leaf."""

    def leaf(a: Array, b: Array) -> Array:
        return jnp.where(which.reshape(which.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(leaf, new, old)
