"""The grid on the toy with untrained networks, and its numbers from trails made by hand."""

import json
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from corrkd_jax.errors import InputError
from envs.faults import HEALTHY, LOCKED, POWER_LOSS
from tests.train.control.tiny_quadruped import TINY, untrained
from train import evaluate
from train.control import finished
from train.control.evaluation import evaluate as quadruped_evaluate
from train.control.evaluation import grid, grid_report, scores
from train.control.evaluation.grid_report import Evaluation
from train.control.report import BLIND, LEARNED, ORACLE
from train.control.surrogate import Surrogate
from train.control.throughput import Rate

KIND = Surrogate()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The command, from a run's folder to its files."""
    loaded = untrained(replace(TINY, robot="surrogate", arms=("ours", "mix")))
    folder, watched = tmp_path_factory.mktemp("run"), []
    measure = quadruped_evaluate.measure
    (folder / "config.json").write_text(json.dumps({"program": "quadruped"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finished, "load_run", lambda folder, switch: loaded)
        # four of a policy's six cells in a call, so that the second is padded
        patch.setattr(quadruped_evaluate, "AT_ONCE", 32)
        # every call takes a second
        patch.setattr(quadruped_evaluate, "time", SimpleNamespace(monotonic=count().__next__))
        patch.setattr(
            quadruped_evaluate,
            "measure",
            lambda found, dt: watched.extend(*found) or measure(found, dt),
        )
        evaluate.main([str(folder), "--num-envs", "8", "--speeds", "high", "--late", "5", "0", "5"])
    return folder, json.loads((folder / "evaluation.json").read_text()), watched


def test_every_policy_in_every_cell(evaluated):
    _, found, _ = evaluated
    cells = {(r["policy"], r["kind"], r["onset"]) for r in found["rows"]}
    policies = (ORACLE, f"{ORACLE}, 5 steps late", LEARNED, BLIND, "Mix (one network)")
    assert cells == {
        (policy, kind, onset)
        for policy in policies
        for kind in range(3)
        for onset in ("anywhere", "strict")
    }
    facts = found["facts"]
    assert facts["robot"] == "surrogate"
    assert facts["seed"] == 1
    assert facts["seeds_of_the_run"].startswith("this one alone")
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
    assert rate["steps"] == 5 * 6 * 8 * 400
    # two calls for each policy
    assert rate["seconds"] == 10
    assert rate["control_steps_a_second"] == rate["steps"] / 10


def test_the_detector_is_evaluated_where_faults_may_strike_anywhere(evaluated):
    """Not by the strict onsets as well; by each condition's robots under its own switch."""
    *_, watched = evaluated
    assert [episodes.trail["true"].shape for episodes in watched] == [(400, 8, 4)] * 3
    assert [episodes.trail["true"].max() for episodes in watched] == [HEALTHY, POWER_LOSS, LOCKED]
    assert max(episodes.trail["onset"].max() for episodes in watched) > 200
    assert all(episodes.trail["verdict"].any() for episodes in watched)


def test_a_switch_changes_nothing_in_health(evaluated):
    """Oracle, healthy head and Mix's one head are the same untrained head, on the same robots."""
    _, found, _ = evaluated
    speeds = [
        r["aligned"]["speed"]
        for r in found["rows"]
        if r["kind"] == HEALTHY and r["onset"] == "strict" and r["policy"] != LEARNED
    ]
    assert len(speeds) == 4
    assert all(other == speeds[0] for other in speeds)


def test_writes_tables_and_figures(evaluated):
    folder, *_ = evaluated
    text = (folder / "evaluation.md").read_text()
    assert "4 s survived from it on" in text
    assert "macro F1 of the joints" in text
    assert "| evaluation |" in text
    figures = ("survival", "tracking", "onset", "detector", "throughput")
    for name in figures:
        assert (folder / "figures" / f"evaluation_{name}.png").stat().st_size > 50
    for name in ("evaluation_confusion.csv", "evaluation_confusion_heads.csv"):
        assert (folder / name).stat().st_size > 50
    page = (folder / "evaluation.html").read_text()
    assert page.count("data:image/png;base64,") == len(figures)
    assert all(f"(figures/evaluation_{name}.png)" in text for name in figures)
    # in words, and as sure as 8 robots make it
    assert "*oracle switch*: the simulator tells of a fault at once" in text
    assert "One that does not walk misses 0.80 m/s at high speed." in text
    assert "0.0 (0.0-0.0)" not in text
    assert "100.0 (100.0-100.0)" not in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--legs XL", "--legs 'XL': choose from 'FL', 'FR'"),
        ("--legs FL HR FL", "--legs 'FL': stands twice"),
        ("--joints hip", "--joints 'hip': choose from 'HFE'"),
        ("--speeds", "--speeds: name at least one"),
        ("--num-envs -1", "--num-envs -1: must not be negative"),
        ("--noise -1", "--noise -1.0: must not be negative"),
        ("--late 2 -1", "--late -1: must not be negative"),
        ("--switch.strike 0", "--switch.strike 0: must be positive"),
        ("--arms ours best", "--arms 'best': choose from 'ours', 'mix'"),
        ("--arms mix mix", "--arms 'mix': stands twice"),
        ("--seed 7", "--seed 7: the run has seeds 1 to 1"),
    ],
)
def test_refuses(tmp_path, monkeypatch, options, says):
    loaded = untrained(replace(TINY, robot="surrogate", arms=("ours", "mix")))
    monkeypatch.setattr(finished, "load_run", lambda folder, switch: loaded)
    with pytest.raises(InputError, match=says):
        quadruped_evaluate.evaluate(tmp_path, options.split())
    assert not list(tmp_path.iterdir())


