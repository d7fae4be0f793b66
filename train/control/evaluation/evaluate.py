"""`python -m train.evaluate RUN` for runs of `train.quadruped`: who survives which fault.

Every kind of fault, leg and set of joints at two speeds, for every arm and switch, without sensor
noise and pushes; and once more, strictly: a fault within seconds 1 to 4, and 4 seconds to survive
from it on. Writes `evaluation.md`, `evaluation.json`, figures and the detector's
`confusion.csv`.
"""

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from jax import Array

from corrkd_jax.errors import InputError
from corrkd_jax.ranges import NotNegative
from envs.faults import HEALTHY
from envs.solo8_constants import LEGS, TORSO_MASS
from train.control import episodes, finished, judging, ppo, robots, throughput
from train.control.evaluation import grid, grid_report, scores
from train.control.finished import Loaded, OwnRule
from train.control.report import row_name
from train.control.robots import CONDITIONS
from train.control.watching import Watched, measure
from train.engine import cli
from train.engine.finished import seed_number
from train.engine.progress import Bar, say
from train.engine.workdir import make_folder

WATCHED = 256
"""Robots of a cell by which the detector is judged."""
TEST_KEY = 17
ROBOTS, ROBOTS_ON_CPU = 3200, 16
"""Of a cell, if nobody says how many: the paper's, and what takes a CPU minutes."""
AT_ONCE, AT_ONCE_ON_CPU = 8192, 256
"""Robots simulated in one call: cells share one as far as this goes."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Cells of the grid that are evaluated, and where the results go."""

    num_envs: Annotated[int, NotNegative] = 0
    """Number of robots a cell, in 32 groups; 0: 3200, the paper's, but 16 of SOLO8 on a CPU."""
    seed: Annotated[int, NotNegative] = 0
    """Seed of the run whose networks are evaluated; 0: the first."""
    legs: tuple[str, ...] = LEGS
    """Legs that fail; the surrogate has but one that does."""
    joints: tuple[str, ...] = tuple(grid.PARTS)
    """Joints of the leg that fail."""
    speeds: tuple[str, ...] = tuple(grid.SPEEDS)
    """Commanded speeds, of middle and high."""
    arms: tuple[str, ...] = ()
    """Arms of the run; empty: all."""
    added_mass: bool = True
    """Random mass of each robot's torso, as in training (-0.2 to +1 kg); the toy has none."""
    noise: Annotated[float, NotNegative] = 0.0
    """Factor on the sensor noise, 1 as in training; the toy keeps its own."""
    late: Annotated[tuple[int, ...], NotNegative] = ()
    """Control steps after the onset at which a further oracle switches, late as a detector is."""
    strict: bool = True
    """The strict onsets as well."""
    switch: OwnRule = field(default_factory=OwnRule)
    out: str = ""
    """Folder for the results; empty: the run's."""


def main(folder: Path, argv: Sequence[str]) -> None:
    """Evaluate a finished run."""
    options = cli.parse_options(
        EvaluateOptions, argv, "python -m train.evaluate RUN", __doc__ or ""
    )
    check(options)
    loaded = finished.load(folder, own=options.switch)
    arms = options.arms or tuple(loaded.policies)
    if unknown := [arm for arm in arms if arm not in loaded.policies]:
        raise InputError(f"--arms {unknown[0]}: the run has {', '.join(loaded.policies)}")
    number = seed_number(options.seed, loaded.config.first_seed, loaded.config.seeds)
    out = Path(options.out) if options.out else folder
    make_folder(out)
    device = jax.devices()[0]
    solo8 = loaded.config.robot == "solo8"
    small = device.platform == "cpu" and solo8
    if not options.num_envs:
        options = dataclasses.replace(options, num_envs=ROBOTS_ON_CPU if small else ROBOTS)
    judged = judge(loaded, arms, number, options, at_once=AT_ONCE_ON_CPU if small else AT_ONCE)
    where = f"1 x {device.device_kind}"
    rates = throughput.of_training(folder, loaded.config)
    rates.append(throughput.Rate("evaluation", judged.steps, judged.seconds, where))
    rule = loaded.config.switch
    facts = {
        "run": folder.name,
        "robot": loaded.config.robot,
        "seed": number + loaded.config.first_seed,
        "model": fingerprint(loaded, arms, number),
        "backend": device.platform,
        "device": device.device_kind,
        "jax": jax.__version__,
        "robots_a_cell": options.num_envs,
        "switch": f"after {rule.strike} verdicts above {rule.confidence:g}, back after "
        f"{rule.recovery}",
        "torso": "{:+g} to {:+g} kg".format(*TORSO_MASS)
        if solo8 and options.added_mass
        else "nominal",
        "sensor noise": f"{options.noise:g} x the released code's" if solo8 else "the toy's",
        "survival": "no torso corner pressed by more than 1 N" if solo8 else "tilt below 1",
    }
    joints = robots.joint_names(loaded.config.robot)
    grid_report.write(out, facts, judged.rows, judged.watched, rates, joints)


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
    cli.check_ranges(options)


