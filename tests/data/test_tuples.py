"""Folders of MISA's tuples: words, word ids, CLUE's names, and what is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from corrkd_jax.data import msa, unpickle
from corrkd_jax.errors import InputError
from tests.data import files


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    return files.glove(tmp_path / "glove.txt")


def test_words(tmp_path: Path, glove: Path):
    data = msa.read(files.clue(tmp_path / "set"), glove, max_frames=4)
    assert data.layout == "clue"
    assert data.aligned
    assert [len(split.ids) for split in data.splits.values()] == [7, 4, 5]
    np.testing.assert_array_equal(data.train.features["text"][3], [[1, 2], [3, 4], [5, 6], [0, 0]])
    np.testing.assert_array_equal(data.train.valid["audio"][2], [True, True, True, False])
    assert data.train.words[6] == ("a", "good", "film", "bad")
    assert data.train.ids[1] == "train1[1]"
    assert data.train.scores.tolist() == [-2, -1, 0, 1, 2, 3, 4]
    assert data.notes == (
        "text: 1 of 5 words have no vector, set to 0",
        "4 rows have more frames than max_frames and are cut to it",
    )


def test_word_ids(tmp_path: Path):
    matrix = np.arange(10, dtype=np.float32).reshape(5, 2)
    np.savez(tmp_path / "embedding.npz", embedding=matrix)
    folder = files.clue(tmp_path / "set")
    data = msa.read(folder, tmp_path / "embedding.npz", max_frames=8)
    np.testing.assert_array_equal(data.train.features["text"][4, :5], matrix)
    assert data.train.words[4] == files.WORDS
    np.savez(tmp_path / "embedding.npz", embedding=matrix[:3])
    with pytest.raises(InputError, match=r"train: row 3: text: has word ids outside of the 3 rows"):
        msa.read(folder, tmp_path / "embedding.npz")
    np.savez(tmp_path / "embedding.npz", vectors=matrix)
    with pytest.raises(InputError, match=r"embedding\.npz: embedding: no such array"):
        msa.read(folder, tmp_path / "embedding.npz")
    path = files.save(tmp_path / "words.pkl", files.mag_bert("words"))
    np.savez(tmp_path / "embedding.npz", embedding=matrix)
    with pytest.raises(InputError, match=r"train: row 0: text: holds words, .* for word ids"):
        msa.read(path, tmp_path / "embedding.npz")


def test_names_of_clue(tmp_path: Path, glove: Path):
    folder = files.clue(tmp_path / "set", ("train", "dev", "test_IID", "test_OOD"))
    data = msa.read(folder, glove)
    assert list(data.more) == ["test_OOD"]
    assert data.test.ids[0] == "test_IID0[0]"
    assert "test: is test_IID.pkl" in data.notes
    files.clue(folder)
    data = msa.read(folder, glove)
    assert data.test.ids[0] == "test0[0]"
    assert list(data.more) == ["test_IID", "test_OOD"]


def test_first_label_of_many(tmp_path: Path, glove: Path):
    folder = files.clue(tmp_path / "set")
    rows = [(row[0], np.arange(7.0)[None] + 1, row[2]) for row in _rows(folder, "dev")]
    files.save(folder / "dev.pkl", rows)
    data = msa.read(folder, glove)
    assert data.valid.scores.tolist() == [1, 1, 1, 1]
    assert "labels: rows hold up to 7 numbers; the first is taken as sentiment" in data.notes


def _rows(folder: Path, split: str) -> list:
    return unpickle.load(folder / f"{split}.pkl")


def test_vectors_beside_words_need_no_word_vectors(tmp_path: Path):
    folder = files.clue(tmp_path / "set")
    for split in ("train", "dev", "test"):
        rows = [
            ((np.ones((len(ids), 2)), vision, audio, words), label, segment)
            for (ids, vision, audio, words), label, segment in _rows(folder, split)
        ]
        files.save(folder / f"{split}.pkl", rows)
    data = msa.read(folder, max_frames=3)
    assert data.train.features["text"][2].tolist() == [[1, 1]] * 3
    assert data.train.words[2] == ("a", "good", "film")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: (row[0][:2], row[1], row[2]), "dev: row 1: expected"),
        (lambda row: ((*row[0], []), row[1], row[2]), "dev: row 1: expected"),
        (lambda row: 5, "dev: row 1: expected"),
        (
            lambda row: ((row[0][0], row[0][1][1:], *row[0][2:]), row[1], row[2]),
            "dev: row 1: vision: shape",
        ),
        (lambda row: (row[0], np.zeros((1, 0)), row[2]), "dev: row 1: label"),
        (
            lambda row: ((*row[0][:2], np.zeros((2, 0)), row[0][3]), *row[1:]),
            "dev: audio: rows have [0, 3] features",
        ),
        (lambda row: (([[1], [1, 2]], *row[0][1:3]), *row[1:]), "dev: row 1: text"),
    ],
)
def test_bad_rows(tmp_path: Path, glove: Path, change, words: str):
    folder = files.clue(tmp_path / "set")
    rows = _rows(folder, "dev")
    rows[1] = change(rows[1])
    files.save(folder / "dev.pkl", rows)
    with pytest.raises(InputError) as caught:
        msa.read(folder, glove)
    assert str(folder) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_folders(tmp_path: Path, glove: Path):
    folder = files.clue(tmp_path / "set")
    with pytest.raises(InputError, match=r"set: train: text: holds words, .* give word_vectors"):
        msa.read(folder)
    (folder / "dev.pkl").unlink()
    with pytest.raises(InputError, match=r"set: no split 'valid'.*found: test, train"):
        msa.read(folder, glove)
    files.save(folder / "valid.pkl", files.Touch(tmp_path / "sentinel"))
    with pytest.raises(InputError, match=r"valid\.pkl: refused"):
        msa.read(folder, glove)
    assert not (tmp_path / "sentinel").exists()
    pickle.loads((folder / "valid.pkl").read_bytes())  # else its absence would prove nothing
    assert (tmp_path / "sentinel").exists()
    files.folder_of(folder, files.mmsa_aligned())
    with pytest.raises(InputError, match=r"set: train: is a dict; .* Name an MMSA file"):
        msa.read(folder, glove)


def test_files_of_joblib_tell_how_to_convert_them(tmp_path: Path):
    joblib = pytest.importorskip("joblib")
    path = tmp_path / "ood.pkl"
    joblib.dump(files.mmsa_aligned(), path)
    with pytest.raises(InputError, match=r"ood\.pkl: is a file of joblib.*pickle\.dump\(joblib"):
        msa.read(path)
    joblib.dump({"no": "arrays"}, path)
    with pytest.raises(InputError, match="no split 'train'"):
        msa.read(path)
