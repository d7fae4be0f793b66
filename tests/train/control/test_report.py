"""Verdicts of the toy's report, from numbers made by hand."""

import shlex
from pathlib import Path

import numpy as np
import pytest

from configs.quadruped import PRESETS
from tests.train.control.test_training_report import row as trained
from tests.train.figures import assert_nothing_hidden
from tests.train.pages import assert_believed_alone
from train.control import program, report
from train.control.reflection import Gate
from train.control.report import BLIND, LEARNED, ORACLE, Results, Row, row_name
from train.control.solo8 import Solo8
from train.control.surrogate import Surrogate

OTHER = row_name("no-reflection", "oracle")
GOOD = {
    ORACLE: (1.0, 0.97, 0.99),
    LEARNED: (0.99, 0.94, 0.95),
    BLIND: (1.0, 0.1, 1.0),
    OTHER: (1.0, 0.95, 0.98),
}

REQUIRED = {
    "survival, health": 0.98,
    "survival, power loss, oracle switch": 0.95,
    "fall, power loss, healthy head only": 0.75,
    "learned minus oracle switch, health": -0.05,
    "learned minus oracle switch, power loss": -0.05,
    "learned minus oracle switch, locked": -0.05,
    "with minus without reflection, power loss": -0.02,
    "with minus without reflection, locked": -0.02,
}


