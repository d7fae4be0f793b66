"""One trained leg serves all four: what a policy sees and does, mirrored to the leg it knows."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from configs.quadruped import QuadrupedConfig
from corrkd_jax.models.policies import MultiTaskPolicy
from envs import mirror
from envs.faults import HEALTHY
from train.control import episodes
from train.control.robot import Robot


class Mirrors(NamedTuple):
    """How the element of each leg acts on observations and actions."""

    observation: mirror.Table
    action: mirror.Table


def any_leg(config: QuadrupedConfig, robot: Robot) -> Robot:
    """The robot with faults in any leg that its policy serves, as a detector must know them."""
    mirrored = robot.kind.mirrored(config.faults)
    return robot.kind.any_leg(robot, config.faults) if mirrored else robot


def mirrors(config: QuadrupedConfig, robot: Robot) -> Mirrors:
    """Mirroring of a run: the mirror group if one leg serves all, else none."""
    if robot.kind.mirrored(config.faults):
        return Mirrors(mirror.OBSERVATION[config.body.obs_mode], mirror.JOINTS)
    return unmirrored(robot)


def unmirrored(robot: Robot) -> Mirrors:
    """Tables that change nothing."""

    def nothing(size: int) -> mirror.Table:
        index = np.tile(np.arange(size), (4, 1))
        return mirror.Table(index, np.ones_like(index))

    return Mirrors(nothing(robot.env.observation_size), nothing(robot.env.action_size))


def drive(
    policy: MultiTaskPolicy,
    params: Any,
    tables: Mirrors,
    observations: Array,
    heads: Array,
    legs: Array,
) -> Array:
    """Mean actions `[robots, actions]`, each robot by its own head and leg.

    Args:
        policy: network.
        params: its parameters.
        tables: of `mirrors`.
        observations: `[robots, features]`.
        heads: `[robots]` int, conditions of `envs.faults`.
        legs: `[robots]` int, which leg has failed; no matter in health.
    """
    elements = jnp.where(heads == HEALTHY, 0, legs)
    image = jax.vmap(mirror.mirror, in_axes=(0, None, 0))
    seen = image(observations, tables.observation, elements)
    return image(episodes.drive(policy, params, seen, heads), tables.action, elements)
