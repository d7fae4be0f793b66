"""What robots did in a cell of the grid, as numbers: survival, tracking, contact, footfall."""

from typing import NamedTuple

import numpy as np

from envs.solo8_constants import LEGS
from train.control.evaluation.grid import Cell
from train.engine.tables import proportion

GROUPS, RESAMPLED = 32, 2000
"""Equal groups of a cell's robots, and how often they are drawn anew for an interval."""
STRICT_SECONDS = 4.0
"""Seconds to survive from a strict onset on."""

Trail = dict[str, np.ndarray]
"""What `train.control.evaluation.grid.run` gives."""
Sides = list[float | None]
"""Means of the second before the onset and of seconds 1 to 3 after it; None where nobody stands."""


class Gait(NamedTuple):
    """Which feet of one robot stand, from a second before its fault to three seconds after.

    Attributes:
        seconds: `[steps]`, from the onset.
        standing: `[steps, 4]` bool, by leg.
        alive: `[steps]` bool.
        switched: seconds from the onset to the step in which another head drives; inf if none.
    """

    seconds: np.ndarray
    standing: np.ndarray
    alive: np.ndarray
    switched: float


class Row(NamedTuple):
    """One policy in one cell.

    Attributes:
        policy: arm and switch.
        kind, leg, joints: of the cell.
        speed, onset: names in `train.control.evaluation.grid.SPEEDS` and `ONSETS`.
        groups: survival of each group of robots.
        survived: number of robots that survived.
        robots: number of robots.
        interval: Wilson's 95 % interval of the share that survived.
        missed_speed, missed_yaw: root mean square of what tracking misses, on both sides of the
            onset; None where nothing yaws.
        reward: summed over the episode until its end or the fall, mean over robots.
        contact: `[groups, 4]`, seconds of the episode that each leg's foot is loaded by more than
            1 N at this or the previous control step, until the fall, mean over a group's robots;
            None on the toy.
        loaded: share of the time that the failing leg's foot is loaded so, on both sides of the
            onset; in health the mean of the four feet.
        aligned: `seconds` from the onset, and means of `speed` and of `tilt`'s size then.
        gait: of one robot; None on the toy, or if no onset leaves enough time on both sides.
    """

    policy: str
    kind: int
    leg: str
    joints: str
    speed: str
    onset: str
    groups: np.ndarray
    survived: int
    robots: int
    interval: tuple[float, float]
    missed_speed: Sides
    missed_yaw: Sides
    reward: float
    contact: np.ndarray | None
    loaded: Sides
    aligned: dict[str, list[float | None]]
    gait: Gait | None


def summarize(trail: Trail, dt: float, policy: str, cell: Cell, speed: str, onset: str) -> Row:
    """What a table shows of one cell.

    Args:
        trail: of `train.control.evaluation.grid.run`.
        dt: seconds a control step.
        policy: arm and switch.
        cell: that the robots were in.
        speed: name of the commanded speed.
        onset: name of the onset.
    """
    alive, since = trail["alive"], trail["step"] - trail["onset"]
    survived = trail["stood"][-1]
    if onset == "strict":
        # still standing at the end of that many seconds
        last = trail["onset"][0] + round(STRICT_SECONDS / dt) - 1
        survived = trail["stood"][last, np.arange(alive.shape[1])]
    second = round(1 / dt)
    before = alive & (since >= -second) & (since < 0)
    after = alive & (since >= second) & (since < 3 * second)

    def sides(values: np.ndarray | None) -> Sides:
        if values is None:
            return [None, None]
        return [_mean(values.astype(np.float64)[at]) for at in (before, after)]

    def rms(name: str) -> Sides:
        return [x if x is None else x**0.5 for x in sides(_square(trail.get(name)))]

    contact = foot = None
    if "standing" in trail:
        loaded = trail["standing"].copy()
        loaded[1:] |= trail["standing"][:-1]
        seconds = dt * (loaded & alive[..., None]).sum(axis=0)
        contact = np.stack([group.mean(axis=0) for group in in_groups(seconds)])
        foot = loaded[..., LEGS.index(cell.leg)] if cell.leg else loaded.mean(axis=-1)
    around = np.arange(-second, 2 * second + 1)
    signals = {"speed": trail["speed"], "tilt": np.abs(trail["tilt"])}
    aligned = {
        name: [_mean(values[alive & (since == at)]) for at in around.tolist()]
        for name, values in signals.items()
    }
    groups = np.array([group.mean() for group in in_groups(survived)])
    return Row(
        policy,
        cell.kind,
        cell.leg,
        cell.joints,
        speed,
        onset,
        groups,
        int(survived.sum()),
        len(survived),
        proportion(survived.sum(), len(survived)),
        rms("missed_speed"),
        rms("missed_yaw"),
        float(trail["reward"].sum(axis=0).mean()),
        contact,
        sides(foot),
        {"seconds": (around * dt).tolist(), **aligned},
        gait(trail, dt),
    )


def gait(trail: Trail, dt: float) -> Gait | None:
    """The footfall of the robot that stands longest of those whose fault comes in mid-episode."""
    if "standing" not in trail:
        return None
    steps, onset = len(trail["step"]), trail["onset"][0]
    before, after = round(1 / dt), round(3 / dt)
    fit = (onset >= before) & (onset + after < steps)
    if not fit.any():
        return None
    robot = int(np.argmax(np.where(fit, trail["alive"].sum(axis=0), -1)))
    window = slice(onset[robot] - before, onset[robot] + after + 1)
    head = trail["head"][window, robot]
    changed = np.flatnonzero(head[before:] != head[before - 1])
    return Gait(
        dt * np.arange(-before, after + 1),
        trail["standing"][window, robot],
        trail["alive"][window, robot],
        float(dt * changed[0]) if len(changed) else float("inf"),
    )


def in_groups(robots: np.ndarray) -> list[np.ndarray]:
    """`[robots, ...]` in 32 equal groups, or each robot by itself if they are fewer."""
    return np.array_split(robots, min(GROUPS, len(robots)))


def interval(groups: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over groups; of shares use `tables.proportion`."""
    rng = np.random.default_rng(0)
    means = rng.choice(groups, (RESAMPLED, len(groups))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _square(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else values.astype(np.float64) ** 2
