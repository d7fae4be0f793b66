"""`python -m benchmarks.detector`: fault detector on recordings with known faults.

A SOLO8 hangs from its torso in C MuJoCo and trots by script; joints lose power or lock, and are
pushed from outside with 1 N m. The benchmark trains the detector, evaluates it on other robots,
prints tables and writes `confusion.csv` and `detector.png`. Required: macro F1 of every joint at
least 0.97 from half a second after the onset on, median delay at most 0.2 s, at most one false
alarm a minute.
"""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
import tyro

from corrkd_jax.models.detector import FaultDetector
from envs.solo8_constants import JOINTS
from envs.switching import Rule
from train.control import detector_report
from train.control.evaluation import hung
from train.control.watching import macro_f1


@dataclass(frozen=True)
class Options:
    """Settings of training and of evaluation."""

    robots: int = 600
    """Number of robots that the detector learns from, 4 s each."""
    judged: int = 200
    """Number of robots of each fault to evaluate on."""
    minutes: int = 20
    """Number of minutes without a fault to evaluate on."""
    updates: int = 3000
    """Number of steps of AdamW."""
    batch: int = 256
    """Number of windows a step."""
    hidden: int = 64
    """Width of the detector."""
    seed: int = 0
    """Seed of simulation, training and evaluation."""
    switch: Rule = field(default_factory=Rule)
    """Rule by which a fault counts as detected."""
    out: str = "runs/detector"
    """Folder for CSV and figure."""


def main(argv: list[str]) -> None:
    """Train the detector, evaluate it, print tables and write the figure.

    Args:
        argv: command line without the program's name.
    """
    options = tyro.cli(Options, args=argv, description=__doc__)
    start = time.monotonic()
    train, test = hung.recordings(
        np.random.default_rng(options.seed), options.robots, options.judged, options.minutes
    )
    recorded = time.monotonic()
    detector = FaultDetector(len(JOINTS), options.hidden)
    params = hung.fit(detector, train, jax.random.key(options.seed), options.updates, options.batch)
    jax.block_until_ready(params)
    trained = time.monotonic()
    watched, late = hung.judge(detector, params, test, options.switch)
    print(*detector_report.tables(watched), sep="\n\n")
    each = macro_f1(late)
    delay = np.median(np.concatenate(list(watched.delays.values())))
    print("\n| required | measured | |\n|---|---|---|")
    worst, alarms = JOINTS[each.argmin()], watched.alarms[0]
    for name, found, holds in (
        (f"macro F1 of every joint >= 0.97, half a second on (worst: {worst})", each.min(),
         each.min() >= 0.97),
        ("median delay <= 0.2 s", delay, delay <= 0.2),
        ("false alarms a minute <= 1", alarms, alarms <= 1),
    ):  # fmt: skip
        print(f"| {name} | {found:.3f} | {'holds' if holds else 'MISSED'} |")
    print(
        f"\nseed {options.seed}; {recorded - start:.0f} s of simulation, "
        f"{trained - recorded:.0f} s of training on {jax.devices()[0].device_kind}"
    )
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    detector_report.write(out, watched, late, JOINTS)
    print(f"{out / 'confusion.csv'}, {out / 'detector.png'}")


if __name__ == "__main__":
    main(sys.argv[1:])
