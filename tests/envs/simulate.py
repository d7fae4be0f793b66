"""SOLO8 in C MuJoCo: seconds where MJX would compile for as long."""

import mujoco
import numpy as np

from envs import faults, solo8_model
from envs import solo8_constants as c
from envs.solo8 import motor_torque

NONE = np.zeros(8, bool)


def load(robot="v7", symmetric=False, friction=None, **options):
    robot = c.ROBOTS[robot]
    robot = solo8_model.symmetric(robot) if symmetric else robot
    model = mujoco.MjModel.from_xml_string(solo8_model.mjcf(robot, **options))
    if friction is not None:
        model.geom_friction[:, 0] = friction
    return model


def spawn(model, height=c.SPAWN_HEIGHT):
    data = mujoco.MjData(model)
    data.qpos[2] = height
    data.qpos[7:] = c.DEFAULT_POSE
    mujoco.mj_forward(model, data)
    return data


def joints(leg, *names):
    return np.isin(c.JOINTS, [f"{leg}_{name}" for name in names])


def advance(
    model,
    data,
    seconds,
    power_loss=NONE,
    locked=NONE,
    angle=None,
    play=(0, 0),
    clip=False,
    stop=False,
    torque=None,
    action=None,
):
    """Step with the robot's own feedback, or with torques, and keep what was seen.

    `torque` and `action` are functions of the time since the call. Locks hold `angle`, by default
    that of the call; with `clip` they are the paper's, with `stop` they zero the velocity as well.
    """
    angle = data.qpos[7:].copy() if angle is None else angle
    seen = []
    for step in range(round(seconds / c.PHYSICS_DT)):
        time = step * c.PHYSICS_DT
        model.eq_data[:, 0], data.eq_active[:] = faults.engage(
            data.qpos[7:], data.qvel[6:], locked & (not clip), angle, play
        )
        if torque is None:
            target = c.DEFAULT_POSE if action is None else c.DEFAULT_POSE + 0.25 * action(time)
            data.ctrl = motor_torque(target - data.qpos[7:], data.qvel[6:], power_loss)
        else:
            data.ctrl = torque(time)
        mujoco.mj_step(model, data)
        if clip:
            clipped = faults.clip_joints(data.qpos[7:], locked, angle, play)
            if stop:
                data.qvel[6:][np.abs(clipped - data.qpos[7:]) > 1e-6] = 0
            data.qpos[7:] = clipped
        seen.append(np.concatenate([data.qpos, data.qvel, data.ctrl, data.sensordata]))
    qpos, qvel, ctrl, contact = np.split(np.array(seen), [15, 29, 37], axis=1)
    return qpos, qvel, ctrl, contact


def fall(contact):
    """Seconds until the torso touches the floor; nan if it does not."""
    touching = np.flatnonzero(contact[:, solo8_model.TORSO] > c.TORSO_CONTACT)
    return (touching[0] + 1) * c.PHYSICS_DT if len(touching) else np.nan
