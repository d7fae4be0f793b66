"""What a de-biasing report says of tables that are known."""

import csv
import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from configs.debias import presets
from tests.train.figures import assert_nothing_hidden
from tests.train.pages import assert_believed_alone
from train.sentiment.debiasing import arms, evaluate, report
from train.sentiment.debiasing.report import Table
from train.sentiment.results import Truth
from train.sentiment.task import Task

FOLDER = Path("runs/a b")
SPLITS = {
    "mcis": ("test", "test_reversed", "test_iid"),
    "suci": ("test", "test_reversed", "test_seen"),
}
ROWS = {
    "mcis": ("vanilla", "label term", "context term", "MCIS", "fixed (1, 0)"),
    "suci": ("Pooled", arms.DOT, arms.RANDOM, arms.OWN),
}
CLASSES = np.arange(40) % 2
TRUTH = Truth(Task("binary", 2, ("sentiment",)), CLASSES[:, None], np.ones((40, 1)), None)


def config(method):
    return dataclasses.replace(presets(method)["planted"], debias=method, model="pooled")


def table(method, seeds):
    """Right on all in the last row and split, on fewer in the others; every seed alike."""
    outputs = np.tile(np.eye(2)[CLASSES], (seeds, 1, 1))
    names = ROWS[method]
    by_row = {}
    for number, name in enumerate(names):
        values = outputs.copy()
        values[:, : 4 * (len(names) - number)] *= -1
        by_row[name] = dict.fromkeys(SPLITS[method], values)
    pairs = {name: np.zeros((seeds, 2)) for name in names} if method == "mcis" else {}
    return Table(by_row, dict.fromkeys(SPLITS[method], TRUTH), pairs)


def page(method, seeds):
    reports = [("", table(method, seeds))]
    return report.build("x", config(method), reports, [], planted=True, folder=FOLDER).text()


@pytest.fixture(scope="module")
def pages():
    """Of one seed and of three."""
    return {"mcis": page("mcis", 3), "suci": page("suci", 1)}


@pytest.mark.parametrize(("method", "seeds"), [("mcis", 3), ("suci", 1)])
def test_the_page_is_believed_alone(pages, method, seeds):
    assert_believed_alone(pages[method], FOLDER, seeds)
    before = pages[method].partition("\n|")[0]
    for words in {
        "mcis": ("*vanilla*", "*label term*", "*context term*", "*MCIS*", "*fixed*", "*always*"),
        "suci": ("*Pooled*", f"*{arms.DOT}*", "*random dictionary*", f"*{arms.OWN}*", "*always*"),
    }[method]:
        assert words in before


@pytest.mark.parametrize(("method", "name"), [("mcis", "unbiased"), ("suci", "new subjects")])
def test_a_split_has_one_name(pages, method, name):
    """In the table's columns, in what explains them, and in the claims."""
    text = pages[method]
    assert f"*{name}*: a test split" in text
    assert f"| x 100 | {name}: accuracy | {name}: F1 |" in text
    claims = text.split("## What was planted\n")[1].split("\n\n")[0]
    assert f", {name} |" in claims
    assert ", test |" not in claims


def test_the_test_split_of_a_file_was_made_for_nothing():
    named = report.titles(config("suci"), planted=False)
    assert named["test"] == "test"
    columns, *_ = report.introduction([table("suci", 1)], named)
    assert columns == "Accuracy and weighted F1, x 100."


def test_predictions_are_of_their_seed_row_and_split():
    shown = table("suci", 2)
    for number, name in enumerate(shown.outputs):
        for place, split in enumerate(SPLITS["suci"]):
            values = shown.outputs[name][split].copy()
            # one sample of each is right that is wrong otherwise, or the reverse
            values[1, 10 * place + number] *= -1
            shown.outputs[name][split] = values
    own = SimpleNamespace(split=SimpleNamespace(ids=[f"clip {n}" for n in range(40)]))
    inputs = SimpleNamespace(sets=dict.fromkeys(SPLITS["suci"], own))
    lines = list(csv.DictReader(io.StringIO(evaluate._predictions(shown, inputs, range(7, 9)))))
    assert len(lines) == 4 * 3 * 2 * 40
    for line in lines:
        number, place = ROWS["suci"].index(line["model"]), SPLITS["suci"].index(line["split"])
        clip = int(line["id"].split()[1])
        odd = line["seed"] == "8" and clip == 10 * place + number
        right = (clip >= 4 * (4 - number)) != odd
        assert (line["predicted_class"] == line["true_class"]) == right


def test_bars_are_not_hidden_by_their_legend():
    named = report.titles(config("suci"), planted=True)
    assert_nothing_hidden(report._figure([("", table("suci", 1))], named))
