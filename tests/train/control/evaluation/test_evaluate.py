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
from train.control.evaluation.evaluate import EvaluateOptions
from train.control.report import BLIND, LEARNED, ORACLE


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The command, from a run's folder to its files."""
    loaded = untrained(replace(TINY, robot="surrogate", arms=("ours", "mix")))
    folder, watched = tmp_path_factory.mktemp("run"), []
    measure = quadruped_evaluate.measure
    (folder / "config.json").write_text(json.dumps({"program": "quadruped"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finished, "load", lambda folder, own: loaded)
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


def test_the_detector_is_judged_where_faults_may_strike_anywhere(evaluated):
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
    for name in (*(f"{name}.png" for name in figures), "confusion.csv", "confusion_heads.csv"):
        assert (folder / name).stat().st_size > 50


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (EvaluateOptions(legs=("XL",)), "--legs XL: choose from FL, FR"),
        (EvaluateOptions(joints=("hip",)), "--joints hip: choose from HFE"),
        (EvaluateOptions(speeds=()), "--speeds: name at least one"),
        (EvaluateOptions(num_envs=-1), "--num-envs -1: must not be negative"),
        (EvaluateOptions(noise=-1.0), "--noise -1.0: must not be negative"),
        (EvaluateOptions(late=(2, -1)), "--late -1: must not be negative"),
    ],
)
def test_refuses(options, says):
    with pytest.raises(InputError, match=says):
        quadruped_evaluate.check(options)


def test_the_fingerprint_is_of_what_was_judged():
    loaded = untrained(replace(TINY, robot="surrogate", arms=("ours", "mix")))
    params = loaded.policies, loaded.detector_params
    policies, detector = jax.tree.map(lambda x: np.concatenate([x, x + 1]), params)
    loaded = loaded._replace(policies=policies, detector_params=detector)
    both = quadruped_evaluate.fingerprint(loaded, ("ours", "mix"), 0)
    assert both == quadruped_evaluate.fingerprint(loaded, ("ours", "mix"), 0)
    other = loaded._replace(detector_params=jax.tree.map(lambda x: -x, detector))
    rest = [
        quadruped_evaluate.fingerprint(loaded, ("ours", "mix"), 1),
        quadruped_evaluate.fingerprint(loaded, ("ours",), 0),
        quadruped_evaluate.fingerprint(other, ("ours", "mix"), 0),
    ]
    assert len({both, *rest}) == 4
