"""What the training program needs to know of a robot besides its Brax environment."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from brax.envs.base import Env, State
from jax import Array

from configs.quadruped import QuadrupedConfig
from corrkd_jax.errors import InputError
from envs import faults, solo8, surrogate
from envs import solo8_constants as c

CONDITIONS = ("health", "power loss", "locked")
"""By `envs.faults` condition; also the tasks of the policy's heads."""


_VARIED = ("geom_friction", "body_mass", "body_inertia", "body_ipos")


class Robot(NamedTuple):
    """A robot, its faults and the clock of its episodes.

    Attributes:
        name: of the robot, as a configuration names it.
        env: Brax environment of one robot.
        spawn: `(template, key) -> pipeline_state`, a robot at the start of an ordinary episode;
            cheap, from the physics of some first state.
        fault: `(key, condition, onset) -> Fault`, all traced: a fault of that kind in one of the
            configured places.
        vary: `(keys) -> variation`, `[robots]` each: how one robot in training differs from the
            nominal one for good.
        step: `(variation, state, action) -> state`, the environment's step of such a robot.
        joints: number of joints that a detector judges.
        steps: control steps of an episode.
        observed: how many of the observation's last features a detector reads.
    """

    name: str
    env: Env
    spawn: Callable[[Any, Array], Any]
    fault: Callable[[Array, Array, Array], faults.Fault]
    vary: Callable[[Array], Any]
    step: Callable[[Any, State, Array], State]
    joints: int
    steps: int
    observed: int


def build(config: QuadrupedConfig) -> Robot:
    """The robot of a configuration.

    Raises:
        InputError: an unknown leg, or an onset or takeover beyond the episode.
    """
    if config.robot == "surrogate":
        env = surrogate.Surrogate()
        check_faults(config, surrogate.EPISODE_STEPS)
        return Robot(
            "surrogate",
            env,
            lambda _, key: env.reset(key).pipeline_state,
            lambda key, condition, onset: surrogate.fault(condition, onset),
            lambda keys: {},
            lambda _, state, action: env.step(state, action),
            surrogate.LEGS,
            surrogate.EPISODE_STEPS,
            env.observation_size,
        )
    chosen, where = config.body, config.faults
    if unknown := [leg for leg in where.legs if leg not in c.LEGS]:
        raise InputError(f"--faults.legs {unknown[0]}: choose from {', '.join(c.LEGS)}")
    if not where.legs:
        raise InputError(f"--faults.legs: name at least one of {', '.join(c.LEGS)}")
    check_faults(config, c.EPISODE_STEPS)
    env = solo8.Solo8(
        solo8.Config(
            robot=chosen.model,
            symmetric=chosen.symmetric,
            obs_mode=chosen.obs_mode,
            noise=chosen.noise,
            backward=chosen.backward,
            action_limit=chosen.action_limit,
            lock_play=chosen.lock_play,
            hardware_spread=chosen.hardware_spread,
            solver_iterations=chosen.solver_iterations,
        )
    )

    def spawn(template: Any, key: Array) -> Any:
        bound = c.SPAWN_VELOCITY
        base = jax.random.uniform(key, (6,), minval=-bound, maxval=bound)
        qvel = jnp.concatenate([base, jnp.zeros(8)])
        return template.replace(qvel=qvel, qd=qvel)

    def vary(keys: Array) -> dict[str, Array]:
        if not chosen.randomize:
            return {}
        varied, axes = solo8.randomize(env.sys, keys, chosen.hardware_spread)
        return {name: getattr(varied, name) for name in _VARIED if getattr(axes, name) == 0}

    # the quaternion's w says nothing that the rest of it does not
    fault = fault_of(where.legs, where.both)
    return Robot("solo8", env, spawn, fault, vary, stepper(env), 8, c.EPISODE_STEPS, 29)


def fault_of(legs: tuple[str, ...], both: float) -> Callable[[Array, Array, Array], faults.Fault]:
    """`Robot.fault` of SOLO8.

    Args:
        legs: that may fail, equally often.
        both: probability that hip and knee fail together.
    """

    def fault(key: Array, condition: Array, onset: Array) -> faults.Fault:
        mixture = faults.Mixture(jax.nn.one_hot(condition, 3), legs, both)
        return faults.sample(key, mixture)._replace(onset=jnp.asarray(onset, jnp.int32))

    return fault


def joint_names(name: str) -> tuple[str, ...]:
    """What a detector judges on a robot of that name, in order."""
    if name == "surrogate":
        return tuple(f"leg {number + 1}" for number in range(surrogate.LEGS))
    return c.JOINTS


def stepper(env: solo8.Solo8) -> Callable[[Any, State, Array], State]:
    """`Robot.step` of an environment: its step, with what one robot differs by in its physics."""

    def step(variation: dict[str, Array], state: State, action: Array) -> State:
        own = copy.copy(env)
        own.sys = env.sys.replace(**variation)
        return own.step(state, action)

    return step


def check_faults(config: QuadrupedConfig, steps: int) -> None:
    """Refuse faults that would strike before an episode, or never.

    Raises:
        InputError: names the option and says what would do.
    """
    for name in ("onset", "takeover"):
        first, last = getattr(config.faults, name)
        if not 0 <= first <= last < steps:
            raise InputError(
                f"--faults.{name} {first} {last}: first and last of an episode's control steps, "
                f"0 to {steps - 1}"
            )


def features(robot: Robot, observations: Array) -> Array:
    """What a detector reads of a control step, `[..., observed]`, of the policy's observation."""
    return observations[..., -robot.observed :]