def verdicts(text):
    """Claim -> what was measured, the worst seed, and the verdict."""
    rows = [[x.strip() for x in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    return {name: (float(mean), float(worst), end) for name, mean, worst, _, end in rows}


def margins(seeds=2, **changed):
    """With the same survival in every seed, but for rows given by seed and condition."""
    rows = {name: np.tile(values, (seeds, 1)) for name, values in GOOD.items()} | changed
    rows = {name: Row(x, np.zeros_like(x)) for name, x in rows.items()}
    return verdicts(report.planted_claims(rows).table())


def test_all_of_them_may_hold():
    found = margins()
    assert {name: mean for name, (mean, _, _) in found.items()} == pytest.approx(
        {
            "survival, health": 1.0,
            "survival, power loss, oracle switch": 0.97,
            "fall, power loss, healthy head only": 0.9,
            "learned minus oracle switch, health": -0.01,
            "learned minus oracle switch, power loss": -0.03,
            "learned minus oracle switch, locked": -0.04,
            "with minus without reflection, power loss": 0.02,
            "with minus without reflection, locked": 0.01,
        }
    )
    assert {end for *_, end in found.values()} == {"holds"}


@pytest.mark.parametrize(
    ("row", "missing", "claim"),
    [
        (ORACLE, (0.96, 0.97, 0.99), "survival, health"),
        (ORACLE, (1.0, 0.935, 0.99), "survival, power loss, oracle switch"),
        (BLIND, (1.0, 0.26, 1.0), "fall, power loss, healthy head only"),
        (LEARNED, (0.94, 0.94, 0.95), "learned minus oracle switch, health"),
        (LEARNED, (0.99, 0.91, 0.95), "learned minus oracle switch, power loss"),
        (LEARNED, (0.99, 0.94, 0.93), "learned minus oracle switch, locked"),
        (OTHER, (1.0, 1.0, 0.98), "with minus without reflection, power loss"),
        (OTHER, (1.0, 0.96, 1.02), "with minus without reflection, locked"),
    ],
)
def test_each_may_be_missed_and_the_mean_of_the_seeds_decides(row, missing, claim):
    found = margins(**{row: np.tile(missing, (2, 1))})
    assert {name for name, (*_, end) in found.items() if end == "MISSED"} == {claim}
    # one good seed of three does not save it, and is not the worst
    each = np.array([missing, missing, GOOD[row]])
    mean, worst, end = margins(3, **{row: each})[claim]
    assert mean > worst
    alone = margins(3, **{row: np.array([missing, GOOD[row], GOOD[row]])})[claim]
    assert alone[1] == worst
    assert end == ("MISSED" if mean < REQUIRED[claim] else "holds")


def test_what_was_not_run_is_not_claimed():
    row = Row(np.ones((2, 3)), np.ones((2, 3)))
    text = report.planted_claims({ORACLE: row, BLIND: row}).table()
    assert set(verdicts(text)) == {name for name in REQUIRED if "minus" not in name}


@pytest.mark.parametrize(
    ("rho", "p", "difference", "holds"),
    [
        (1.0, [(0.5, 0.4), (0.02, 0.03)], (0.01, -0.04), True),
        # of two seeds one is enough to miss, in speed or in tilt
        (1.0, [(0.5, 0.4), (0.005, 0.03)], (0.01, 0.01), False),
        (1.0, [(0.5, 0.005), (0.2, 0.03)], (0.01, 0.01), False),
        (1.0, [(0.5, 0.4), (0.2, 0.3)], (0.01, -0.06), False),
        # without reflection speeds must differ; tilts need not
        (0.0, [(0.0, 0.4), (0.005, 0.3)], (-0.6, -0.6), True),
        (0.0, [(0.0, 0.0), (0.02, 0.0)], (-0.6, -0.6), False),
    ],
)
def test_gates(rho, p, difference, holds):
    each = [Gate(own, (off, 0.0)) for own, off in zip(p, difference, strict=True)]
    (row,) = report.gate_claims({rho: each}).table().splitlines()[2:]
    cells = [x.strip() for x in row.split("|")[1:-1]]
    assert cells[-1] == ("holds" if holds else "MISSED")
    least = np.min(p, axis=0)
    assert [float(x) for x in cells[1:3]] == pytest.approx(least.tolist())
    # the farthest, with its sign
    assert float(cells[3]) == max(difference, key=abs)


def page(kind, rows, metrics, seeds=range(1, 3)):
    rows = {name: Row(np.tile(x, (len(seeds), 1)), np.ones((len(seeds), 3))) for name, x in rows}
    return report.build(
        kind,
        Results(rows, None, {}),
        title="x",
        facts=["a fact"],
        metrics=metrics,
        rates=[],
        folder=Path("my runs/x"),
        seeds=seeds,
    ).text()


def test_a_run_of_the_real_robot_says_how_it_went_and_what_to_run_next():
    """It is not evaluated by its own run: survival, reward, walking and recall are training's."""
    metrics = [trained(0, train_missed_speed=[0.2, 0.5]), trained(0, stage="detector")]
    text = page(Solo8(), [], metrics)
    for words in (
        "| in training | epoch kept | survival x 100, health |",
        "reward a step x 1000, power loss",
        "| ours, seed 1 | 0.20 | 0.58 | walks |",
        "| ours, seed 2 | 0.50 | 0.29 | DOES NOT WALK |",
        "| recall of the detector x 100, all joints together |",
        "these figures are no evaluation",
        "± is the standard deviation over 2 seeds",
    ):
        assert words in text
    lines = text.split("## Next\n```\n")[1].splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("python")]
    assert [command[2:] for command in commands] == [
        ["train.evaluate", "my runs/x"],
        ["train.evaluate", "my runs/x", "--seed", "2"],
        ["train.export", "my runs/x", "my runs/x/export"],
        ["train.quadruped", "render", "my runs/x", "my runs/x/film.gif"],
    ]
    # nothing to switch by, nothing to export
    assert "train.export" not in page(Solo8(), [], metrics[:1])


def test_a_run_says_how_it_was_evaluated():
    assert program.evaluation_of(PRESETS["solo8"]).startswith("evaluated: not yet")
    # Wilson's of 1024 of 1024: 1.96^2 / (1024 + 1.96^2) = 0.0037
    assert "1024 robots a seed" in program.evaluation_of(PRESETS["surrogate"])
    assert "up to 0.4 % of such robots may fall" in program.evaluation_of(PRESETS["surrogate"])


def test_the_toy_says_what_it_does_not_show():
    """With the figures of the rows that do as well; no row, no figure."""
    mix = row_name("mix", "blind")
    rows = [*GOOD.items(), (mix, (1.0, 0.97, 0.95))]
    text = page(Surrogate(), rows, [])
    assert "Not shown: that a head for each fault, or reflection, is needed." in text
    # means over power loss and locked
    assert f"{ORACLE} 98.0, {mix} 96.0, {OTHER} 96.5." in text
    assert "*Mix*: one network for everything; *oracle switch*" in text
    assert "*Normal*" not in text
    assert_believed_alone(text, Path("my runs/x"), 2)
    text = page(Surrogate(), [(name, GOOD[name]) for name in (ORACLE, BLIND)], [])
    assert "Not shown" not in text
    assert "*Mix*" not in text


def test_one_seed_is_said_to_be_one():
    rows = [(name, GOOD[name]) for name in (ORACLE, BLIND)]
    text = page(Surrogate(), rows, [], seeds=range(1, 2))
    assert_believed_alone(text, Path("my runs/x"), 1)
    assert "--seed" not in text


def test_bars_are_not_hidden_by_their_legend():
    rows = {name: Row(np.tile(x, (2, 1)), np.ones((2, 3))) for name, x in GOOD.items()}
    assert_nothing_hidden(report._survival_figure(rows))
