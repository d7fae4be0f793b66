"""Multimodal sentiment and emotion files to NumPy arrays.

`read` takes the published layouts (MMSA and SIMS dictionaries, MulT dictionaries, MAG-BERT lists)
and this project's own `.npz`, and returns one `Dataset`. Every layout is first brought to the
fields of MMSA and then goes through the same checks and the same cleaning.
"""

import contextlib
import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from corrkd_jax.data import unpickle
from corrkd_jax.data.atomic import write_atomically
from corrkd_jax.errors import InputError

MODALITIES = ("text", "audio", "vision")
SPLITS = ("train", "valid", "test")
LABEL_MODES = ("binary", "ternary", "seven", "classes")

_SENTIMENT = ("sentiment",)
_EMOTIONS = ("neutral", "happy", "sad", "angry")
_LABEL_KEYS = ("regression_labels", "classification_labels")
_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Split:
    """One part of a dataset; row i of every field is the same utterance.

    Attributes:
        features: modality -> [n, time, features] float32, finite. The three modalities may differ
            in time and in features. Read from an `.npz`, they are read-only memory maps.
        valid: modality -> [n, time] bool, True where a frame is real and False where it is
            padding; every row has at least one True.
        ids: n strings, unique within the split.
        scores: [n] float32 sentiment, in [-3, 3] for MOSI and MOSEI and [-1, 1] for SIMS, or None.
        classes: [n, tasks] int32, the class labels that the file holds, or None.
        raw_text: n strings, or None.
    """

    features: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    ids: tuple[str, ...]
    scores: np.ndarray | None
    classes: np.ndarray | None
    raw_text: tuple[str, ...] | None


