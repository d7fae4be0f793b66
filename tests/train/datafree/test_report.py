"""What a report says of figures that are known."""

import base64
import csv
import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from configs.dfkd import presets
from corrkd_jax.errors import InputError
from tests.train.pages import assert_believed_alone
from train.datafree import evaluate, report
from train.datafree.arms import ALONE, BALANCED, KDCI, pictured
from train.datafree.evaluate import Answers
from train.datafree.report import Results

FOLDER = Path("runs/a b")


class Five:
    """A set of five images without names of their own."""

    images = None

    def __len__(self):
        return 5


def test_whose_images_are_shown():
    """Never the balanced control's beside a table of the skewed rows."""
    assert pictured((BALANCED, ALONE, KDCI)) == KDCI
    assert pictured((BALANCED, ALONE)) == ALONE
    assert pictured((BALANCED,)) == BALANCED


def results(classes, names=(ALONE, KDCI)):
    """Two seeds of ten images a class: the host right on two in ten, the next row on one more,
    and in the last class on none."""
    right = 2.0 + np.arange(len(names))[None, :, None] + np.zeros((2, len(names), classes))
    right[..., -1] = 0
    return Results(
        names,
        {"drop": right, "keep": right + 5},
        np.full(classes, 10.0),
        np.full((2, len(names)), 0.75),
        {mode: np.full((2, len(names)), 0.5) for mode in ("drop", "keep")},
        np.full((2, len(names), classes), 1 / classes),
        {},
        None,
    )


def build(classes, site="logits"):
    """The report."""
    config = presets("fast")["cifar10"]
    kdci = dataclasses.replace(config.compensation, site=site)
    config = dataclasses.replace(config, compensation=kdci)
    picture = np.zeros((4, 4, 3), np.uint8)
    return report.build("cifar10", config, results(classes), picture, ["a fact"], FOLDER)


@pytest.mark.parametrize("classes", [3, 10, 100])
def test_top_5_and_classes(tmp_path, classes):
    """Of more than five classes the top five; of up to twenty each class, else the extremes."""
    text = build(classes).write(tmp_path)
    assert ("| rare 5, keep | top-5, drop |" in text) == (classes > 5)
    assert ("| 75.00 ± 0.00 |\n" in text) == (classes > 5)
    if classes > 20:
        assert "last, drop | best class | median | worst class |" in text
        assert "| KDCI | 30.0 | 30.0 | 0.0 |" in text
    else:
        assert f"last, drop | {' | '.join(map(str, range(classes)))} |" in text
        assert f"| KDCI |{' 30.0 |' * (classes - 1)} 0.0 |" in text
    assert f"| {ALONE} | 20.0 |" in text
    assert "![accuracy by class, last epoch, drop](figures/accuracy.png)" in text
    assert (tmp_path / "figures" / "accuracy.png").stat().st_size > 2_000
    assert text == (tmp_path / "report.md").read_text()


def test_the_page_holds_its_pictures(tmp_path):
    """No other file is needed to see them, and they are those beside the report."""
    build(10).write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    for name in ("classes", "accuracy", "images"):
        picture = (tmp_path / "figures" / f"{name}.png").read_bytes()
        assert f'src="data:image/png;base64,{base64.b64encode(picture).decode()}"' in page
    assert "figures/" not in page


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    """Whatever the report was about to write; an older one stays."""
    build(10).write(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError) as refused:
        build(3).write(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path / 'figures' / 'classes.png'}: cannot be written: No space left; check folder, "
        "rights and space"
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_page_is_believed_alone():
    text = build(10).text()
    assert_believed_alone(text, FOLDER, 2)
    before = text.partition("\n|")[0]
    for column in ("`last`", "`best`", "`rare 5`", "`drop`", "`keep`"):
        assert column in before
    assert "*host*: the method that KDCI is added to" in before
    assert "*teacher*" not in before


def test_one_seed_has_no_deviation():
    one = dataclasses.replace(
        results(10),
        right={mode: right[:1] for mode, right in results(10).right.items()},
        top5=results(10).top5[:1],
        best={mode: best[:1] for mode, best in results(10).best.items()},
        histogram=results(10).histogram[:1],
    )
    config, picture = presets("fast")["cifar10"], np.zeros((4, 4, 3), np.uint8)
    text = report.build("cifar10", config, one, picture, [], FOLDER).text()
    assert_believed_alone(text, FOLDER, 1)
    assert "| KDCI | +9.00 | +9.0 | 1 of 1 | +59.00 |" in text


def test_predictions_are_of_their_seed_arm_and_mode():
    """Each seed, arm and mode says another class of each image."""
    classes = np.arange(2 * 2 * 5).reshape(2, 2, 5) % 7
    told = {"drop": classes, "keep": (classes + 3) % 7}
    sure = {mode: x / 10 for mode, x in told.items()}
    answers = Answers(told, sure, {}, np.arange(5))
    run = SimpleNamespace(arms=("host", "KDCI"), seeds=range(4, 6), classes=tuple("abcdefg"))
    lines = list(csv.DictReader(io.StringIO(evaluate._predictions(run, Five(), answers))))
    assert len(lines) == 2 * 2 * 5
    for line in lines:
        at = (int(line["seed"]) - 4, run.arms.index(line["arm"]), int(line["image"]))
        assert line["true"] == "abcdefg"[int(line["image"])]
        for mode, x in told.items():
            assert line[mode] == "abcdefg"[x[at]]
            assert float(line[f"p_{mode}"]) == x[at] / 10


def test_the_rarest_classes_are_each_seeds_own():
    """The first seed's data have least of class 0, the second's of class 2."""
    histogram = np.full((2, 2, 3), 0.4)
    histogram[0, :, 0] = histogram[1, :, 2] = 0.1
    right = np.array([[[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [7, 8, 9]]], float)
    shown = dataclasses.replace(results(3), histogram=histogram, right={"drop": right})
    assert shown.rare(KDCI, "drop", count=1).tolist() == [0.4, 0.9]
    assert shown.rare(ALONE, "drop", count=1).tolist() == [0.1, 0.3]
    assert shown.accuracy(KDCI, "drop").tolist() == [0.5, 0.8]


def test_classes_of_students_that_need_their_compensation():
    text = build(10, "penultimate").text()
    assert "| accuracy by class x 100, last, keep |" in text
    assert "| KDCI | 80.0 |" in text
