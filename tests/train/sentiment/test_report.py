"""What a CorrKD report says of rows that are known."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from corrkd_jax.data.masks import SUBSET_NAMES
from tests.train.figures import assert_nothing_hidden
from tests.train.pages import assert_believed_alone
from train.sentiment import corrkd, evaluate, report
from train.sentiment.results import RATIOS, Row, Truth
from train.sentiment.task import Task

FOLDER = Path("runs/a b")
CLASSES = np.arange(40) % 2
TRUTH = Truth(Task("binary", 2, ("sentiment",)), CLASSES[:, None], np.ones((40, 1)), None)


def row(name, seeds, wrong):
    """Wrong on so many of forty samples whatever is missing, one more with each seed."""
    logits = np.tile(np.eye(2)[CLASSES][None, None, :, None], (seeds, 7, 1, 1, 1))
    for seed in range(seeds):
        logits[seed, :, : wrong + seed] *= -1
    return Row(name, logits, np.tile(logits[:, :1], (1, len(RATIOS), 1, 1, 1)))


def rows(seeds):
    names = (corrkd.TEACHER_ROW, corrkd.BASELINE, corrkd.METHOD, corrkd.CONTROL)
    return [row(name, seeds, wrong) for name, wrong in zip(names, (20, 12, 4, 12), strict=True)]


METRICS = [
    {"stage": stage, "epoch": epoch, "valid_score": [0.5], "train_total": [1.0], **arm}
    for epoch in range(2)
    for stage, arm in (("teacher", {}), ("student", {"arm": corrkd.METHOD}))
]


def test_the_page_is_believed_alone():
    page = report.build(
        rows(1),
        TRUTH,
        title="x",
        preset="planted",
        facts=[],
        folder=FOLDER,
        metrics=METRICS,
    )
    assert_believed_alone(page.text(), FOLDER, 1)
    assert f"*{corrkd.CONTROL}*: the control, every sample with another sample's teacher" in (
        page.text()
    )


def test_a_difference_of_one_seed_has_no_deviation():
    text = report.differences(rows(1), TRUTH)
    assert f"| {corrkd.METHOD} | +20." in text
    assert "±" not in text
    assert " ± " in report.differences(rows(2), TRUTH)


def test_predictions_are_of_their_seed_and_subset():
    """Wrong on one sample more with each seed, and on the first one of a single subset."""
    shown = row(corrkd.METHOD, 3, 4)
    shown.subsets[1, 5, 39] *= -1
    ids = [f"clip {number}" for number in range(40)]
    text = evaluate.predictions_csv([shown], ids, TRUTH, range(7, 10))
    wrong = {}
    for line in csv.DictReader(io.StringIO(text)):
        if line["predicted_class"] != line["true_class"]:
            wrong.setdefault((line["seed"], line["subset"]), []).append(line["id"])
        assert float(line["p0"]) == pytest.approx(1 / (1 + np.e) if line["predicted_class"] == "1"
                                                  else np.e / (1 + np.e), abs=1e-5)  # fmt: skip
    for seed in range(3):
        for number, subset in enumerate(SUBSET_NAMES):
            expected = ids[: 4 + seed] + ids[39:] * ((seed, number) == (1, 5))
            assert wrong[str(7 + seed), subset] == expected


def test_figures_hide_nothing():
    assert_nothing_hidden(report._curve_figure(rows(2), TRUTH))
    assert_nothing_hidden(report._training_figure(METRICS))


def test_the_band_is_the_deviation_of_the_tables():
    """n - 1 in the divisor, as the caption of the README's figure says of its own."""
    figure = report._curve_figure(rows(2)[:1], TRUTH)
    (band,) = figure.axes[0].collections
    heights = np.ptp(band.get_paths()[0].vertices[:, 1])
    values = 100 * report.headline_f1(rows(2)[0].curve, TRUTH)[:, 0, 0]
    assert heights == pytest.approx(2 * values.std(ddof=1), rel=1e-5)