@dataclass(frozen=True)
class Dataset:
    """The three splits of one file.

    Attributes:
        train, valid, test: the splits; the feature size of a modality is the same in all three.
        source: the path that was read.
        layout: "mmsa", "mult", "mag-bert" or "npz".
        aligned: whether the three modalities have the same number of frames in every split.
        tasks: ("sentiment",), or ("neutral", "happy", "sad", "angry").
        notes: what was cleaned or looks odd, one line each.
    """

    train: Split
    valid: Split
    test: Split
    source: str
    layout: str
    aligned: bool
    tasks: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of every feature, from `fit_scaler`.

    Attributes:
        mean, std: modality -> [features] float32; `std` is positive.
        clip: z-scores are limited to [-clip, clip].
    """

    mean: dict[str, np.ndarray]
    std: dict[str, np.ndarray]
    clip: float = 5.0


def read(path: str | Path, word_vectors: str | Path | None = None, max_frames: int = 50) -> Dataset:
    """Read a multimodal sentiment or emotion file; the layout is recognised from its content.

    Shapes come from the file. Features become float32, and values that are not finite (MMSA and
    MulT audio hold -inf) become 0, which one note a modality reports. Which frames are padding is
    taken from the `*_lengths` of the modality; without them from the attention mask in
    `text_bert`, for text and, when the modalities are aligned, for all three; without that from
    the cleaned features: frames before the first and after the last frame with a non-zero value
    are padding (over the three modalities together when they are aligned). A row without any
    real frame has its first one valid, and a length of 0 counts as 1. An `.npz` is taken at its
    word: its features, which may exceed memory, are not searched for values that are not finite.

    Args:
        path: a pickle in the layout of MMSA (also SIMS; only the multimodal label is used), MulT
            or MAG-BERT, or an `.npz` from `write_npz`.
        word_vectors: a file of word vectors in GloVe's text format; needed by, and only allowed
            for, MAG-BERT files, whose text is words. An unknown word is a zero vector.
        max_frames: MAG-BERT sequences vary in length and are padded or cut to this.

    Returns:
        The dataset. Rows without an id are called "train-000012"; a repeated id gets the suffix
        "#2"; notes tell of both, and of ids that occur in two splits.

    Raises:
        InputError: the file cannot be read or used; the message names file, split and key.
    """
    path = Path(path)
    if max_frames < 1:
        raise InputError(f"{path}: max_frames is {max_frames}; give at least 1")
    if _is_zip(path):
        content, layout = {}, "npz"
    else:
        content = unpickle.load(path)
        layout = _layout(content, path)
    names = {split: "dev" if split == "valid" and "dev" in content else split for split in SPLITS}
    words = _vocabulary(content[name] for name in names.values()) if layout == "mag-bert" else set()
    if word_vectors is not None and not words:
        raise InputError(
            f"{path}: text: is numbers already; word_vectors is for files with words, drop it"
        )
    if layout == "npz":
        return _read_npz(path)

    vectors, size = {}, 0
    notes: list[str] = []
    if words:
        if word_vectors is None:
            raise InputError(
                f"{path}: train: text: holds words, so word vectors are needed; give word_vectors, "
                "a file in GloVe's text format"
            )
        vectors, size = _word_vectors(Path(word_vectors), words)
        unknown = len(words) - len(vectors)
        if unknown:
            notes.append(f"text: {unknown} of {len(words)} words have no vector, set to 0")

    splits, counts = {}, Counter()
    for split in SPLITS:
        where = f"{path}: {names[split]}"
        # The file's own reference is dropped, so that each raw array is freed once it is cast.
        rows = content.pop(names[split])
        if layout == "mag-bert":
            fields = _mag_bert_fields(rows, where, vectors, size, max_frames)
        elif layout == "mult":
            fields = _mult_fields(rows, where)
        else:
            fields = dict(rows)
        del rows
        splits[split] = _split(fields, split, where, counts, notes)
    notes += _count_notes(counts)
    return _dataset(splits, path, layout, notes)


def _layout(content: object, path: Path) -> str:
    """Tell the layout of an unpickled file, or say what was found instead."""
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: holds a {type(content).__name__}, not a dict with the keys train, valid and "
            "test; use an MMSA, MulT or MAG-BERT file"
        )
    found = ", ".join(sorted(map(str, content))[:12]) or "none"
    for split in SPLITS:
        if split not in content and (split != "valid" or "dev" not in content):
            raise InputError(f"{path}: no split {split!r}; the file must have it (found: {found})")
    values = [
        content["dev" if split == "valid" and "dev" in content else split] for split in SPLITS
    ]
    if all(isinstance(value, list | tuple) for value in values):
        return "mag-bert"
    if not all(isinstance(value, dict) for value in values):
        kinds = ", ".join(type(value).__name__ for value in values)
        raise InputError(
            f"{path}: train, valid, test are {kinds}; expected three dicts (MMSA, MulT) or three "
            "lists (MAG-BERT)"
        )
    if "valid" not in content:
        raise InputError(f"{path}: no split 'valid'; rename the key 'dev' (found: {found})")
    return "mult" if "labels" in content["train"] else "mmsa"


def _mult_fields(rows: dict, where: str) -> dict[str, Any]:
    """MulT's fields under MMSA's names: labels go to one of two keys by their kind."""
    fields = dict(rows)
    labels = _numbers(_take(fields, "labels", where), where, "labels")
    n = len(labels)
    if labels.ndim == 3 and labels.shape[1:] == (len(_EMOTIONS), 2):
        _check_finite(labels, where, "labels")
        fields["classification_labels"] = labels.argmax(-1)
    elif labels.shape in ((n,), (n, 1), (n, 1, 1)):
        fields["regression_labels"] = labels
    else:
        raise InputError(
            f"{where}: labels: shape {labels.shape} is not understood; expected (n, 1, 1) "
            "sentiment or (n, 4, 2) one-hot emotions"
        )
    return fields


def _vocabulary(splits: Iterable[Sequence]) -> set[str]:
    """All words of a MAG-BERT file; empty when the text is feature vectors."""
    words = set()
    for rows in splits:
        for row in rows:
            # Rows of a wrong form are refused, with their number, by _mag_bert_fields.
            with contextlib.suppress(TypeError, IndexError, KeyError):
                words.update(_words(row[0][0]) or ())
    return words


def _words(text: Any) -> list[str] | None:
    """The word strings of one MAG-BERT row, or None when the text is numbers."""
    if isinstance(text, np.ndarray) and text.dtype.kind not in "USO":
        return None
    items = text.tolist() if isinstance(text, np.ndarray) else text
    if not isinstance(items, list | tuple) or not all(
        isinstance(item, str | bytes) for item in items
    ):
        return None
    return [_string(item) for item in items]


def _word_vectors(path: Path, vocabulary: set[str]) -> tuple[dict[str, np.ndarray], int]:
    """Vectors of the words in `vocabulary`, by exact spelling or else in lower case; their size.

    Raises:
        InputError: the file cannot be read, or a line is not a word and its numbers.
    """
    wanted = vocabulary | {word.lower() for word in vocabulary}
    table: dict[str, np.ndarray] = {}
    size = 0
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                parts = line.rstrip().split(" ")
                if number == 1 and len(parts) == 2 and all(map(str.isdigit, parts)):
                    continue  # word2vec's text format begins with a count and a size
                size = size or len(parts) - 1
                # Some words of the large GloVe files contain spaces: count from the right.
                word = " ".join(parts[:-size]) if size else ""
                if not word:
                    raise InputError(
                        f"{path}: line {number}: expected a word and its {size or 'many'} numbers; "
                        "use GloVe's text format"
                    )
                if word in wanted:
                    try:
                        table[word] = np.array(parts[-size:], np.float32)
                    except ValueError:
                        raise InputError(
                            f"{path}: line {number}: the vector of {word!r} has a field that is no "
                            "number; use GloVe's text format"
                        ) from None
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: word_vectors cannot be read ({error}); check it") from error
    found = {}
    for word in vocabulary:
        vector = table.get(word, table.get(word.lower()))
        if vector is not None:
            found[word] = vector
    if not found:
        raise InputError(f"{path}: word_vectors has none of the file's words; check the language")
    return found, size


def _mag_bert_fields(
    rows: Sequence, where: str, vectors: dict[str, np.ndarray], size: int, max_frames: int
) -> dict[str, Any]:
    """MAG-BERT's ((words, vision, audio), label, segment id) rows as MMSA fields of fixed length.

    Args:
        rows: the tuples of one split.
        where: file and split, for messages.
        vectors: word -> [size] float32; empty when the text is vectors already.
        size: length of a word vector.
        max_frames: number of frames to pad or cut to.
    """
    if not rows:
        raise InputError(f"{where}: has no rows (n = 0); give a split with data")
    frames: dict[str, list[np.ndarray]] = {modality: [] for modality in MODALITIES}
    labels, ids, sentences = [], [], []
    for number, row in enumerate(rows):
        at = f"{where}: row {number}"
        try:
            (text, vision, audio), label, segment = row
        except (TypeError, ValueError):
            raise InputError(
                f"{at}: expected ((words, vision, audio), label, segment id) as in MAG-BERT files"
            ) from None
        words = _words(text)
        if words is None:
            text = _numbers(text, at, "text")
            if text.ndim != 2 or text.dtype.kind != "f":
                raise InputError(
                    f"{at}: text: word vectors are needed, but it holds {text.dtype} numbers of "
                    f"shape {text.shape} (token ids?); store words and give word_vectors, or "
                    "store vectors [time, features]"
                )
        else:
            text = np.zeros((len(words), size), np.float32)
            for vector, word in zip(text, words, strict=True):
                vector[:] = vectors.get(word, 0.0)
            sentences.append(" ".join(words))
        sequences = {"text": text, "audio": audio, "vision": vision}
        for modality, sequence in sequences.items():
            sequence = _numbers(sequence, at, modality)
            if sequence.ndim != 2 or len(sequence) != len(text):
                raise InputError(
                    f"{at}: {modality}: shape {sequence.shape}, but [time, features] with "
                    f"{len(text)} frames as in text is needed"
                )
            frames[modality].append(sequence[:max_frames])
        label = _numbers(label, at, "label")
        if label.size != 1:
            raise InputError(f"{at}: label: shape {label.shape}; one sentiment score is needed")
        labels.append(label.reshape(()))
        ids.append(segment)

    fields: dict[str, Any] = {"id": ids, "regression_labels": np.array(labels)}
    if sentences:
        fields["raw_text"] = sentences
    lengths = [len(sequence) for sequence in frames["text"]]
    for modality in MODALITIES:
        sequences = frames.pop(modality)
        sizes = sorted({sequence.shape[1] for sequence in sequences})
        if len(sizes) > 1:
            raise InputError(f"{where}: {modality}: rows have {sizes} features; one size is needed")
        padded = np.zeros((len(sequences), max_frames, sizes[0]), np.float32)
        with np.errstate(over="ignore"):
            for target, sequence in zip(padded, sequences, strict=True):
                target[: len(sequence)] = sequence
        fields[modality] = padded
        fields[f"{modality}_lengths"] = lengths
    return fields


def _split(
    fields: dict[str, Any], split: str, where: str, counts: Counter, notes: list[str]
) -> Split:
    """Check and clean the MMSA fields of one split; empties `fields` of its features.

    Args:
        fields: MMSA's keys.
        split: "train", "valid" or "test".
        where: file and split, for messages.
        counts: receives the numbers that `_count_notes` reports.
        notes: receives remarks on ids.
    """
    features: dict[str, np.ndarray] = {}
    for modality in MODALITIES:
        raw = _numbers(_take(fields, modality, where), where, modality)
        _check_features(raw, where, modality)
        with np.errstate(over="ignore"):
            array = np.require(raw, np.float32, "W")
        del raw
        counts[modality, "values"] += array.size
        counts[modality, "not finite"] += _zero_not_finite(array)
        features[modality] = array
    n = len(features["text"])
    for modality in MODALITIES:
        _check_rows(len(features[modality]), n, where, modality)

    valid, outside, real = _valid_frames(fields, features, where)
    for modality in MODALITIES:
        counts[modality, "outside"] += outside[modality]
        counts[modality, "real"] += real[modality]

    scores = classes = None
    if not any(key in fields for key in _LABEL_KEYS):
        _take(fields, "regression_labels", where)
    if "regression_labels" in fields:
        scores = _labels_field(fields, "regression_labels", n, where)[:, 0].astype(np.float32)
    if "classification_labels" in fields:
        numbers = _labels_field(fields, "classification_labels", n, where)
        classes = numbers.astype(np.int32)
        if np.any(classes != numbers) or classes.min() < 0:
            raise InputError(
                f"{where}: classification_labels: class labels must be whole numbers from 0; "
                "correct them or remove the field"
            )
    raw_text = None
    if fields.get("raw_text") is not None:
        raw_text = _strings(fields["raw_text"], n, where, "raw_text")
    if fields.get("id") is None:
        ids = tuple(f"{split}-{number:06d}" for number in range(n))
        notes.append(f"{split}: no ids in the file, generated as {ids[0]}")
    else:
        ids, repeated = _unique(_strings(fields["id"], n, where, "id"))
        if repeated:
            notes.append(f"{split}: {repeated} repeated ids made unique by a suffix such as #2")
    return Split(features, valid, ids, scores, classes, raw_text)


def _take(fields: dict[str, Any], key: str, where: str) -> Any:
    """Remove and return a field, or say which ones there are."""
    if key not in fields:
        found = ", ".join(sorted(map(str, fields))[:16]) or "none"
        raise InputError(f"{where}: no key {key!r}; the split must have it (found: {found})")
    return fields.pop(key)


def _numbers(value: Any, where: str, key: str) -> np.ndarray:
    """`value` as an array of real numbers, in its own dtype and without a copy where possible."""
    try:
        array = np.asanyarray(value)  # keeps a memory map what it is
        if array.dtype == object:
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        array = np.asarray("")
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"{where}: {key}: not an array of numbers with rows of equal size; pad them or check "
            "the file"
        )
    return array


def _check_features(array: np.ndarray, where: str, key: str) -> None:
    if array.ndim != 3:
        raise InputError(
            f"{where}: {key}: has {array.ndim} axes of sizes {array.shape}; expected 3, "
            "[samples, time, features]"
        )
    for size, letter in zip(array.shape, ("n", "T", "D"), strict=True):
        if size == 0:
            raise InputError(
                f"{where}: {key}: is empty, {letter} = 0 in [n, T, D] = {array.shape}; give data"
            )


def _check_rows(count: int, n: int, where: str, key: str) -> None:
    if count != n:
        raise InputError(
            f"{where}: {key}: {count} rows, but text has {n}; every field needs one per sample"
        )


def _check_finite(array: np.ndarray, where: str, key: str) -> None:
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        raise InputError(
            f"{where}: {key}: {bad} labels are not finite; correct or remove those samples"
        )


def _labels_field(fields: dict[str, Any], key: str, n: int, where: str) -> np.ndarray:
    """A label field as finite numbers [n, tasks]."""
    labels = _numbers(fields[key], where, key)
    if labels.ndim == 0 or labels.size == 0:
        raise InputError(f"{where}: {key}: shape {labels.shape}; one label per sample is needed")
    _check_rows(len(labels), n, where, key)
    labels = labels.reshape(n, -1)
    if labels.shape[1] != 1 and not (
        key == "classification_labels" and labels.shape[1] == len(_EMOTIONS)
    ):
        raise InputError(
            f"{where}: {key}: {labels.shape[1]} values per sample; one is needed (four class "
            "labels for IEMOCAP)"
        )
    _check_finite(labels, where, key)
    return labels


def _row_chunks(array: np.ndarray) -> Iterator[slice]:
    """Slices of rows that take some tens of megabytes each, so that temporaries stay small."""
    rows = max(1, _CHUNK_BYTES * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), rows):
        yield slice(start, start + rows)


def _zero_not_finite(array: np.ndarray) -> int:
    """Set NaN and infinities to 0 in place; return how many there were."""
    bad = 0
    for rows in _row_chunks(array):
        finite = np.isfinite(array[rows])
        if not finite.all():
            bad += finite.size - np.count_nonzero(finite)
            array[rows][~finite] = 0.0
    return bad


def _valid_frames(
    fields: dict[str, Any], features: dict[str, np.ndarray], where: str
) -> tuple[dict[str, np.ndarray], dict[str, int], dict[str, int]]:
    """Masks [n, time] of the real frames; `read` states the law.

    Returns:
        The mask of each modality, its number of non-zero frames outside of the mask, and its
        number of non-zero frames.
    """
    content = {modality: array.any(axis=-1) for modality, array in features.items()}
    aligned = len({mask.shape for mask in content.values()}) == 1
    attention = None
    if fields.get("text_bert") is not None:
        tokens = _numbers(fields["text_bert"], where, "text_bert")
        n, time = content["text"].shape
        if tokens.shape != (n, 3, time):
            raise InputError(
                f"{where}: text_bert: shape {tokens.shape}, but {(n, 3, time)} as text is needed; "
                "correct or remove the field"
            )
        attention = tokens[:, 1] != 0
    union = content["text"] | content["audio"] | content["vision"] if aligned else None
    valid = {}
    for modality in MODALITIES:
        lengths = fields.get(f"{modality}_lengths")
        if lengths is not None:
            mask = _length_mask(lengths, content[modality].shape, where, f"{modality}_lengths")
        elif attention is not None and (aligned or modality == "text"):
            mask = attention
        else:
            mask = _span(content[modality] if union is None else union)
        mask[~mask.any(axis=1), 0] = True
        valid[modality] = mask
    real = {name: np.count_nonzero(mask) for name, mask in content.items()}
    outside = {name: np.count_nonzero(mask & ~valid[name]) for name, mask in content.items()}
    return valid, outside, real


def _span(nonzero: np.ndarray) -> np.ndarray:
    """[n, time] bool: from the first to the last True of each row, both included."""
    begun = np.logical_or.accumulate(nonzero, axis=1)
    to_come = np.logical_or.accumulate(nonzero[:, ::-1], axis=1)[:, ::-1]
    return begun & to_come


def _length_mask(lengths: Any, shape: tuple[int, ...], where: str, key: str) -> np.ndarray:
    n, time = shape
    numbers = _numbers(lengths, where, key)
    if numbers.ndim == 0 or numbers.size != len(numbers):
        raise InputError(f"{where}: {key}: shape {numbers.shape}; one length per sample is needed")
    _check_rows(len(numbers), n, where, key)
    numbers = numbers.reshape(n)
    if not np.all((numbers >= 0) & (numbers == np.rint(numbers))):
        raise InputError(f"{where}: {key}: lengths must be whole numbers from 0; correct the field")
    if numbers.max() > time:
        raise InputError(
            f"{where}: {key}: a length of {numbers.max():g} exceeds the {time} frames of the "
            "array; the field belongs to other features, correct or remove it"
        )
    return np.arange(time) < numbers[:, None]


def _string(value: Any) -> str:
    """Text from a file as `str`; also undoes UTF-8 that a Python 2 pickle yields as latin-1."""
    if isinstance(value, bytes):
        value = value.decode("latin1")
    text = str(value)
    try:
        return text if text.isascii() else text.encode("latin1").decode("utf8")
    except UnicodeError:
        return text


def _strings(values: Any, n: int, where: str, key: str) -> tuple[str, ...]:
    """A field of one string per sample; MulT's ids (video, start, end) are joined as MMSA's are."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise InputError(f"{where}: {key}: is no list; one string per sample is needed")
    _check_rows(len(values), n, where, key)
    return tuple(
        "$_$".join(map(_string, value)) if isinstance(value, list | tuple) else _string(value)
        for value in values
    )


