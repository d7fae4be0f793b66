"""A toy of a walking robot whose healthy controller tips it over once a leg loses power.

Policies, heads, switching and detection can be tried on it without rigid-body physics, in seconds
on a CPU. Four legs push; their sum drives, their difference balances:

    thrust = action within [-1, 1]; of a leg without power 0, of a locked one what it was
    speed' = sum thrust - speed
    tilt'  = 2 tilt + coupling . thrust + noise

Without power in its first leg the body rests on other legs, which tip it the other way: `coupling`
goes from (1, -1, 1, -1) to (0, 1, -1, 1). Whatever balanced the healthy body, with whichever legs,
then makes it fall; locking is benign. If one leg kept its sign, a healthy controller that happens
to balance with that leg would survive, and now and then a trained one does.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from brax.envs.base import Env, State
from jax import Array

from envs import faults

LEGS = 4
DT = 0.02
"""s"""
EPISODE_STEPS = 400
HEALTHY_COUPLING = (1.0, -1.0, 1.0, -1.0)
POWERLESS_COUPLING = (0.0, 1.0, -1.0, 1.0)
"""With the first leg without power: the triangle of support is another."""
GROWTH = 2.0
"""1/s, of the tilt left alone"""
NOISE = 0.02
"""Deviation of the tilt, per root of a second."""
SENSOR_NOISE = 0.05
"""Deviation of the thrusts that are observed."""
SPEED = (0.3, 0.9)
"""Bounds of the command."""
FIRST_TILT = 0.05
"""Bound of the tilt at the start."""
TRACKING_WIDTH = 0.25


class Body(NamedTuple):
    """What a physics engine would hold.

    Attributes:
        speed, tilt: `[]`; a tilt of 1 or -1 is a fall.
        thrust: `[4]`, of the last step; a leg that locks keeps its own.
    """

    speed: Array
    tilt: Array
    thrust: Array


@dataclass(frozen=True)
class Config:
    """What a surrogate is.

    Attributes:
        probabilities: of a healthy body, of power loss and of locking, for faults drawn at reset.
        onset: first and last control step at which it may happen, both included.
        powerless_coupling: of the legs with the tilt, once the first has no power.
    """

    probabilities: tuple[float, float, float] = (0.5, 0.25, 0.25)
    onset: tuple[int, int] = (0, EPISODE_STEPS - 2)
    powerless_coupling: tuple[float, float, float, float] = POWERLESS_COUPLING


class Surrogate(Env):
    """The toy as a Brax environment, with the vocabulary of `envs.solo8`.

    Observation `[11]`: speed, tilt, command, last action `[4]`, thrust `[4]` with noise. Action
    `[4]`. Reward `0.02 exp(-(command - speed)^2 / 0.25)`; done on a fall. `state.info` holds
    `command`, `fault`, the counter `step`, `last_action` and `key`; all may be replaced.
    """

    def __init__(self, config: Config | None = None):
        self.config = config or Config()

    @property
    def observation_size(self) -> int:
        return 3 + 2 * LEGS

    @property
    def action_size(self) -> int:
        return LEGS

    @property
    def backend(self) -> str:
        return "none"

    @property
    def dt(self) -> float:
        return DT

    def reset(self, rng: Array) -> State:
        """At rest, nearly upright, a new command and fault."""
        key, tilt_key = jax.random.split(rng)
        tilt = jax.random.uniform(tilt_key, minval=-FIRST_TILT, maxval=FIRST_TILT)
        return self.begin(Body(jnp.zeros(()), tilt, jnp.zeros(LEGS)), key)

    def begin(self, pipeline_state: Body, key: Array, fault: faults.Fault | None = None) -> State:
        """First state of an episode that begins in the middle of a motion.

        Args:
            pipeline_state: body to begin from.
            key: random key.
            fault: drawn if None.
        """
        keys = jax.random.split(key, 4)
        if fault is None:
            fault = sample_fault(keys[0], self.config)
        info = {
            "key": keys[1],
            "step": jnp.zeros((), jnp.int32),
            "command": jax.random.uniform(keys[2], minval=SPEED[0], maxval=SPEED[1]),
            "last_action": jnp.zeros(LEGS),
            "fault": fault,
        }
        zero = jnp.zeros(())
        observation = observe(pipeline_state, info, keys[3])
        return State(pipeline_state, observation, zero, zero, metrics={}, info=info)

    def step(self, state: State, action: Array) -> State:
        """One control step of 0.02 s.

        Args:
            state: of this environment.
            action: `[4]`, thrusts; clipped to [-1, 1].
        """
        info, body = dict(state.info), state.pipeline_state
        info["key"], tilt_key, sensor_key = jax.random.split(info["key"], 3)
        power_loss, locked = faults.active(info["fault"], info["step"])
        thrust = jnp.where(locked, body.thrust, jnp.clip(action, -1, 1))
        thrust = jnp.where(power_loss, 0, thrust)
        coupling = jnp.where(
            power_loss[0],
            jnp.array(self.config.powerless_coupling),
            jnp.array(HEALTHY_COUPLING),
        )
        speed = body.speed + DT * (jnp.sum(thrust) - body.speed)
        noise = NOISE * DT**0.5 * jax.random.normal(tilt_key)
        tilt = body.tilt + DT * (GROWTH * body.tilt + coupling @ thrust) + noise
        body = Body(speed, tilt, thrust)
        info |= {"step": info["step"] + 1, "last_action": action}
        return state.replace(
            pipeline_state=body,
            obs=observe(body, info, sensor_key),
            reward=DT * jnp.exp(-jnp.square(info["command"] - speed) / TRACKING_WIDTH),
            done=(jnp.abs(tilt) >= 1).astype(jnp.float32),
            info=info,
        )


def observe(body: Body, info: dict, key: Array) -> Array:
    """Observation `[11]`."""
    state = jnp.stack([body.speed, body.tilt, info["command"]])
    seen = body.thrust + SENSOR_NOISE * jax.random.normal(key, body.thrust.shape)
    return jnp.concatenate([state, info["last_action"], seen])


def fault(condition: Array | int, onset: Array | int = 0) -> faults.Fault:
    """The first leg in a condition of `envs.faults`, both traced if need be."""
    first = jnp.arange(LEGS) == 0
    condition = jnp.asarray(condition)
    return faults.Fault(
        (condition == faults.POWER_LOSS) & first,
        (condition == faults.LOCKED) & first,
        jnp.asarray(onset, jnp.int32),
    )


def sample_fault(key: Array, config: Config) -> faults.Fault:
    """Draw a fault of the first leg."""
    keys = jax.random.split(key)
    condition = jax.random.choice(keys[0], 3, p=jnp.asarray(config.probabilities))
    first, last = config.onset
    return fault(condition, jax.random.randint(keys[1], (), first, last + 1))
