"""What a detector is evaluated by, from trails made by hand."""

import json

import numpy as np
import pytest

from envs.faults import HEALTHY, LOCKED, POWER_LOSS
from tests.train.figures import assert_nothing_hidden
from train.control import detector_report
from train.control.episodes import Episodes
from train.control.watching import macro_f1, measure

STEPS, DT = 200, 0.02


def episodes(kind, onset, found=None, falls=STEPS, says=None):
    """One robot with two joints, the first of which fails; the switch comes with step `found`."""
    step = np.arange(STEPS)[:, None]
    true = np.zeros((STEPS, 1, 2), int)
    true[onset + 1 :, 0, 0] = kind
    verdict = np.zeros_like(true)
    if found is not None:
        verdict[found:, 0, 0] = kind if says is None else says
    trail = {
        "alive": step < falls,
        "step": step,
        "onset": np.full((STEPS, 1), onset),
        "true": true,
        "verdict": verdict,
        "head": verdict.max(axis=-1),
    }
    return Episodes(np.ones(1, bool), np.zeros(1), trail)


def test_counts_by_joint_and_by_robot():
    found = [episodes(HEALTHY, 0), episodes(POWER_LOSS, 50, 60), episodes(LOCKED, 100, 180, 190)]
    watched = measure([found], DT)
    assert watched.joints.shape == (1, 2, 3, 3)
    power_loss, locked = watched.joints[0, 0, POWER_LOSS], watched.joints[0, 0, LOCKED]
    # at work from step 51 on, and seen from step 60 on
    assert power_loss.tolist() == [9, 140, 0]
    # only until the fall before step 190
    assert locked.tolist() == [79, 0, 10]
    # the second joint is well
    assert watched.joints[0, 1, HEALTHY].tolist() == [2 * STEPS + 190, 0, 0]
    assert not watched.joints[0, 1, 1:].any()
    # and never fails, so that its health is counted apart
    assert watched.failing.tolist() == [True, False]
    np.testing.assert_array_equal(watched.confusion, watched.joints[:, 0])
    np.testing.assert_array_equal(watched.never_failing, watched.joints[:, 1])
    assert watched.heads[0, POWER_LOSS].tolist() == [9, 140, 0]
    assert watched.heads[0, HEALTHY].tolist() == [STEPS + 51 + 101, 0, 0]
    assert watched.heads[0].sum() == 2 * STEPS + 190


@pytest.mark.parametrize("joint", [0, 1])
@pytest.mark.parametrize("kind", [POWER_LOSS, LOCKED])
def test_whichever_joint_fails(joint, kind):
    """Its counts are its own, and the robot's condition is that of its worst joint."""
    found = [episodes(HEALTHY, 0), episodes(POWER_LOSS, 0), episodes(LOCKED, 0)]
    found[kind] = episodes(kind, 50, 60)
    for name in ("true", "verdict"):
        found[kind].trail[name] = np.roll(found[kind].trail[name], joint, axis=-1)
    for other in {POWER_LOSS, LOCKED} - {kind}:
        found[other] = episodes(HEALTHY, 0)
    watched = measure([found], DT)
    expected = [0, 0, 0]
    expected[HEALTHY], expected[kind] = 9, 140
    assert watched.joints[0, joint, kind].tolist() == expected
    assert watched.heads[0, kind].tolist() == expected
    assert not watched.joints[0, 1 - joint, 1:].any()
    assert watched.failing.tolist() == [joint == 0, joint == 1]


def test_the_first_half_second_may_be_left_out():
    found = [episodes(HEALTHY, 0), episodes(POWER_LOSS, 50, 60), episodes(LOCKED, 100, 126)]
    watched = measure([found], DT)
    assert watched.settled[0, 0, POWER_LOSS].tolist() == [0, STEPS - 76, 0]
    assert watched.settled[0, 0, LOCKED].tolist() == [0, 0, STEPS - 126]
    np.testing.assert_array_equal(watched.settled_confusion, watched.settled[:, 0])


def test_delays():
    found = [episodes(HEALTHY, 0), episodes(POWER_LOSS, 50, 60), episodes(LOCKED, 100)]
    watched = measure([found], DT)
    np.testing.assert_allclose(watched.delays[POWER_LOSS], [10 * DT])
    assert watched.delays[LOCKED].tolist() == [np.inf]
    # another head does not count; who fell before it, or has too little time left, is not asked
    wrong = episodes(POWER_LOSS, 50, 60, says=LOCKED)
    fallen, late = episodes(LOCKED, 100, falls=100), episodes(LOCKED, STEPS - 25)
    watched = measure([[found[0], wrong, fallen], [found[0], found[1], late]], DT)
    np.testing.assert_allclose(watched.delays[POWER_LOSS], [np.inf, 10 * DT])
    assert not len(watched.delays[LOCKED])


