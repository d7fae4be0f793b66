"""Result of every reader of multimodal data, and its construction from MMSA's fields.

A reader of another layout brings its values to MMSA's names. All values then go through the same
checks and the same cleaning.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from corrkd_jax.data import fields as checked
from corrkd_jax.data.padding import padding_notes, real_frames
from corrkd_jax.errors import InputError

MODALITIES = ("text", "audio", "vision")
"""Names of the modalities; the order of every array and tuple over modalities."""
SPLITS = ("train", "valid", "test")
"""Names of the splits that every dataset has."""
SENTIMENT = ("sentiment",)
"""Tasks of a dataset with one label of sentiment."""

LABEL_KEYS = ("regression_labels", "classification_labels")
"""MMSA's fields of sentiment scores and of class numbers."""


@dataclass(frozen=True)
class Split:
    """Part of a dataset; row i of every field is the same utterance.

    Attributes:
        features: modality -> `[n, time, features]` float32, finite. The three modalities may differ
            in time and in features. Read from an `.npz`, they are read-only memory maps.
        valid: modality -> `[n, time]` bool, True where a frame is real and False where it is
            padding; every row has at least one True.
        ids: n strings, unique within the split.
        scores: `[n]` float32 sentiment, in [-3, 3] for MOSI and MOSEI and [-1, 1] for SIMS, or
            None.
        classes: `[n, tasks]` int32, the class labels that the file holds, or None.
        raw_text: n strings, or None.
        words: n rows; word t of a row is the word of text frame t, "" where a frame belongs to
            none. A row has no more words than frames; the frames after its last word are padding.
            None where the frames are not known to be words.
    """

    features: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    ids: tuple[str, ...]
    scores: np.ndarray | None
    classes: np.ndarray | None
    raw_text: tuple[str, ...] | None
    words: tuple[tuple[str, ...], ...] | None = None


@dataclass(frozen=True)
class Dataset:
    """Splits of one file or folder.

    Attributes:
        train: training split; the feature size of a modality is the same in all splits.
        valid: validation split.
        test: test split.
        source: path that was read.
        layout: "mmsa", "mult", "mag-bert", "clue", "ur-funny", "mustard" or "npz".
        aligned: whether the three modalities have the same number of frames in every split.
        tasks: ("sentiment",), ("humor",), ("sarcasm",) or ("neutral", "happy", "sad", "angry").
        notes: remarks on cleaned values and on oddities, one line each.
        more: name -> further split, such as "test_ood", "test_reversed" or "valid_biased".
    """

    train: Split
    valid: Split
    test: Split
    source: str
    layout: str
    aligned: bool
    tasks: tuple[str, ...]
    notes: tuple[str, ...]
    more: dict[str, Split] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, Split]:
        """All splits by name: train, valid, test, then those of `more`."""
        return {name: getattr(self, name) for name in SPLITS} | self.more


def make_split(
    fields: dict[str, Any],
    split: str,
    where: str,
    counts: Counter,
    notes: list[str],
    absent: Collection[str] = (),
) -> Split:
    """Split from MMSA's fields, checked and cleaned; empties `fields` of its features.

    Args:
        fields: MMSA's keys; `words`, if the reader knows the words of the text frames; and
            `text_valid` and so on, `[n, time]` bool, if it padded the sequences itself.
        split: name of the split.
        where: file and split, for messages.
        counts: receives the numbers that `count_notes` reports.
        notes: receives remarks on ids.
        absent: modalities that the file does not have; one frame of one zero stands for them.

    Returns:
        The split.

    Raises:
        InputError: a field is absent, or is not what the layout says; the message names it.
    """
    features: dict[str, np.ndarray] = {}
    for modality in MODALITIES:
        if modality in absent:
            continue
        raw = checked.numbers(checked.take(fields, modality, where), where, modality)
        checked.check_features(raw, where, modality)
        with np.errstate(over="ignore"):
            array = np.require(raw, np.float32, "W")
        del raw
        counts[modality, "values"] += array.size
        counts[modality, "not finite"] += _zero_not_finite(array)
        features[modality] = array
    n = len(next(iter(features.values())))
    for modality, array in features.items():
        checked.check_rows(len(array), n, where, modality)

    valid = real_frames(fields, features, where, counts)
    for modality in absent:
        features[modality], valid[modality] = np.zeros((n, 1, 1), np.float32), np.ones((n, 1), bool)
    # by name, whatever the order in which they came
    features = {modality: features[modality] for modality in MODALITIES}
    valid = {modality: valid[modality] for modality in MODALITIES}

    scores = classes = None
    if not any(key in fields for key in LABEL_KEYS):
        checked.take(fields, "regression_labels", where)
    if "regression_labels" in fields:
        scores = checked.score_field(fields, n, where)
    if "classification_labels" in fields:
        classes = checked.class_field(fields, n, where)
    raw_text = None
    if fields.get("raw_text") is not None:
        raw_text = checked.strings(fields["raw_text"], n, where, "raw_text")
    words = fields.get("words")
    if words is None and raw_text is not None and "text" not in absent:
        words = _words_by_count(raw_text, valid["text"])
    if fields.get("id") is None:
        ids = tuple(f"{split}-{number:06d}" for number in range(n))
        notes.append(f"{split}: no ids in the file, generated as {ids[0]}")
    else:
        ids, repeated = _unique(checked.strings(fields["id"], n, where, "id"))
        if repeated:
            notes.append(f"{split}: {repeated} repeated ids made unique by a suffix such as #2")
    return Split(features, valid, ids, scores, classes, raw_text, words)