def test_help_shows_the_robots_own_options(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"program": "quadruped"}))
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([str(tmp_path), "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--num-envs", "--legs", "--no-strict", "--switch.st"))
    assert "--legacy-f1-order" not in text


def fallen():
    """A trail of two robots that lie from the first step on."""
    shape = (400, 2)
    numbers = ("speed", "missed_speed", "tilt", "reward")
    trail = {name: np.zeros(shape) for name in numbers} | {"head": np.zeros(shape, int)}
    flags = {name: np.zeros(shape, bool) for name in ("alive", "stood")}
    step = np.tile(np.arange(400)[:, None], (1, 2))
    return trail | flags | {"step": step, "onset": np.full(shape, 100)}


def test_a_full_disk_is_one_line(evaluated, monkeypatch, tmp_path):
    """Of the page, its figures, the counts and the JSON, whichever comes first to refuse."""
    _, found, _ = evaluated
    rate = Rate("evaluation", 10, 1.0, "a CPU")
    rows = [
        scores.summarize(fallen(), 0.02, ORACLE, cell, "high", "anywhere")
        for cell in grid.cells(KIND, (), ())
    ]
    evaluation = Evaluation(rows, None, [rate])
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match=r"survival\.png: cannot be written: No space left"):
        grid_report.write(tmp_path, found["facts"], evaluation, KIND)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_networks_of_the_seed_are_evaluated(monkeypatch):
    """Policy and detector; every arm its own."""
    loaded = untrained(replace(TINY, robot="surrogate", arms=("ours", "mix"), seeds=2))
    models = {name: {"mark": np.array([n, n + 10.0])} for n, name in enumerate(loaded.arms)}
    loaded = replace(loaded, models=models, detector_params={"mark": np.array([100.0, 200.0])})

    def run(trained, robot, params, detector, course, key, count):
        trail = {name: jax.numpy.asarray(x) for name, x in fallen().items()}
        shape = (*trail["head"].shape, 4)
        trail |= {name: jax.numpy.zeros(shape, int) for name in ("true", "verdict")}
        trail["reward"] = trail["reward"].at[0].set(params["mark"] + detector["mark"])
        # without which the arguments would not be mapped
        return trail | {"speed": trail["speed"] + 0 * course.speed[0]}

    monkeypatch.setattr(grid, "run", run)
    options = quadruped_evaluate.EvaluateOptions(num_envs=2, speeds=("high",), strict=False)
    for seed, expected in ((1, {"ours": 100, "mix": 101}), (2, {"ours": 210, "mix": 211})):
        rows = quadruped_evaluate.evaluate_grid(loaded, loaded.arms, seed, options, 8).rows
        assert {row.policy: row.reward for row in rows} == {
            ORACLE: expected["ours"],
            LEARNED: expected["ours"],
            BLIND: expected["ours"],
            "Mix (one network)": expected["mix"],
        }


def test_a_page_says_of_which_seed_it_is():
    assert quadruped_evaluate.others(range(1, 2), 1).startswith("this one alone")
    text = quadruped_evaluate.others(range(1, 4), 2)
    assert text == "3; this page is of seed 2 alone, --seed N evaluates another (1, 3)"


def test_the_fingerprint_is_of_what_was_evaluated():
    loaded = untrained(replace(TINY, robot="surrogate", arms=("ours", "mix")))
    params = loaded.models, loaded.detector_params
    models, detector = jax.tree.map(lambda x: np.concatenate([x, x + 1]), params)
    config = replace(loaded.config, seeds=2)
    loaded = replace(loaded, config=config, models=models, detector_params=detector)
    both = quadruped_evaluate.fingerprint(loaded, ("ours", "mix"), 1)
    assert both == quadruped_evaluate.fingerprint(loaded, ("ours", "mix"), 1)
    other = replace(loaded, detector_params=jax.tree.map(lambda x: -x, detector))
    rest = [
        quadruped_evaluate.fingerprint(loaded, ("ours", "mix"), 2),
        quadruped_evaluate.fingerprint(loaded, ("ours",), 1),
        quadruped_evaluate.fingerprint(other, ("ours", "mix"), 1),
    ]
    assert len({both, *rest}) == 4
