"""`python -m benchmarks.detector`: fault detector on recordings with known faults.

A SOLO8 hangs from its torso in C MuJoCo and trots by script; joints lose power or lock, and are
pushed from outside with 1 N m. The benchmark trains the detector, evaluates it on other robots,
prints tables and writes `confusion.csv` and `detector.png`. Required: macro F1 of every joint at
least 0.97 from half a second after the onset on, median delay at most 0.2 s, at most one false
alarm a minute.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import jax
import numpy as np

from corrkd_jax.models.detector import FaultDetector
from corrkd_jax.ranges import NotNegative, Positive
from envs.solo8_constants import JOINTS
from envs.switching import Rule
from train.control import detector_report
from train.control.evaluation import hung
from train.control.watching import Watched, macro_f1
from train.engine import cli
from train.engine.report import drawn, write_picture
from train.engine.tables import Claims
from train.engine.workdir import make_folder


@dataclass(frozen=True)
class Options:
    """The robots to learn from and to evaluate on."""

    robots: Annotated[int, Positive] = 600
    """Number of robots that the detector learns from, 4 s each."""
    evaluation_robots: Annotated[int, Positive] = 200
    """Number of robots of each fault to evaluate on."""
    minutes: Annotated[int, Positive] = 20
    """Minutes of health to evaluate on."""
    updates: Annotated[int, Positive] = 3000
    """Number of steps of AdamW."""
    batch: Annotated[int, Positive] = 256
    """Windows a step."""
    hidden: Annotated[int, Positive] = 64
    """Width of the detector."""
    seed: Annotated[int, NotNegative] = 0
    """Seed of everything."""
    switch: Rule = field(default_factory=Rule)
    """Rule by which a fault counts as detected."""
    out: str = "runs/detector"
    """Folder for CSV and figure."""


def main(argv: Sequence[str]) -> None:
    """Train, evaluate, write."""
    options = cli.parse_options(Options, argv, "python -m benchmarks.detector", __doc__ or "")
    out = Path(options.out)
    make_folder(out)
    start = time.monotonic()
    rng = np.random.default_rng(options.seed)
    train, test = hung.recordings(rng, options.robots, options.evaluation_robots, options.minutes)
    recorded = time.monotonic()
    detector = FaultDetector(len(JOINTS), options.hidden)
    params = hung.fit(detector, train, jax.random.key(options.seed), options.updates, options.batch)
    jax.block_until_ready(params)
    trained = time.monotonic()
    watched, late = hung.evaluate(detector, params, test, options.switch)
    print(*detector_report.tables(watched, JOINTS), sep="\n\n")
    print(f"\n{claims(watched, late).table()}")
    print(
        f"\nseed {options.seed}; {recorded - start:.0f} s of simulation, "
        f"{trained - recorded:.0f} s of training on {jax.devices()[0].device_kind}"
    )
    detector_report.write(out, watched, late, JOINTS)
    write_picture(out / "detector.png", drawn(detector_report.figure(watched, late, JOINTS)))
    print(f"{out / 'confusion.csv'}, {out / 'detector.png'}")


def claims(watched: Watched, late: np.ndarray) -> Claims:
    """What is required of the detector, and whether it holds.

    Args:
        watched: of `hung.evaluate`.
        late: of `hung.evaluate`, `[joints, 3, 3]`.
    """
    table = Claims("required", "measured")
    each = macro_f1(late)
    worst, delay = JOINTS[each.argmin()], np.median(np.concatenate(list(watched.delays.values())))
    for name, measured, holds in (
        (f"macro F1 of every joint >= 0.97, half a second on (worst: {worst})", each.min(),
         each.min() >= 0.97),
        ("median delay <= 0.2 s", delay, delay <= 0.2),
        ("false alarms a minute <= 1", watched.alarms[0], watched.alarms[0] <= 1),
    ):  # fmt: skip
        table.add(name, f"{measured:.3f}", holds=bool(holds))
    return table


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
