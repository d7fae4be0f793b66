"""Readers, cleaning, scaling, labels and the .npz of multimodal sentiment files."""

import contextlib
import dataclasses
import os
import pickle
import resource
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrkd_jax.data import msa
from corrkd_jax.errors import InputError
from tests.data import files

SPLITS = ("train", "valid", "test")


def _read(tmp_path: Path, content: object, **options) -> msa.Dataset:
    return msa.read(files.save(tmp_path / "data.pkl", content), **options)


def _well_formed(data: msa.Dataset, sizes: dict[str, int] = files.SIZES) -> None:
    for name, n in sizes.items():
        split = getattr(data, name)
        assert len(split.ids) == n
        assert len(set(split.ids)) == n
        assert all(type(value) is str for value in split.ids)
        for modality in msa.MODALITIES:
            features, valid = split.features[modality], split.valid[modality]
            assert features.dtype == np.float32
            assert np.isfinite(features).all()
            assert valid.dtype == bool
            assert valid.shape == features.shape[:2]
            assert len(features) == n
            assert valid.any(axis=1).all()
        if split.scores is not None:
            assert split.scores.shape == (n,)
            assert split.scores.dtype == np.float32
        if split.classes is not None:
            assert split.classes.shape[0] == n
            assert split.classes.dtype == np.int32


def _prefix(lengths, time: int) -> np.ndarray:
    return np.arange(time) < np.asarray(lengths)[:, None]


def test_mmsa_aligned(tmp_path: Path):
    content = files.mmsa_aligned()
    for modality in msa.MODALITIES:  # a real frame of zeros: only the attention mask knows of it
        content["train"][modality][1, 2] = 0.0
    data = _read(tmp_path, content)
    _well_formed(data)
    assert data.layout == "mmsa"
    assert data.aligned
    assert data.tasks == ("sentiment",)
    assert data.source == str(tmp_path / "data.pkl")
    # 16 rows of 6 frames of 3 and 4 features; one bad value in each of three splits.
    assert data.notes == (
        "text: 1 frames of zeros at the ends of rows are real by lengths or text_bert and are kept",
        "audio: 3 values not finite (1 %) set to 0",
        "vision: 3 values not finite (0.78 %) set to 0",
    )
    for name, n in files.SIZES.items():
        split, fields = getattr(data, name), content[name]
        for modality in msa.MODALITIES:
            np.testing.assert_array_equal(split.valid[modality], _prefix(2 + np.arange(n) % 5, 6))
            expected = np.nan_to_num(fields[modality], posinf=0, neginf=0).astype(np.float32)
            np.testing.assert_array_equal(split.features[modality], expected)
        np.testing.assert_allclose(split.scores, fields["regression_labels"], rtol=1e-6)
        np.testing.assert_array_equal(split.classes[:, 0], fields["classification_labels"])
        assert split.ids == tuple(fields["id"])
        assert split.raw_text == tuple(fields["raw_text"])


def test_mmsa_unaligned(tmp_path: Path):
    data = _read(tmp_path, files.mmsa_unaligned())
    _well_formed(data)
    assert not data.aligned
    for name, n in files.SIZES.items():
        valid, rows = getattr(data, name).valid, np.arange(n)
        np.testing.assert_array_equal(valid["text"], _prefix(1 + rows % 5, 5))
        np.testing.assert_array_equal(valid["audio"], _prefix(1 + rows % 9, 9))
        np.testing.assert_array_equal(valid["vision"], _prefix(np.maximum(rows % 11, 1), 11))
    # The fake features go on after the stated lengths, which must not pass in silence.
    told, length_0 = data.notes[:3], data.notes[3:]
    assert [note.split(":")[0] for note in told] == ["text", "audio", "vision"]
    assert all("call padding" in note for note in told)
    assert length_0 == ("vision: 3 rows have no real frame; their first counts as one",)


def test_mmsa_unaligned_real_shapes(tmp_path: Path):
    data = _read(tmp_path, files.mmsa_unaligned((50, 375, 500), (768, 5, 20)))
    _well_formed(data)
    shapes = {name: array.shape[1:] for name, array in data.test.features.items()}
    assert shapes == {"text": (50, 768), "audio": (375, 5), "vision": (500, 20)}


def test_sims(tmp_path: Path):
    content = files.sims()
    data = _read(tmp_path, content)
    _well_formed(data)
    assert data.train.raw_text[0] == "我不想嫁给李茶"
    np.testing.assert_allclose(data.train.scores, content["train"]["regression_labels"], rtol=1e-6)


def test_mult_sentiment(tmp_path: Path):
    content = files.mult_sentiment()
    data = _read(tmp_path, content)
    _well_formed(data)
    assert data.layout == "mult"
    assert data.tasks == ("sentiment",)
    assert data.train.classes is None
    assert data.train.ids[3] == "trainv$_$3$_$4"
    np.testing.assert_array_equal(data.train.scores, content["train"]["labels"].ravel())
    expected = np.broadcast_to(np.arange(6) >= 2, (7, 6))
    for modality in msa.MODALITIES:
        np.testing.assert_array_equal(data.train.valid[modality], expected)
    assert data.notes == ("audio: 3 values not finite (1 %) set to 0",)


