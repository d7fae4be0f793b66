"""The numbers of a cell and their tables and figures, from trails made by hand."""

import numpy as np
import pytest
from PIL import Image

from envs.faults import HEALTHY, LOCKED, POWER_LOSS
from envs.solo8_constants import LEGS
from tests.train.figures import assert_nothing_hidden
from train.control.evaluation import grid, grid_figures, grid_report, scores
from train.control.report import BLIND, LEARNED
from train.control.solo8 import Solo8
from train.control.surrogate import Surrogate
from train.control.throughput import Rate
from train.engine.report import drawn

CELL = grid.Cell(POWER_LOSS, "FR", "both", np.zeros(8, bool), np.zeros(8, bool))


def trail(onset, falls, robots=4, steps=400):
    """Robots that miss 0.1 m/s until the onset and 0.3 afterwards.

    `falls`: robot -> first step before which it no longer stands.
    """
    step = np.tile(np.arange(steps)[:, None], (1, robots))
    last = np.full(robots, steps + 1)
    last[list(falls)] = list(falls.values())
    since = step - onset
    standing = np.zeros((steps, robots, 4), bool)
    standing[:100, :, 1] = True
    return {
        "alive": step < last,
        "stood": step < last - 1,
        "step": step,
        "onset": np.full((steps, robots), onset),
        "speed": np.where(since < 0, 0.5, -0.2),
        "missed_speed": np.where(since < 0, 0.1, -0.3),
        "missed_yaw": np.zeros((steps, robots)),
        "tilt": np.where(since < 0, -0.1, 0.4),
        "standing": standing,
        "reward": np.where(step < last, 0.01, 0),
        "head": np.where(since < 10, HEALTHY, POWER_LOSS) * np.ones(robots, int),
    }


def test_survival_and_its_strict_form():
    # the one falls 4.1 s after the onset, the other a second after it
    each = trail(100, {0: 305, 1: 150})
    row = scores.summarize(each, 0.02, "x", CELL, "high", "anywhere")
    assert row.groups.tolist() == [0, 0, 1, 1]
    row = scores.summarize(each, 0.02, "x", CELL, "high", "strict")
    assert row.groups.tolist() == [1, 0, 1, 1]
    assert (row.survived, row.robots) == (3, 4)
    # Wilson's of 3 of 4: a zero of the quadratic in p, (0.75 - p)^2 = 1.96^2 p (1 - p) / 4
    for p in row.interval:
        assert (0.75 - p) ** 2 == pytest.approx(1.95996**2 * p * (1 - p) / 4, abs=1e-4)


def test_robots_that_do_not_fill_their_groups_evenly_count_once_each():
    """Of 33 robots one falls: 32 of 33, whatever the mean of the 32 groups is."""
    row = scores.summarize(trail(100, {0: 150}, robots=33), 0.02, "x", CELL, "high", "anywhere")
    assert (row.survived, row.robots) == (32, 33)
    assert row.groups.mean() == pytest.approx(31.5 / 32)


@pytest.mark.parametrize("onset", ["anywhere", "strict"])
def test_a_fall_in_the_last_step_counts(onset):
    """Of the episode, or of the four seconds from the onset on: here both end with step 399."""
    falls = {0: 400, 1: 401, 2: 399}
    row = scores.summarize(trail(200, falls), 0.02, "x", CELL, "high", onset)
    assert row.groups.tolist() == [0, 1, 0, 1]
    if onset == "strict":
        row = scores.summarize(trail(100, {0: 300, 1: 301}), 0.02, "x", CELL, "high", onset)
        assert row.groups.tolist() == [0, 1, 1, 1]


def test_tracking():
    row = scores.summarize(trail(100, {}), 0.02, "x", CELL, "high", "anywhere")
    assert row.missed_speed == pytest.approx([0.1, 0.3])
    assert row.missed_yaw == [0, 0]
    assert row.reward == pytest.approx(4.0)
    seconds = np.array(row.aligned["seconds"])
    assert (seconds[0], seconds[-1]) == (-1, 2)
    np.testing.assert_allclose(np.array(row.aligned["speed"]), np.where(seconds < 0, 0.5, -0.2))
    np.testing.assert_allclose(np.array(row.aligned["tilt"]), np.where(seconds < 0, 0.1, 0.4))
    # nobody stands from one second after the onset on
    gone = scores.summarize(trail(100, dict.fromkeys(range(4), 120)), 0.02, "x", CELL, "high", "")
    assert gone.missed_speed == [pytest.approx(0.1), None]


