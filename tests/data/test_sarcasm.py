"""MUStARD: its two protocols, the user's features, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from corrkd_jax.data import msa, subjects, unpickle
from corrkd_jax.errors import InputError
from tests.data import files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return files.mustard(tmp_path / "mustard")


def test_speaker_independent_split(folder: Path):
    data = msa.read(folder, max_frames=3)
    assert (data.layout, data.tasks) == ("mustard", ("sarcasm",))
    keys = {name: [id.split("$_$")[1] for id in s.ids] for name, s in data.splits.items()}
    assert keys["test"] == [f"1_{number}" for number in range(12, 18)]
    assert keys["valid"] == ["1_4", "1_9"]
    assert sorted(keys["train"] + keys["valid"]) == sorted(f"1_{number}" for number in range(12))
    names = subjects.all_subject_names(data)
    assert set(names["train"]) == {"BBT-SHELDON", "BBT-DOROTHY", "BBT-PERSON"}
    # PERSON of FRIENDS is nobody of another show
    assert not set(names["test"]) & set(names["train"])
    assert "FRIENDS-PERSON" in names["test"]
    assert data.train.classes[:3, 0].tolist() == [1, 0, 1]
    assert data.train.raw_text[0] == "Oh, it's number 0!"


def test_features(folder: Path):
    data = msa.read(folder, max_frames=3)
    shapes = {name: x.shape for name, x in data.test.features.items()}
    # vision is one vector an utterance
    assert shapes == {"text": (6, 3, 5), "audio": (6, 3, 3), "vision": (6, 1, 4)}
    text = unpickle.load(folder / "text.pkl")
    np.testing.assert_array_equal(data.test.features["text"][3], text["1_15"][:3].astype("f4"))
    assert data.test.valid["audio"].sum(1).tolist() == [1, 2, 3, 3, 1, 2]
    # short ones are not padded to the limit
    assert msa.read(folder).test.features["audio"].shape == (6, 4, 3)


def test_folds(folder: Path):
    data = msa.read(folder, fold=2)
    keys = {name: [id.split("$_$")[1] for id in s.ids] for name, s in data.splits.items()}
    assert keys["test"] == [f"1_{number}" for number in range(1, 18, 3)]
    assert len(keys["train"]) == 10
    assert len(keys["valid"]) == 2
    assert len({key for part in keys.values() for key in part}) == 18
    assert msa.read(folder, fold=1).test.ids != data.test.ids
    with pytest.raises(InputError, match=r"split_indices\.p: fold 3: the file has folds 1 to 2"):
        msa.read(folder, fold=3)


def test_text_from_word_vectors(folder: Path, tmp_path: Path):
    (folder / "text.pkl").unlink()
    with pytest.raises(InputError, match=r"mustard: text: .* or give word_vectors"):
        msa.read(folder)
    vectors = tmp_path / "glove.txt"
    vectors.write_text("oh 1 2\nit's 3 4\n")
    data = msa.read(folder, vectors, 5)
    assert data.train.words[0] == ("oh", "it's", "number", "0")
    assert data.train.features["text"][0].tolist() == [[1, 2], [3, 4], [0, 0], [0, 0], [0, 0]]


def test_without_sound_or_picture(folder: Path, tmp_path: Path):
    """One frame of one zero stands for what has no file; a second file of one is named."""
    (folder / "audio.npz").unlink()
    files.save(folder / "vision.pickle", unpickle.load(folder / "vision.p"))
    data = msa.read(folder)
    assert data.notes == (
        "vision: read from vision.pickle; vision.p is not read",
        "audio: has no file; one frame of one zero stands for it in every row",
    )
    assert data.train.features["audio"].shape == (10, 1, 1)
    assert not data.train.features["audio"].any()
    assert data.train.valid["audio"].all()
    for modality in ("vision.p", "vision.pickle", "text.pkl"):
        (folder / modality).unlink()
    vectors = tmp_path / "glove.txt"
    vectors.write_text("oh 1 2\n")
    data = msa.read(folder, vectors, 5)
    assert {m: x.shape[1:] for m, x in data.test.features.items()} == {
        "text": (5, 2),
        "audio": (1, 1),
        "vision": (1, 1),
    }


def _items(change):
    def apply(folder: Path) -> None:
        items = json.loads((folder / "sarcasm_data.json").read_text())
        change(items)
        (folder / "sarcasm_data.json").write_text(json.dumps(items))

    return apply


def _without(folder: Path, name: str) -> None:
    features = unpickle.load(folder / name)
    del features["1_3"]
    files.save(folder / name, features)


BAD = {
    "json": (lambda f: (f / "sarcasm_data.json").write_text("{"), "sarcasm_data.json: cannot be"),
    "list": (lambda f: (f / "sarcasm_data.json").write_text("[]"), "holds a list"),
    "field": (_items(lambda items: items["1_3"].pop("speaker")), "1_3: speaker: no str"),
    "label": (_items(lambda items: items["1_3"].update(sarcasm="no")), "1_3: sarcasm: no bool"),
    "item": (_items(lambda items: items.update({"1_3": 7})), "1_3: utterance: no str"),
    "friends": (
        _items(lambda items: [items.pop(f"1_{number}") for number in range(12, 18)]),
        "test: has no rows",
    ),
    "text": (lambda f: (f / "text.pkl").unlink(), "text: MUStARD comes without features"),
    "renamed": (
        lambda f: (f / "audio.npz").rename(f / "covarep.npz"),
        "audio: no audio.npz or audio.pkl, but covarep.npz; rename or remove it",
    ),
    "key": (lambda f: _without(f, "text.pkl"), "text.pkl: no features of '1_3'"),
    "dict": (lambda f: files.save(f / "text.pkl", [1]), "text.pkl: holds a list"),
    "shape": (
        lambda f: files.save(f / "text.pkl", {f"1_{i}": np.ones((1, 2, 3)) for i in range(18)}),
        "text.pkl: 1_0: shape (1, 2, 3)",
    ),
    "sizes": (
        lambda f: files.save(f / "text.pkl", {f"1_{i}": np.ones(1 + i % 2) for i in range(18)}),
        "text: rows have [1, 2] features",
    ),
    "npz": (
        lambda f: (f / "audio.npz").write_bytes(b"PK\x03\x04"),
        "audio.npz: is a damaged zip archive",
    ),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_folders(folder: Path, case: str):
    change, words = BAD[case]
    change(folder)
    with pytest.raises(InputError) as caught:
        msa.read(folder)
    assert str(folder) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_FOLDS = {
    "a number": 5,
    "no pair": [[1, 2, 3]],
    "words": [(["a"], ["b"])],
    "outside": [([0, 1, 2, 3, 4], [18])],
    "negative": [([0, 1, 2, 3, 4], [-1])],
    "twice": [([0, 1, 2, 3, 4], [4])],
    "halves": [([0.5, 1], [2])],
    "none": [([0, 1, 2, 3, 4], [])],
    "no lists": [(np.array(3), np.array(3))],
}


@pytest.mark.parametrize("case", sorted(BAD_FOLDS))
def test_bad_folds(folder: Path, case: str):
    files.save(folder / "split_indices.p", BAD_FOLDS[case])
    with pytest.raises(InputError, match=r"split_indices\.p: fold 1|test: has no rows"):
        msa.read(folder, fold=1)


@pytest.mark.parametrize("name", ["text.pkl", "vision.p", "split_indices.p"])
def test_malicious_pickles_run_nothing(folder: Path, tmp_path: Path, name: str):
    files.save(folder / name, files.Touch(tmp_path / "sentinel"))
    with pytest.raises(InputError, match=rf"{name}: refused"):
        msa.read(folder, fold=1)
    assert not (tmp_path / "sentinel").exists()
