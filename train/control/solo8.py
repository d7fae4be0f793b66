"""The SOLO8 of `envs.solo8` as a robot: eight joints, any of which may fail."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from brax import math
from brax.envs.base import State
from jax import Array

from configs.quadruped import FaultConfig, QuadrupedConfig, RobotConfig
from corrkd_jax.errors import InputError
from envs import faults, solo8, solo8_model
from envs import solo8_constants as c
from train.control.robot import PARTS, Kind, Place, Robot, check_faults

TRAINED = ("FL",)
"""The leg of mirror element 0; policies that know it alone are mirrored for the others."""
OBSERVED = 29
"""Features that a detector reads: the quaternion's w says nothing that the rest of it does not."""
_VARIED = ("geom_friction", "body_mass", "body_inertia", "body_ipos")


class Solo8(Kind):
    """The real robot."""

    name = "solo8"
    joints = c.JOINTS
    legs = c.LEGS
    planted = False
    published = True
    penalties = True
    slow_on_cpu = True
    survival = "no torso corner pressed by more than 1 N"

    def build(self, config: QuadrupedConfig) -> Robot:
        """The robot of a configuration.

        Raises:
            InputError: an unknown leg, or an onset or takeover beyond the episode.
        """
        body, legs = config.body, config.faults.legs
        if unknown := [leg for leg in legs if leg not in c.LEGS]:
            raise InputError(f"--faults.legs {unknown[0]}: choose from {', '.join(c.LEGS)}")
        if not legs:
            raise InputError(f"--faults.legs: name at least one of {', '.join(c.LEGS)}")
        check_faults(config, c.EPISODE_STEPS)
        env = solo8.Solo8(
            solo8.Config(
                robot=body.model,
                symmetric=body.symmetric,
                obs_mode=body.obs_mode,
                noise=body.noise,
                backward=body.backward,
                action_limit=body.action_limit,
                lock_play=body.lock_play,
                hardware_spread=body.hardware_spread,
                solver_iterations=body.solver_iterations,
            )
        )

        def spawn(template: Any, key: Array) -> Any:
            bound = c.SPAWN_VELOCITY
            base = jax.random.uniform(key, (6,), minval=-bound, maxval=bound)
            qvel = jnp.concatenate([base, jnp.zeros(8)])
            return template.replace(qvel=qvel, qd=qvel)

        def vary(keys: Array) -> dict[str, Array]:
            if not body.randomize:
                return {}
            varied, axes = solo8.randomize(env.sys, keys, body.hardware_spread)
            return {name: getattr(varied, name) for name in _VARIED if getattr(axes, name) == 0}

        return Robot(
            kind=self,
            env=env,
            spawn=spawn,
            fault=fault_of(legs, config.faults.both),
            vary=vary,
            step=stepper(env),
            steps=c.EPISODE_STEPS,
            observed=OBSERVED,
            mjcf=solo8_model.mjcf(env.robot, env.config.solver_iterations),
        )

    def mirrored(self, config: FaultConfig) -> bool:
        """Whether the front left leg alone is trained, which then serves all four."""
        return config.legs == TRAINED

    def any_leg(self, robot: Robot, config: FaultConfig) -> Robot:
        """See `Kind`."""
        return robot._replace(fault=fault_of(c.LEGS, config.both))

    def places(self, legs: Sequence[str], parts: Sequence[str]) -> list[Place]:
        """See `Kind`."""
        return [
            Place(leg, part, np.isin(c.JOINTS, [f"{leg}_{joint}" for joint in PARTS[part]]))
            for leg in legs
            for part in parts
        ]

    def quiet(self, robot: Robot, added_mass: bool = True, noise: float = 0.0) -> Robot:
        """See `Kind`."""
        env = copy.copy(robot.env)
        env.config = dataclasses.replace(
            env.config, noise=noise, push_velocity=0.0, hardware_spread=False
        )

        def vary(keys: Array) -> dict[str, Array]:
            if not added_mass:
                return {}
            varied = solo8.randomize(env.sys, keys)[0]
            return {name: getattr(varied, name) for name in ("body_mass", "body_inertia")}

        return robot._replace(env=env, vary=vary, step=stepper(env))

    def torso(self, added_mass: bool) -> str:
        """See `Kind`."""
        return "{:+g} to {:+g} kg".format(*c.TORSO_MASS) if added_mass else "nominal"

    def sensor_noise(self, factor: float) -> str:
        """See `Kind`."""
        return f"{factor:g} x the released code's"

    def straight_on(self, speed: Array) -> Array:
        """See `Kind`."""
        return jnp.stack([speed, jnp.zeros_like(speed)], axis=-1)

    def sensed(self, states: State) -> dict[str, Array]:
        """See `Kind`."""
        body, command = states.pipeline_state, states.info["command"]
        rotate = jax.vmap(lambda v, q: math.rotate(v, math.quat_inv(q)))
        quaternion = body.qpos[:, 3:7]
        speed = rotate(body.qvel[:, :3], quaternion)[:, 0]
        down = rotate(jnp.tile(jnp.array([0.0, 0.0, -1.0]), (len(speed), 1)), quaternion)
        return {
            "speed": speed,
            "missed_speed": command[:, 0] - speed,
            "missed_yaw": command[:, 1] - body.qvel[:, 5],
            "tilt": jnp.arccos(jnp.clip(-down[:, 2], -1, 1)),
            "standing": body.sensordata[:, solo8_model.FEET] > c.FOOT_CONTACT,
        }

    def observation(self, config: RobotConfig) -> list[str]:
        """See `Kind`."""
        orientation = {
            "quat": [f"orientation {axis}" for axis in "wxyz"],
            "gravity": [f"gravity {axis}, base frame, unit vector" for axis in "xyz"],
        }[config.obs_mode]
        speed, yaw = c.COMMAND_SCALE
        commands = [f"forward speed command x {speed}, m/s", f"yaw rate command x {yaw}, rad/s"]
        blocks = (
            "angle minus default, rad",
            f"velocity x {c.VELOCITY_SCALE}, rad/s",
            "last action",
        )
        return [*orientation, *commands, *(f"{j} {what}" for what in blocks for j in c.JOINTS)]

    def actuation(self, config: RobotConfig) -> dict[str, Any]:
        """See `Kind`."""
        return {
            "model": config.model,
            "action": [f"{name}: (target - default) / {c.ACTION_SCALE}, rad" for name in c.JOINTS],
            "joint_order": list(c.JOINTS),
            "default_pose": c.DEFAULT_POSE.tolist(),
            "action_scale": c.ACTION_SCALE,
            "action_limit": config.action_limit,
            "kp": c.KP,
            "kd": c.KD,
            "torque_limit": c.TORQUE_LIMIT,
        }

    def safety(self, metadata: dict[str, Any]) -> str:
        """See `Kind`."""
        return (
            f"Clip the action to {metadata['action_limit']} either way, which is also the last "
            "action that is observed next. Send `target = default_pose + action_scale * action` "
            f"to position feedback of the gains {metadata['kp']} N m/rad and {metadata['kd']} N m "
            f"s/rad, torque limited to {metadata['torque_limit']} N m. Nothing here bounds targets "
            "or stops a robot that tips over: that is the caller's."
        )


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


def stepper(env: solo8.Solo8) -> Callable[[Any, State, Array], State]:
    """`Robot.step` of an environment: its step, with what one robot differs by in its physics."""

    def step(variation: dict[str, Array], state: State, action: Array) -> State:
        varied = copy.copy(env)
        varied.sys = env.sys.replace(**variation)
        return varied.step(state, action)

    return step
