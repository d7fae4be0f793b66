"""Sequences as lists of tuples, one a segment: MAG-BERT's pickles, MISA's and CLUE's folders.

A row is `((words, vision, audio), label, segment)`, or `((word ids, vision, audio, words), label,
segment)` as MISA writes it. The lengths of the rows vary.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corrkd_jax.data import unpickle
from corrkd_jax.data.arrays import read_arrays
from corrkd_jax.data.dataset import MODALITIES
from corrkd_jax.data.fields import numbers, pad, string
from corrkd_jax.data.words import WordVectors
from corrkd_jax.errors import InputError


def is_folder(path: Path) -> bool:
    """Whether a folder holds one pickle a split, as those of MISA and CLUE.

    Args:
        path: the folder.

    Returns:
        True if `train.pkl` is there.
    """
    return (path / "train.pkl").is_file()


def read_folder(path: Path, notes: list[str]) -> dict[str, Any]:
    """Pickles of a folder by the name of their split.

    Without `test.pkl`, `test_IID.pkl` (CLUE's test split drawn as its training split was) is the
    test split, which a note says; `test_OOD.pkl` stays a further one.

    Args:
        path: the folder.
        notes: receives the note.

    Returns:
        Split -> content of its pickle.

    Raises:
        InputError: a pickle cannot be read.
    """
    content = {
        file.stem: unpickle.load(file)
        for file in sorted(path.glob("*.pkl"))
        if file.stem.startswith(("train", "dev", "valid", "test"))
    }
    if "test" not in content and "test_IID" in content:
        content["test"] = content.pop("test_IID")
        notes.append("test: is test_IID.pkl")
    return content


def vocabulary(splits: Iterable[Sequence]) -> set[str]:
    """All words of the splits whose text is not feature vectors.

    Args:
        splits: lists of tuples.

    Returns:
        The words as they are spelt.
    """
    found: set[str] = set()
    for rows in splits:
        for row in rows:
            # Rows of another form are refused, with their number, by `to_fields`.
            try:
                text, *_, last = row[0]
                axes = np.ndim(text)
            except (TypeError, ValueError, IndexError, KeyError):
                continue
            if axes < 2:
                found.update(_words(last if len(row[0]) == 4 else text) or ())
    return found


def read_matrix(path: Path) -> np.ndarray:
    """Vectors of word ids: the array `embedding` of an `.npz`.

    Args:
        path: the file.

    Returns:
        `[ids, size]`, floating point.

    Raises:
        InputError: the file cannot be read, or has no such array.
    """
    matrix = read_arrays(path).get("embedding")
    if matrix is None or matrix.ndim != 2 or matrix.dtype.kind != "f" or 0 in matrix.shape:
        raise InputError(
            f"{path}: embedding: no such array of floats [ids, size]; save the embedding matrix "
            "with np.savez(path, embedding=matrix)"
        )
    return matrix


def to_fields(
    rows: Sequence,
    where: str,
    embedding: WordVectors | np.ndarray | None,
    max_frames: int,
    counts: Counter,
) -> dict[str, Any]:
    """MMSA fields of fixed length from the rows of one split, and `words` where rows have them.

    Args:
        rows: the tuples.
        where: file and split, for messages.
        embedding: vectors of words, or the matrix of word ids; None when text is vectors already.
        max_frames: number of frames to pad or cut to.
        counts: receives the numbers of rows that are cut and of values that a label holds.

    Returns:
        Field -> value.

    Raises:
        InputError: there are no rows, or one is not what the layout says; the message names it.
    """
    if not rows:
        raise InputError(f"{where}: has no rows (n = 0); give a split with data")
    frames: dict[str, list[np.ndarray]] = {modality: [] for modality in MODALITIES}
    labels, ids, sentences = [], [], []
    for number, row in enumerate(rows):
        at = f"{where}: row {number}"
        try:
            (text, vision, audio, *rest), label, segment = row
            (last,) = rest or (text,)
        except (TypeError, ValueError):
            raise InputError(
                f"{at}: expected ((words, vision, audio), label, segment id) as in MAG-BERT "
                "files, or ((word ids, vision, audio, words), label, segment id) as in MISA's"
            ) from None
        words = _words(last)
        if words is not None:
            sentences.append(words)
        text = _vectors(text, words, embedding, at)
        for modality, sequence in (("text", text), ("audio", audio), ("vision", vision)):
            sequence = numbers(sequence, at, modality)
            if sequence.ndim != 2 or len(sequence) != len(text):
                raise InputError(
                    f"{at}: {modality}: shape {sequence.shape}, but [time, features] with "
                    f"{len(text)} frames as in text is needed"
                )
            frames[modality].append(sequence[:max_frames])
        counts["rows", "long"] += len(text) > max_frames
        label = numbers(label, at, "label")
        # MISA's rows of MOSEI hold sentiment and six emotions, and its readers take the first.
        if label.size != 1 and not (rest and label.size):
            raise InputError(f"{at}: label: shape {label.shape}; one sentiment score is needed")
        if label.size > 1:
            counts["label", "values"] = max(counts["label", "values"], label.size)
        labels.append(label.reshape(-1)[0])
        ids.append(segment)

    fields: dict[str, Any] = {"id": ids, "regression_labels": np.array(labels)}
    if len(sentences) == len(rows):
        fields["raw_text"] = [" ".join(words) for words in sentences]
        fields["words"] = tuple(tuple(words[:max_frames]) for words in sentences)
    if not any(map(len, frames["text"])):
        raise InputError(f"{where}: text: no row has a frame (T = 0)")
    for modality in MODALITIES:
        fields[modality], fields[f"{modality}_valid"] = pad(
            frames.pop(modality), max_frames, where, modality
        )
    return fields


def _words(text: Any) -> list[str] | None:
    """The word strings of one row, or None when the text is numbers."""
    if isinstance(text, np.ndarray) and text.dtype.kind not in "USO":
        return None
    items = text.tolist() if isinstance(text, np.ndarray) else text
    if not isinstance(items, list | tuple) or not all(
        isinstance(item, str | bytes) for item in items
    ):
        return None
    return [string(item) for item in items]


def _vectors(
    text: Any, words: list[str] | None, embedding: WordVectors | np.ndarray | None, at: str
) -> np.ndarray:
    """The text of one row as vectors [time, features]."""
    if words is not None and isinstance(embedding, WordVectors):
        return embedding.of(words)
    if _words(text) is not None:
        raise InputError(
            f"{at}: text: holds words, but word_vectors is an .npz for word ids; give a file in "
            "GloVe's text format"
        )
    text = numbers(text, at, "text")
    if text.ndim == 2 and text.dtype.kind == "f":
        return text
    if embedding is None or isinstance(embedding, WordVectors) or text.ndim != 1:
        raise InputError(
            f"{at}: text: word vectors are needed, but it holds {text.dtype} numbers of shape "
            f"{text.shape} (token ids?); store words and give word_vectors, or store vectors "
            "[time, features]"
        )
    if not np.all((text >= 0) & (text < len(embedding)) & (text == np.rint(text))):
        raise InputError(
            f"{at}: text: has word ids outside of the {len(embedding)} rows of the embedding; "
            "give the one that was made with these files"
        )
    return embedding[text.astype(np.int64)]