def _unique(ids: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """Ids with a suffix for each repetition, and how many got one."""
    taken = set(ids)
    seen: Counter = Counter()
    result, repeated = [], 0
    for name in ids:
        seen[name] += 1
        unique = name
        if seen[name] > 1:
            repeated += 1
            while (unique := f"{name}#{seen[name]}") in taken:
                seen[name] += 1
            taken.add(unique)
        result.append(unique)
    return tuple(result), repeated


def _count_notes(counts: Counter) -> list[str]:
    notes = []
    for modality in MODALITIES:
        bad, outside = counts[modality, "not finite"], counts[modality, "outside"]
        if bad:
            share = 100 * bad / counts[modality, "values"]
            notes.append(f"{modality}: {bad} values not finite ({share:.2g} %) set to 0")
        if outside:
            share = 100 * outside / counts[modality, "real"]
            notes.append(
                f"{modality}: {outside} non-zero frames ({share:.2g} %) lie in what lengths or "
                "text_bert call padding and are ignored"
            )
    return notes


def _dataset(splits: dict[str, Split], path: Path, layout: str, notes: list[str]) -> Dataset:
    """Checks between splits."""
    train = splits["train"]
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
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        shared = set(splits[first].ids) & set(splits[second].ids)
        if shared:
            notes = [*notes, f"{len(shared)} ids are in both {first} and {second}: {min(shared)}"]
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
        tasks=_EMOTIONS if train.classes is not None and train.classes.shape[1] > 1 else _SENTIMENT,
        notes=tuple(notes),
    )