class Judged(NamedTuple):
    """What an evaluation found.

    Attributes:
        rows: every cell for every arm and switch.
        watched: how the detector did; None if there is none.
        steps: control steps of all robots in these cells.
        seconds: that simulating them took, compilation apart.
    """

    rows: list[scores.Row]
    watched: Watched | None
    steps: int
    seconds: float


def judge(
    loaded: Loaded, arms: Sequence[str], number: int, options: EvaluateOptions, at_once: int
) -> Judged:
    """Every cell for every arm and switch; and how the detector watched.

    Args:
        loaded: run.
        arms: of it.
        number: of the seed, from 0.
        options: which cells, and how many robots in each.
        at_once: robots simulated in one call.
    """
    robot = grid.quiet(loaded.robot, options.added_mass, options.noise)
    detector = None
    if loaded.detector_params is not None:
        detector = judging.pick(loaded.detector_params, number)

    @jax.jit
    def follow(params: Any, courses: grid.Course, keys: Array) -> dict[str, Array]:
        def one(course: grid.Course, key: Array) -> dict[str, Array]:
            return grid.run(loaded, robot, params, detector, course, key, options.num_envs)

        mapped = grid.Course(0, 0, 0, 0, switch=None, late=None)
        return jax.vmap(one, in_axes=(mapped, 0))(courses, keys)

    cells = grid.cells(robot, options.legs, options.joints)
    places = [
        (at, cell, speed, onset)
        for at, cell in enumerate(cells)
        for speed in options.speeds
        for onset in ("anywhere", "strict")[: 1 + options.strict]
    ]
    policies = [
        (arm, switch, late)
        for arm in arms
        for switch in switches(loaded, arm)
        for late in dict.fromkeys((0, *(options.late if switch == "oracle" else ())))
    ]
    # equal calls, or each size would be compiled
    width = min(len(places), max(1, at_once // options.num_envs))
    rows: list[scores.Row] = []
    trails: dict[int, list[dict[str, np.ndarray]]] = {kind: [] for kind in range(len(CONDITIONS))}
    say(
        f"{len(policies)} policies x {len(places)} cells x {options.num_envs} robots x "
        f"{robot.steps} control steps"
    )
    compiled, seconds = None, 0.0
    with Bar(len(policies) * len(places), unit="cells") as bar:
        bar.update(0, "compiling")
        for arm, switch, late in policies:
            params = judging.pick(loaded.policies[arm], number)
            name = row_name(arm, switch) + (f", {late} steps late" if late else "")
            for first in range(0, len(places), width):
                some = places[first : first + width]
                padded = some + some[:1] * (width - len(some))
                courses = [grid.course(cell, switch, speed, onset, robot.env.dt, late)
                           for _, cell, speed, onset in padded]  # fmt: skip
                # every policy meets the same robots
                keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
                    jax.random.key(TEST_KEY), np.array([at for at, *_ in padded])
                )
                stacked = jax.tree.map(lambda *x: np.stack(x), *courses)
                courses = stacked._replace(switch=courses[0].switch, late=courses[0].late)
                if compiled is None:
                    compiled = follow.lower(params, courses, keys).compile()
                    bar.update(0, "compiling")
                start = time.monotonic()
                found = jax.tree.map(np.asarray, compiled(params, courses, keys))
                seconds += time.monotonic() - start
                for which, (_, cell, speed, onset) in enumerate(some):
                    trail = {n: x[which] for n, x in found.items()}
                    rows.append(scores.summarize(trail, robot.env.dt, name, cell, speed, onset))
                    if (arm, switch, onset) == (ppo.OURS, "learned", "anywhere"):
                        trails[cell.kind].append({n: x[:, :WATCHED] for n, x in trail.items()})
                bar.update(len(rows), name)
    steps = len(rows) * options.num_envs * robot.steps
    if not trails[HEALTHY]:
        return Judged(rows, None, steps, seconds)
    joined = [
        episodes.Episodes(
            np.zeros(0), np.zeros(0), {n: np.concatenate([t[n] for t in each], 1) for n in each[0]}
        )
        for each in trails.values()
    ]
    return Judged(rows, measure([joined], robot.env.dt), steps, seconds)


def switches(loaded: Loaded, arm: str) -> tuple[str, ...]:
    """What may choose an arm's head; one network has but one, and one detector watches one arm."""
    if arm == ppo.TUNED:
        return ("oracle", "learned")
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