def test_contact_is_now_or_a_step_ago_until_the_fall():
    each = trail(100, {0: 51, 1: 101})
    row = scores.summarize(each, 0.02, "x", CELL, "high", "anywhere")
    # the second leg stands for 100 steps and is counted for one more; a fall ends the count
    np.testing.assert_allclose(row.contact[:, 1], [1.02, 2.02, 2.02, 2.02])
    assert not row.contact[:, [0, 2, 3]].any()
    each["standing"] = np.zeros((400, 4, 4), bool)
    each["standing"][::3, :, 1] = True
    row = scores.summarize(each, 0.02, "x", CELL, "high", "anywhere")
    np.testing.assert_allclose(row.contact[2:, 1], 0.02 * 267)


def test_share_of_the_time_that_a_foot_is_loaded():
    """One second before the onset, the seconds 1 to 3 after it, and who stands."""
    each = trail(100, {0: 160})
    each["standing"] = np.zeros((400, 4, 4), bool)
    each["standing"][75:100, :, 1] = True
    each["standing"][150:160, 0, 1] = True  # of the one that falls
    each["standing"][170:189, 1, 1] = True
    row = scores.summarize(each, 0.02, "x", CELL, "high", "anywhere")
    assert row.loaded == pytest.approx([0.5, (10 + 20) / (10 + 3 * 100)])
    # in health a fault strikes nobody: all four feet
    health = CELL._replace(kind=HEALTHY, leg="", joints="")
    row = scores.summarize(each, 0.02, "x", health, "high", "anywhere")
    assert row.loaded[0] == pytest.approx(0.5 / 4)


@pytest.mark.parametrize(("number", "leg"), list(enumerate(LEGS)))
def test_the_share_is_of_the_foot_of_the_leg_that_fails(number, leg):
    each = trail(100, {})
    each["standing"] = np.zeros((400, 4, 4), bool)
    each["standing"][100:, :, number] = True
    cell = CELL._replace(leg=leg)
    row = scores.summarize(each, 0.02, "x", cell, "high", "anywhere")
    assert row.loaded == [0, 1]
    assert not np.delete(row.contact, number, axis=1).any()


def test_groups_of_a_hundred():
    robots = np.repeat(np.arange(32), 100)
    groups = scores.in_groups(robots)
    assert [group.tolist() for group in groups] == [[i] * 100 for i in range(32)]


def test_gait_is_of_the_robot_that_stands_longest():
    each = trail(90, {0: 100, 1: 300, 2: 299, 3: 120})
    each["standing"][:, 1, 3] = True
    gait = scores.gait(each, 0.02)
    assert (gait.seconds[0], gait.seconds[-1], len(gait.seconds)) == (-1, 3, 201)
    assert gait.standing[:, 3].all()
    # the window begins with step 40
    np.testing.assert_array_equal(gait.standing[:, 1], np.arange(201) < 60)
    assert gait.alive.all()
    assert gait.switched == pytest.approx(0.2)


def test_no_gait_without_time_on_both_sides():
    assert scores.gait(trail(30, {}), 0.02) is None
    assert scores.gait(trail(260, {}), 0.02) is None


@pytest.fixture(scope="module")
def rows():
    """Two policies, a leg with two sets of joints and another, and health."""
    cells = [
        CELL._replace(kind=kind, leg=leg, joints=joints)
        for kind in (POWER_LOSS, LOCKED)
        for leg, joints in (("FR", "KFE"), ("FL", "both"), ("FR", "both"))
    ]
    cells.insert(0, CELL._replace(kind=HEALTHY, leg="", joints=""))
    return [
        scores.summarize(trail(100, {}), 0.02, policy, cell, "high", "anywhere")
        for policy in (LEARNED, BLIND)
        for cell in cells
    ]


@pytest.mark.parametrize("name", ["survival", "contact", "tracking", "aligned", "map", "gait"])
def test_figures(rows, tmp_path, name):
    figure = getattr(grid_figures, f"{name}_figure")(rows)
    assert_nothing_hidden(figure)
    (tmp_path / "x.png").write_bytes(drawn(figure))
    with Image.open(tmp_path / "x.png") as image:
        assert np.ptp(np.asarray(image.convert("L"))) > 100


def test_the_contact_figure_is_of_the_papers_fault(rows, monkeypatch):
    seen = []
    monkeypatch.setattr(
        grid_figures, "_boxes", lambda rows, groups, *_: seen.append((rows, groups))
    )
    grid_figures.contact_figure(rows)
    ((own, groups),) = seen
    assert {(row.leg, row.joints) for row in own} == {("", ""), ("FL", "both")}
    np.testing.assert_array_equal(groups(own[0]), own[0].contact[:, 0])
    # not in the grid
    grid_figures.contact_figure([row for row in rows if row.leg != "FL"])
    assert {(row.leg, row.joints) for row in seen[1][0]} == {("", ""), ("FR", "KFE")}