def fit_scaler(split: Split, clip: float = 5.0) -> Scaler:
    """Mean and standard deviation of each feature over the valid frames of a split.

    Sums are kept in float64 over chunks of rows, so an array larger than memory will do. The
    standard deviation divides by the number of frames. A feature that does not vary (by more
    than a millionth of its mean) gets 1.

    Args:
        split: the train split.
        clip: limit for the z-scores, positive.

    Returns:
        The scaler.

    Raises:
        InputError: `clip` is not positive.
    """
    if not clip > 0:
        raise InputError(f"clip is {clip}; give a positive limit for the z-scores")
    means, stds = {}, {}
    for modality, array in split.features.items():
        count, mean, squares = 0, np.zeros(array.shape[2]), np.zeros(array.shape[2])
        for rows in _row_chunks(array):
            frames = array[rows][split.valid[modality][rows]].astype(np.float64)
            # Chan's update: exact for a mean that is large beside the deviation.
            delta = frames.mean(axis=0) - mean
            total = count + len(frames)
            squares += ((frames - frames.mean(axis=0)) ** 2).sum(axis=0)
            squares += delta**2 * count * len(frames) / total
            mean += delta * len(frames) / total
            count = total
        std = np.sqrt(squares / count)
        constant = std <= np.maximum(1e-6 * np.abs(mean), np.finfo(np.float32).tiny)
        means[modality] = mean.astype(np.float32)
        stds[modality] = np.where(constant, 1.0, std).astype(np.float32)
    return Scaler(means, stds, float(clip))