def test_mult_without_alignment(tmp_path: Path):
    data = _read(tmp_path, files.mult_sentiment((6, 9, 12)))
    _well_formed(data)
    assert not data.aligned
    assert data.train.valid["vision"].shape == (7, 12)


def test_mult_emotion(tmp_path: Path):
    data = _read(tmp_path, files.mult_emotion())
    _well_formed(data)
    assert data.tasks == ("neutral", "happy", "sad", "angry")
    assert data.train.scores is None
    np.testing.assert_array_equal(data.train.classes, (np.arange(7)[:, None] + np.arange(4)) % 2)
    assert data.train.ids[2] == "train-000002"
    assert data.test.ids[0] == "test-000000"
    assert data.notes[0] == "train: no ids in the file, generated as train-000000"


def test_python2_file(tmp_path: Path):
    content = files.mult_sentiment()
    for fields in content.values():
        fields["raw_text"] = ["don\u2019t"] * len(fields["text"])
    (tmp_path / "py2.pkl").write_bytes(files.python2_pickle(content))
    data = msa.read(tmp_path / "py2.pkl")
    expected = _read(tmp_path, content)
    assert data.train.raw_text[0] == "don\u2019t"
    assert data.train.ids == expected.train.ids
    for modality in msa.MODALITIES:
        np.testing.assert_array_equal(
            data.test.features[modality], expected.test.features[modality]
        )


def test_mag_bert_vectors(tmp_path: Path):
    content = files.mag_bert()
    data = _read(tmp_path, content, max_frames=4)
    _well_formed(data)
    assert data.layout == "mag-bert"
    assert data.aligned
    assert data.train.raw_text is None
    lengths = np.minimum(1 + np.arange(7), 4)
    for modality in msa.MODALITIES:
        np.testing.assert_array_equal(data.train.valid[modality], _prefix(lengths, 4))
        assert not data.train.features[modality][~data.train.valid[modality]].any()
    (text, vision, audio), label, segment = content["dev"][3]
    for name, array in (("text", text), ("vision", vision), ("audio", audio)):
        np.testing.assert_array_equal(data.valid.features[name][3], array.astype(np.float32))
    assert data.valid.scores[3] == label[0, 0]
    assert data.valid.ids[3] == segment
    long = content["train"][6][0][1]
    np.testing.assert_array_equal(data.train.features["vision"][6], long[:4].astype(np.float32))
    assert _read(tmp_path, content).train.features["text"].shape == (7, 50, 5)


def test_mag_bert_words(tmp_path: Path):
    content = files.mag_bert("words")
    with pytest.raises(InputError, match=r"data\.pkl: train: text: .*word_vectors"):
        _read(tmp_path, content)
    data = _read(tmp_path, content, word_vectors=files.glove(tmp_path / "glove.txt"))
    _well_formed(data)
    expected = [[1, 2], [3, 4], [5, 6], [0, 0], [7, 8], [1, 2]]
    np.testing.assert_array_equal(data.train.features["text"][5, :6], expected)
    assert data.train.valid["text"][5, :6].all()
    assert not data.train.valid["text"][5, 6:].any()
    assert data.train.raw_text[2] == "a good film"
    assert data.notes == ("text: 1 of 5 words have no vector, set to 0",)


def test_mag_bert_tokens_need_word_vectors(tmp_path: Path):
    with pytest.raises(InputError, match=r"train: row 0: text: word vectors are needed"):
        _read(tmp_path, files.mag_bert("tokens"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1 2\ngood 3\n", "line 2: expected a word and its 2 numbers"),
        ("a 1 x\n", "line 1: the vector of 'a'"),
        ("unused 1 2\n", "none of the file's words"),
        ("", "none of the file's words"),
        (None, "cannot be read"),
    ],
)
def test_bad_word_vectors(tmp_path: Path, text: str | None, message: str):
    path = tmp_path / "glove.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"glove\.txt: .*" + message.split("'")[0]):
        _read(tmp_path, files.mag_bert("words"), word_vectors=path)


def test_word_vectors_with_a_header_and_a_word_with_a_space(tmp_path: Path):
    path = tmp_path / "glove.txt"
    path.write_text("3 2\na 1 2\n. . 5 6\ngood 3 4\n")
    data = _read(tmp_path, files.mag_bert("words"), word_vectors=path)
    np.testing.assert_array_equal(data.train.features["text"][1, :2], [[1, 2], [3, 4]])


def test_word_vectors_where_text_is_vectors_without_raw_text(tmp_path: Path):
    path = files.glove(tmp_path / "glove.txt")
    for content in (files.mult_sentiment(), files.mag_bert()):
        with pytest.raises(InputError, match=r"data\.pkl: train: text: is numbers already"):
            _read(tmp_path, content, word_vectors=path)