def make_dataset(
    splits: Mapping[str, Split],
    path: str | Path,
    layout: str,
    notes: Sequence[str],
    tasks: tuple[str, ...] = SENTIMENT,
) -> Dataset:
    """Dataset from splits, after checks between them.

    Args:
        splits: name -> split; train, valid and test are among them.
        path: file or folder that they come from.
        layout: see `Dataset`.
        notes: see `Dataset`; notes on ids in two splits are added.
        tasks: tasks of the class labels, one a column; four columns without four names are
            IEMOCAP's emotions.

    Returns:
        The dataset.

    Raises:
        InputError: the splits differ in feature sizes or in kinds of labels, or `tasks` has
            another number of names than there are columns.
    """
    train = splits["train"]
    columns = 1 if train.classes is None else train.classes.shape[1]
    if columns > 1 and len(tasks) == 1:
        tasks = checked.EMOTIONS
        notes = [*notes, f"classification_labels: four columns, taken for {', '.join(tasks)}"]
    if len(tasks) != columns:
        raise InputError(f"{path}: tasks: {len(tasks)} names, but classes have {columns} columns")
    for name, split in splits.items():
        for modality in MODALITIES:
            size, expected = split.features[modality].shape[2], train.features[modality].shape[2]
            if size != expected:
                raise InputError(
                    f"{path}: {name}: {modality}: {size} features, but train has {expected}; the "
                    "splits must come from the same extraction"
                )
        for key, here, there in (
            ("regression_labels", split.scores, train.scores),
            ("classification_labels", split.classes, train.classes),
        ):
            if (here is None) != (there is None) or (
                here is not None and here.shape[1:] != there.shape[1:]
            ):
                raise InputError(
                    f"{path}: {name}: {key}: is not the same kind of label as in train; give all "
                    "splits the same label fields"
                )
    shared_ids = []
    for first, second in combinations(splits, 2):
        shared = set(splits[first].ids) & set(splits[second].ids)
        if shared:
            shared_ids.append(f"{len(shared)} ids are in both {first} and {second}: {min(shared)}")
    return Dataset(
        train=train,
        valid=splits["valid"],
        test=splits["test"],
        source=str(path),
        layout=layout,
        aligned=all(
            len({split.features[modality].shape[1] for modality in MODALITIES}) == 1
            for split in splits.values()
        ),
        tasks=tasks,
        # A file from write_npz brings the notes of its first reading.
        notes=tuple(dict.fromkeys((*notes, *shared_ids))),
        more={name: split for name, split in splits.items() if name not in SPLITS},
    )


def take_rows(split: Split, index: np.ndarray) -> Split:
    """Some rows of a split; their features are loaded into memory.

    Args:
        split: any split.
        index: integer numbers of rows, or a mask `[n]` bool.

    Returns:
        A split of these rows, in the order of `index`.
    """
    numbers = np.arange(len(split.ids))[index]

    def of(rows: tuple | None) -> tuple | None:
        return None if rows is None else tuple(rows[i] for i in numbers)

    return Split(
        features={name: np.asarray(x[numbers]) for name, x in split.features.items()},
        valid={name: x[numbers] for name, x in split.valid.items()},
        ids=of(split.ids),
        scores=None if split.scores is None else split.scores[numbers],
        classes=None if split.classes is None else split.classes[numbers],
        raw_text=of(split.raw_text),
        words=of(split.words),
    )


