"""Section 9.5's margins, with less data than `python -m benchmarks.detector` takes."""

import csv
import io

import jax
import numpy as np
import pytest

from corrkd_jax.models.detector import FaultDetector
from envs.faults import LOCKED, POWER_LOSS
from envs.solo8_constants import JOINTS
from envs.switching import Rule
from train.control import detector_report
from train.control.evaluation import hung
from train.control.watching import macro_f1
from train.engine.report import drawn, write_picture

# a whole training of the detector
pytestmark = pytest.mark.seconds(150)


@pytest.fixture(scope="module")
def evaluated():
    train, test = hung.recordings(np.random.default_rng(0), robots=300, evaluated=30, minutes=4)
    detector = FaultDetector(len(JOINTS), hidden=32)
    params = hung.fit(detector, train, jax.random.key(0), updates=1500, batch=256)
    return hung.evaluate(detector, params, test, Rule())


def test_knows_each_joints_condition_half_a_second_after_the_onset(evaluated):
    _, late = evaluated
    assert late.shape == (8, 3, 3)
    assert macro_f1(late).min() >= 0.97


def test_is_quick(evaluated):
    watched, _ = evaluated
    delays = [watched.delays[kind] for kind in (POWER_LOSS, LOCKED)]
    assert np.median(np.concatenate(delays)) <= 0.2
    assert min(delay.min() for delay in delays) >= 0.06  # three steps


def test_does_not_cry_wolf(evaluated):
    watched, _ = evaluated
    assert watched.alarms[0] <= 1


def test_report(evaluated, tmp_path):
    watched, late = evaluated
    detector_report.write(tmp_path, watched, late, JOINTS)
    write_picture(tmp_path / "detector.png", drawn(detector_report.figure(watched, late, JOINTS)))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "confusion.csv").read_text())))
    assert [row["joint"] for row in rows[::3]] == [*JOINTS, "all"]
    assert int(rows[3]["health"]) == late[1, 0, 0]
    assert int(rows[5]["power loss"]) == late[1, 2, 1]
    assert int(rows[-1]["locked"]) == late[:, 2, 2].sum()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "confusion_heads.csv").read_text())))
    assert [row["true"] for row in rows] == ["health", "power loss", "locked"]
    assert int(rows[2]["health"]) == watched.heads[0, 2, 0]
    assert (tmp_path / "detector.png").stat().st_size > 5000