def test_padding_from_content(tmp_path: Path):
    content = files.mult_sentiment()
    fields = content["train"]
    for modality in msa.MODALITIES:
        fields[modality][:] = 0.0
    fields["text"][0, 2] = 1.0
    fields["vision"][0, 4] = 1.0
    data = _read(tmp_path, content)
    for modality in msa.MODALITIES:
        # Aligned: the union over the modalities, with the zero frame inside; an all-zero row keeps
        # its first frame.
        assert data.train.valid[modality][0].tolist() == [False, False, True, True, True, False]
        assert data.train.valid[modality][1].tolist() == [True] + [False] * 5

    content = files.mult_sentiment((6, 7, 8))
    content["train"]["audio"][0] = 0.0
    content["train"]["audio"][0, 3:6:2] = -1.0
    data = _read(tmp_path, content)
    assert data.train.valid["audio"][0].tolist() == [False] * 3 + [True] * 3 + [False]
    assert data.train.valid["text"][0].tolist() == [False] * 2 + [True] * 4


def test_lengths_win_over_the_attention_mask(tmp_path: Path):
    content = files.mmsa_aligned()
    content["train"]["audio"][:, 1:] = 0.0
    content["train"]["audio_lengths"] = [1] * 7
    data = _read(tmp_path, content)
    np.testing.assert_array_equal(data.train.valid["audio"], _prefix([1] * 7, 6))
    np.testing.assert_array_equal(data.train.valid["vision"], _prefix(2 + np.arange(7) % 5, 6))


def test_one_dict_for_all_splits(tmp_path: Path):
    fields = files.mmsa_aligned()["train"]
    data = _read(tmp_path, {"train": fields, "valid": fields, "test": fields})
    _well_formed(data, dict.fromkeys(SPLITS, 7))
    assert "7 ids are in both train and valid: trainvideo$_$0" in data.notes


def test_repeated_ids(tmp_path: Path):
    content = files.mmsa_aligned()
    content["train"]["id"] = ["a", "b", "a", "a#2", "a", "c", "b"]
    data = _read(tmp_path, content)
    assert data.train.ids == ("a", "b", "a#3", "a#2", "a#4", "c", "b#2")
    assert "train: 3 repeated ids made unique by a suffix such as #2" in data.notes


def _change(split: str, key: str, value):
    def change(content: dict) -> None:
        if value is None:
            del content[split][key]
        else:
            content[split][key] = value(content[split][key]) if callable(value) else value

    return change


def _no_labels(content: dict) -> None:
    for fields in content.values():
        del fields["regression_labels"], fields["classification_labels"]


def _with_nan(labels):
    labels = np.array(labels, float)
    labels[2] = np.nan
    return labels


BAD_MMSA = {
    "no split": (lambda content: content.pop("valid"), ["no split 'valid'", "test, train"]),
    "dev": (lambda content: content.update(dev=content.pop("valid")), ["'dev'"]),
    "split is a string": (lambda content: content.update(test="x"), ["dict, dict, str"]),
    "no audio": (_change("test", "audio", None), ["test: no key 'audio'", "found:", "text_bert"]),
    "no labels": (_no_labels, ["train: no key 'regression_labels'"]),
    "labels in train only": (
        _change("test", "regression_labels", None),
        ["test: regression_labels"],
    ),
    "rows": (_change("valid", "vision", lambda x: x[:-1]), ["valid: vision: 3 rows", "4"]),
    "rows of labels": (
        _change("train", "regression_labels", lambda x: x[1:]),
        ["train: regression_labels: 6 rows", "7"],
    ),
    "rows of ids": (_change("train", "id", lambda x: x[1:]), ["train: id: 6 rows"]),
    "id is a number": (_change("train", "id", 7), ["train: id: is no list"]),
    "rows of text": (_change("train", "raw_text", lambda x: x[1:]), ["train: raw_text: 6 rows"]),
    "T = 0": (_change("train", "audio", lambda x: x[:, :0]), ["train: audio: is empty, T = 0"]),
    "D = 0": (_change("train", "text", lambda x: x[..., :0]), ["train: text: is empty, D = 0"]),
    "n = 0": (_change("test", "text", lambda x: x[:0]), ["test: text: is empty, n = 0"]),
    "two axes": (_change("train", "vision", lambda x: x[0]), ["train: vision: has 2 axes"]),
    "ragged": (_change("train", "audio", [[1.0], [1.0, 2.0]]), ["train: audio: not an array"]),
    "strings": (_change("train", "audio", ["a"]), ["train: audio: not an array"]),
    "features of a split": (
        _change("test", "audio", lambda x: x[..., :2]),
        ["test: audio: 2 features, but train has 3"],
    ),
    "nan label": (
        _change("valid", "regression_labels", _with_nan),
        ["valid: regression_labels: 1 labels are not finite"],
    ),
    "endless score": (
        _change("train", "regression_labels", lambda x: x * 1e300),
        ["train: regression_labels: 6 labels are not finite"],
    ),
    "large class": (
        _change("train", "classification_labels", lambda x: x + 2.0**40),
        ["train: classification_labels: class labels must be whole"],
    ),
    "infinite class": (
        _change("train", "classification_labels", lambda x: x + np.inf),
        ["train: classification_labels: 7 labels are not finite"],
    ),
    "half a class": (
        _change("train", "classification_labels", lambda x: x + 0.5),
        ["train: classification_labels: class labels must be whole"],
    ),
    "labels of two columns": (
        _change("train", "regression_labels", lambda x: np.stack([x, x], 1)),
        ["train: regression_labels: 2 values"],
    ),
    "negative length": (
        _change("train", "audio_lengths", [-1] * 7),
        ["train: audio_lengths: lengths must be whole"],
    ),
    "half a frame": (
        _change("train", "audio_lengths", [1.5] * 7),
        ["train: audio_lengths: lengths must be whole"],
    ),
    "endless length": (
        _change("train", "audio_lengths", [np.inf] * 7),
        ["train: audio_lengths: lengths must be whole"],
    ),
    "few lengths": (_change("train", "audio_lengths", [1]), ["train: audio_lengths: 1 rows"]),
    "text_bert": (
        _change("train", "text_bert", lambda x: x[:, :2]),
        ["train: text_bert: shape (7, 2, 6)", "(7, 3, 6)"],
    ),
    "attention mask last": (
        _change("train", "text_bert", lambda x: x[:, [0, 2, 1]]),
        ["train: text_bert: the attention mask, [:, 1], is empty in 7 of 7 rows", "in this order"],
    ),
    "ids second": (
        _change("train", "text_bert", lambda x: x[:, [1, 0, 2]]),
        ["train: text_bert: the attention mask, [:, 1], is not of 0 and 1"],
    ),
}