def apply_scaler(split: Split, scaler: Scaler) -> Split:
    """Z-score and clip the valid frames; padding becomes exactly zero.

    The result is in memory: for a set that is fed from disk, apply it to the rows of one batch.

    Args:
        split: any split with the feature sizes of the scaler.
        scaler: from `fit_scaler` on the train split.

    Returns:
        The split with new float32 features; the other fields are shared.
    """
    features = {}
    for modality, array in split.features.items():
        scaled = np.empty(array.shape, np.float32)
        for rows in _row_chunks(array):
            part = scaled[rows]
            # A value far outside of the train range may overflow to infinity; the clip takes it.
            with np.errstate(over="ignore"):
                np.subtract(array[rows], scaler.mean[modality], out=part)
                np.divide(part, scaler.std[modality], out=part)
            np.clip(part, -scaler.clip, scaler.clip, out=part)
            part[~split.valid[modality][rows]] = 0.0
        features[modality] = scaled
    return Split(features, split.valid, split.ids, split.scores, split.classes, split.raw_text)


def labels(split: Split, mode: str, source: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Class labels for the task loss.

    Args:
        split: the split.
        mode: "binary": score > 0 is class 1, and a score of 0 has weight 0; "ternary": negative,
            neutral, positive by the sign of the score; "seven": the score clipped to [-3, 3] and
            rounded half to even, plus 3; "classes": the class labels that the file holds.
        source: the file, for messages.

    Returns:
        classes [n, tasks] int32, weights [n, tasks] float32 in {0, 1}, and the number of classes
        (for "classes": the largest label of this split + 1, at least 2).

    Raises:
        InputError: the mode is unknown, or the file lacks the labels that it needs.
    """
    if mode not in LABEL_MODES:
        raise InputError(f"{source}: label mode {mode!r} is unknown; use {', '.join(LABEL_MODES)}")
    if mode == "classes":
        if split.classes is None:
            raise InputError(
                f"{source}: no field classification_labels for label mode 'classes'; use "
                "binary, ternary or seven"
            )
        classes = split.classes
        return classes, np.ones(classes.shape, np.float32), max(2, int(classes.max()) + 1)
    if split.scores is None:
        raise InputError(
            f"{source}: no field regression_labels (sentiment scores) for label mode {mode!r}; "
            "use classes"
        )
    scores = split.scores[:, None]
    weights = np.ones(scores.shape, np.float32)
    if mode == "binary":
        weights[scores == 0] = 0.0
        return (scores > 0).astype(np.int32), weights, 2
    if mode == "ternary":
        return np.sign(scores).astype(np.int32) + 1, weights, 3
    return np.rint(np.clip(scores, -3, 3)).astype(np.int32) + 3, weights, 7


def check_classes(classes: np.ndarray, weights: np.ndarray, source: str, split_name: str) -> None:
    """Refuse labels from which nothing can be learned; meant for the train split.

    Args:
        classes: [n, tasks] int32.
        weights: [n, tasks]; labels of weight 0 do not count.
        source: the file, for the message.
        split_name: the split, for the message.

    Raises:
        InputError: a task has fewer than two classes.
    """
    for task in range(classes.shape[1]):
        found = np.unique(classes[weights[:, task] > 0, task])
        if len(found) < 2:
            which = f" of task {task}" if classes.shape[1] > 1 else ""
            what = f"are one class ({found[0]})" if len(found) else "have weight 0"
            raise InputError(
                f"{source}: {split_name}: all labels{which} {what}; choose another label mode or "
                "check the file"
            )


def id_hashes(ids: Sequence[str]) -> np.ndarray:
    """Hashes of ids to derive a random key per sample from, whatever its place in a batch.

    Args:
        ids: n strings.

    Returns:
        [n, 2] uint32: the 8 bytes of BLAKE2b as two little-endian words, the same on every
        platform and in every release.
    """
    digests = [
        hashlib.blake2b(name.encode("utf8", "surrogatepass"), digest_size=8).digest()
        for name in ids
    ]
    return np.frombuffer(b"".join(digests), "<u4").reshape(-1, 2).astype(np.uint32)


def write_npz(dataset: Dataset, path: str | Path) -> None:
    """Convert a dataset to an uncompressed `.npz` whose features `read` maps instead of loading.

    Members: `tasks`, `notes` and, for each split, `train/text`, `train/text_valid` (and so for
    the other modalities), `train/ids`, and where present `train/scores`, `train/classes`,
    `train/raw_text`. Lists of text other than the ids are UTF-8 JSON in a uint8 array, since
    fixed-width strings would be as wide as the longest sentence.

    Args:
        dataset: what to write; its features may themselves be memory maps.
        path: the file, replaced atomically.

    Raises:
        InputError: the file cannot be written.
    """
    members: dict[str, np.ndarray] = {
        "tasks": np.array(dataset.tasks),
        "notes": _to_json(dataset.notes),
    }
    for name in SPLITS:
        split: Split = getattr(dataset, name)
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
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **members))


def _to_json(strings: Sequence[str]) -> np.ndarray:
    return np.frombuffer(json.dumps(list(strings)).encode(), np.uint8)


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False  # unpickle.load says what is wrong with the path


def _read_npz(path: Path) -> Dataset:
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            arrays = {
                member.filename.removesuffix(".npy"): _member(path, archive, file, member)
                for member in archive.infolist()
                if member.filename.endswith(".npy")
            }
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a whole .npz file of plain arrays ({reason})") from error
    if not any(f"{split}/text" in arrays for split in SPLITS):
        found = ", ".join(sorted(arrays)[:12]) or "none"
        raise InputError(
            f"{path}: no member 'train/text'; use a file from write_npz (found: {found})"
        )
    splits = {split: _npz_split(arrays, split, f"{path}: {split}") for split in SPLITS}
    notes = _from_json(arrays["notes"], f"{path}: notes") if "notes" in arrays else ()
    return _dataset(splits, path, "npz", list(notes))


def _member(
    path: Path, archive: zipfile.ZipFile, file: BinaryIO, member: zipfile.ZipInfo
) -> np.ndarray:
    """One array of an `.npz`: a read-only memory map, or loaded where it is compressed or empty."""
    if member.compress_type == zipfile.ZIP_STORED:
        # The local header has name and extra fields of its own lengths, at bytes 26 to 29.
        file.seek(member.header_offset + 26)
        skip = np.frombuffer(file.read(4), "<u2").sum()
        file.seek(member.header_offset + 30 + int(skip))
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is not None:
            shape, fortran, dtype = read_header(file)
            if dtype.hasobject:
                raise ValueError(f"{member.filename} holds Python objects")
            if 0 not in shape and dtype.itemsize:
                order = "F" if fortran else "C"
                return np.memmap(path, dtype, "r", file.tell(), shape, order)
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _npz_split(arrays: dict[str, np.ndarray], split: str, where: str) -> Split:
    """Check the members of one split; features stay memory maps."""
    fields = {
        key.removeprefix(f"{split}/"): array
        for key, array in arrays.items()
        if key.startswith(f"{split}/")
    }
    features, valid = {}, {}
    for modality in MODALITIES:
        array = _numbers(_take(fields, modality, where), where, modality)
        _check_features(array, where, modality)
        if modality != "text":
            _check_rows(len(array), len(features["text"]), where, modality)
        key = f"{modality}_valid"
        mask = np.array(_take(fields, key, where))
        if mask.dtype != bool or mask.shape != array.shape[:2] or not mask.any(axis=1).all():
            raise InputError(
                f"{where}: {key}: must be bool {array.shape[:2]} with a True in every row; write "
                "the file again with write_npz"
            )
        features[modality] = array if array.dtype == np.float32 else array.astype(np.float32)
        valid[modality] = mask
    n = len(features["text"])
    ids = tuple(map(str, np.atleast_1d(_take(fields, "ids", where)).tolist()))
    _check_rows(len(ids), n, where, "ids")
    if len(set(ids)) < n:
        raise InputError(f"{where}: ids: must be unique; write the file again with write_npz")
    scores = classes = raw_text = None
    for key, name in (("scores", "regression_labels"), ("classes", "classification_labels")):
        if key in fields:
            fields[name] = fields[key]
    if "scores" in fields:
        scores = _labels_field(fields, "regression_labels", n, where)[:, 0].astype(np.float32)
    if "classes" in fields:
        classes = _labels_field(fields, "classification_labels", n, where).astype(np.int32)
    if scores is None and classes is None:
        _take(fields, "scores", where)
    if "raw_text" in fields:
        raw_text = _from_json(fields["raw_text"], f"{where}: raw_text")
        _check_rows(len(raw_text), n, where, "raw_text")
    return Split(features, valid, ids, scores, classes, raw_text)


def _from_json(array: np.ndarray, where: str) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(np.asarray(array, np.uint8).tobytes())))
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: is no JSON list; write the file again") from error
