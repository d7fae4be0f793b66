"""The grid on which quadrupeds are evaluated: every fault, leg, set of joints and speed.

Robots run from their spawn to the end of an episode; whoever falls stays fallen.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.base import State
from jax import Array, lax

from envs import faults, switching
from envs.faults import HEALTHY, LOCKED, POWER_LOSS
from train.control import canonical, detection, episodes, worlds
from train.control.finished import Trained
from train.control.robot import Kind, Robot

SWITCHES = ("oracle", "learned", "blind")
SPEEDS = {"middle": (0.3, 0.5), "high": (0.7, 0.9)}
"""m/s, bounds of the command."""
ONSETS = {"anywhere": (0.0, 7.0), "strict": (1.0, 4.0)}
"""s, bounds of the onset."""


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


def cells(kind: Kind, legs: Sequence[str], parts: Sequence[str]) -> list[Cell]:
    """Health, then every condition that is a fault in every place.

    Args:
        kind: of robot.
        legs: as `Kind.places` takes them.
        parts: as `Kind.places` takes them.
    """
    none = np.zeros(len(kind.joints), bool)
    grid = [Cell(HEALTHY, "", "", none, none)]
    for condition in (POWER_LOSS, LOCKED):
        for leg, joints, broken in kind.places(legs, parts):
            power_loss, locked = broken & (condition == POWER_LOSS), broken & (condition == LOCKED)
            grid.append(Cell(condition, leg, joints, power_loss, locked))
    return grid


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


def run(
    trained: Trained,
    robot: Robot,
    params: Any,
    detector: Any,
    course: Course,
    key: Array,
    count: int,
) -> dict[str, Array]:
    """Robots from their spawn to the end.

    Args:
        trained: run with the networks.
        robot: of `Kind.quiet`.
        params: parameters of the policy.
        detector: parameters of the detector, or None.
        course: what they meet.
        key: random key.
        count: number of robots.

    Returns:
        `[steps, count]` by name, as they are before each step: `alive`, `step`, `onset`, `head`,
        `true` and `verdict` `[..., joints]`, the latter 0 under another switch than the learned
        one, and what `Kind.sensed` gives. Of the step itself: `stood`, no fall until its end, and
        `reward`, 0 from the fall on.
    """
    start_key, onset_key, speed_key = jax.random.split(jax.random.key_data(key), 3)
    onset = jax.random.randint(onset_key, (count,), course.onset[0], course.onset[1] + 1)
    speed = jax.random.uniform(speed_key, (count,), minval=course.speed[0], maxval=course.speed[1])
    broken = (jnp.tile(x[None], (count, 1)) for x in (course.power_loss, course.locked))
    fault = faults.Fault(*broken, onset)
    started = worlds.start(robot, lambda _: fault, start_key, count)
    states = started.states
    # the first observation still shows the command drawn at the spawn
    command = robot.kind.straight_on(speed)
    states = states.replace(
        info=states.info | {"step": jnp.zeros(count, jnp.int32), "command": command}
    )
    tables = canonical.mirrors(trained.config, robot)
    switch = detection.learned(robot, trained.detector, detector, trained.config.switch)

    def watch(memory: switching.Memory, states: State) -> tuple[switching.Memory, Array]:
        memory, _, seen = switch.choose(memory, states)
        return memory, seen["verdict"]

    def look_away(memory: switching.Memory, states: State) -> tuple[switching.Memory, Array]:
        return memory, jnp.zeros((count, robot.joints), jnp.int8)

    def move(carry: tuple, _: None) -> tuple[tuple, dict[str, Array]]:
        states, alive, memory = carry
        heads, legs = episodes.condition(states, course.late), faults.leg(fault)
        now = {
            "alive": alive,
            "onset": onset,
            "step": states.info["step"],
            **robot.kind.sensed(states),
        }
        now["true"] = episodes.shown(states).astype(jnp.int8)
        if detector is not None:
            learned = course.switch == SWITCHES.index("learned")
            memory, now["verdict"] = lax.cond(learned, watch, look_away, memory, states)
            heads = jnp.where(learned, memory.kind, heads)
            legs = jnp.where(learned, memory.leg, legs)
        heads = jnp.where(course.switch == SWITCHES.index("blind"), HEALTHY, heads)
        now["head"] = heads.astype(jnp.int8)
        actions = canonical.drive(trained.policy, params, tables, states.obs, heads, legs)
        states = jax.vmap(robot.step)(started.variation, states, actions)
        alive &= (states.done == 0) & worlds.finite(states, count)
        now |= {"stood": alive, "reward": jnp.where(alive, states.reward, 0)}
        return (states, alive, memory), now

    carry = (states, jnp.ones(count, bool), switch.start(states))
    return lax.scan(move, carry, length=robot.steps)[1]