@pytest.mark.parametrize("case", sorted(BAD_MMSA))
def test_bad_mmsa(tmp_path: Path, case: str):
    change, words = BAD_MMSA[case]
    content = files.mmsa_aligned()
    for fields in content.values():
        for modality in msa.MODALITIES:
            fields[f"{modality}_lengths"] = [1] * len(fields["text"])
    change(content)
    with pytest.raises(InputError) as caught:
        _read(tmp_path, content)
    message = str(caught.value)
    for word in (str(tmp_path / "data.pkl"), *words):
        assert word in message
    assert "\n" not in message


def _row(change):
    def apply(content: dict) -> None:
        (text, vision, audio), label, segment = content["dev"][1]
        content["dev"][1] = change(text, vision, audio, label, segment)

    return apply


BAD_OTHER = {
    "mult labels": (
        files.mult_sentiment,
        _change("train", "labels", lambda x: np.zeros((7, 5, 3))),
        "train: labels: shape (7, 5, 3)",
    ),
    "mult no labels": (
        files.mult_sentiment,
        _change("test", "labels", None),
        "test: no key 'labels'",
    ),
    "mult nan": (
        files.mult_sentiment,
        _change("train", "labels", lambda x: x * np.nan),
        "not finite",
    ),
    "emotion nan": (
        files.mult_emotion,
        _change("train", "labels", lambda x: x * np.nan),
        "train: labels: 56 labels are not finite",
    ),
    "emotion of neither": (
        files.mult_emotion,
        _change("train", "labels", lambda x: x * (np.arange(7) > 1)[:, None, None]),
        "train: labels: 2 rows are not one-hot",
    ),
    "no rows": (files.mag_bert, lambda content: content["test"].clear(), "test: has no rows"),
    "form": (files.mag_bert, _row(lambda t, v, a, label, s: (t, v, a)), "dev: row 1: expected"),
    "frames": (
        files.mag_bert,
        _row(lambda t, v, a, label, s: ((t, v[1:], a), label, s)),
        "dev: row 1: vision: shape (1, 4)",
    ),
    "sizes": (
        files.mag_bert,
        _row(lambda t, v, a, label, s: ((t, v, a[:, 1:]), label, s)),
        "dev: audio: rows have [2, 3] features",
    ),
    "label": (
        files.mag_bert,
        _row(lambda t, v, a, label, s: ((t, v, a), np.zeros((1, 7)), s)),
        "dev: row 1: label: shape (1, 7)",
    ),
    "text": (
        files.mag_bert,
        _row(lambda t, v, a, label, s: ((None, v, a), label, s)),
        "dev: row 1: text",
    ),
}


@pytest.mark.parametrize("case", sorted(BAD_OTHER))
def test_bad_mult_and_mag_bert(tmp_path: Path, case: str):
    make, change, words = BAD_OTHER[case]
    content = make()
    change(content)
    with pytest.raises(InputError) as caught:
        _read(tmp_path, content)
    assert str(tmp_path / "data.pkl") in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds a list"),
        ({"a": 1, "b": 2}, "no split 'train'; the file must have it (found: a, b)"),
        ({}, "found: none"),
        ({"train": {}, "valid": {}, "test": {}}, "train: no key 'text'"),
    ],
)
def test_wrong_layout(tmp_path: Path, content: object, words: str):
    with pytest.raises(InputError) as caught:
        _read(tmp_path, content)
    assert words in str(caught.value)
    assert "data.pkl" in str(caught.value)


