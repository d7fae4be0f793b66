"""UR-FUNNY (version 2): a folder of six pickles, with humor as the class of a punchline."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from corrkd_jax.data import unpickle
from corrkd_jax.data.fields import numbers, pad, string
from corrkd_jax.errors import InputError

TASKS = ("humor",)

_FOLDS = "data_folds.pkl"
_LANGUAGE = "language_sdk.pkl"
_MISSPELT = "langauge_sdk.pkl"  # as the authors' archive has it
_VECTORS = "word_embedding_list.pkl"
_SENSES = {"audio": "covarep_features_sdk.pkl", "vision": "openface_features_sdk.pkl"}
_LABELS = "humor_label_sdk.pkl"


def is_folder(path: Path) -> bool:
    """Whether a folder holds UR-FUNNY.

    Args:
        path: the folder.

    Returns:
        True if its file of folds is there.
    """
    return (path / _FOLDS).is_file()


def read_folder(
    path: Path, context: bool, max_frames: int, counts: Counter, notes: list[str]
) -> dict[str, dict[str, Any]]:
    """Splits train, valid and test of UR-FUNNY as MMSA fields.

    Text is the vectors of `word_embedding_list.pkl`, one word a frame. A sequence longer than
    `max_frames` keeps its last frames, where the punch is. `words` are known where every sentence
    of a split has as many words as vectors.

    Args:
        path: the folder.
        context: whether the sentences before the punchline begin each sequence.
        max_frames: number of frames to pad or cut to.
        counts: receives the number of rows that are cut.
        notes: receives a remark on a second file of sentences.

    Returns:
        Split -> field -> value.

    Raises:
        InputError: a file is missing, refused or not what its name says.
    """
    language_file = path / (_MISSPELT if (path / _MISSPELT).is_file() else _LANGUAGE)
    if language_file.name == _MISSPELT and (path / _LANGUAGE).is_file():
        notes.append(f"text: read from {_MISSPELT}, the authors' own; {_LANGUAGE} is not read")
    label_file = path / _LABELS
    folds, language, labels = map(_table, (path / _FOLDS, language_file, label_file))
    senses = {modality: (path / name, _table(path / name)) for modality, name in _SENSES.items()}
    vectors = numbers(unpickle.load(path / _VECTORS), str(path), _VECTORS)
    if vectors.ndim != 2 or not vectors.size:
        raise InputError(f"{path}: {_VECTORS}: shape {vectors.shape}; vectors of words are needed")

    def fields(split: str) -> dict[str, Any]:
        where = f"{path}: {split}"
        segments = _entries(folds, split, path / _FOLDS)
        if not segments:
            raise InputError(f"{path / _FOLDS}: {split}: must be a list of segments with data")
        sequences: dict[str, list[np.ndarray]] = {"text": [], "audio": [], "vision": []}
        classes, sentences, words = [], [], []
        for segment in segments:
            spoken = _entry(language, segment, language_file)
            at = f"{language_file}: segment {segment}"
            index = _sequence(spoken, "embedding_indexes", context, 1, at)
            if not np.all((index >= 0) & (index < len(vectors))):
                raise InputError(f"{at}: an index is outside of the {len(vectors)} of {_VECTORS}")
            sentence = _sentence(spoken, context, at)
            if len(sentence.split()) == len(index):
                words.append(tuple(sentence.split()[-max_frames:]))
            sentences.append(sentence)
            sequences["text"].append(vectors[index.astype(np.int64)[-max_frames:]])
            longest = len(index)
            for modality, (file, table) in senses.items():
                entry = _entry(table, segment, file)
                at = f"{file}: segment {segment}"
                frames = _sequence(entry, "features", context, 2, at)
                sequences[modality].append(frames[-max_frames:])
                longest = max(longest, len(frames))
            counts["rows", "long"] += longest > max_frames
            label = numbers(_entry(labels, segment, label_file), str(label_file), str(segment))
            if label.size != 1:
                raise InputError(f"{label_file}: segment {segment}: one label is needed, 0 or 1")
            classes.append(label.reshape(()))
        result: dict[str, Any] = {
            "id": [str(segment) for segment in segments],
            "raw_text": sentences,
            "classification_labels": np.array(classes),
        }
        if len(words) == len(sentences):
            result["words"] = tuple(words)
        for modality, rows in sequences.items():
            result[modality], result[f"{modality}_valid"] = pad(rows, max_frames, where, modality)
        return result

    return {"train": fields("train"), "valid": fields("dev"), "test": fields("test")}


def _table(path: Path) -> dict:
    content = unpickle.load(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict; check the file")
    return content


def _entry(table: Any, key: Any, where: str | Path) -> Any:
    """Value of a dict; a missing one is refused with its place."""
    try:
        if isinstance(table, dict):
            return table[key]
    except (KeyError, TypeError):
        pass  # segments come from a file, and some things are no keys
    name = " ".join(repr(key).split())[:60]
    raise InputError(f"{where}: no entry {name}; use the complete files of UR-FUNNY")


def _entries(table: Any, key: str, where: str | Path) -> list:
    """Values of a list in a dict; anything else is refused with its place."""
    values = _entry(table, key, where)
    if isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim):
        return list(values)
    raise InputError(f"{where}: {key}: is no list; use the complete files of UR-FUNNY")


def _sequence(entry: Any, what: str, context: bool, axes: int, at: str) -> np.ndarray:
    """The frames of a punchline, after those of its context sentences if wanted.

    Returns:
        An array of `axes` axes; without a frame all of them are 0.
    """
    parts = [_entry(entry, f"punchline_{what}", at)]
    if context:
        parts = [*_entries(entry, f"context_{what}", at), *parts]
    arrays = [array for part in parts if (array := numbers(part, at, what)).size]
    if len({array.shape[1:] for array in arrays}) > 1 or any(a.ndim != axes for a in arrays):
        shapes = ", ".join(sorted({str(array.shape) for array in arrays}))
        raise InputError(f"{at}: {what}: shapes {shapes} do not fit; one frame a word is needed")
    return np.concatenate(arrays) if arrays else np.zeros((0,) * axes)


def _sentence(entry: Any, context: bool, at: str) -> str:
    before = _entries(entry, "context_sentences", at) if context else ()
    return " ".join(map(string, (*before, _entry(entry, "punchline_sentence", at))))