def test_survival_table_by_policy_condition_and_speed():
    """Each cell of the table from its own rows, with the interval of their groups."""
    row = scores.summarize(trail(100, {}), 0.02, "x", CELL, "high", "anywhere")
    row = row._replace(robots=3200)
    rows = [
        row._replace(survived=2240),
        row._replace(survived=2304, leg="FL"),
        row._replace(survived=3200, speed="middle"),
        row._replace(survived=0, policy="y"),
        row._replace(survived=16, robots=16, policy="y", speed="middle"),
    ]
    # a grid has all conditions
    rows += [
        row._replace(kind=kind, survived=3200, policy=policy, speed=speed)
        for kind in (HEALTHY, LOCKED)
        for policy in ("x", "y")
        for speed in ("high", "middle")
    ]
    head, _, *lines = grid_report.survival_table(rows).splitlines()
    names = [cell.strip() for cell in head.split("|")[4:6]]
    assert names == ["power loss, high", "power loss, middle"]
    # Wilson's: 4544 of 6400; of all or none it does not collapse
    cells = [cell.strip() for cell in lines[0].split("|")[4:6]]
    assert cells == ["71.0 (69.9-72.1)", "100.0 (99.9-100.0)"]
    cells = [cell.strip() for cell in lines[1].split("|")[4:6]]
    assert cells == ["0.0 (0.0-0.1)", "100.0 (80.6-100.0)"]


def test_cells_table_has_every_fault_leg_and_set_of_joints(rows):
    rows = [row._replace(groups=np.full(32, number / 100)) for number, row in enumerate(rows)]
    slow = [row._replace(speed="middle", groups=row.groups + 0.5) for row in rows]
    both = [row for pair in zip(slow, rows, strict=True) for row in pair]

    def survival(row):
        return f"{100 * row.groups.mean():.0f}"

    head, _, *lines = grid_report.cells_table(both, survival).splitlines()
    assert head == f"| fault, leg, joints | {LEARNED} | {BLIND} |"
    expected = [
        "power loss, FR, KFE | 51; 1 | 58; 8",
        "power loss, FL, both | 52; 2 | 59; 9",
        "power loss, FR, both | 53; 3 | 60; 10",
        "locked, FR, KFE | 54; 4 | 61; 11",
        "locked, FL, both | 55; 5 | 62; 12",
        "locked, FR, both | 56; 6 | 63; 13",
    ]
    assert lines == [f"| {text} |" for text in expected]


@pytest.mark.parametrize("kind", [Solo8(), Surrogate()], ids=lambda kind: kind.name)
def test_the_page_of_an_evaluation(rows, tmp_path, kind):
    """SOLO8's stands beside the paper's; cell by cell, survival and what is missed."""
    rates = [Rate("evaluation", 10, 1.0, "a CPU")]
    evaluation = grid_report.Evaluation(rows, None, rates)
    grid_report.write(tmp_path, {"run": "x", "robot": kind.name}, evaluation, kind)
    text = (tmp_path / "evaluation.md").read_text()
    assert ("The paper's robots" in text) == (kind.name == "solo8")
    survival, missed = text.split("## Cell by cell")[1].split("Speed missed")
    assert f"| power loss, FR, KFE | {100 * rows[1].groups.mean():.1f} |" in survival
    assert "| power loss, FR, KFE | 0.300 |" in missed


def test_tracking_table_and_figure(rows):
    (text,) = {line.split("|")[3] for line in grid_report.tracking_table(rows).splitlines()[2:]}
    assert text == " 0.100 -> 0.300 m/s; 0.000 -> 0.000 rad/s "
    figure = grid_figures.tracking_figure(rows)
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    faces = [(line.get_markerfacecolor() == "white", *line.get_xdata()) for line in marks]
    # three cells and two policies; and the legend's empty lines
    found = sorted((white, round(float(x), 3)) for white, *at in faces for x in at)
    assert found == [(False, 0.3)] * 6 + [(True, 0.1)] * 6


def test_contact_table(rows):
    """The failing leg's foot; in health the mean of the legs that are evaluated, FR and FL."""
    lines = grid_report.contact_table(rows).splitlines()
    assert lines[0].split("|")[2:5] == [" health, high ", " power loss, high ", " locked, high "]
    cells = lines[2].split("|")
    assert cells[1] == f" {LEARNED} "
    assert cells[2] == " 1.01 s (1.01-1.01); 0.250 -> 0.000 "
    # FR, FL, FR
    assert cells[3].startswith(" 1.35 s (")
    assert cells[3].endswith("; 0.667 -> 0.000 ")


def test_interval_is_the_binomials():
    groups = np.random.default_rng(1).binomial(100, 0.8, 32) / 100
    low, high = scores.interval(groups)
    half = 1.96 * groups.std() / 32**0.5
    assert (low, high) == pytest.approx((groups.mean() - half, groups.mean() + half), abs=0.003)
