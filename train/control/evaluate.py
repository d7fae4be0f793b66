"""`python -m train.evaluate RUN` for runs of `train.quadruped`: who survives which fault.

Every kind of fault, leg and set of joints at two speeds, for every arm and switch, without sensor
noise and pushes; and once more, strictly: a fault within seconds 1 to 4, and 4 seconds to survive
from it on. Writes `evaluation.md`, `evaluation.json`, figures and the detector's `confusion.csv`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from jax import Array

from corrkd_jax.errors import InputError
from envs.faults import HEALTHY
from envs.solo8_constants import LEGS
from train import quadruped
from train.control import episodes, grid, grid_report, judging, ppo
from train.control import export as quadruped_export
from train.control.report import row_name
from train.control.robots import CONDITIONS
from train.control.watching import Watched, measure
from train.progress import say
from train.quadruped import Loaded

WATCHED = 256
"""Robots of a cell by which the detector is judged."""
TEST_KEY = 17


@dataclass(frozen=True)
class EvaluateOptions:
    """How much of the grid, and where the results go."""

    num_envs: int = 3200
    """Robots a cell, in 32 groups."""
    seed: int = 0
    """Seed of the run whose networks are judged; 0: the first."""
    legs: tuple[str, ...] = LEGS
    """Legs that fail; the surrogate has but one that does."""
    joints: tuple[str, ...] = tuple(grid.PARTS)
    """Joints of the leg that fail."""
    speeds: tuple[str, ...] = tuple(grid.SPEEDS)
    """Of middle and high."""
    arms: tuple[str, ...] = ()
    """Arms of the run; empty: all."""
    strict: bool = True
    """Also the strict onsets."""
    out: str = ""
    """Folder for the results; empty: the run's."""


def main(folder: Path, argv: Sequence[str]) -> None:
    """Evaluate a finished run."""
    options = tyro.cli(
        EvaluateOptions, args=argv, prog="python -m train.evaluate RUN", description=__doc__
    )
    check(options)
    loaded = quadruped.load(folder)
    arms = options.arms or tuple(loaded.policies)
    if unknown := [arm for arm in arms if arm not in loaded.policies]:
        raise InputError(f"--arms {unknown[0]}: the run has {', '.join(loaded.policies)}")
    number = quadruped_export.seed_number(loaded, options.seed)
    out = Path(options.out) if options.out else folder
    out.mkdir(parents=True, exist_ok=True)
    rows, watched = judge(loaded, arms, number, options)
    device = jax.devices()[0]
    facts = {
        "run": folder.name,
        "robot": loaded.config.robot,
        "seed": number + loaded.config.first_seed,
        "model": fingerprint(loaded, arms, number),
        "backend": device.platform,
        "device": device.device_kind,
        "jax": jax.__version__,
        "robots_a_cell": options.num_envs,
        "survival": "no torso corner pressed by more than 1 N"
        if loaded.config.robot == "solo8"
        else "tilt below 1",
    }
    grid_report.write(out, facts, rows, watched)


def check(options: EvaluateOptions) -> None:
    """Refuse parts of the grid that do not exist.

    Raises:
        InputError: names the option and what would do.
    """
    for name, given, known in (
        ("legs", options.legs, LEGS),
        ("joints", options.joints, tuple(grid.PARTS)),
        ("speeds", options.speeds, tuple(grid.SPEEDS)),
    ):
        if unknown := [value for value in given if value not in known]:
            raise InputError(f"--{name} {unknown[0]}: choose from {', '.join(known)}")
        if not given:
            raise InputError(f"--{name}: name at least one of {', '.join(known)}")
    if options.num_envs < 1:
        raise InputError(f"--num-envs {options.num_envs}: must be positive")


def judge(
    loaded: Loaded, arms: Sequence[str], number: int, options: EvaluateOptions
) -> tuple[list[grid.Row], Watched | None]:
    """Every cell for every arm and switch; and how the detector watched."""
    robot = grid.quiet(loaded.robot)
    detector = None
    if loaded.detector_params is not None:
        detector = judging.pick(loaded.detector_params, number)

    @jax.jit
    def follow(params: Any, course: grid.Course, key: Array) -> dict[str, Array]:
        return grid.run(loaded, robot, params, detector, course, key, options.num_envs)

    cells = grid.cells(robot, options.legs, options.joints)
    places = [
        (at, cell, speed, onset)
        for at, cell in enumerate(cells)
        for speed in options.speeds
        for onset in ("anywhere", "strict")[: 1 + options.strict]
    ]
    rows: list[grid.Row] = []
    trails: dict[int, list[dict[str, np.ndarray]]] = {kind: [] for kind in range(len(CONDITIONS))}
    for arm in arms:
        params = judging.pick(loaded.policies[arm], number)
        for switch in switches(loaded, arm):
            name = row_name(arm, switch)
            for at, cell, speed, onset in places:
                course = grid.course(cell, switch, speed, onset, robot.env.dt)
                # every policy meets the same robots
                key = jax.random.fold_in(jax.random.key(TEST_KEY), at)
                trail = jax.tree.map(np.asarray, follow(params, course, key))
                rows.append(grid.summarize(trail, robot.env.dt, name, cell, speed, onset))
                if (arm, switch, onset) == (ppo.OURS, "learned", "anywhere"):
                    trails[cell.kind].append({n: x[:, :WATCHED] for n, x in trail.items()})
            say(f"{name}: {len(places)} cells")
    if not trails[HEALTHY]:
        return rows, None
    joined = [
        episodes.Episodes(
            np.zeros(0), np.zeros(0), {n: np.concatenate([t[n] for t in each], 1) for n in each[0]}
        )
        for each in trails.values()
    ]
    return rows, measure([joined], robot.env.dt)


def switches(loaded: Loaded, arm: str) -> tuple[str, ...]:
    """What may choose an arm's head; one network has but one, and one detector watches one arm."""
    if arm == ppo.TUNED:
        return ("learned",)
    if arm == ppo.OURS:
        learned = loaded.detector_params is not None and loaded.config.arms[0] == arm
        return grid.SWITCHES if learned else ("oracle", "blind")
    return ("oracle",) if arm == ppo.NO_REFLECTION else ("blind",)


def fingerprint(loaded: Loaded, arms: Sequence[str], number: int) -> str:
    """SHA-256 of the networks that were judged."""
    digest = hashlib.sha256()
    judged = [[loaded.policies[arm] for arm in arms], loaded.detector_params]
    for leaf in jax.tree.leaves(judged):
        digest.update(np.ascontiguousarray(leaf[number]).tobytes())
    return digest.hexdigest()[:16]
