"""The grid on which quadrupeds are judged: every fault, leg, set of joints and speed.

Robots run from their spawn to the end of an episode; whoever falls stays fallen.
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from brax import math
from brax.envs.base import State
from jax import Array, lax

from envs import faults, solo8, solo8_model, switching
from envs import solo8_constants as c
from envs.faults import HEALTHY, LOCKED, POWER_LOSS
from train.control import canonical, detection, episodes, robots, worlds
from train.control.finished import Loaded
from train.control.robots import Robot

SWITCHES = ("oracle", "learned", "blind")
SPEEDS = {"middle": (0.3, 0.5), "high": (0.7, 0.9)}
"""m/s, bounds of the command."""
ONSETS = {"anywhere": (0.0, 7.0), "strict": (1.0, 4.0)}
"""s, bounds of the onset."""
PARTS = {"HFE": ("HFE",), "KFE": ("KFE",), "both": ("HFE", "KFE")}
"""Joints of a leg that fail together."""


class Cell(NamedTuple):
    """One entry of the grid. `power_loss` and `locked` are `[joints]` bool."""

    kind: int
    leg: str
    joints: str
    power_loss: np.ndarray
    locked: np.ndarray


class Course(NamedTuple):
    """What is traced of a cell.

    Attributes:
        power_loss, locked: `[joints]` bool.
        onset: `[2]`, first and last control step.
        speed: `[2]`, bounds of the command.
        switch: index of `SWITCHES`. Of courses run together it should be one, not mapped: where
            nobody asks the detector, it does not run.
        late: control steps from the onset to the oracle's switch.
    """

    power_loss: Any
    locked: Any
    onset: Any
    speed: Any
    switch: Any
    late: Any


def cells(robot: Robot, legs: Sequence[str], parts: Sequence[str]) -> list[Cell]:
    """Health, then every kind of fault, leg and joints; the surrogate has one leg that fails."""
    count = robot.joints
    places = [
        (leg, part, np.isin(c.JOINTS, [f"{leg}_{joint}" for joint in PARTS[part]]))
        for leg in legs
        for part in parts
    ]
    if robot.name == "surrogate":
        places = [("first", "leg", np.arange(count) == 0)]
    found = [Cell(HEALTHY, "", "", np.zeros(count, bool), np.zeros(count, bool))]
    for kind in (POWER_LOSS, LOCKED):
        for leg, part, broken in places:
            found.append(
                Cell(kind, leg, part, broken & (kind == POWER_LOSS), broken & (kind == LOCKED))
            )
    return found


def course(cell: Cell, switch: str, speed: str, onset: str, dt: float, late: int = 0) -> Course:
    """What robots meet in a cell; names are those of `SWITCHES`, `SPEEDS` and `ONSETS`."""
    return Course(
        cell.power_loss,
        cell.locked,
        np.round(np.array(ONSETS[onset]) / dt).astype(np.int32),
        np.array(SPEEDS[speed], np.float32),
        np.int32(SWITCHES.index(switch)),
        np.int32(late),
    )


def quiet(robot: Robot, added_mass: bool = True, noise: float = 0.0) -> Robot:
    """The robot without sensor noise, pushes and spread, on the nominal floor; the toy as it is.

    Args:
        robot: that was trained.
        added_mass: draw the torso's mass for every robot as in training, as the released code
            does when it evaluates (arXiv:2402.08996).
        noise: factor on the sensor noise, if there is to be some.
    """
    if robot.name == "surrogate":
        return robot
    env = copy.copy(robot.env)
    env.config = dataclasses.replace(
        env.config, noise=noise, push_velocity=0.0, hardware_spread=False
    )

    def vary(keys: Array) -> dict[str, Array]:
        if not added_mass:
            return {}
        drawn = solo8.randomize(env.sys, keys)[0]
        return {name: getattr(drawn, name) for name in ("body_mass", "body_inertia")}

    return robot._replace(env=env, vary=vary, step=robots.stepper(env))


def run(
    loaded: Loaded,
    robot: Robot,
    params: Any,
    detector: Any,
    course: Course,
    key: Array,
    count: int,
) -> dict[str, Array]:
    """Robots from their spawn to the end.

    Args:
        loaded: networks.
        robot: of `quiet`.
        params, detector: of the policy and the detector; the latter may be None.
        course: what they meet.
        key: random key.
        count: number of robots.

    Returns:
        `[steps, count]` by name, as they are before each step: `alive`, `step`, `onset`, `head`,
        `true` and `verdict` `[..., joints]`, the latter 0 under another switch than the learned
        one, and what `sensed` gives. Of the step itself: `stood`, no fall until its end, and
        `reward`, 0 from the fall on.
    """
    start_key, onset_key, speed_key = jax.random.split(jax.random.key_data(key), 3)
    onset = jax.random.randint(onset_key, (count,), course.onset[0], course.onset[1] + 1)
    speed = jax.random.uniform(speed_key, (count,), minval=course.speed[0], maxval=course.speed[1])
    broken = (jnp.tile(x[None], (count, 1)) for x in (course.power_loss, course.locked))
    fault = faults.Fault(*broken, onset)
    started = worlds.start(robot, lambda _: fault, start_key, count)
    states = started.states
    command = states.info["command"]
    # no turning; the first observation still shows the command drawn at the spawn
    command = speed if command.ndim == 1 else jnp.stack([speed, jnp.zeros(count)], axis=-1)
    states = states.replace(
        info=states.info | {"step": jnp.zeros(count, jnp.int32), "command": command}
    )
    tables = canonical.mirrors(loaded.config, robot)
    switch = detection.learned(robot, loaded.detector, detector, loaded.config.switch)

    def watch(memory: switching.Memory, states: State) -> tuple[switching.Memory, Array]:
        memory, _, seen = switch.choose(memory, states)
        return memory, seen["verdict"]

    def look_away(memory: switching.Memory, states: State) -> tuple[switching.Memory, Array]:
        return memory, jnp.zeros((count, robot.joints), jnp.int8)

    def move(carry: tuple, _: None) -> tuple[tuple, dict[str, Array]]:
        states, alive, memory = carry
        heads, legs = episodes.condition(states, course.late), faults.leg(fault)
        now = {"alive": alive, "onset": onset, "step": states.info["step"], **sensed(states)}
        now["true"] = episodes.shown(states).astype(jnp.int8)
        if detector is not None:
            learned = course.switch == SWITCHES.index("learned")
            memory, now["verdict"] = lax.cond(learned, watch, look_away, memory, states)
            heads = jnp.where(learned, memory.kind, heads)
            legs = jnp.where(learned, memory.leg, legs)
        heads = jnp.where(course.switch == SWITCHES.index("blind"), HEALTHY, heads)
        now["head"] = heads.astype(jnp.int8)
        actions = canonical.drive(loaded.policy, params, tables, states.obs, heads, legs)
        states = jax.vmap(robot.step)(started.variation, states, actions)
        alive &= (states.done == 0) & worlds.finite(states, count)
        now |= {"stood": alive, "reward": jnp.where(alive, states.reward, 0)}
        return (states, alive, memory), now

    carry = (states, jnp.ones(count, bool), switch.start(states))
    return lax.scan(move, carry, length=robot.steps)[1]


def sensed(states: State) -> dict[str, Array]:
    """Tilt (rad on the real robot), and by how much speed and yaw rate miss their commands.

    Also the forward speed, and on the real robot which feet stand.
    """
    body, command = states.pipeline_state, states.info["command"]
    if not hasattr(body, "qpos"):
        return {"speed": body.speed, "missed_speed": command - body.speed, "tilt": body.tilt}
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
