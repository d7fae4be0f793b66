"""Whole episodes of trained policies: who survives which fault, with which switch between heads."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from brax.envs.base import State
from jax import Array, lax

from corrkd_jax.models.policies import MultiTaskPolicy
from envs import faults
from train.control import worlds
from train.control.robot import Robot

Tree = Any


class Switch(NamedTuple):
    """What chooses the head that drives each robot.

    Attributes:
        start: `(states) -> memory` at the start of `[robots]` episodes.
        choose: `(memory, states) -> (memory, heads, seen)`: heads `[robots]`, and what a report
            may want to know of the choice.
    """

    start: Callable[[State], Tree]
    choose: Callable[[Tree, State], tuple[Tree, Array, Tree]]


class Episodes(NamedTuple):
    """What became of `[robots]`.

    Attributes:
        survived: bool, no fall until the clock ended the episode.
        reward: summed until then or until the fall.
        trail: `[steps, robots]` by name: `alive` before each step, `step`, the true `condition`
            that the robot has shown, `head`, and what the switch saw.
    """

    survived: Array
    reward: Array
    trail: dict[str, Tree]


def condition(states: State, late: Array | int = 0) -> Array:
    """Worst condition of any joint in the coming step, `[robots]`; what an oracle knows.

    Args:
        states: `[robots]`.
        late: by how many control steps its knowledge is out of date.
    """
    seen = states.info["step"] - late
    return jnp.max(jax.vmap(faults.condition)(states.info["fault"], seen), axis=-1)


def shown(states: State) -> Array:
    """Condition `[robots, joints]` that was at work in the last step; what can be detected."""
    return jax.vmap(faults.condition)(states.info["fault"], states.info["step"] - 1)


def oracle(aware: Array | bool = True) -> Switch:
    """The simulator's own flag, at once; not `aware`, and the healthy head drives on."""

    def choose(memory: None, states: State) -> tuple[None, Array, dict]:
        return None, jnp.where(aware, condition(states), faults.HEALTHY), {}

    return Switch(lambda states: None, choose)


def drive(policy: MultiTaskPolicy, params: Tree, observations: Array, heads: Array) -> Array:
    """Mean actions `[robots, actions]`, each robot by its own head."""
    mean, _ = policy.apply({"params": params}, observations[None], heads[None], method="act")
    return mean[0]


def run(
    robot: Robot,
    policy: MultiTaskPolicy,
    params: Tree,
    switch: Switch,
    kind: Array,
    key: Array,
    count: int,
) -> Episodes:
    """Robots from their spawn to the end, without exploration and without a second chance.

    Args:
        robot: which.
        policy: network.
        params: its parameters.
        switch: between its heads.
        kind: condition that strikes every robot, of `envs.faults`; traced.
        key: random key.
        count: number of robots. The fault strikes each at a step of its own, anywhere in the
            episode but the last step.
    """
    start_key, onset_key, fault_key = jax.random.split(jax.random.key_data(key), 3)
    onset = jax.random.randint(onset_key, (count,), 0, robot.steps - 1)
    keys = jax.random.split(fault_key, count)
    fault = jax.vmap(robot.fault, in_axes=(0, None, 0))(keys, kind, onset)
    states = worlds.start(robot, lambda _: fault, start_key, count).states
    states = states.replace(info=states.info | {"step": jnp.zeros(count, jnp.int32)})
    step = jax.vmap(robot.env.step)

    def move(carry: tuple, _: None) -> tuple[tuple, dict[str, Tree]]:
        states, alive, memory, reward = carry
        memory, heads, seen = switch.choose(memory, states)
        now = {"alive": alive, "onset": onset, "step": states.info["step"], "head": heads}
        states = step(states, drive(policy, params, states.obs, heads))
        alive &= (states.done == 0) & worlds.finite(states, count)
        reward += jnp.where(alive, states.reward, 0)
        return (states, alive, memory, reward), now | seen

    carry = (states, jnp.ones(count, bool), switch.start(states), jnp.zeros(count))
    (_, survived, _, reward), trail = lax.scan(move, carry, length=robot.steps)
    return Episodes(survived, reward, trail)
