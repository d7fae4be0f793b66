"""The grid on the toy with untrained networks, and its numbers from trails made by hand."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from configs.quadruped import QuadrupedConfig
from corrkd_jax.errors import InputError
from envs.faults import HEALTHY, LOCKED, POWER_LOSS
from tests.train.control.tiny_quadruped import TINY, untrained
from train import evaluate, quadruped
from train.control import evaluate as quadruped_evaluate
from train.control import grid, grid_figures, grid_report, robots, scores
from train.control.evaluate import EvaluateOptions
from train.control.report import BLIND, LEARNED, ORACLE

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
    low, high = row.interval
    assert 0 <= low < 0.75 < high <= 1


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
    getattr(grid_figures, f"{name}_figure")(tmp_path / "x.png", rows)
    with Image.open(tmp_path / "x.png") as image:
        assert np.ptp(np.asarray(image.convert("L"))) > 100


def test_the_contact_figure_is_of_the_papers_fault(rows, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        grid_figures, "_boxes", lambda path, rows, groups, *_: seen.append((rows, groups))
    )
    grid_figures.contact_figure(tmp_path / "x.png", rows)
    ((own, groups),) = seen
    assert {(row.leg, row.joints) for row in own} == {("", ""), ("FL", "both")}
    np.testing.assert_array_equal(groups(own[0]), own[0].contact[:, 0])
    # not in the grid
    grid_figures.contact_figure(tmp_path / "x.png", [row for row in rows if row.leg != "FL"])
    assert {(row.leg, row.joints) for row in seen[1][0]} == {("", ""), ("FR", "KFE")}


def test_contact_table(rows):
    """The failing leg's foot; in health the mean of the legs that are judged, FR and FL."""
    lines = grid_report.contact_table(rows).splitlines()
    assert lines[0].split("|")[2:5] == [" health, high ", " power loss, high ", " locked, high "]
    cells = lines[2].split("|")
    assert cells[1] == f" {LEARNED} "
    assert cells[2] == " 1.01 s (1.01-1.01); 0.250 -> 0.000 "
    # FR, FL, FR
    assert cells[3].startswith(" 1.35 s (")
    assert cells[3].endswith("; 0.667 -> 0.000 ")


@pytest.fixture(scope="module")
def solo8():
    return robots.build(QuadrupedConfig())


def test_the_quiet_robot(solo8):
    """No noise and pushes, the nominal floor; every torso its own mass, unless that is refused."""
    robot = grid.quiet(solo8)
    assert (robot.env.config.noise, robot.env.config.push_velocity) == (0, 0)
    drawn = robot.vary(jax.random.split(jax.random.PRNGKey(0), 300))
    assert set(drawn) == {"body_mass", "body_inertia"}
    added = drawn["body_mass"] - robot.env.sys.body_mass
    np.testing.assert_allclose((added.min(), added.max()), (-0.2, 1.0), atol=0.02)
    assert not np.delete(added, 1, axis=1).any()
    assert grid.quiet(solo8, added_mass=False).vary(None) == {}


def test_masses_reach_the_physics(solo8, monkeypatch):
    """One step of two robots that differ by their masses alone."""
    robot = grid.quiet(solo8)
    seen = []
    monkeypatch.setattr(type(robot.env), "step", lambda env, state, action: seen.append(env))
    masses = robot.env.sys.body_mass + 1
    robot.step({"body_mass": masses}, None, None)
    np.testing.assert_array_equal(seen[0].sys.body_mass, masses)
    assert seen[0].config.noise == 0


def test_interval_is_the_binomials():
    groups = np.random.default_rng(1).binomial(100, 0.8, 32) / 100
    low, high = scores.interval(groups)
    half = 1.96 * groups.std() / 32**0.5
    assert (low, high) == pytest.approx((groups.mean() - half, groups.mean() + half), abs=0.003)


def test_cells_of_the_real_robot():
    robot = SimpleNamespace(name="solo8", joints=8)
    cells = grid.cells(robot, ("FL", "HR"), ("HFE", "both"))
    assert [cell.kind for cell in cells] == [HEALTHY] + [POWER_LOSS] * 4 + [LOCKED] * 4
    assert [(cell.leg, cell.joints) for cell in cells[1:3]] == [("FL", "HFE"), ("FL", "both")]
    assert np.flatnonzero(cells[1].power_loss).tolist() == [0]
    assert np.flatnonzero(cells[8].locked).tolist() == [6, 7]
    assert not any(cell.power_loss.any() and cell.locked.any() for cell in cells)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The command, from a run's folder to its files."""
    loaded = untrained(replace(TINY, robot="surrogate", arms=("ours", "mix")))
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.json").write_text(json.dumps({"program": "quadruped"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quadruped, "load", lambda folder: loaded)
        # four of a policy's six cells in a call, so that the second is padded
        patch.setattr(quadruped_evaluate, "AT_ONCE", 32)
        evaluate.main([str(folder), "--num-envs", "8", "--speeds", "high"])
    return folder, json.loads((folder / "evaluation.json").read_text())


def test_every_policy_in_every_cell(evaluated):
    _, found = evaluated
    cells = {(r["policy"], r["kind"], r["onset"]) for r in found["rows"]}
    policies = (ORACLE, LEARNED, BLIND, "Mix (one network)")
    assert cells == {
        (policy, kind, onset)
        for policy in policies
        for kind in range(3)
        for onset in ("anywhere", "strict")
    }
    facts = found["facts"]
    assert facts["robot"] == "surrogate"
    assert facts["seed"] == 1
    assert len(facts["model"]) == 16
    assert facts["backend"] == "cpu"
    for row in found["rows"]:
        assert row["survival"] == pytest.approx(np.mean(row["groups"]))
        assert row["contact"] is None
    health = found["detector"]["heads"][0][HEALTHY]
    assert sum(health) > 0
    assert found["detector"]["names"] == ["leg 1", "leg 2", "leg 3", "leg 4"]
    # the run wrote no times down
    (rate,) = found["throughput"]
    assert rate["what"] == "evaluation"
    assert rate["steps"] == 4 * 6 * 8 * 400
    assert rate["control_steps_a_second"] == pytest.approx(rate["steps"] / rate["seconds"])


def test_a_switch_changes_nothing_in_health(evaluated):
    """Oracle, healthy head and Mix's one head are the same untrained head, on the same robots."""
    _, found = evaluated
    speeds = [
        r["aligned"]["speed"]
        for r in found["rows"]
        if r["kind"] == HEALTHY and r["onset"] == "strict" and r["policy"] != LEARNED
    ]
    assert len(speeds) == 3
    assert speeds[0] == speeds[1] == speeds[2]


def test_writes_tables_and_figures(evaluated):
    folder, _ = evaluated
    text = (folder / "evaluation.md").read_text()
    assert "4 s survived from it on" in text
    assert "macro F1 of the joints" in text
    assert "| evaluation |" in text
    figures = ("survival", "tracking", "onset", "detector", "throughput")
    for name in (*(f"{name}.png" for name in figures), "confusion.csv", "confusion_heads.csv"):
        assert (folder / name).stat().st_size > 50


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (EvaluateOptions(legs=("XL",)), "--legs XL: choose from FL, FR"),
        (EvaluateOptions(joints=("hip",)), "--joints hip: choose from HFE"),
        (EvaluateOptions(speeds=()), "--speeds: name at least one"),
        (EvaluateOptions(num_envs=-1), "--num-envs -1: must not be negative"),
    ],
)
def test_refuses(options, says):
    with pytest.raises(InputError, match=says):
        quadruped_evaluate.check(options)
