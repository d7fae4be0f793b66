"""Labels that a file gives twice, scales that a label mode would misread, and what is said."""

from pathlib import Path

import numpy as np
import pytest

from corrkd_jax.data import msa
from corrkd_jax.errors import InputError
from tests.data import files


def _read(tmp_path: Path, labels=None, layout=files.mmsa_aligned) -> msa.Dataset:
    """A file with `labels(fields)` in every split."""
    content = layout()
    for fields in content.values():
        if labels is not None:
            fields["labels"] = labels(fields)
    return msa.read(files.save(tmp_path / "data.pkl", content))


def _polarity(fields: dict) -> np.ndarray:
    return np.sign(fields["regression_labels"]) + 1


SECOND = {
    # the example of a file whose scores became 0, 1 and 2
    "polarity": (_polarity, "it holds the same as classification_labels"),
    "a column": (lambda f: _polarity(f)[:, None, None], "the same as classification_labels"),
    "rounded scores": (
        lambda f: f["regression_labels"].astype(np.float32),
        "it holds the same as regression_labels",
    ),
    "other classes": (
        lambda f: np.arange(len(f["text"])) % 5,
        "it holds class numbers from 0 to 4",
    ),
    "the scores": (lambda f: f["regression_labels"], "it holds the same as regression_labels"),
    "names": (lambda f: ["negative"] * len(f["text"]), "it holds no numbers"),
    "rows": (lambda f: np.zeros((2, 3)), "it holds an array of shape (2, 3)"),
}


@pytest.mark.parametrize("case", sorted(SECOND))
def test_the_layouts_own_labels_win_over_those_of_mult(tmp_path: Path, case: str):
    labels, words = SECOND[case]
    data = _read(tmp_path, labels)
    assert data.layout == "mmsa"
    np.testing.assert_allclose(
        data.train.scores, files.mmsa_aligned()["train"]["regression_labels"]
    )
    said = next(note for note in data.notes if note.startswith("labels: "))
    own = "regression_labels and classification_labels"
    assert said.startswith(f"labels: not read, since {own} is there; ")
    assert words in said
    # with a score of 0 left out, and both signs told apart
    classes, weights, _ = msa.labels(data.train, "binary", "data.pkl")
    np.testing.assert_array_equal(classes[:, 0], data.train.scores > 0)
    np.testing.assert_array_equal(weights[:, 0], data.train.scores != 0)


def test_none_is_no_field(tmp_path: Path):
    def nones() -> dict:
        content = files.mult_sentiment()
        for fields in content.values():
            fields |= {"regression_labels": None, "classification_labels": None}
        return content

    data = _read(tmp_path, layout=nones)
    assert data.layout == "mult"
    np.testing.assert_array_equal(data.train.scores, nones()["train"]["labels"].ravel())


def test_class_numbers_beside_scores_alone(tmp_path: Path):
    def scores_alone() -> dict:
        content = files.mmsa_aligned()
        for fields in content.values():
            del fields["classification_labels"]
        return content

    data = _read(tmp_path, _polarity, scores_alone)
    assert (
        "labels: not read, since regression_labels is there; it holds class numbers from 0 to 2"
        in (data.notes)
    )
    # five numbers may be of anything, such as emotions
    data = _read(tmp_path, lambda f: np.arange(len(f["text"])) % 4, scores_alone)
    assert any(note.endswith("it holds class numbers from 0 to 3") for note in data.notes)
    with pytest.raises(InputError, match=r"data\.pkl: train: labels: contradicts regression_lab"):
        _read(tmp_path, lambda f: 2 - _polarity(f), scores_alone)


