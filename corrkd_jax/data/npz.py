"""File format of this project: plain arrays that `read` maps from disk instead of loading."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from corrkd_jax.atomic import write_atomically
from corrkd_jax.data import fields as checked
from corrkd_jax.data.arrays import read_arrays
from corrkd_jax.data.dataset import MODALITIES, SENTIMENT, SPLITS, Dataset, Split, make_dataset
from corrkd_jax.data.file_kinds import NPZ, kind_of
from corrkd_jax.data.padding import blind_rows
from corrkd_jax.errors import InputError, few

_MEMBERS = {
    *(f"{modality}{suffix}" for modality in MODALITIES for suffix in ("", "_valid")),
    *("ids", "scores", "classes", "raw_text", "words"),
}
_SAMPLE = 256
"""Rows of which a mask is compared with the features."""


def write_npz(dataset: Dataset, path: str | Path) -> None:
    """Write a dataset as an uncompressed `.npz` whose features `read` maps instead of loading.

    Members: `tasks`, `notes` and, for each split, `train/text`, `train/text_valid` (and so for the
    other modalities), `train/ids`, and where present `train/scores`, `train/classes`,
    `train/raw_text`, `train/words`. Lists of text other than the ids are UTF-8 JSON in a uint8
    array, since fixed-width strings would be as wide as the longest sentence.

    Args:
        dataset: dataset to write; its features may themselves be memory maps.
        path: the file, replaced atomically.

    Raises:
        InputError: the file cannot be written.
    """
    members: dict[str, np.ndarray] = {
        "tasks": np.array(dataset.tasks),
        "notes": _to_json(dataset.notes),
    }
    for name, split in dataset.splits.items():
        for modality in MODALITIES:
            members[f"{name}/{modality}"] = split.features[modality]
            members[f"{name}/{modality}_valid"] = split.valid[modality]
        members[f"{name}/ids"] = np.array(split.ids)
        if split.scores is not None:
            members[f"{name}/scores"] = split.scores
        if split.classes is not None:
            members[f"{name}/classes"] = split.classes
        if split.raw_text is not None:
            members[f"{name}/raw_text"] = _to_json(split.raw_text)
        if split.words is not None:
            members[f"{name}/words"] = _to_json(split.words)
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **members))


def _to_json(strings: Sequence) -> np.ndarray:
    return np.frombuffer(json.dumps(strings).encode(), np.uint8)


def is_npz(path: Path) -> bool:
    """Whether a file is an `.npz`, by its content.

    Args:
        path: the file.

    Returns:
        False for another file, and for one that cannot be opened.
    """
    try:
        kind = kind_of(path)
    except InputError:
        return False  # whoever reads it says what is wrong with it
    return kind is not None and kind.key == NPZ.key


def read_npz(path: Path) -> Dataset:
    """Dataset from a file of `write_npz`.

    Args:
        path: the file.

    Returns:
        The dataset; its features are read-only memory maps where they are stored uncompressed.

    Raises:
        InputError: the file is no such file, or is damaged.
    """
    # a map is not compared with a checksum, so that all that is small is loaded
    arrays = read_arrays(path, lambda name: name.rpartition("/")[2] in MODALITIES)
    if not any(f"{split}/text" in arrays for split in SPLITS):
        raise InputError(
            f"{path}: no member 'train/text'; use a file from write_npz (found: "
            f"{few(sorted(arrays))})"
        )
    found = [key.removesuffix("/text") for key in arrays if key.endswith("/text")]
    notes = list(_strings(arrays["notes"], f"{path}: notes")) if "notes" in arrays else []
    splits = {
        split: _npz_split(arrays, split, f"{path}: {split}", notes)
        for split in dict.fromkeys((*SPLITS, *found))
    }
    tasks = tuple(map(str, np.atleast_1d(arrays.get("tasks", SENTIMENT))))
    return make_dataset(splits, path, "npz", notes, tasks)


def _npz_split(arrays: dict[str, np.ndarray], split: str, where: str, notes: list[str]) -> Split:
    """Check the members of one split; features stay memory maps. A note names other members."""
    fields = {
        key.removeprefix(f"{split}/"): array
        for key, array in arrays.items()
        if key.startswith(f"{split}/")
    }
    if others := sorted(fields.keys() - _MEMBERS):
        notes.append(f"{split}: members of other layouts are not read: {few(others)}")
    features, valid = {}, {}
    for modality in MODALITIES:
        array = checked.numbers(checked.take(fields, modality, where), where, modality)
        checked.check_features(array, where, modality)
        if modality != "text":
            checked.check_rows(len(array), len(features["text"]), where, modality)
        key = f"{modality}_valid"
        mask = np.array(checked.take(fields, key, where))
        if mask.dtype != bool or mask.shape != array.shape[:2] or not mask.any(axis=1).all():
            raise InputError(
                f"{where}: {key}: must be bool {array.shape[:2]} with a True in every row; write "
                "the file again with write_npz"
            )
        sample = slice(_SAMPLE)  # a mapped file stays on disk
        blind = blind_rows(mask[sample], array[sample])
        if 2 * blind > len(mask[sample]):
            raise InputError(
                f"{where}: {key}: in {blind} of {len(mask[sample])} rows it is True on zeros and "
                "False on all else; True marks a real frame"
            )
        features[modality] = array if array.dtype == np.float32 else array.astype(np.float32)
        valid[modality] = mask
    n = len(features["text"])
    ids = tuple(map(str, np.atleast_1d(checked.take(fields, "ids", where)).tolist()))
    checked.check_rows(len(ids), n, where, "ids")
    if len(set(ids)) < n:
        raise InputError(f"{where}: ids: must be unique; write the file again with write_npz")
    scores = classes = raw_text = words = None
    for key, name in (("scores", "regression_labels"), ("classes", "classification_labels")):
        if key in fields:
            fields[name] = fields[key]
    if "scores" in fields:
        scores = checked.score_field(fields, n, where)
    if "classes" in fields:
        classes = checked.class_field(fields, n, where)
    if scores is None and classes is None:
        checked.take(fields, "scores", where)
    if "raw_text" in fields:
        raw_text = _strings(fields["raw_text"], f"{where}: raw_text")
        checked.check_rows(len(raw_text), n, where, "raw_text")
    if "words" in fields:
        rows = _from_json(fields["words"], f"{where}: words")
        checked.check_rows(len(rows), n, where, "words")
        frames = features["text"].shape[1]
        if not all(isinstance(row, list) and len(row) <= frames for row in rows):
            raise InputError(
                f"{where}: words: must be lists of at most {frames} words, the frames of text; "
                "write the file again with write_npz"
            )
        words = tuple(tuple(map(str, row)) for row in rows)
    return Split(features, valid, ids, scores, classes, raw_text, words)


def _strings(array: np.ndarray, where: str) -> tuple[str, ...]:
    return tuple(map(str, _from_json(array, where)))


def _from_json(array: np.ndarray, where: str) -> list:
    try:
        value = json.loads(np.asarray(array, np.uint8).tobytes())
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{where}: is no JSON list; write the file again") from error
    if not isinstance(value, list):
        raise InputError(f"{where}: is no JSON list; write the file again")
    return value
