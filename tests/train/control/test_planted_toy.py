"""The toy as `python -m train.quadruped` runs it: it learns what it was planted for.

All three seeds of the default run, in a process of its own under the flags of a user. One seed
alone bears no gate on the detector: rounding moves what it costs by a few hundredths.
"""

import json

import numpy as np
import pytest

from tests import xla
from tests.train.sentiment import tiny
from train.control.report import BLIND, LEARNED, ORACLE

# a whole training of three seeds
pytestmark = pytest.mark.seconds(900)

BARE = "no reflection, oracle switch"
SEEDS = 3
HEALTH, POWER_LOSS, LOCKED = range(3)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted") / "run"
    options = ("--evaluation-robots", 256, "--devices", 1, "--workdir", folder)
    tiny.run("train.quadruped", *options, "--arms", "ours", "no-reflection", XLA_FLAGS=xla.DEFAULT)
    missed = [x for x in (folder / "report.md").read_text().splitlines() if "MISSED" in x]
    # one of six p values falls below the report's 0.01 by chance alone in 6 % of runs: judged below
    assert not [x for x in missed if not x.startswith("| from their partners")]
    return json.loads((folder / "results.json").read_text())


def survival(results, row):
    """By seed and condition."""
    found = np.array(results["rows"][row]["survival"])
    assert found.shape == (SEEDS, 3)
    return found


def test_heads_save_whom_the_healthy_one_fells(results):
    told, blind = survival(results, ORACLE), survival(results, BLIND)
    assert (told[:, HEALTH] >= 0.98).all()
    assert (told[:, POWER_LOSS] >= 0.95).all()
    assert (blind[:, POWER_LOSS] <= 0.25).all()
    # locking is benign on this toy
    assert (blind[:, LOCKED] >= 0.95).all()


def test_the_detector_loses_little(results):
    lost = survival(results, ORACLE) - survival(results, LEARNED)
    assert (lost.mean(axis=0) <= 0.05).all()
    assert max(results["detector"]["alarms_a_minute"]) <= 1


def test_reflection_costs_nothing(results):
    cost = survival(results, BARE) - survival(results, ORACLE)
    assert (cost.mean(axis=0) <= 0.02).all()


def test_faulty_episodes_begin_where_their_partners_are(results):
    """And without reflection they do not: the negative control."""
    copied, bare = (results["reflection"][rho] for rho in ("1.0", "0.0"))
    assert len(copied) == len(bare) == SEEDS
    for own, other in zip(copied, bare, strict=True):
        # of samples from one distribution one in a thousand is refused
        assert min(own["p"]) > 1e-3
        assert np.abs(own["difference"]).max() < 0.05
        assert other["p"][0] < 0.01
        assert other["difference"][0] < -0.3