BAD = {
    "scores": (lambda f: f["regression_labels"] + 0.5, "contradicts regression_labels in 7 rows"),
    "one score": (
        lambda f: np.where(np.arange(len(f["text"])) == 2, -1.5, f["regression_labels"]),
        "contradicts regression_labels in 1 rows (row 2: -1.5 and 1.5); remove the wrong one",
    ),
    "classes": (
        lambda f: np.where(np.arange(len(f["text"])) == 1, 0, _polarity(f)),
        "contradicts classification_labels in 1 rows (row 1: 0 and 1)",
    ),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_labels_that_contradict_the_layouts_own_are_refused(tmp_path: Path, case: str):
    labels, words = BAD[case]
    with pytest.raises(InputError) as caught:
        _read(tmp_path, labels)
    assert f"{tmp_path / 'data.pkl'}: train: labels: {words}" in str(caught.value)
    assert "\n" not in str(caught.value)


def _split(scores=None, classes=None) -> msa.Split:
    scores = None if scores is None else np.array(scores, np.float32)
    classes = None if classes is None else np.array(classes, np.int32)
    return msa.Split({}, {}, (), scores, classes, None)


@pytest.mark.parametrize("mode", ["binary", "ternary", "seven", "score"])
def test_scores_without_a_negative_one_are_refused(mode: str):
    for scores, words in (([1, 2, 3, 5], "1 to 5"), ([0, 1, 2], "0 to 2")):
        with pytest.raises(
            InputError, match=rf"f\.pkl: train: scores lie in {words}, but .*{mode}"
        ):
            msa.label_notes(_split(scores), mode, "f.pkl", "train")


def test_other_scales_of_scores():
    small, wide = _split([-1, -0.4, 0, 0.6, 1]), _split([-5, -1, 0, 2, 3.5])
    with pytest.raises(InputError, match=r"scores lie in -1 to 1, but .*'seven' takes -3 to 3"):
        msa.label_notes(small, "seven", "f.pkl", "train")
    assert msa.label_notes(small, "score", "f", "train") == [
        "labels: scores lie in -1 to 1; Acc-5 and Acc-7 are of -3 to 3"
    ]
    assert msa.label_notes(small, "ternary", "f", "train") == []
    for mode in ("seven", "score"):
        assert msa.label_notes(wide, mode, "f", "train") == [
            "labels: 2 of 5 scores lie beyond -3 to 3, the ends of this mode"
        ]
    usual = _split([-3, -0.4, 1.2, 3])
    assert [msa.label_notes(usual, mode, "f", "train") for mode in ("seven", "score")] == [[], []]


def test_labels_that_do_not_count_are_said():
    assert msa.label_notes(_split([-1, 0, 0, 2]), "binary", "f", "train") == [
        "labels: 2 of 4 scores of train are 0 and no label"
    ]
    emotions = _split(classes=[[0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    assert msa.label_notes(emotions, "single", "f", "train")[0] == (
        "labels: 2 of 3 rows of train are none or several tasks, no label"
    )


def test_class_numbers_with_a_gap_are_said():
    assert msa.label_notes(_split(classes=[[1], [3], [5]]), "classes", "f", "train") == [
        "labels: 6 classes, by the largest number; no row of train is of 0, 2, 4"
    ]
    (said,) = msa.label_notes(_split(classes=[[1], [2_000_000_000]]), "classes", "f", "train")
    assert said.endswith("no row of train is of 0, 2, 3, 4, 5, 6, 7, 8, ...")
    assert msa.label_notes(_split(classes=[[1], [0]]), "classes", "f", "train") == []


def test_classes_against_the_order_of_scores_are_said():
    both = _split([-2, -1, 1, 2], [[0], [1], [1], [0]])
    note = "labels: classification_labels are not in the order of regression_labels in {} of 4 rows"
    assert msa.label_notes(both, "classes", "f", "train") == [note.format(1) + " of train"]
    assert msa.label_notes(_split([-2, -1, 1, 2], [[0], [0], [1], [2]]), "ternary", "f", "t") == []


def test_four_columns_are_taken_for_emotions_and_said(tmp_path: Path):
    content = files.mmsa_aligned()
    for fields in content.values():
        del fields["regression_labels"]
        fields["classification_labels"] = np.eye(4)[np.arange(len(fields["text"])) % 4]
    data = msa.read(files.save(tmp_path / "data.pkl", content))
    assert data.tasks == ("neutral", "happy", "sad", "angry")
    said = "classification_labels: four columns, taken for neutral, happy, sad, angry"
    assert said in data.notes
    assert said not in _read(tmp_path, layout=files.mult_emotion).notes
    # an .npz has names of its own
    path = tmp_path / "data.npz"
    msa.write_npz(data, path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {"tasks": np.array(["a", "b", "c", "d"])})
    assert msa.read(path).tasks == ("a", "b", "c", "d")
    np.savez(path, **arrays | {"tasks": np.array(["a", "b"])})
    with pytest.raises(InputError, match=r"data\.npz: tasks: 2 names, but classes have 4 columns"):
        msa.read(path)


def test_members_of_other_layouts_in_an_npz_are_named(tmp_path: Path):
    path = tmp_path / "data.npz"
    msa.write_npz(_read(tmp_path), path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays, **{"train/regression_labels": np.zeros(7), "train/id": np.arange(7)})
    data = msa.read(path)
    assert "train: members of other layouts are not read: id, regression_labels" in data.notes
    assert np.any(data.train.scores)


def test_a_folder_of_two_layouts_is_refused(tmp_path: Path):
    folder = files.mustard(files.clue(tmp_path / "both"))
    with pytest.raises(InputError, match=r"both: holds files of MUStARD and of MISA, CLUE; give"):
        msa.read(folder)
