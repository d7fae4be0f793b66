"""`python -m train.evaluate RUN` for runs of `train.quadruped`: who survives which fault.

Every kind of fault, leg and set of joints at two speeds, for every arm and switch, without sensor
noise and pushes; and once more, strictly: a fault within seconds 1 to 4, and 4 seconds to survive
from it on. Writes `evaluation.md`, `evaluation.json`, figures and the detector's
`evaluation_confusion.csv`.
"""

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from corrkd_jax.errors import InputError
from corrkd_jax.ranges import NotNegative
from envs.faults import HEALTHY
from envs.solo8_constants import LEGS
from train.control import episodes, finished, ppo, throughput
from train.control.evaluation import grid, grid_report, scores
from train.control.evaluation.grid_report import Evaluation
from train.control.finished import SwitchOptions, Trained
from train.control.report import row_name
from train.control.robot import CONDITIONS, PARTS
from train.control.watching import measure
from train.engine import cli
from train.engine.finished import choose
from train.engine.predict import positions
from train.engine.progress import Bar, say
from train.engine.workdir import make_folder

WATCHED = 256
"""Robots of a cell by which the detector is evaluated."""
TEST_KEY = 17
"""Key of the robots of the evaluation; never that of a run."""
ROBOTS, ROBOTS_ON_CPU = 3200, 16
"""Robots of a cell, if nobody says how many: the paper's, and what takes a CPU minutes."""
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
    joints: tuple[str, ...] = tuple(PARTS)
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
    switch: SwitchOptions = field(default_factory=SwitchOptions)
    out: str = ""
    """Folder for the results; empty: the run's."""


def evaluate(folder: Path, argv: Sequence[str]) -> None:
    """Evaluate a finished run on the grid of faults; arguments as of `train.programs`.

    Raises:
        InputError: the run is not finished, has no such arm or seed, or the grid no such part.
    """
    options = cli.parse_options(
        EvaluateOptions, argv, "python -m train.evaluate RUN", __doc__ or ""
    )
    check(options)
    run = finished.load_run(folder, options.switch)
    arms = list(choose(run.models, options.arms or run.arms))
    seed = run.seed(options.seed)
    out = Path(options.out) if options.out else folder
    # before hours of simulation, not after them
    make_folder(out)
    device, kind = jax.devices()[0], run.robot.kind
    few = device.platform == "cpu" and kind.slow_on_cpu
    if not options.num_envs:
        options = dataclasses.replace(options, num_envs=ROBOTS_ON_CPU if few else ROBOTS)
    evaluation = evaluate_grid(run, arms, seed, options, AT_ONCE_ON_CPU if few else AT_ONCE)
    rates = [*throughput.of_training(folder, run.config), *evaluation.rates]
    rule = run.config.switch
    facts = {
        "run": folder.name,
        "robot": kind.name,
        "seed": seed,
        "seeds_of_the_run": others(run.seeds, seed),
        "model": fingerprint(run, arms, seed),
        "backend": device.platform,
        "device": device.device_kind,
        "jax": jax.__version__,
        "robots_a_cell": options.num_envs,
        "switch": f"after {rule.strike} verdicts above {rule.confidence:g}, back after "
        f"{rule.recovery}",
        "torso": kind.torso(options.added_mass),
        "sensor noise": kind.sensor_noise(options.noise),
        "survival": kind.survival,
    }
    grid_report.write(out, facts, evaluation._replace(rates=rates), kind)


def others(seeds: Sequence[int], seed: int) -> str:
    """How much of a run an evaluation shows.

    Args:
        seeds: of the run.
        seed: that is evaluated.
    """
    if len(seeds) == 1:
        return "this one alone; another training may differ by more than the intervals"
    rest = ", ".join(str(x) for x in seeds if x != seed)
    return f"{len(seeds)}; this page is of seed {seed} alone, --seed N evaluates another ({rest})"


def check(options: EvaluateOptions) -> None:
    """Refuse parts of the grid that do not exist, stand twice, or are missing.

    Raises:
        InputError: names the option and what would do.
    """
    for option, names, parts in (
        ("--legs", options.legs, LEGS),
        ("--joints", options.joints, PARTS),
        ("--speeds", options.speeds, grid.SPEEDS),
    ):
        choose(dict.fromkeys(parts), names, option)
        if not names:
            raise InputError(f"{option}: name at least one of {', '.join(parts)}")


