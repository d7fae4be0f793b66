"""UR-FUNNY: the six pickles, with and without context, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from corrkd_jax.data import msa, subjects
from corrkd_jax.errors import InputError
from tests.data import files


def test_punchlines(tmp_path: Path):
    content = files.ur_funny()
    data = msa.read(files.folder_of(tmp_path / "fun", content), max_frames=3)
    assert (data.layout, data.tasks, data.aligned) == ("ur-funny", ("humor",), True)
    assert [split.ids for split in data.splits.values()] == [
        ("1", "2", "3", "4"),
        ("5", "6"),
        ("7", "8", "9"),
    ]
    assert data.test.scores is None
    assert data.train.classes.tolist() == [[1], [0], [1], [0]]
    assert {name: x.shape for name, x in data.train.features.items()} == {
        "text": (4, 3, 300),
        "audio": (4, 3, 81),
        "vision": (4, 3, 371),
    }
    text = data.train.features["text"][:, :, 0]
    assert text.tolist() == [[1, 0, 0], [1, 2, 0], [1, 2, 3], [0, 0, 0]]
    expected = content["openface_features_sdk"][3]["punchline_features"]
    np.testing.assert_array_equal(data.train.features["vision"][2], expected.astype(np.float32))
    # a segment without a word keeps one frame
    assert data.train.valid["audio"].sum(1).tolist() == [1, 2, 3, 1]
    assert data.train.words == (
        ("punch0",),
        ("punch0", "punch1"),
        ("punch0", "punch1", "punch2"),
        (),
    )
    assert data.train.raw_text[2] == "punch0 punch1 punch2"
    empty = "2 rows have no real frame; their first counts as one"
    assert data.notes[0] == f"text: {empty}"
    assert data.notes[1].startswith("audio: 1 values not finite")
    assert data.notes[2:] == (f"audio: {empty}", f"vision: {empty}")


def test_context_comes_first_and_the_end_is_kept(tmp_path: Path):
    folder = files.folder_of(tmp_path / "fun", files.ur_funny())
    data = msa.read(folder, context=True, max_frames=8)
    # segment 5: two sentences of two words, then one word
    assert data.valid.features["text"][0, :, 0].tolist() == [6, 7, 6, 7, 1, 0, 0, 0]
    assert data.valid.words[0] == ("once", "upon", "once", "upon", "punch0")
    assert data.valid.raw_text[0] == "once upon once upon punch0"
    assert data.valid.valid["vision"][0].sum() == 5
    cut = msa.read(folder, context=True, max_frames=2)
    # segments 1, 2, 3, 5, 7 and 8; context counts
    assert cut.notes[-1] == "6 rows have more frames than max_frames and are cut to it"
    assert cut.valid.features["text"][0, :, 0].tolist() == [7, 1]
    assert cut.valid.words[0] == ("upon", "punch0")
    np.testing.assert_array_equal(
        cut.valid.features["audio"][0], data.valid.features["audio"][0, 3:5]
    )


def test_the_other_spelling_and_unknown_words(tmp_path: Path):
    content = files.ur_funny()
    content["langauge_sdk"] = content.pop("language_sdk")
    content["langauge_sdk"][6]["punchline_sentence"] = "tokens differ from this sentence"
    data = msa.read(files.folder_of(tmp_path / "fun", content))
    assert data.train.words is not None
    assert data.valid.words is None
    content["language_sdk"] = {}
    data = msa.read(files.folder_of(tmp_path / "fun", content))
    assert data.notes[0] == (
        "text: read from langauge_sdk.pkl, the authors' own; language_sdk.pkl is not read"
    )


def test_context_that_is_no_list(tmp_path: Path):
    content = files.ur_funny()
    content["language_sdk"][2]["context_sentences"] = None
    folder = files.folder_of(tmp_path / "fun", content)
    msa.read(folder)
    with pytest.raises(InputError, match=r"segment 2: context_sentences: is no list"):
        msa.read(folder, context=True)


def test_subjects_need_a_table(tmp_path: Path):
    data = msa.read(files.folder_of(tmp_path / "fun", files.ur_funny()))
    with pytest.raises(InputError, match=r"train: row 0: id '1' names no subject.*subjects\.csv"):
        subjects.all_subject_names(data)
    table = tmp_path / "subjects.csv"
    lines = [
        f"{segment},talk{segment // 3}" for fold in files.UR_FUNNY.values() for segment in fold
    ]
    table.write_text("\n".join(["video_id,subject_id", *lines]))
    assert subjects.all_subject_names(data, table)["train"] == ("talk0", "talk0", "talk1", "talk1")


def _delete(name: str, *keys):
    def change(content: dict) -> None:
        table = content[name]
        for key in keys[:-1]:
            table = table[key]
        del table[keys[-1]]

    return change


def _set(name: str, value, *keys):
    def change(content: dict) -> None:
        if not keys:
            content[name] = value
            return
        table = content[name]
        for key in keys[:-1]:
            table = table[key]
        table[keys[-1]] = value

    return change


BAD = {
    "no file": (lambda content: content.pop("openface_features_sdk"), ["openface", "no such file"]),
    "no language": (lambda content: content.pop("language_sdk"), ["language_sdk.pkl: no such"]),
    "a list": (_set("humor_label_sdk", [1]), ["humor_label_sdk.pkl: holds a list"]),
    "no fold": (_delete("data_folds", "dev"), ["data_folds.pkl: no entry 'dev'"]),
    "empty fold": (_set("data_folds", [], "dev"), ["data_folds.pkl: dev: must be a list"]),
    "a segment that is a list": (
        _set("data_folds", [[1, 2], 3], "train"),
        ["language_sdk.pkl: no entry [1, 2]"],
    ),
    "a fold without axes": (_set("data_folds", np.array(5), "dev"), ["data_folds.pkl: dev: is no"]),
    "no label": (_delete("humor_label_sdk", 7), ["humor_label_sdk.pkl: no entry 7"]),
    "two labels": (_set("humor_label_sdk", [0, 1], 7), ["segment 7: one label"]),
    "half a label": (_set("humor_label_sdk", 0.5, 7), ["test: classification_labels"]),
    "no segment": (_delete("covarep_features_sdk", 2), ["covarep_features_sdk.pkl: no entry 2"]),
    "no key": (
        _delete("language_sdk", 3, "punchline_sentence"),
        ["language_sdk.pkl: segment 3: no entry 'punchline_sentence'"],
    ),
    "no vectors": (_set("word_embedding_list", []), ["word_embedding_list.pkl: shape (0,)"]),
    "ragged vectors": (_set("word_embedding_list", [[1.0], []]), ["word_embedding_list.pkl"]),
    "index": (
        _set("language_sdk", [9], 1, "punchline_embedding_indexes"),
        ["segment 1: an index is outside of the 8"],
    ),
    "axes": (
        _set("openface_features_sdk", np.ones(371), 2, "punchline_features"),
        ["segment 2: features: shapes (371,)"],
    ),
    "sizes": (
        _set("openface_features_sdk", np.ones((2, 5)), 2, "punchline_features"),
        ["train: vision: rows have [5, 371] features"],
    ),
    "words": (
        _set("covarep_features_sdk", "x", 2, "punchline_features"),
        ["segment 2: features: not an array of numbers"],
    ),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_folders(tmp_path: Path, case: str):
    change, words = BAD[case]
    content = files.ur_funny()
    change(content)
    with pytest.raises(InputError) as caught:
        msa.read(files.folder_of(tmp_path / "fun", content))
    for word in (str(tmp_path / "fun"), *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_malicious_pickle_runs_nothing(tmp_path: Path):
    content = files.ur_funny() | {"humor_label_sdk": files.Touch(tmp_path / "sentinel")}
    with pytest.raises(InputError, match=r"humor_label_sdk\.pkl: refused"):
        msa.read(files.folder_of(tmp_path / "fun", content))
    assert not (tmp_path / "sentinel").exists()
