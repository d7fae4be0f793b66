"""Fake files in the published layouts, small enough for tests."""

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {"train": 7, "valid": 4, "test": 5}
DIMS = (5, 3, 4)


def save(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def _features(random: np.random.Generator, n: int, frames, dims, dtype) -> dict[str, Any]:
    return {
        modality: random.normal(size=(n, time, size)).astype(dtype)
        for modality, time, size in zip(("text", "audio", "vision"), frames, dims, strict=True)
    }


def _mmsa_labels(random: np.random.Generator, split: str, n: int) -> dict[str, Any]:
    scores = np.round(random.uniform(-3, 3, n), 1)
    scores[:3] = (-2.5, 0.0, 1.5)
    return {
        "raw_text": [f"{split} sentence {number}" for number in range(n)],
        "id": [f"{split}video$_${number}" for number in range(n)],
        "annotations": ["Negative" if score < 0 else "Positive" for score in scores],
        "classification_labels": np.sign(scores) + 1,
        "regression_labels": scores,
    }


def mmsa_aligned(frames: int = 6, sizes: dict[str, int] | None = None) -> dict[str, dict]:
    """MMSA `aligned_50.pkl`: text_bert, no lengths, float64; row i has 2 + i % (frames - 1) frames.

    The first audio value of each split is -inf and the first vision value NaN.
    """
    random = np.random.default_rng(0)
    content = {}
    for split, n in (sizes or SIZES).items():
        fields = _features(random, n, (frames,) * 3, DIMS, np.float64)
        lengths = 2 + np.arange(n) % (frames - 1)
        mask = np.arange(frames) < lengths[:, None]
        for modality in ("text", "audio", "vision"):
            fields[modality][~mask] = 0.0
        fields["audio"][0, 0, 0] = -np.inf
        fields["vision"][0, 0, 0] = np.nan
        fields["text_bert"] = np.stack([100 * mask, mask, 0 * mask], 1).astype(np.float64)
        content[split] = fields | _mmsa_labels(random, split, n)
    return content


def mmsa_unaligned(
    frames: tuple[int, int, int] = (5, 9, 11), dims: tuple[int, int, int] = DIMS
) -> dict[str, dict]:
    """MMSA `unaligned_50.pkl`: text_bert, audio and vision lengths; features reach past them."""
    random = np.random.default_rng(1)
    content = {}
    for split, n in SIZES.items():
        fields = _features(random, n, frames, dims, np.float32)
        mask = np.arange(frames[0]) < 1 + np.arange(n)[:, None] % frames[0]
        fields["text_bert"] = np.stack([mask, mask, mask], 1).astype(np.float32)
        fields["audio_lengths"] = [1 + number % frames[1] for number in range(n)]
        fields["vision_lengths"] = np.arange(n) % frames[2]
        content[split] = fields | _mmsa_labels(random, split, n)
    return content


def sims() -> dict[str, dict]:
    """SIMS `unaligned_39.pkl`: unimodal labels beside the multimodal one, Chinese text."""
    content = mmsa_unaligned((6, 8, 7))
    for fields in content.values():
        scores = fields["regression_labels"] / 3
        fields["regression_labels"] = scores
        for letter in "TAV":
            fields[f"regression_labels_{letter}"] = -scores
        fields["raw_text"] = ["我不想嫁给李茶" for _ in scores]
    return content


def mult_sentiment(frames: tuple[int, int, int] = (6, 6, 6)) -> dict[str, dict]:
    """MulT `mosi_data.pkl`: labels [n, 1, 1], ids of three byte strings, zeros before the words."""
    random = np.random.default_rng(2)
    content = {}
    for split, n in SIZES.items():
        fields = _features(random, n, frames, DIMS, np.float32)
        for modality in ("text", "audio", "vision"):
            fields[modality][:, :2] = 0.0
        fields["audio"][1, 3, 1] = -np.inf
        labels = _mmsa_labels(random, split, n)["regression_labels"]
        fields["labels"] = labels.reshape(n, 1, 1).astype(np.float32)
        fields["id"] = np.array(
            [[f"{split}v".encode(), str(i).encode(), str(i + 1).encode()] for i in range(n)]
        )
        content[split] = fields
    return content


def mult_emotion() -> dict[str, dict]:
    """MulT `iemocap_data.pkl`: labels [n, 4, 2] one-hot, no ids; class (row, emotion) = parity."""
    random = np.random.default_rng(3)
    content = {}
    for split, n in SIZES.items():
        fields = _features(random, n, (4, 4, 4), DIMS, np.float32)
        classes = (np.arange(n)[:, None] + np.arange(4)) % 2
        fields["labels"] = np.eye(2)[classes]
        content[split] = fields
    return content


WORDS = ("a", "good", "film", "bad", "Zebra")


def mag_bert(text: str = "vectors") -> dict[str, list]:
    """MAG-BERT `mosi.pkl`: rows ((text, vision, audio), label, segment); row i has 1 + i frames.

    Args:
        text: "vectors", "words" or "tokens".
    """
    random = np.random.default_rng(4)
    content = {}
    for split, n in (("train", 7), ("dev", 4), ("test", 5)):
        rows = []
        for number in range(n):
            time = 1 + number
            words: Any = [WORDS[i % len(WORDS)] for i in range(time)]
            if text == "vectors":
                words = random.normal(size=(time, 5))
            elif text == "tokens":
                words = np.arange(time)
            vision, audio = random.normal(size=(time, 4)), random.normal(size=(time, 3))
            label = np.array([[number - 2.0]])
            rows.append(((words, vision, audio), label, f"{split}[{number}]"))
        content[split] = rows
    return content


def clue(folder: Path, names: tuple[str, ...] = ("train", "dev", "test")) -> Path:
    """MISA's `train.pkl` and so on: rows ((ids, vision, audio, words), [[label]], segment).

    Row i has 1 + i words of `WORDS`; id k is word k.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(5)
    for name, n in zip(names, (7, 4, 5, 5), strict=False):
        rows = []
        for number in range(n):
            ids = np.arange(1 + number) % len(WORDS)
            vision, audio = random.normal(size=(len(ids), 4)), random.normal(size=(len(ids), 3))
            words = [WORDS[i] for i in ids]
            label = np.array([[number - 2.0]], np.float32)
            rows.append(((ids, vision, audio, words), label, f"{name}{number % 2}[{number}]"))
        save(folder / f"{name}.pkl", rows)
    return folder


UR_FUNNY = {"train": [1, 2, 3, 4], "dev": [5, 6], "test": [7, 8, 9]}


def ur_funny() -> dict[str, Any]:
    """UR-FUNNY's six pickles by name: segment s has s % 4 words, after s % 3 sentences of two."""
    random = np.random.default_rng(6)
    segments = [segment for fold in UR_FUNNY.values() for segment in fold]

    def senses(size: int) -> dict[int, dict]:
        return {
            s: {
                "punchline_features": random.normal(size=(s % 4, size)),
                "context_features": [random.normal(size=(2, size)) for _ in range(s % 3)],
            }
            for s in segments
        }

    audio = senses(81)
    audio[1]["punchline_features"][0, 0] = np.nan
    return {
        "data_folds": dict(UR_FUNNY),
        "language_sdk": {
            s: {
                "punchline_embedding_indexes": list(range(s % 4)),
                "context_embedding_indexes": [[5, 6]] * (s % 3),
                "punchline_sentence": " ".join(f"punch{i}" for i in range(s % 4)),
                "context_sentences": ["once upon"] * (s % 3),
                "punchline_intervals": [],
                "context_intervals": [],
            }
            for s in segments
        },
        "word_embedding_list": [np.full(300, 1.0 + i) for i in range(8)],
        "covarep_features_sdk": audio,
        "openface_features_sdk": senses(371),
        "humor_label_sdk": {s: s % 2 for s in segments},
    }


def folder_of(folder: Path, content: dict[str, Any]) -> Path:
    """One pickle a name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in content.items():
        save(folder / f"{name}.pkl", value)
    return folder


def mustard(folder: Path) -> Path:
    """MUStARD with features: twelve utterances of other shows and six of FRIENDS, two folds."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    speakers = ("SHELDON", "DOROTHY", "PERSON")
    items = {
        f"1_{number}": {
            "utterance": f"Oh, it's number {number}!",
            "speaker": "PERSON" if number >= 16 else speakers[number % 3],
            "context": ["Well."],
            "context_speakers": ["PERSON"],
            "show": "FRIENDS" if number >= 12 else "BBT",
            "sarcasm": number % 2 == 0,
        }
        for number in range(18)
    }
    (folder / "sarcasm_data.json").write_text(json.dumps(items))
    rows = np.arange(18)
    folds = [(rows[rows % 3 != fold], rows[rows % 3 == fold]) for fold in range(2)]
    (folder / "split_indices.p").write_bytes(python2_pickle(folds))
    for modality, size, suffix in (("text", 5, "pkl"), ("audio", 3, "npz"), ("vision", 4, "p")):
        features = {
            key: random.normal(size=(1 + number % 4, size)) for number, key in enumerate(items)
        }
        if modality == "vision":
            features = {key: array[0] for key, array in features.items()}
        path = folder / f"{modality}.{suffix}"
        if suffix == "npz":
            np.savez(path, **features)
        else:
            save(path, features)
    return folder


class Touch:
    """A pickle that makes a folder when it is loaded by Python's own unpickler."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def glove(path: Path) -> Path:
    """Vectors of size 2 for all `WORDS` but "bad"; "zebra" only in lower case."""
    path.write_text("a 1 2\ngood 3 4\nfilm 5 6\nzebra 7 8\nunused 9 9\n", encoding="utf8")
    return path


def python2_pickle(value: object) -> bytes:
    """What Python 2's cPickle wrote at protocol 2, byte for byte in kind: `str` as byte strings,
    arrays through `numpy.core.multiarray`, their data as a byte string."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: object) -> bytes:
    if isinstance(value, bytes | str):
        data = value if isinstance(value, bytes) else value.encode("utf8")
        if len(data) < 256:
            return b"U" + bytes([len(data)]) + data
        return b"T" + struct.pack("<i", len(data)) + data
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if value is None:
        return b"N"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_python2, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(k) + _python2(v) for k, v in value.items()) + b"u"
    if isinstance(value, np.dtype):
        order = value.str[0]
        size = value.itemsize if value.kind == "S" else -1
        code = _python2((value.str[1:], 0, 1))
        state = _python2((3, order, None, None, None, size, 1 if size > 0 else -1, 0))
        return b"cnumpy\ndtype\n" + code + b"R" + state + b"b"
    if isinstance(value, np.ndarray):
        empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
        empty += _python2((0,)) + _python2("b") + b"tR"
        state = _python2(1) + _python2(value.shape) + _python2(value.dtype) + b"\x89"
        return empty + b"(" + state + _python2(value.tobytes()) + b"tb"
    if isinstance(value, np.generic):
        inside = _python2(value.dtype) + _python2(value.tobytes())
        return b"cnumpy.core.multiarray\nscalar\n(" + inside + b"tR"
    raise TypeError(type(value))