def evaluate_grid(
    run: Trained, arms: Sequence[str], seed: int, options: EvaluateOptions, at_once: int
) -> Evaluation:
    """Every cell for every arm and switch; and how the detector watched.

    Args:
        run: as brought back.
        arms: of it.
        seed: of it.
        options: which cells, and how many robots in each.
        at_once: robots simulated in one call.
    """
    robot = run.robot.kind.quiet(run.robot, options.added_mass, options.noise)
    detector = jax.tree.map(jnp.asarray, run.detector_of(seed))

    @jax.jit
    def follow(params: Any, courses: grid.Course, keys: Array) -> dict[str, Array]:
        def one(course: grid.Course, key: Array) -> dict[str, Array]:
            return grid.run(run, robot, params, detector, course, key, options.num_envs)

        mapped = grid.Course(0, 0, 0, 0, switch=None, late=None)
        return jax.vmap(one, in_axes=(mapped, 0))(courses, keys)

    cells = grid.cells(robot.kind, options.legs, options.joints)
    places = [
        (at, cell, speed, onset)
        for at, cell in enumerate(cells)
        for speed in options.speeds
        for onset in ("anywhere", "strict")[: 1 + options.strict]
    ]
    policies = [
        (arm, switch, late)
        for arm in arms
        for switch in switches(run, arm)
        for late in dict.fromkeys((0, *(options.late if switch == "oracle" else ())))
    ]
    # Not by `predict`: what one call says of its robots is gigabytes, of which a few numbers a
    # cell are needed, and a call is timed.
    blocks = positions(len(places), max(1, at_once // options.num_envs))
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
            params = jax.tree.map(jnp.asarray, run.one(arm, seed))
            name = row_name(arm, switch) + (f", {late} steps late" if late else "")
            for index in blocks:
                block = [places[at] for at in index]
                courses = [grid.course(cell, switch, speed, onset, robot.env.dt, late)
                           for _, cell, speed, onset in block]  # fmt: skip
                # every policy meets the same robots
                keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
                    jax.random.key(TEST_KEY), np.array([at for at, *_ in block])
                )
                stacked = jax.tree.map(lambda *x: np.stack(x), *courses)
                courses = stacked._replace(switch=courses[0].switch, late=courses[0].late)
                if compiled is None:
                    compiled = follow.lower(params, courses, keys).compile()
                    bar.update(0, "compiling")
                start = time.monotonic()
                seen = jax.tree.map(np.asarray, compiled(params, courses, keys))
                seconds += time.monotonic() - start
                # the last block repeats its last cell
                for which in range(len(np.unique(index))):
                    _, cell, speed, onset = block[which]
                    trail = {n: x[which] for n, x in seen.items()}
                    rows.append(scores.summarize(trail, robot.env.dt, name, cell, speed, onset))
                    if (arm, switch, onset) == (ppo.OURS, "learned", "anywhere"):
                        trails[cell.kind].append({n: x[:, :WATCHED] for n, x in trail.items()})
                bar.update(len(rows), name)
    steps = len(rows) * options.num_envs * robot.steps
    where = f"1 x {jax.devices()[0].device_kind}"
    rates = [throughput.Rate("evaluation", steps, seconds, where)]
    if not trails[HEALTHY]:
        return Evaluation(rows, None, rates)
    joined = [
        episodes.Episodes(
            np.zeros(0), np.zeros(0), {n: np.concatenate([t[n] for t in each], 1) for n in each[0]}
        )
        for each in trails.values()
    ]
    return Evaluation(rows, measure([joined], robot.env.dt), rates)


def switches(run: Trained, arm: str) -> tuple[str, ...]:
    """What may choose an arm's head; one network has but one, and one detector watches one arm."""
    if arm == ppo.TUNED:
        return ("oracle", "learned")
    if arm == ppo.OURS:
        learned = run.detector_params is not None and run.config.arms[0] == arm
        return grid.SWITCHES if learned else ("oracle", "blind")
    return ("oracle",) if arm == ppo.NO_REFLECTION else ("blind",)


def fingerprint(run: Trained, arms: Sequence[str], seed: int) -> str:
    """SHA-256 of the networks that were evaluated."""
    digest = hashlib.sha256()
    networks = [[run.one(arm, seed) for arm in arms], run.detector_of(seed)]
    for leaf in jax.tree.leaves(networks):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
