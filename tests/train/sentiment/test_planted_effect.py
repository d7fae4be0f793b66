"""The planted task, as `python -m train.msa` runs it: the method does what it was made for.

In a process of its own under the flags of a user, under which the training takes half as long.
"""

import json

import numpy as np
import pytest

from tests import xla
from tests.train.sentiment import tiny
from train.sentiment import corrkd

# a whole training of three seeds
pytestmark = pytest.mark.seconds(600)

ARMS = (corrkd.BASELINE, corrkd.METHOD, corrkd.CONTROL)
SEEDS = 3


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted") / "run"
    options = ("--seeds", SEEDS, "--devices", 1, "--workdir", folder)
    tiny.run("train.msa", "planted", *options, "--arms", *ARMS, XLA_FLAGS=xla.DEFAULT)
    return json.loads((folder / "results.json").read_text())


def average(results, name):
    """Avg column of a row, `[seeds]`, in points."""
    return 100 * np.array(results["rows"][name]["f1"]["sentiment"]["Avg"])


def test_distillation_gains(results):
    """A prototype gained 5.0 points over cross-entropy alone, 4.1 with its worst seed."""
    gain = average(results, corrkd.METHOD) - average(results, corrkd.BASELINE)
    assert len(gain) == SEEDS
    assert gain.mean() >= 3.0
    assert gain.min() > 0.0


def test_training_on_masks_gains_over_zero_filling(results):
    teacher = average(results, corrkd.TEACHER_ROW)
    assert (average(results, corrkd.BASELINE) - teacher).mean() >= 6.0
    assert (average(results, corrkd.METHOD) - teacher).mean() >= 0.0


def test_the_gain_is_gone_when_teacher_rows_belong_to_others(results):
    baseline = average(results, corrkd.BASELINE)
    gain = (average(results, corrkd.METHOD) - baseline).mean()
    assert (average(results, corrkd.CONTROL) - baseline).mean() < gain / 2


@pytest.mark.parametrize("name", [corrkd.TEACHER_ROW, *ARMS])
def test_scores_fall_with_missing_frames_to_a_constant_answer(results, name):
    curve = 100 * np.array(results["rows"][name]["curve_f1"])
    assert curve.shape == (SEEDS, 11)
    complete = 100 * np.array(results["rows"][name]["f1"]["sentiment"]["lav"])
    np.testing.assert_allclose(curve[:, 0], complete, atol=1e-4)
    floors = 100 * np.array(results["constant_f1"][0])
    assert np.abs(curve[:, -1:] - floors).min(axis=1).max() < 1e-3
    assert (np.diff(curve.mean(axis=0)) <= 1.5).all()
    assert curve[:, 0].min() > curve[:, -1].max() + 30
