"""MUStARD: sarcasm as the class of an utterance whose speaker is known.

The published folder has annotations and folds; features are the user's. A subject is a speaker of
one show, since "PERSON" of one show is nobody of another.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from corrkd_jax.data import unpickle
from corrkd_jax.data.arrays import read_arrays
from corrkd_jax.data.dataset import MODALITIES
from corrkd_jax.data.fields import numbers, pad
from corrkd_jax.data.file_kinds import check_text
from corrkd_jax.errors import InputError, few, reason

TASKS = ("sarcasm",)
HELD_OUT_SHOW = "FRIENDS"

_ITEMS = "sarcasm_data.json"
_FOLDS = "split_indices.p"
_SUFFIXES = (".npz", ".pkl", ".pickle", ".p")


def is_folder(path: Path) -> bool:
    """Whether a folder holds MUStARD.

    Args:
        path: the folder.

    Returns:
        True if its annotations are there.
    """
    return (path / _ITEMS).is_file()


def read_folder(
    path: Path, fold: int | None, max_frames: int, words: bool, counts: Counter, notes: list[str]
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Splits train, valid and test of MUStARD as MMSA fields.

    Ids are `SHOW-SPEAKER$_$key`. The published splits have no part for validation: every fifth row
    of the training part, in the order of the file, becomes one. Its speakers are those of training,
    because the fifteen of the speaker-independent split are too unequal to spare one.

    Args:
        path: a folder with `sarcasm_data.json` and, for each modality, features by key in
            `text.npz` (or `.pkl`, `.pickle`, `.p`), `audio.npz` and `vision.npz`: `[time,
            features]`, or `[features]` for a whole utterance. Audio or vision may be left out.
        fold: None for the speaker-independent split, which tests on FRIENDS and trains on the other
            shows; 1 to 5 for a fold of `split_indices.p`, whose speakers overlap.
        max_frames: number of frames that a longer sequence is cut to.
        words: whether text will be built from the utterances, so that no file of it is needed.
        counts: receives the number of rows that are cut.
        notes: receives a remark on each file that is not read.

    Returns:
        Split -> field -> value, and the modalities without a file.

    Raises:
        InputError: a file is missing, refused or not what its name says.
    """
    items = _items(path / _ITEMS)
    keys = list(items)
    if fold is None:
        test = np.array([item["show"] == HELD_OUT_SHOW for item in items.values()])
        parts = np.flatnonzero(~test), np.flatnonzero(test)
    else:
        parts = _fold(path / _FOLDS, fold, len(keys))
    training, test_rows = parts
    held_out = np.arange(len(training)) % 5 == 4
    rows = {"train": training[~held_out], "valid": training[held_out], "test": test_rows}
    for split, index in rows.items():
        if not len(index):
            raise InputError(f"{path / _ITEMS}: {split}: has no rows; use the complete file")

    sequences = {}
    for modality in MODALITIES:
        if file := _feature_file(path, modality, notes):
            sequences[modality] = _features(file, keys)
        elif modality == "text" and words:
            sequences[modality] = [np.zeros((1, 1), np.float32)] * len(keys)
        else:
            _check_absent(path, modality)
    frames = {m: min(max_frames, max(map(len, rows))) for m, rows in sequences.items()}

    def fields(split: str) -> dict[str, Any]:
        chosen = [items[keys[row]] for row in rows[split]]
        result: dict[str, Any] = {
            "id": [
                f"{item['show']}-{item['speaker']}$_${keys[row]}"
                for item, row in zip(chosen, rows[split], strict=True)
            ],
            "raw_text": [item["utterance"] for item in chosen],
            "classification_labels": np.array([int(item["sarcasm"]) for item in chosen]),
        }
        for modality, all_rows in sequences.items():
            own = [all_rows[row] for row in rows[split]]
            result[modality], result[f"{modality}_valid"] = pad(
                own, frames[modality], f"{path}: {split}", modality
            )
        return result

    longest = np.max([[len(x) for x in all_rows] for all_rows in sequences.values()], axis=0)
    counts["rows", "long"] += int(np.sum(longest > max_frames))
    absent = tuple(modality for modality in MODALITIES if modality not in sequences)
    return {split: fields(split) for split in rows}, absent


def _items(path: Path) -> dict[str, dict]:
    """The annotations, each with the four fields that are read."""
    check_text(path, "JSON")
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot be read as JSON ({reason(error)}); copy it again"
        ) from error
    if not isinstance(items, dict):
        raise InputError(f"{path}: holds a {type(items).__name__}, not an object of utterances")
    kinds = {"utterance": str, "speaker": str, "show": str, "sarcasm": bool}
    for key, item in items.items():
        for field, kind in kinds.items():
            if not isinstance(item, dict) or not isinstance(item.get(field), kind):
                raise InputError(f"{path}: {key}: {field}: no {kind.__name__}; check the file")
    return items


def _fold(path: Path, fold: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for testing."""
    folds = unpickle.load(path)
    if not isinstance(folds, list | tuple) or not 1 <= fold <= len(folds):
        count = len(folds) if isinstance(folds, list | tuple) else 0
        raise InputError(f"{path}: fold {fold}: the file has folds 1 to {count}")
    pair = folds[fold - 1]
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise InputError(f"{path}: fold {fold}: expected the rows for training and for testing")
    parts = tuple(np.ravel(numbers(rows, str(path), f"fold {fold}")) for rows in pair)
    together = np.concatenate(parts)
    if together.dtype.kind not in "iu" or len(np.unique(together)) < len(together):
        raise InputError(f"{path}: fold {fold}: rows must be whole numbers, none of them twice")
    if together.size and not 0 <= together.min() <= together.max() < n:
        raise InputError(f"{path}: fold {fold}: has rows outside of the {n} of {_ITEMS}")
    return parts


def _feature_file(folder: Path, modality: str, notes: list[str]) -> Path | None:
    """File of a modality, or None; a note names a second one."""
    paths = [folder / f"{modality}{suffix}" for suffix in _SUFFIXES]
    first, *others = [*filter(Path.is_file, paths), None]
    if first is not None and len(others) > 1:
        more = ", ".join(path.name for path in others if path)
        notes.append(f"{modality}: read from {first.name}; {more} is not read")
    return first


def _check_absent(folder: Path, modality: str) -> None:
    """Refuse a folder without text, or with a file that may be meant as the absent one."""
    known = {_FOLDS, *(f"{modality}{suffix}" for modality in MODALITIES for suffix in _SUFFIXES)}
    unknown = sorted(
        file.name
        for file in folder.iterdir()
        if file.suffix in _SUFFIXES and file.name not in known
    )
    if unknown:
        raise InputError(
            f"{folder}: {modality}: no {modality}.npz or {modality}.pkl, but "
            f"{few(unknown, 4)}; rename or remove it"
        )
    if modality == "text":
        raise InputError(
            f"{folder}: text: MUStARD comes without features; put text.npz or text.pkl there, a "
            "dict of key -> [time, features], or give word_vectors; audio and vision likewise"
        )


def _features(path: Path, keys: list[str]) -> list[np.ndarray]:
    """Features of one modality, [time, features] for each key."""
    content = read_arrays(path) if path.suffix == ".npz" else unpickle.load(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict of features by key")
    rows = []
    for key in keys:
        if key not in content:
            raise InputError(f"{path}: no features of {key!r}; every utterance needs some")
        array = numbers(content[key], str(path), key)
        if array.ndim not in (1, 2) or not array.size:
            raise InputError(
                f"{path}: {key}: shape {array.shape}; [time, features] or [features] is needed"
            )
        rows.append(np.atleast_2d(array))
    return rows