def concatenate(splits: Sequence[Split], source: str) -> Split:
    """Rows of several splits of one file, one after the other.

    Args:
        splits: at least one split.
        source: file, for messages.

    Returns:
        One split; repeated ids get a suffix.

    Raises:
        InputError: the splits differ in the frames of a modality.
    """
    for modality in MODALITIES:
        frames = {split.features[modality].shape[1] for split in splits}
        if len(frames) > 1:
            raise InputError(
                f"{source}: {modality}: splits of {sorted(frames)} frames cannot be joined; pad "
                "them to the same length"
            )

    def joined(key: str) -> Any:
        parts = [getattr(split, key) for split in splits]
        if any(part is None for part in parts):
            return None
        if isinstance(parts[0], tuple):
            return tuple(item for part in parts for item in part)
        return np.concatenate(parts)

    return Split(
        features={m: np.concatenate([s.features[m] for s in splits]) for m in MODALITIES},
        valid={m: np.concatenate([s.valid[m] for s in splits]) for m in MODALITIES},
        ids=_unique(joined("ids"))[0],
        scores=joined("scores"),
        classes=joined("classes"),
        raw_text=joined("raw_text"),
        words=joined("words"),
    )


def id_hashes(ids: Sequence[str]) -> np.ndarray:
    """Hashes of ids, from which random keys are derived for samples at any place in a batch.

    Args:
        ids: n strings.

    Returns:
        `[n, 2]` uint32: the 8 bytes of BLAKE2b as two little-endian words, the same on every
        platform and in every release.
    """
    digests = [
        hashlib.blake2b(name.encode("utf8", "surrogatepass"), digest_size=8).digest()
        for name in ids
    ]
    return np.frombuffer(b"".join(digests), "<u4").reshape(-1, 2).astype(np.uint32)


def count_notes(counts: Counter) -> list[str]:
    """Notes on the cleaning of all splits together, one line for each modality and kind.

    Args:
        counts: numbers that readers and `make_split` collected.

    Returns:
        Notes; none where nothing was cleaned.
    """
    notes = []
    for modality in MODALITIES:
        if bad := counts[modality, "not finite"]:
            share = 100 * bad / counts[modality, "values"]
            notes.append(f"{modality}: {bad} values not finite ({share:.2g} %) set to 0")
        notes += padding_notes(counts, modality)
    if long := counts["rows", "long"]:
        notes.append(f"{long} rows have more frames than max_frames and are cut to it")
    if values := counts["label", "values"]:
        notes.append(f"labels: rows hold up to {values} numbers; the first is taken as sentiment")
    return notes


def _zero_not_finite(array: np.ndarray) -> int:
    """Set NaN and infinities to 0 in place; return how many there were."""
    bad = 0
    for rows in checked.row_chunks(array):
        finite = np.isfinite(array[rows])
        if not finite.all():
            bad += finite.size - np.count_nonzero(finite)
            array[rows][~finite] = 0.0
    return bad


def _unique(ids: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """Ids with a suffix for each repetition, and how many got one."""
    taken = set(ids)
    seen: Counter = Counter()
    result, repeated = [], 0
    for name in ids:
        seen[name] += 1
        other = name
        if seen[name] > 1:
            repeated += 1
            while (other := f"{name}#{seen[name]}") in taken:
                seen[name] += 1
            taken.add(other)
        result.append(other)
    return tuple(result), repeated


def _words_by_count(
    raw_text: tuple[str, ...], valid: np.ndarray
) -> tuple[tuple[str, ...], ...] | None:
    """The words of the text frames, if every sentence has as many as its row has real frames."""
    sentences = [text.split() for text in raw_text]
    # A row without a word has one frame all the same.
    if any(
        max(1, len(sentence)) != count
        for sentence, count in zip(sentences, valid.sum(axis=1), strict=True)
    ):
        return None
    rows = []
    for sentence, mask in zip(sentences, valid, strict=True):
        frames = np.flatnonzero(mask)
        row = [""] * (frames[-1] + 1)
        for frame, word in zip(frames, sentence, strict=False):
            row[frame] = word
        rows.append(tuple(row))
    return tuple(rows)
