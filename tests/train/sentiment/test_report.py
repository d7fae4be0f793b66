"""What a CorrKD report says of rows that are known."""

from pathlib import Path

import numpy as np
import pytest

from tests.train.figures import assert_nothing_hidden
from tests.train.pages import assert_believed_alone
from train.sentiment import corrkd, report
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
