"""Further splits, the words of text frames, rows taken and joined, scores as labels."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from corrkd_jax.data import dataset, msa
from corrkd_jax.errors import InputError
from tests.data import files


def _read(tmp_path: Path, content: object, **options) -> msa.Dataset:
    return msa.read(files.save(tmp_path / "data.pkl", content), **options)


def _with_more() -> dict:
    content = files.mmsa_aligned()
    other = files.mmsa_aligned(sizes={"test_ood": 3, "dev": 4, "valid_biased": 6})
    return content | other | {"test_note": "none", "tested": 1, "extra": {}, 7: {}}


def test_further_splits(tmp_path: Path):
    content = _with_more()
    data = _read(tmp_path, content)
    assert list(data.more) == ["test_ood", "dev", "valid_biased"]
    assert list(data.splits) == ["train", "valid", "test", "test_ood", "dev", "valid_biased"]
    assert len(data.valid.ids) == 4
    np.testing.assert_allclose(data.more["test_ood"].scores, [-2.5, 0.0, 1.5])
    assert np.isfinite(data.more["test_ood"].features["audio"]).all()
    # six splits now, each with its two bad values
    assert data.notes[0] == "valid: is the split 'valid'; 'dev' is a further split"
    assert data.notes[1].startswith("audio: 6 values not finite")
    assert _read(tmp_path, files.mmsa_aligned()).more == {}


def test_further_splits_are_checked_as_the_others(tmp_path: Path):
    content = _with_more()
    del content["test_ood"]["vision"]
    with pytest.raises(InputError, match=r"data\.pkl: test_ood: no key 'vision'"):
        _read(tmp_path, content)
    content = _with_more()
    content["dev"]["text"] = content["dev"]["text"][..., :2]
    with pytest.raises(InputError, match=r"dev: text: 2 features, but train has 5"):
        _read(tmp_path, content)
    content = _with_more()
    content["test_ood"]["id"] = content["train"]["id"][:3]
    note = "3 ids are in both train and test_ood: trainvideo$_$0"
    data = _read(tmp_path, content)
    assert note in data.notes
    msa.write_npz(data, tmp_path / "data.npz")
    assert msa.read(tmp_path / "data.npz").notes == data.notes


def test_mag_bert_has_further_splits_too(tmp_path: Path):
    content = files.mag_bert()
    data = _read(tmp_path, content | {"test_ood": content["dev"], "test_sizes": {}})
    assert list(data.more) == ["test_ood"]
    np.testing.assert_array_equal(data.more["test_ood"].scores, data.valid.scores)


def test_npz_carries_further_splits_words_and_tasks(tmp_path: Path):
    content = _with_more()
    for fields in (content["train"], content["test_ood"]):
        lengths = 2 + np.arange(len(fields["text"])) % 5
        fields["raw_text"] = [" ".join("abcdefg"[:length]) for length in lengths]
    data = dataclasses.replace(_read(tmp_path, content), tasks=("humor",))
    assert data.valid.words is None
    path = tmp_path / "data.npz"
    msa.write_npz(data, path)
    again = msa.read(path)
    assert again.tasks == ("humor",)
    assert list(again.splits) == list(data.splits)
    for name, split in data.splits.items():
        other = again.splits[name]
        assert (other.ids, other.words) == (split.ids, split.words)
        np.testing.assert_array_equal(other.features["vision"], split.features["vision"])
    assert again.more["test_ood"].words[1] == ("a", "b", "c")

    with np.load(path) as archive:
        arrays = dict(archive)
    for words in ("[]", "[1, 1, 1]", '[["a", "b", "c", "d", "e", "f", "g"], [], []]', '{"a": 1}'):
        arrays["test_ood/words"] = np.frombuffer(words.encode(), np.uint8)
        np.savez(path, **arrays)
        with pytest.raises(InputError, match=r"data\.npz: test_ood: words"):
            msa.read(path)


def test_words_where_every_row_has_one_a_frame(tmp_path: Path):
    content = files.mmsa_aligned()
    train = content["train"]
    train["raw_text"] = [
        "x y",
        "x y z",
        "a b c d",
        "a b c d e",
        "a b c d e f",
        "x y",
        "Don't! go on",
    ]
    data = _read(tmp_path, content)
    assert data.train.words[0] == ("x", "y")
    assert data.train.words[6] == ("Don't!", "go", "on")
    assert data.test.words is None
    train["raw_text"][3] += " one-too-many more"
    assert _read(tmp_path, content).train.words is None


def test_words_stand_where_their_frames_are(tmp_path: Path):
    """MulT pads in front: word t of the row is frame t all the same."""
    content = files.mult_sentiment()
    for fields in content.values():
        fields["raw_text"] = ["a b c d"] * len(fields["text"])
    fields = content["train"]
    for modality in msa.MODALITIES:
        fields[modality][2] = 0.0
    fields["raw_text"][2] = ""
    data = _read(tmp_path, content)
    assert data.train.words[0] == ("", "", "a", "b", "c", "d")
    assert data.train.words[2] == ("",)
    assert data.train.valid["text"][2].tolist() == [True] + [False] * 5


def test_a_foreign_field_of_words_is_not_believed(tmp_path: Path):
    content = files.mmsa_aligned()
    content["train"]["words"] = 5
    assert _read(tmp_path, content).train.words is None


def test_mag_bert_words_are_the_frames(tmp_path: Path):
    vectors = files.glove(tmp_path / "glove.txt")
    data = _read(tmp_path, files.mag_bert("words"), word_vectors=vectors, max_frames=3)
    assert data.train.words[1] == ("a", "good")
    assert data.train.words[6] == ("a", "good", "film")
    assert data.train.raw_text[6] == "a good film bad Zebra a good"
    assert _read(tmp_path, files.mag_bert()).train.words is None


def test_take_rows_and_concatenate(tmp_path: Path):
    content = files.mmsa_aligned()
    content["train"]["raw_text"] = [" ".join("abcdef"[: 2 + i % 5]) for i in range(7)]
    data = _read(tmp_path, content)
    mask = np.arange(7) % 3 == 1
    by_mask, by_number = msa.take_rows(data.train, mask), msa.take_rows(data.train, [1, 4])
    for part in (by_mask, by_number):
        assert part.ids == ("trainvideo$_$1", "trainvideo$_$4")
        assert part.words == (("a", "b", "c"), ("a", "b", "c", "d", "e", "f"))
        np.testing.assert_array_equal(part.scores, data.train.scores[[1, 4]])
        np.testing.assert_array_equal(part.classes, data.train.classes[[1, 4]])
        np.testing.assert_array_equal(part.valid["text"], data.train.valid["text"][[1, 4]])
    rest = msa.take_rows(data.train, ~mask)
    whole = dataset.concatenate([by_mask, rest, by_mask], "file")
    assert whole.ids[-2:] == ("trainvideo$_$1#2", "trainvideo$_$4#2")
    assert whole.words[:2] == by_mask.words
    np.testing.assert_array_equal(whole.features["audio"][2:7], rest.features["audio"])
    assert dataset.concatenate([by_mask, data.test], "file").words is None
    other = _read(tmp_path, files.mmsa_aligned(frames=4))
    with pytest.raises(InputError, match=r"file: text: splits of \[4, 6\] frames"):
        dataset.concatenate([by_mask, other.test], "file")


def test_scores_as_labels(tmp_path: Path):
    data = _read(tmp_path, files.mmsa_aligned())
    scores, weights, outputs = msa.labels(data.train, "score", "file")
    assert (scores.dtype, scores.shape, weights.dtype, outputs) == (
        np.float32,
        (7, 1),
        np.float32,
        1,
    )
    np.testing.assert_array_equal(scores[:, 0], data.train.scores)
    # a score of 0 is a score
    assert scores[1, 0] == 0
    assert (weights == 1).all()
    msa.check_classes(scores, weights, "file", "train")
    emotion = _read(tmp_path, files.mult_emotion())
    with pytest.raises(InputError, match=r"file: no field regression_labels.*'score'"):
        msa.labels(emotion.train, "score", "file")


@pytest.mark.parametrize("option", [{"context": True}, {"fold": 1}])
def test_options_of_other_layouts_are_refused(tmp_path: Path, option: dict):
    with pytest.raises(InputError, match=rf"data\.pkl: {next(iter(option))} is for the layout"):
        _read(tmp_path, files.mmsa_aligned(), **option)


def test_a_folder_of_something_else(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"is a folder without train\.pkl.*found: notes\.txt"):
        msa.read(tmp_path)
