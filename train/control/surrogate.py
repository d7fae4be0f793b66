"""The toy of `envs.surrogate` as a robot: no rigid bodies, one leg that fails, effects planted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from brax.envs.base import State
from jax import Array

from configs.quadruped import FaultConfig, QuadrupedConfig, RobotConfig
from envs import surrogate
from train.control.robot import Kind, Place, Robot, check_faults


class Surrogate(Kind):
    """The toy; a configuration has nothing to choose of it but when its faults strike."""

    name = "surrogate"
    joints = tuple(f"leg {number + 1}" for number in range(surrogate.LEGS))
    legs = joints
    planted = True
    published = False
    penalties = False
    slow_on_cpu = False
    survival = "tilt below 1"

    def build(self, config: QuadrupedConfig) -> Robot:
        """See `Kind`."""
        check_faults(config, surrogate.EPISODE_STEPS)
        env = surrogate.Surrogate()
        return Robot(
            kind=self,
            env=env,
            spawn=lambda _, key: env.reset(key).pipeline_state,
            fault=lambda key, condition, onset: surrogate.fault(condition, onset),
            vary=lambda keys: {},
            step=lambda _, state, action: env.step(state, action),
            steps=surrogate.EPISODE_STEPS,
            observed=env.observation_size,
            mjcf="",
        )

    def mirrored(self, config: FaultConfig) -> bool:
        """Never: it breaks its first leg only."""
        return False

    def any_leg(self, robot: Robot, config: FaultConfig) -> Robot:
        """The robot as it is."""
        return robot

    def places(self, legs: Sequence[str], parts: Sequence[str]) -> list[Place]:
        """The first leg, whatever is asked for."""
        return [Place(self.joints[0], "thrust", np.arange(len(self.joints)) == 0)]

    def quiet(self, robot: Robot, added_mass: bool = True, noise: float = 0.0) -> Robot:
        """The robot as it is, its sensor noise too."""
        return robot

    def torso(self, added_mass: bool) -> str:
        """See `Kind`."""
        return "nominal"

    def sensor_noise(self, factor: float) -> str:
        """See `Kind`."""
        return "the toy's"

    def straight_on(self, speed: Array) -> Array:
        """See `Kind`."""
        return speed

    def sensed(self, states: State) -> dict[str, Array]:
        """See `Kind`."""
        body, command = states.pipeline_state, states.info["command"]
        return {"speed": body.speed, "missed_speed": command - body.speed, "tilt": body.tilt}

    def observation(self, config: RobotConfig) -> list[str]:
        """See `Kind`."""
        actions = [f"last action of {leg}" for leg in self.joints]
        return ["speed", "tilt", "command", *actions, *(f"thrust of {leg}" for leg in self.joints)]

    def actuation(self, config: RobotConfig) -> dict[str, Any]:
        """See `Kind`."""
        return {"action": [f"thrust of {leg}, clipped to 1" for leg in self.joints]}

    def safety(self, metadata: dict[str, Any]) -> str:
        """See `Kind`."""
        return ""