def test_missing_file_and_max_frames(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.pkl: no such file"):
        msa.read(tmp_path / "none.pkl")
    with pytest.raises(InputError, match="max_frames is 0"):
        _read(tmp_path, files.mag_bert(), max_frames=0)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_shape_length_and_bad_value(tmp_path_factory, data):
    """Whatever the shapes, lengths and values: finite float32 of the same shape, exact masks."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    share = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    kind = data.draw(st.sampled_from([np.float16, np.float32, np.float64]))
    size = st.integers(1, 5)
    times = [data.draw(size) for _ in msa.MODALITIES]
    dims = [data.draw(size) for _ in msa.MODALITIES]
    use_lengths = data.draw(st.booleans())
    random = np.random.default_rng(seed)
    content: dict = {}
    for split in SPLITS:
        n = data.draw(size)
        fields = content[split] = {"regression_labels": random.normal(size=n)}
        for modality, time, dim in zip(msa.MODALITIES, times, dims, strict=True):
            array = random.normal(size=(n, time, dim)) * random.integers(0, 2, (n, time, 1))
            bad = random.random(array.shape) < share
            array[bad] = random.choice([np.nan, np.inf, -np.inf, 1e300], bad.sum())
            with np.errstate(over="ignore"):
                fields[modality] = array.astype(kind)
            if use_lengths:
                lengths = random.integers(0, time + 1, n)
                fields[modality][~_prefix(lengths, time)] = 0.0
                fields[f"{modality}_lengths"] = lengths
    path = files.save(tmp_path_factory.getbasetemp() / "property.pkl", content, 4)
    dataset = msa.read(path)
    _well_formed(dataset, {split: len(content[split]["regression_labels"]) for split in SPLITS})
    bad = Counters()
    for split in SPLITS:
        read, fields = getattr(dataset, split), content[split]
        for modality in msa.MODALITIES:
            with np.errstate(over="ignore"):
                raw = fields[modality].astype(np.float32)
            finite = np.isfinite(raw)
            bad.add(modality, finite)
            np.testing.assert_array_equal(read.features[modality], np.where(finite, raw, 0))
            time = raw.shape[1]
            nonzero = read.features[modality].any(-1)
            assert read.valid[modality][nonzero].all()
            doubted = any("_lengths is not used" in note for note in dataset.notes)
            if use_lengths and not doubted:
                lengths = np.maximum(fields[f"{modality}_lengths"], 1)
                np.testing.assert_array_equal(read.valid[modality], _prefix(lengths, time))
    for modality in msa.MODALITIES:
        told = [
            note for note in dataset.notes if note.startswith(f"{modality}: ") and "fin" in note
        ]
        assert len(told) == (bad.count[modality] > 0)
        assert not told or told[0].startswith(f"{modality}: {bad.count[modality]} values")


JUNK = (
    *(None, 3, "x", (), {}, object, np.array(5), np.zeros(0), [[1], [1, 2]], np.array(["a", "b"])),
    *(lambda n: [None] * n, lambda n: ["a"] * n, lambda n: [1e300] * n, lambda n: [True] * n),
    *(
        lambda n: np.full(n, np.nan),
        lambda n: np.full(n, 2**62),
        lambda n: np.arange(n, dtype="u1"),
    ),
    *(
        lambda n: np.ones((n, 3, 6)),
        lambda n: np.ones((n, 6, 5), complex),
        lambda n: np.ones((n, 4)),
    ),
    *(
        lambda n: np.full((n, 1, 1), 2.0),
        lambda n: np.full((n, 4, 2), 0.5),
        lambda n: np.ones((n, 0)),
    ),
)


def test_fields_of_another_kind_are_read_or_refused_in_one_line(monkeypatch):
    """Four layouts, one to three fields replaced in one split or in all."""
    random = np.random.default_rng(0)
    keys = ("text_bert", "id", "raw_text", "words", "text_valid", "labels", *msa.MODALITIES)
    keys += ("regression_labels", "classification_labels", "audio_lengths", "vision_lengths")
    makes = (files.mmsa_aligned, files.mmsa_unaligned, files.mult_sentiment, files.mult_emotion)
    refused = []
    for number in range(400):
        content = makes[number % 4]()
        for _ in range(random.integers(1, 4)):
            key, junk = keys[random.integers(len(keys))], JUNK[random.integers(len(JUNK))]
            for split in SPLITS if random.random() < 0.5 else (SPLITS[random.integers(3)],):
                n = files.SIZES[split]
                content[split][key] = junk(n) if callable(junk) and junk is not object else junk
        monkeypatch.setattr("corrkd_jax.data.unpickle.load", lambda _, content=content: content)
        try:
            data = msa.read("data.pkl")
            _well_formed(data)
            for mode in msa.LABEL_MODES:
                with contextlib.suppress(InputError):
                    msa.label_notes(data.train, mode, "data.pkl", "train")
            assert not any("\n" in note for note in data.notes)
        except InputError as error:
            refused.append(str(error))
    assert 100 < len(refused) < 390
    assert all(message.startswith("data.pkl: ") for message in refused)
    assert not any("\n" in message for message in refused)


class Counters:
    """Values that are not finite, by modality."""

    def __init__(self):
        self.count = dict.fromkeys(msa.MODALITIES, 0)

    def add(self, modality: str, finite: np.ndarray) -> None:
        self.count[modality] += int(np.sum(~finite))


def _one_split(random: np.random.Generator, n: int = 200, time: int = 5) -> msa.Split:
    features, valid = {}, {}
    for modality, size in zip(msa.MODALITIES, files.DIMS, strict=True):
        scale, shift = random.uniform(0.1, 9, size), random.normal(size=size) * 1e3
        features[modality] = (random.normal(size=(n, time, size)) * scale + shift).astype("f4")
        valid[modality] = _prefix(random.integers(1, time + 1, n), time)
        features[modality][~valid[modality]] = 777.0
    scores = random.uniform(-3, 3, n).astype(np.float32)
    return msa.Split(features, valid, tuple(map(str, range(n))), scores, None, None)


@pytest.mark.parametrize("chunk", [1, 1000, 2**26])
def test_scaler(monkeypatch, chunk: int):
    monkeypatch.setattr("corrkd_jax.data.fields._CHUNK_BYTES", chunk)
    split = _one_split(np.random.default_rng(0))
    split.features["audio"][..., 1] = 0.1  # does not vary
    split.features["vision"][3, 0, 2] = 1e6  # an outlier, to be clipped
    scaler = msa.fit_scaler(split, clip=4.0)
    scaled = msa.apply_scaler(split, scaler)
    for modality in msa.MODALITIES:
        frames = split.features[modality][split.valid[modality]].astype(np.float64)
        np.testing.assert_allclose(scaler.mean[modality], frames.mean(0), rtol=1e-6)
        constant = (modality == "audio") & (np.arange(frames.shape[1]) == 1)
        std = np.where(constant, 1.0, frames.std(0))
        np.testing.assert_allclose(scaler.std[modality], std, rtol=1e-5)
        result = scaled.features[modality]
        assert result.dtype == np.float32
        assert np.abs(result).max() <= 4.0
        assert not result[~split.valid[modality]].any()
        if modality != "vision":
            real = result[scaled.valid[modality]]
            np.testing.assert_allclose(real.mean(0), 0, atol=1e-2)
            np.testing.assert_allclose(real.std(0)[~constant], 1, atol=1e-2)
    assert scaled.features["vision"][3, 0, 2] == 4.0
    np.testing.assert_allclose(scaled.features["audio"][..., 1], 0, atol=1e-6)
    assert scaled.ids is split.ids
    assert scaled.scores is split.scores
    with pytest.raises(InputError, match="clip is 0"):
        msa.fit_scaler(split, clip=0)


def test_scaler_of_extreme_features():
    split = _one_split(np.random.default_rng(1))
    split.features["text"][..., 0] *= 1e-41  # denormal numbers
    split.features["text"][::2, :, 1] = 3e38
    split.features["text"][1::2, :, 1] = -3e38
    scaled = msa.apply_scaler(split, msa.fit_scaler(split))
    assert np.isfinite(scaled.features["text"]).all()
    assert abs(scaled.features["text"][..., 1]).max() < 2


def _split(scores=None, classes=None) -> msa.Split:
    scores = None if scores is None else np.array(scores, np.float32)
    classes = None if classes is None else np.array(classes, np.int32)
    return msa.Split({}, {}, (), scores, classes, None)


def test_label_modes():
    split = _split([-3.4, -1.0, -0.5, 0.0, 0.5, 1.5, 2.5, 3.0], [[3], [0]])
    expected = {
        "binary": ([0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1, 1], 2),
        "ternary": ([0, 0, 0, 1, 2, 2, 2, 2], [1] * 8, 3),
        # numpy rounds half to even: -0.5 -> 0, 0.5 -> 0, 1.5 -> 2, 2.5 -> 2
        "seven": ([0, 2, 3, 3, 3, 5, 5, 6], [1] * 8, 7),
        "classes": ([3, 0], [1, 1], 4),
    }
    for mode, (classes, weights, number) in expected.items():
        found = msa.labels(split, mode, "file")
        assert found[0].dtype == np.int32
        assert found[1].dtype == np.float32
        assert found[0].ndim == found[1].ndim == 2
        assert found[0][:, 0].tolist() == classes
        assert found[1][:, 0].tolist() == weights
        assert found[2] == number


def test_labels_of_emotions_have_two_classes():
    classes, weights, number = msa.labels(_split(classes=np.zeros((3, 4))), "classes", "file")
    assert classes.shape == weights.shape == (3, 4)
    assert number == 2


def test_labels_that_are_absent():
    with pytest.raises(InputError, match=r"f\.pkl: no field regression_labels.*use classes"):
        msa.labels(_split(classes=[[1]]), "binary", "f.pkl")
    with pytest.raises(InputError, match=r"f\.pkl: no field classification_labels.*use binary"):
        msa.labels(_split(scores=[1]), "classes", "f.pkl")
    with pytest.raises(InputError, match=r"f\.pkl: label mode 'five'.*binary, ternary, seven"):
        msa.labels(_split(scores=[1]), "five", "f.pkl")
    for classes in ([[1]], [[0, 2], [1, 0]]):
        with pytest.raises(InputError, match=r"f\.pkl: .*'single' needs several binary tasks"):
            msa.labels(_split(classes=classes), "single", "f.pkl")


def test_one_label_of_several_binary_tasks():
    """Rows in which no task is 1, or more than one, do not count."""
    tasks = [[0, 1, 0, 0], [0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    classes, weights, number = msa.labels(_split(classes=tasks), "single", "f.pkl")
    np.testing.assert_array_equal(classes[[0, 1, 4], 0], [1, 3, 0])
    np.testing.assert_array_equal(weights, [[1], [1], [0], [0], [1]])
    assert classes.dtype == np.int32
    assert number == 4


def test_check_classes():
    both, ones = np.array([[0, 1], [1, 1]]), np.ones((2, 2))
    msa.check_classes(both[:, :1], ones[:, :1], "f.pkl", "train")
    with pytest.raises(InputError, match=r"f\.pkl: train: all labels of task 1 are one class \(1"):
        msa.check_classes(both, ones, "f.pkl", "train")
    with pytest.raises(InputError, match=r"all labels are one class \(1\)"):
        msa.check_classes(both[:, :1], np.array([[0], [1]]), "f.pkl", "train")
    with pytest.raises(InputError, match="have weight 0"):
        msa.check_classes(both, 0 * ones, "f.pkl", "train")


def test_id_hashes():
    hashes = msa.id_hashes(["planted$_$000001", "é", ""])
    assert hashes.dtype == np.uint32
    assert hashes.tolist() == [
        [714405703, 1149397448],
        [2344557259, 790229999],
        [1470146276, 3031595380],
    ]
    many = msa.id_hashes([f"video{i % 93}$_${i}" for i in range(20_000)])
    assert many.shape == (20_000, 2)
    assert len(np.unique(many, axis=0)) == 20_000
    assert len(np.unique(many[:, 0])) > 19_990
    assert msa.id_hashes([]).shape == (0, 2)


def _equal(left: msa.Dataset, right: msa.Dataset) -> None:
    assert left.tasks == right.tasks
    assert left.aligned == right.aligned
    for name in SPLITS:
        first, second = getattr(left, name), getattr(right, name)
        assert first.ids == second.ids
        assert first.raw_text == second.raw_text
        for modality in msa.MODALITIES:
            np.testing.assert_array_equal(first.features[modality], second.features[modality])
            np.testing.assert_array_equal(first.valid[modality], second.valid[modality])
        for key in ("scores", "classes"):
            here, there = getattr(first, key), getattr(second, key)
            assert (here is None) == (there is None)
            if here is not None:
                assert here.dtype == there.dtype
                np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize(
    "make", [files.mmsa_aligned, files.mmsa_unaligned, files.mult_emotion, files.sims]
)
def test_npz_round_trip(tmp_path: Path, make):
    data = _read(tmp_path, make())
    path = tmp_path / "data.npz"
    msa.write_npz(data, path)
    again = msa.read(path)
    assert again.layout == "npz"
    assert again.source == str(path)
    assert again.notes == data.notes
    _equal(data, again)
    for name in SPLITS:
        for array in getattr(again, name).features.values():
            assert isinstance(array, np.memmap)
            assert not array.flags.writeable
    assert sorted(os.listdir(tmp_path)) == ["data.npz", "data.pkl"]
    # A mapped dataset can be written in its turn, over its own file, and NumPy reads the result.
    msa.write_npz(again, path)
    _equal(data, msa.read(path))
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            assert archive[key].dtype != object
        np.testing.assert_array_equal(archive["train/text"], data.train.features["text"])
    scaled = msa.apply_scaler(again.train, msa.fit_scaler(again.train))
    assert np.isfinite(scaled.features["text"]).all()


def test_npz_of_a_fortran_array(tmp_path: Path):
    data = _read(tmp_path, files.mmsa_aligned())
    text = np.asfortranarray(data.train.features["text"])
    turned = dataclasses.replace(data.train, features=data.train.features | {"text": text})
    msa.write_npz(dataclasses.replace(data, train=turned), tmp_path / "data.npz")
    _equal(data, msa.read(tmp_path / "data.npz"))


def test_npz_compressed_is_read_too(tmp_path: Path):
    data = _read(tmp_path, files.mmsa_aligned())
    msa.write_npz(data, tmp_path / "data.npz")
    with np.load(tmp_path / "data.npz") as archive:
        np.savez_compressed(tmp_path / "small.npz", **archive)
    _equal(data, msa.read(tmp_path / "small.npz"))


def test_npz_reads_are_lazy(tmp_path: Path):
    data = _read(tmp_path, files.mmsa_aligned())
    features = {m: np.zeros((7, 4000, 100), np.float32) for m in msa.MODALITIES}
    valid = {m: np.ones((7, 4000), bool) for m in msa.MODALITIES}
    train = dataclasses.replace(data.train, features=features, valid=valid)
    rest = {
        name: dataclasses.replace(
            getattr(data, name),
            features={m: np.ones((n, 6, 100), np.float32) for m in msa.MODALITIES},
        )
        for name, n in (("valid", 4), ("test", 5))
    }
    path = tmp_path / "data.npz"
    msa.write_npz(dataclasses.replace(data, train=train, **rest), path)
    array = msa.read(path).train.features["audio"]
    # The array is the bytes of the file: what is written there afterwards shows.
    with path.open("r+b") as file:
        file.seek(array.offset)
        file.write(np.float32(42).tobytes())
    assert array[0, 0, 0] == 42
    assert array.filename == path


def _rewrite(path: Path, **changes) -> Path:
    with np.load(path) as archive:
        arrays = dict(archive)
    for key, value in changes.items():
        arrays.pop(key, None)
        if value is not None:
            arrays[key] = value
    np.savez(path, **arrays)
    return path


BAD_NPZ = {
    "train/text": (None, "train: no key 'text'"),
    "valid/audio_valid": (np.zeros((4, 6), bool), "valid: audio_valid: must be bool (4, 6)"),
    "test/ids": (np.array(["a"] * 5), "test: ids: must be unique"),
    "train/ids": (np.array(["a"] * 5), "train: ids: 5 rows"),
    "test/vision": (np.zeros((5, 6)), "test: vision: has 2 axes"),
    "valid/vision": (np.zeros((4, 6, 9), np.float32), "valid: vision: 9 features"),
    "train/scores": (np.full(7, np.nan), "train: regression_labels: 7 labels are not finite"),
    "test/classes": (np.arange(5) - 1, "test: classification_labels: class labels must be whole"),
    "train/raw_text": (np.zeros(3, np.uint8), "train: raw_text: is no JSON list"),
    "test/text_valid": (
        ~_prefix(2 + np.arange(5) % 5, 6) | (np.arange(6) == 5),
        "test: text_valid: in 4 of 5 rows it is True on zeros and False on all else",
    ),
    "valid/text": (np.array([None]), "not a whole .npz file of plain arrays"),
}


@pytest.mark.parametrize("key", sorted(BAD_NPZ))
def test_bad_npz(tmp_path: Path, key: str):
    value, words = BAD_NPZ[key]
    path = tmp_path / "data.npz"
    msa.write_npz(_read(tmp_path, files.mmsa_aligned()), path)
    _rewrite(path, **{key: value})
    with pytest.raises(InputError) as caught:
        msa.read(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_broken_and_foreign_zip(tmp_path: Path):
    path = tmp_path / "data.npz"
    msa.write_npz(_read(tmp_path, files.mmsa_aligned()), path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"data\.npz: not a whole \.npz"):
        msa.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    with pytest.raises(InputError, match=r"data\.npz: is a file of torch's, not a pickle"):
        msa.read(path)


def test_npz_with_a_pickle_inside_runs_nothing(tmp_path: Path):
    class Touch:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sentinel"),)

    path = tmp_path / "data.npz"
    msa.write_npz(_read(tmp_path, files.mmsa_aligned()), path)
    _rewrite(path, **{"train/scores": np.array([Touch()])})
    with pytest.raises(InputError):
        msa.read(path)
    assert not (tmp_path / "sentinel").exists()
    with np.load(path, allow_pickle=True) as archive:
        _ = archive["train/scores"]  # otherwise an absent sentinel proves nothing
    assert (tmp_path / "sentinel").exists()


def test_full_disk_leaves_the_older_file(tmp_path: Path):
    data = _read(tmp_path, files.mmsa_aligned())
    path = tmp_path / "data.npz"
    msa.write_npz(data, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"data\.npz: cannot be written"):
            msa.write_npz(data, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["data.npz", "data.pkl"]


def test_write_to_impossible_paths(tmp_path: Path):
    data = _read(tmp_path, files.mmsa_aligned())
    for path in (tmp_path / "none" / "x.npz", tmp_path / "data.pkl" / "x.npz", tmp_path):
        with pytest.raises(InputError, match="cannot be written"):
            msa.write_npz(data, path)
    assert os.listdir(tmp_path) == ["data.pkl"]


def test_memory_is_not_held_twice(tmp_path: Path):
    content = files.mmsa_aligned(frames=40, sizes={"train": 400, "valid": 3, "test": 3})
    for fields in content.values():
        n = len(fields["text"])
        for modality in msa.MODALITIES:
            fields[modality] = np.ones((n, 40, 100))
        fields["regression_labels"] = np.arange(n) - 1.0
        fields["classification_labels"] = np.zeros(n)
        fields["raw_text"], fields["id"] = ["x"] * n, [str(i) for i in range(n)]
        fields["text_bert"] = np.ones((n, 3, 40))
    path = files.save(tmp_path / "data.pkl", content)
    del content, fields
    whole = path.stat().st_size
    tracemalloc.start()
    try:
        msa.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The float64 file and one float32 modality (a sixth), not the file and all three (a half).
    assert peak < 1.3 * whole


DATA = Path(
    os.environ.get("CORRKD_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
MOSI = DATA / "mosi" / "mosi_context8.pkl"


@pytest.mark.skipif(not MOSI.exists(), reason="no real MOSI file; set CORRKD_SHARED_DATA")
def test_real_mosi():
    data = msa.read(MOSI)
    _well_formed(data, {"train": 1447, "valid": 209, "test": 206})
    assert data.layout == "mmsa"
    assert data.aligned
    assert data.notes == ()
    shapes = [data.train.features[modality].shape[1:] for modality in msa.MODALITIES]
    assert shapes == [(8, 100), (8, 73), (8, 100)]
    with MOSI.open("rb") as file:
        content = pickle.load(file)
    for name in SPLITS:
        for modality in msa.MODALITIES:
            lengths = content[name][f"{modality}_lengths"]
            split = getattr(data, name)
            np.testing.assert_array_equal(split.valid[modality], _prefix(lengths, 8))
    for mode, number in (("binary", 2), ("ternary", 3), ("seven", 7), ("classes", 3)):
        classes, weights, found = msa.labels(data.train, mode, data.source)
        msa.check_classes(classes, weights, data.source, "train")
        assert found == number
    scaled = msa.apply_scaler(data.train, msa.fit_scaler(data.train))
    assert all(np.abs(array).max() <= 5 for array in scaled.features.values())
