"""What a run says of its training alone, from metrics made by hand."""

import numpy as np
import pytest

from tests.train.figures import assert_nothing_hidden
from train.control import training_report
from train.control.report import NAMES
from train.engine.report import drawn


def row(epoch, arm="ours", stage="policies", **metrics):
    """Of two seeds; the second always has half of the first one's values."""
    values = {
        "valid_score": 0.1,
        **{f"valid_survival_{group}": 0.5 for group in training_report.GROUPS},
        **{f"valid_reward_{group}": 0.02 for group in training_report.GROUPS},
        **{f"valid_ended_{group}": 0.01 for group in training_report.GROUPS},
        "train_missed_speed": 0.2,
        "train_commanded_speed": 0.58,
    }
    if stage == "detector":
        values = {f"valid_recall_{name}": 0.8 for name in ("health", "power_loss", "locked")}
        values["valid_score"] = 0.1
    values |= metrics
    pairs = {name: x if isinstance(x, list) else [x, x / 2] for name, x in values.items()}
    arms = {} if stage in ("detector", "tuned") else {"arm": arm}
    return {"stage": stage, "epoch": epoch, **arms, **pairs}


def cells(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]


def test_each_seed_is_shown_at_the_epoch_that_it_kept():
    """The first of equal scores; no score that is not a number, nor one of a ramp."""
    metrics = [
        row(0, valid_score=[-1.0, -1.0], valid_survival_healthy=[0.0, 0.0]),
        row(1, valid_score=[0.3, np.nan], valid_survival_healthy=[0.9, 0.0]),
        row(2, valid_score=[0.3, 0.1], valid_survival_healthy=[0.0, 0.7]),
        row(2, arm="normal", valid_score=[9.0, 9.0]),
    ]
    best = training_report.kept(metrics, "policies", "ours")
    assert best["epoch"].tolist() == [1, 2]
    assert best["valid_survival_healthy"].tolist() == [0.9, 0.7]
    ours, normal = cells(training_report.policies_table(metrics, NAMES))
    assert ours[:3] == ["ours", "2, 3", "80.00 ± 14.14"]
    assert ours[5:] == ["15.00 ± 7.07"] * 3
    # robots that never fail have no survival of faults
    assert normal[3:5] == normal[6:] == ["-", "-"]


def test_survival_is_not_known_before_an_episode_has_ended():
    none = row(0, valid_survival_locked=[1.0, 1.0], valid_ended_locked=[0.0, 0.0])
    one = row(0, valid_survival_locked=[1.0, 0.4], valid_ended_locked=[0.0, 0.1])
    ((*_, locked, _, _, _),) = cells(training_report.policies_table([none], NAMES))
    assert locked == "-"
    ((*_, locked, _, _, _),) = cells(training_report.policies_table([one], NAMES))
    assert locked == "40.00"
    assert np.isnan(training_report.survival(none, "locked")).all()


@pytest.mark.parametrize(
    ("missed", "verdict"), [(0.13, "walks"), (0.28, "walks"), (0.3, "DOES NOT WALK")]
)
def test_whether_it_walks_is_said_of_every_seed(missed, verdict):
    """Against what standing still would miss."""
    metrics = [
        row(0, train_missed_speed=[missed, 0.58], train_commanded_speed=[0.58, 0.58]),
        row(1, stage="tuned", train_missed_speed=[0.1, 0.1], train_commanded_speed=[0.5, 0.5]),
    ]
    first, second, tuned, _ = cells(training_report.walking_table(metrics, NAMES, range(7, 9)))
    assert first == ["ours, seed 7", f"{missed:.2f}", "0.58", verdict]
    assert second == ["ours, seed 8", "0.58", "0.58", "DOES NOT WALK"]
    assert tuned == ["ours, tuned, seed 7", "0.10", "0.50", "walks"]


def test_a_run_that_an_earlier_version_began():
    old = row(0)
    for name in ("train_missed_speed", "train_commanded_speed", "valid_ended_locked"):
        del old[name]
    assert training_report.walking_table([old, row(1)], NAMES, range(1, 3)) == ""
    assert training_report.survival(old, "locked").tolist() == [0.5, 0.25]


def test_recall_of_the_detector():
    assert training_report.recall_table([row(0)]) == ""
    detected = row(0, stage="detector", valid_recall_locked=[0.1, 0.3])
    (line,) = cells(training_report.recall_table([row(0), detected]))
    assert line[1:] == ["60.00 ± 28.28", "60.00 ± 28.28", "20.00 ± 14.14"]


@pytest.mark.parametrize("detected", [True, False])
def test_figure_draws_faults_of_arms_that_have_some(detected):
    metrics = [row(epoch, arm=arm) for arm in NAMES if arm != "tuned" for epoch in range(3)]
    metrics += [row(epoch, stage="detector") for epoch in range(3) if detected]
    figure = training_report.figure(metrics, NAMES)
    assert_nothing_hidden(figure)
    policies, detector = figure.axes
    labels = [line.get_label() for line in policies.lines]
    assert [label for label in labels if label.startswith("Normal")] == [
        "Normal (healthy only), health"
    ]
    assert len(labels) == 3 * 3 + 1
    assert detector.get_visible() == detected
    assert len(drawn(figure)) > 5000
