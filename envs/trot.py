"""SOLO8 hanging from its torso and trotting in the air, in C MuJoCo: test data for detectors.

The motion is scripted, so that nothing but the fault distinguishes its joint from a healthy one. A
policy that answers a fault with another gait would give it away. The set is an addition to
arXiv:2402.08996.
"""

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from envs import faults, solo8_model
from envs import solo8_constants as c
from envs.solo8 import motor_torque

FREQUENCY = 2.5
"""Frequency of the trot, Hz."""
AMPLITUDE = np.array([0.25, 0.35] * 4)
"""Amplitudes of hip and knee, rad."""
PHASE = np.array([0, 0.25, 0.5, 0.75, 0.5, 0.75, 0, 0.25])
"""Phases in turns: diagonal legs together, knees a quarter ahead of their hips."""
PULSE = 1.0
"""Torque of a disturbance from outside on a joint, N m."""
PULSE_STEPS = (2, 5)
"""Shortest and longest duration of a disturbance, in control steps."""
PULSE_EVERY = 50
"""Control steps from one disturbance to the next."""
BROKEN = ((True, False), (False, True), (True, True))
"""Hip and knee of the leg that fails, in three equally likely cases."""


class Recording(NamedTuple):
    """Measurements and conditions of `[robots, steps]`.

    Attributes:
        features: `[..., 29]` float32, as `Solo8` observes with gravity, noise included: gravity,
            command, joint angles, joint velocities, the action just applied.
        conditions: `[..., 8]` int32, of `envs.faults`, during the control step.
        onset: `[robots]` int, first step with the fault; `steps` in health.
    """

    features: np.ndarray
    conditions: np.ndarray
    onset: np.ndarray


def hung(robot: c.Robot = c.ROBOTS["v7"]) -> mujoco.MjModel:
    """Model of the robot with its torso fixed: its eight joints are the only degrees of freedom.

    Args:
        robot: bodies and lengths.

    Returns:
        The compiled model.
    """
    spec = mujoco.MjSpec.from_string(solo8_model.mjcf(robot))
    torso = spec.body("torso")
    spec.delete(torso.joints[0])
    torso.pos[2] = 1.0  # out of the floor's reach
    return spec.compile()


def record(
    rng: np.random.Generator,
    kinds: Sequence[int],
    steps: int,
    onset: tuple[int, int] = (0, 0),
) -> Recording:
    """Recording of robots that trot, one after the other, each from a phase of its own.

    About every second a torque of 1 N m, to either side, acts on a random joint for a moment,
    unless the joint is without power: it would whirl round.

    Args:
        rng: random numbers.
        kinds: `[robots]`, conditions of `envs.faults`; a fault is of a leg's hip, knee or both.
        steps: number of control steps of each.
        onset: first and last control step at which a fault may begin, both included.

    Returns:
        `Recording`.
    """
    model = hung()
    runs = []
    for kind in kinds:
        first = rng.integers(*onset, endpoint=True) if kind else steps
        joints = np.zeros((4, 2), bool)
        joints[rng.integers(4)] = BROKEN[rng.integers(3)]
        broken = (np.arange(steps) >= first)[:, None] & joints.ravel()
        runs.append((_trot(rng, model, kind, broken), kind * broken, first))
    features, conditions, onsets = (np.stack(parts) for parts in zip(*runs, strict=True))
    return Recording(features.astype(np.float32), conditions.astype(np.int32), onsets)


def _trot(
    rng: np.random.Generator, model: mujoco.MjModel, kind: int, broken: np.ndarray
) -> np.ndarray:
    """Features of one robot, whose joints are `broken` `[steps, 8]` at each step."""
    data = mujoco.MjData(model)
    phase = PHASE + rng.random()
    data.qpos = c.DEFAULT_POSE + AMPLITUDE * np.sin(2 * np.pi * phase)
    angle, pulses, frames = data.qpos.copy(), _pulses(rng, len(broken)), []
    for step, (now, pulse) in enumerate(zip(broken, pulses, strict=True)):
        turns = phase + FREQUENCY * c.CONTROL_DT * step
        action = AMPLITUDE / c.ACTION_SCALE * np.sin(2 * np.pi * turns)
        target = c.DEFAULT_POSE + c.ACTION_SCALE * action
        locked, dead = now & (kind == faults.LOCKED), now & (kind == faults.POWER_LOSS)
        model.eq_data[:, 0], data.eq_active[:] = angle, locked
        data.qfrc_applied = pulse * ~dead
        for _ in range(c.SUBSTEPS):
            data.ctrl = motor_torque(target - data.qpos, data.qvel, dead)
            mujoco.mj_step(model, data)
        angle = np.where(locked, angle, data.qpos)
        frames.append(np.concatenate([data.qpos - c.DEFAULT_POSE, data.qvel, action]))
    q, velocity, action = np.split(np.array(frames), 3, axis=1)
    count = len(broken)
    parts = (
        (np.tile([0.0, 0.0, -1.0], (count, 1)), c.ORIENTATION_NOISE),
        (np.tile(np.multiply([0.5, 0.0], c.COMMAND_SCALE), (count, 1)), 0),
        (q, c.POSITION_NOISE),
        (velocity * c.VELOCITY_SCALE, c.VELOCITY_NOISE),
        (action, 0),
    )
    return np.hstack([x + half * rng.uniform(-1, 1, x.shape) for x, half in parts])


def _pulses(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Torques `[steps, 8]` from outside."""
    torque = np.zeros((steps, 8))
    for start in range(rng.integers(PULSE_EVERY), steps, PULSE_EVERY):
        last = start + rng.integers(*PULSE_STEPS, endpoint=True)
        torque[start:last, rng.integers(8)] = rng.choice([-PULSE, PULSE])
    return torque