def test_a_head_that_drove_before_the_fault_is_not_late():
    early = episodes(LOCKED, 100, 50)
    watched = measure([[episodes(HEALTHY, 0), episodes(POWER_LOSS, 50, 60), early]], DT)
    assert watched.delays[LOCKED].tolist() == [0]


def test_json_has_no_infinity():
    found = [episodes(HEALTHY, 0), episodes(POWER_LOSS, 50, 60), episodes(LOCKED, 100)]
    written = detector_report.to_json(measure([found], DT))
    json.dumps(written, allow_nan=False)
    assert written["delays"] == {"power loss": [pytest.approx(10 * DT)], "locked": [None]}
    assert np.shape(written["joints"]) == (1, 2, 3, 3)
    assert np.shape(written["settled"]) == np.shape(written["confusion"]) == (1, 3, 3)
    assert written["may_fail"] == [True, False]


def test_false_alarms_a_minute():
    """A switch away from health counts once however long it lasts, and none after the fall."""
    well = episodes(HEALTHY, 0, falls=150)
    for at in (slice(10, 20), slice(40, 41), slice(160, 170)):
        well.trail["head"][at] = LOCKED
    watched = measure([[well, *(episodes(kind, 0) for kind in (POWER_LOSS, LOCKED))]], DT)
    np.testing.assert_allclose(watched.alarms, [60 * 2 / (150 * DT)])


def test_macro_f1():
    confusion = np.array([[8, 2, 0], [2, 8, 0], [0, 0, 10]])
    np.testing.assert_allclose(macro_f1(confusion), (0.8 + 0.8 + 1) / 3)


def cells_of(text):
    return {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    }


def test_health_of_joints_that_never_fail_is_told_apart():
    """Pooled, the joint that nothing ever struck would hide what the other one's health is."""
    well = episodes(HEALTHY, 0)
    well.trail["verdict"][:50, 0, 0] = LOCKED  # wrong for a second
    power_loss, locked = episodes(POWER_LOSS, 50, 51), episodes(LOCKED, 100, 101)
    watched = measure([[well, power_loss, locked]], DT)
    intro, joints, *_ = detector_report.tables(watched, ("hip", "knee"))
    assert intro.startswith("Joints that may fail here: hip.")
    rows = cells_of(joints)
    assert rows["health"] == ["85.80", "0.00", "14.20", "352"]
    assert rows["health, joints that never fail"] == ["100.00", "0.00", "0.00", "600"]
    # no fault at all: every joint counts
    well = measure([[well, episodes(HEALTHY, 0), episodes(HEALTHY, 0)]], DT)
    assert well.failing.all()
    assert "never fail" not in "".join(detector_report.tables(well, ("hip", "knee")))


def test_a_switch_that_never_came_is_said_in_words():
    """One of three robots without power had its head; none that locked; and no number is inf."""
    seen = [
        [episodes(HEALTHY, 0), episodes(POWER_LOSS, 50, found), episodes(LOCKED, 100)]
        for found in (60, None, None)
    ]
    *tables, words = detector_report.tables(measure(seen, DT), ("hip", "knee"))
    rows = cells_of(tables[-1])
    name = "switch to the head for power loss"
    assert rows[f"{name}: robots that had it, x 100"] == ["33.3 (6.1-79.2) of 3"]
    assert rows[f"{name}: half of the robots"] == ["never: too few had it"]
    assert rows["switch to the head for locked: robots that had it, x 100"] == [
        "0.0 (0.0-56.1) of 3"
    ]
    assert "inf" not in "".join(tables)
    assert "never had its head: power loss, locked." in words
    # where most had it, there is nothing to explain
    seen = [[episodes(HEALTHY, 0), episodes(POWER_LOSS, 50, 60), episodes(LOCKED, 100, 105)]]
    *tables, words = detector_report.tables(measure(seen, DT), ("hip", "knee"))
    rows = cells_of(tables[-1])
    assert rows[f"{name}: half of the robots"] == ["within 0.20 s"]
    assert rows["switch to the head for locked: 90 % of the robots"] == ["within 0.10 s"]
    assert words == ""


def test_figure_hides_nothing():
    seen = [episodes(HEALTHY, 0), episodes(POWER_LOSS, 50, 60), episodes(LOCKED, 100)]
    watched = measure([seen], DT)
    figure = detector_report.figure(watched, watched.by_joint, ("hip", "knee"))
    assert_nothing_hidden(figure)
