"""Subjects of utterances: the confounder of SuCI (arXiv:2403.05025).

Files of sentiment name the video of an utterance in its id. A video counts as a subject;
`subjects.csv` overrides that where more is known.
"""

import csv
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from corrkd_jax.data.dataset import SPLITS, Dataset, Split, concatenate, make_dataset, take_rows
from corrkd_jax.data.file_kinds import check_text
from corrkd_jax.errors import InputError, few

_COLUMNS = ("video_id", "subject_id")
_SEGMENT = re.compile(r"(.*)\[.*\]")


def subject_names(
    split: Split, where: str, table: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Name of the subject of every row.

    Args:
        split: its ids are `video$_$segment` (MMSA) or `video[segment]` (MISA, CLUE).
        where: file and split, for messages.
        table: from `read_table`; gives the subject of a whole id or, failing that, of its video.
            None takes the video for the subject.

    Returns:
        n names.

    Raises:
        InputError: an id names no video, or the table has no subject for a row.
    """
    names = []
    for row, name in enumerate(split.ids):
        video = _video(name)
        if table is None:
            if video is None:
                raise InputError(
                    f"{where}: row {row}: id {name!r} names no subject; ids must be "
                    "video$_$segment or video[segment], or give subjects.csv"
                )
            names.append(video)
            continue
        subject = table.get(name, table.get(video or ""))
        if subject is None:
            raise InputError(
                f"{where}: row {row}: id {name!r} has no subject in subjects.csv; add its video"
            )
        names.append(subject)
    return tuple(names)


def all_subject_names(
    dataset: Dataset, table: str | Path | None = None
) -> dict[str, tuple[str, ...]]:
    """Names of `subject_names` for every split.

    Args:
        dataset: as read.
        table: a file `subjects.csv`, or None; see `read_table`.

    Returns:
        Split -> names of its rows.

    Raises:
        InputError: as `subject_names` and `read_table`.
    """
    subjects = None if table is None else read_table(table)
    return {
        name: subject_names(split, f"{dataset.source}: {name}", subjects)
        for name, split in dataset.splits.items()
    }


def read_table(path: str | Path) -> dict[str, str]:
    """Subjects of a `subjects.csv` with the columns `video_id` and `subject_id`.

    Args:
        path: the file.

    Returns:
        Video or id -> subject.

    Raises:
        InputError: the file cannot be read, lacks a column, or gives one video two subjects.
    """
    path = Path(path)
    table: dict[str, str] = {}
    check_text(path, "a table as text, .csv")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for column in _COLUMNS:
                if column not in (reader.fieldnames or ()):
                    found = ", ".join(reader.fieldnames or ()) or "none"
                    raise InputError(f"{path}: no column {column!r} (found: {found}); add it")
            for line in reader:
                video, subject = (line[column] for column in _COLUMNS)
                if not video or not subject:
                    raise InputError(f"{path}: line {reader.line_num}: is not complete; fill it")
                if table.setdefault(video, subject) != subject:
                    raise InputError(
                        f"{path}: line {reader.line_num}: {video} has two subjects, "
                        f"{table[video]} and {subject}; keep one"
                    )
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); check it") from error
    return table


def encode(
    train: Sequence[str], *others: Sequence[str], source: str = "train"
) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Subjects as integers, for dictionaries that are built from training alone.

    Args:
        train: names of the training rows.
        others: names of the rows of other splits.
        source: file, for messages.

    Returns:
        The training subjects in order, and one `[n]` int32 array for train and each other split:
        the position of the row's subject among them, -1 where it is not one of them.

    Raises:
        InputError: training has a single subject, so that nothing can be adjusted for.
    """
    known = tuple(sorted(set(train)))
    if len(known) < 2:
        raise InputError(
            f"{source}: train: all rows are of one subject ({known[0] if known else 'none'}); "
            "give subjects.csv or other data"
        )
    place = {name: number for number, name in enumerate(known)}
    return known, [
        np.array([place.get(name, -1) for name in names], np.int32) for names in (train, *others)
    ]


def check_disjoint(
    dataset: Dataset, names: Mapping[str, Sequence[str]], splits: Sequence[str] = SPLITS
) -> None:
    """Refuse splits that share a subject.

    Args:
        dataset: for messages.
        names: split -> names of its rows, from `all_subject_names`.
        splits: splits that must not share any; further splits often repeat subjects on purpose.

    Raises:
        InputError: two splits share a subject; the message names them.
    """
    for first, second in combinations(splits, 2):
        shared = set(names[first]) & set(names[second])
        if shared:
            raise InputError(
                f"{dataset.source}: subject {min(shared)} is in both {first} and {second} "
                f"({len(shared)} such); unseen subjects need splits that share none"
            )


def leave_subjects_out(names: Sequence[str], k: int, seed: int) -> np.ndarray:
    """Mask of the rows of `k` subjects that are drawn at random.

    The draw depends on the set of subjects and the seed, not on the order of the rows.

    Args:
        names: subject of every row.
        k: number of subjects to draw.
        seed: random seed.

    Returns:
        `[n]` bool, True for the rows of the subjects drawn.

    Raises:
        InputError: there are not more than `k` subjects, or `k` is not positive.
    """
    known = sorted(set(names))
    if not 0 < k < len(known):
        raise InputError(
            f"{k} of {len(known)} subjects cannot be left out; give 1 or more, not all"
        )
    chosen = np.random.default_rng(seed).choice(len(known), k, replace=False)
    out = {known[number] for number in chosen}
    return np.array([name in out for name in names])


def speaker_independent(
    dataset: Dataset, names: Mapping[str, Sequence[str]], valid: int, test: int, seed: int
) -> Dataset:
    """Dataset with train, valid and test split anew so that no subject is in two of them.

    Args:
        dataset: as read; its further splits are left out, since their rows would have to move too.
        names: split -> names of its rows, from `all_subject_names`.
        valid: number of subjects in the new valid split.
        test: number of subjects in the new test split.
        seed: seed of the draw.

    Returns:
        The dataset.

    Raises:
        InputError: there are not enough subjects, or the splits differ in their frames.
    """
    pooled = np.array([name for split in SPLITS for name in names[split]])
    out = leave_subjects_out(pooled, test, seed)
    held = leave_subjects_out(pooled[~out], valid, seed)
    return split_by_subject(dataset, names, set(pooled[~out][held]), set(pooled[out]))


def deal_subjects(names: Sequence[str], folds: int) -> list[frozenset[str]]:
    """Folds of subjects with about as many rows each.

    The largest subject is dealt first, each to the fold that has the fewest rows so far. Nothing is
    drawn at random; the order of the rows does not matter.

    Args:
        names: subject of every row.
        folds: number of folds.

    Returns:
        The subjects of each fold.

    Raises:
        InputError: there are fewer subjects than folds.
    """
    rows = Counter(names)
    if not 0 < folds <= len(rows):
        raise InputError(f"{folds} folds of {len(rows)} subjects cannot be made; give fewer")
    dealt: list[list[str]] = [[] for _ in range(folds)]
    sizes = [0] * folds
    for name in sorted(rows, key=lambda name: (-rows[name], name)):
        smallest = sizes.index(min(sizes))
        dealt[smallest].append(name)
        sizes[smallest] += rows[name]
    return [frozenset(fold) for fold in dealt]


def split_by_subject(
    dataset: Dataset,
    names: Mapping[str, Sequence[str]],
    valid: Collection[str],
    test: Collection[str],
) -> Dataset:
    """Dataset with train, valid and test split anew by subject.

    Args:
        dataset: as read; its further splits are left out, since their rows would have to move too.
        names: split -> names of its rows, from `all_subject_names`.
        valid: subjects of the new valid split.
        test: subjects of the new test split; all others train.

    Returns:
        The dataset.

    Raises:
        InputError: a subject is in both, or is none of the file's; no subject is left for training;
            the splits differ in their frames.
    """
    pooled = np.array([name for split in SPLITS for name in names[split]])
    known = set(pooled)
    if shared := set(valid) & set(test):
        raise InputError(
            f"{dataset.source}: subject {min(shared)} cannot be in both valid and test; name it "
            "once"
        )
    if unknown := (set(valid) | set(test)) - known:
        raise InputError(
            f"{dataset.source}: no subject {min(unknown)} among the {len(known)} of train, valid "
            f"and test ({few(sorted(known))})"
        )
    if len(set(valid) | set(test)) == len(known):
        raise InputError(
            f"{dataset.source}: no subject is left for training; leave out fewer of the "
            f"{len(known)}"
        )
    pool = concatenate([dataset.splits[name] for name in SPLITS], dataset.source)
    masks = {"valid": np.isin(pooled, list(valid)), "test": np.isin(pooled, list(test))}
    masks = {"train": ~(masks["valid"] | masks["test"])} | masks
    notes = [note for note in dataset.notes if "ids are in both" not in note]
    return make_dataset(
        {name: take_rows(pool, mask) for name, mask in masks.items()},
        dataset.source,
        dataset.layout,
        notes,
        dataset.tasks,
    )


def _video(name: str) -> str | None:
    if "$_$" in name:
        return name.split("$_$")[0]
    segment = _SEGMENT.match(name)
    return segment.group(1) if segment else None
