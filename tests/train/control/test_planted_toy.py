"""The toy as `python -m train.quadruped` runs it, one seed: it learns what it was planted for."""

import contextlib
import io
import json

import numpy as np
import pytest

from train.control import program as quadruped
from train.control.report import BLIND, LEARNED, ORACLE

BARE = "no reflection, oracle switch"
HEALTH, POWER_LOSS, LOCKED = range(3)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted") / "run"
    options = ["--seeds", "1", "--devices", "1", "--workdir", str(folder)]
    with contextlib.redirect_stdout(io.StringIO()):
        quadruped.main([*options, "--arms", "ours", "no-reflection"])
    assert "MISSED" not in (folder / "report.md").read_text()
    return json.loads((folder / "results.json").read_text())


def survival(results, row):
    """By condition."""
    return np.array(results["rows"][row]["survival"])[0]


def test_heads_save_whom_the_healthy_one_fells(results):
    told, blind = survival(results, ORACLE), survival(results, BLIND)
    assert told[HEALTH] >= 0.98
    assert told[POWER_LOSS] >= 0.95
    assert blind[POWER_LOSS] <= 0.25
    # locking is benign on this toy
    assert blind[LOCKED] >= 0.95


def test_the_detector_loses_little(results):
    lost = survival(results, ORACLE) - survival(results, LEARNED)
    assert (lost <= 0.05).all()
    assert results["detector"]["alarms_a_minute"][0] <= 1


def test_reflection_costs_nothing(results):
    assert (survival(results, ORACLE) - survival(results, BARE) >= -0.02).all()


def test_faulty_episodes_begin_where_their_partners_are(results):
    """And without reflection they do not: the negative control."""
    (copied,), (bare,) = (results["reflection"][rho] for rho in ("1.0", "0.0"))
    # of samples from one distribution one in a thousand is refused
    assert min(copied["p"]) > 1e-3
    assert np.abs(copied["difference"]).max() < 0.05
    assert bare["p"][0] < 0.01
    assert bare["difference"][0] < -0.3
