"""Multimodal sentiment, emotion, humor and sarcasm files to NumPy arrays.

`read` is the only entry point. It takes the published layouts (MMSA and SIMS dictionaries, MulT
dictionaries, MAG-BERT lists, the folders of MISA and CLUE, UR-FUNNY and MUStARD) and this project's
own `.npz`, and returns one `Dataset`. Every layout is first brought to the fields of MMSA and then
goes through the same checks and the same cleaning.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corrkd_jax.data import fields as checked
from corrkd_jax.data import humor, sarcasm, tuples, unpickle
from corrkd_jax.data.dataset import (
    LABEL_KEYS,
    MODALITIES,
    SENTIMENT,
    SPLITS,
    Dataset,
    Split,
    count_notes,
    id_hashes,
    make_dataset,
    make_split,
    take_rows,
)
from corrkd_jax.data.labels import (
    LABEL_MODES,
    check_classes,
    label_notes,
    labels,
    second_labels,
)
from corrkd_jax.data.npz import is_npz, read_npz, write_npz
from corrkd_jax.data.scaling import Scaler, apply_scaler, fit_scaler
from corrkd_jax.data.words import (
    WordVectors,
    read_pieces,
    read_vectors,
    rebuild_text,
    words_of_pieces,
)
from corrkd_jax.errors import InputError, few

__all__ = [
    "LABEL_MODES",
    "MODALITIES",
    "SPLITS",
    "Dataset",
    "Scaler",
    "Split",
    "apply_scaler",
    "check_classes",
    "fit_scaler",
    "id_hashes",
    "label_notes",
    "labels",
    "read",
    "rebuild_text",
    "take_rows",
    "write_npz",
]

_ZEROS = "one frame of one zero stands for it in every row"
_TASKS = {"ur-funny": humor.TASKS, "mustard": sarcasm.TASKS}


def read(
    path: str | Path,
    word_vectors: str | Path | None = None,
    max_frames: int = 50,
    *,
    vocabulary: str | Path | None = None,
    context: bool = False,
    fold: int | None = None,
) -> Dataset:
    """Dataset from a multimodal file or folder, whose layout is recognised from its content.

    Shapes come from the file. Features become float32. Values that are not finite (MMSA and MulT
    audio hold -inf) become 0, and a note for each modality counts them.

    Padding is taken from the `*_lengths` of the modality. Without them it is taken from the
    attention mask in `text_bert`, for text and, when the modalities are aligned, for all three.
    Without that it is taken from the cleaned features: frames before the first and after the last
    frame with a non-zero value are padding (over the three modalities together when they are
    aligned). A row without any real frame has its first one valid, and a length of 0 counts as 1.

    Lengths beyond the array are cut to it, and are counted from the end where the content is at the
    end. Lengths or a mask that miss the content in most of the rows that are padded with zeros are
    not used. Notes say each of these, with numbers.

    A modality that no split of an MMSA or MulT file has, or for which MUStARD has no file, is one
    frame of one zero, which a note says.

    The features of an `.npz`, which may exceed memory, are not searched for values that are not
    finite.

    A further split, whose name begins with "test", "valid" or "dev", goes to `Dataset.more`.

    Args:
        path: a pickle in the layout of MMSA (also SIMS; only the multimodal label is used), MulT or
            MAG-BERT, an `.npz` from `write_npz`, or a folder: one pickle of tuples a split (MISA,
            CLUE), UR-FUNNY version 2, or MUStARD with the user's features.
        word_vectors: a file of word vectors in GloVe's text format, needed where text is words or
            word ids; for word ids an `.npz` with the matrix `embedding` will do as well. Where text
            is numbers already it is rebuilt from `raw_text`, see `rebuild_text`. An unknown word is
            a zero vector.
        max_frames: number of frames that sequences of variable length (all but MMSA's and MulT's)
            and rebuilt text are padded or cut to; MUStARD's are padded to the longest only.
        vocabulary: BERT's `vocab.txt`; gives the words of MMSA files with `text_bert`.
        context: put the sentences before the punchline in front of it (UR-FUNNY).
        fold: a fold of `split_indices.p` from 1 (MUStARD); None is the speaker-independent split.

    Returns:
        The dataset. Rows without an id are called "train-000012"; a repeated id gets the suffix
        "#2". Notes report both, and ids that occur in two splits.

    Raises:
        InputError: the file cannot be read or used; the message names file, split and key.
    """
    path = Path(path)
    if max_frames < 1:
        raise InputError(f"{path}: max_frames is {max_frames}; give at least 1")
    if word_vectors is not None and vocabulary is not None:
        raise InputError(f"{path}: give word_vectors or vocabulary; text has one kind of frame")
    notes: list[str] = []
    counts: Counter = Counter()
    layout, content, absent = _open(
        path, word_vectors is not None, max_frames, context, fold, counts, notes
    )
    for name, given, needed in (
        ("vocabulary", vocabulary is not None, "mmsa"),
        ("context", context, "ur-funny"),
        ("fold", fold is not None, "mustard"),
    ):
        if given and layout != needed:
            raise InputError(f"{path}: {name} is for the layout {needed}, not {layout}; drop it")
    embedding = None
    if layout == "npz":
        dataset = read_npz(path)
    else:
        keys = _split_keys(content, notes)
        if layout in ("mmsa", "mult"):
            absent = _absent(content, keys, path, notes)
        if layout in ("mag-bert", "clue"):
            embedding = _embedding((content[key] for key in keys.values()), path, word_vectors)
        if isinstance(embedding, WordVectors) and embedding.unknown:
            words = len(embedding.index) + embedding.unknown
            notes.append(f"text: {embedding.unknown} of {words} words have no vector, set to 0")
        pieces = None if vocabulary is None else read_pieces(vocabulary)
        splits = {}
        for name, key in keys.items():
            where = f"{path}: {key}"
            # The file's own reference is dropped, so that each raw array is freed once it is cast.
            rows = content.pop(key)
            if layout in ("mag-bert", "clue"):
                fields = tuples.to_fields(rows, where, embedding, max_frames, counts)
            elif layout in ("mmsa", "mult"):
                fields = _fields(rows, where, layout, pieces, notes)
            else:
                fields = rows
            del rows
            splits[name] = make_split(fields, name, where, counts, notes, absent)
        notes += count_notes(counts)
        tasks = _TASKS.get(layout, SENTIMENT)
        if layout == "mult" and splits["train"].classes is not None:
            tasks = checked.EMOTIONS
        dataset = make_dataset(splits, path, layout, notes, tasks)
    if word_vectors is not None and embedding is None:
        return rebuild_text(dataset, word_vectors, max_frames)
    return dataset


def _open(
    path: Path,
    has_vectors: bool,
    max_frames: int,
    context: bool,
    fold: int | None,
    counts: Counter,
    notes: list[str],
) -> tuple[str, dict, tuple[str, ...]]:
    """The layout of a path, its splits by key, and modalities that are known to be absent.

    An `.npz` is left for `read_npz`.
    """
    if is_npz(path):
        return "npz", {}, ()
    if not path.is_dir():
        content = unpickle.load(path)
        return _layout(content, path), content, ()
    kinds = {
        "UR-FUNNY": humor.is_folder(path),
        "MUStARD": sarcasm.is_folder(path),
        "MISA, CLUE": tuples.is_folder(path),
    }
    if sum(kinds.values()) > 1:
        several = " and of ".join(name for name, there in kinds.items() if there)
        raise InputError(f"{path}: holds files of {several}; give each a folder of its own")
    if kinds["UR-FUNNY"]:
        return "ur-funny", humor.read_folder(path, context, max_frames, counts, notes), ()
    if kinds["MUStARD"]:
        content, absent = sarcasm.read_folder(path, fold, max_frames, has_vectors, counts, notes)
        notes += [f"{modality}: has no file; {_ZEROS}" for modality in absent]
        return "mustard", content, absent
    if kinds["MISA, CLUE"]:
        content = tuples.read_folder(path, notes)
        if _layout(content, path) != "mag-bert":
            raise InputError(
                f"{path}: train: is a dict; the pickles of such a folder are lists of tuples "
                "(MISA, CLUE). Name an MMSA file itself"
            )
        return "clue", content, ()
    found = few(sorted(file.name for file in path.iterdir()), 12)
    raise InputError(
        f"{path}: is a folder without train.pkl (MISA, CLUE), data_folds.pkl (UR-FUNNY) and "
        f"sarcasm_data.json (MUStARD); name a file or another folder (found: {found})"
    )


def _layout(content: object, path: Path) -> str:
    """Tell the layout of an unpickled file, or say what was found instead."""
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: holds a {type(content).__name__}, not a dict with the keys train, valid and "
            "test; use an MMSA, MulT or MAG-BERT file"
        )
    found = few(sorted(map(str, content)), 12)
    for split in SPLITS:
        if split not in content and (split != "valid" or "dev" not in content):
            raise InputError(f"{path}: no split {split!r}; the file must have it (found: {found})")
    values = [
        content["dev" if split == "valid" and split not in content else split] for split in SPLITS
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
    own = any(value.get(key) is not None for value in values for key in LABEL_KEYS)
    return "mult" if "labels" in content["train"] and not own else "mmsa"


def _split_keys(content: dict, notes: list[str]) -> dict[str, str]:
    """Name of each split -> its key, with the further ones that look like a split."""
    keys = {split: split for split in SPLITS}
    if "valid" not in content:
        keys["valid"] = "dev"
    elif "dev" in content:
        notes.append("valid: is the split 'valid'; 'dev' is a further split")
    kind = dict if isinstance(content["train"], dict) else list | tuple
    for key, value in content.items():
        if (
            isinstance(key, str)
            and key.startswith(("test", "valid", "dev"))
            and key not in keys.values()
            and isinstance(value, kind)
        ):
            keys[key] = key
    return keys


def _absent(content: dict, keys: dict[str, str], path: Path, notes: list[str]) -> tuple[str, ...]:
    """Modalities that no split has; a note says so, unless another field may be meant as one."""
    splits = [content[key] for key in keys.values()]
    absent = tuple(m for m in MODALITIES if all(fields.get(m) is None for fields in splits))
    if len(absent) == len(MODALITIES):
        return ()  # refused, with what is there
    train = content["train"]
    for modality in absent:
        for key, value in train.items():
            other = key not in (*MODALITIES, "text_bert", "labels")
            if other and isinstance(value, np.ndarray) and value.ndim == 3:
                raise InputError(
                    f"{path}: train: no key {modality!r}, but {key!r} is an array of shape "
                    f"{value.shape}; rename or remove it"
                )
        notes.append(f"{modality}: no split has this key; {_ZEROS}")
    return absent


def _embedding(
    splits: Iterable[Sequence], path: Path, word_vectors: str | Path | None
) -> WordVectors | np.ndarray | None:
    """Vectors of the words or word ids of tuples; None where text is vectors already."""
    words = tuples.vocabulary(splits)
    if word_vectors is None:
        if words:
            raise InputError(
                f"{path}: train: text: holds words, so word vectors are needed; give word_vectors, "
                "a file in GloVe's text format"
            )
        return None
    if is_npz(Path(word_vectors)):
        return tuples.read_matrix(Path(word_vectors))
    return read_vectors(word_vectors, words) if words else None


def _fields(
    rows: dict, where: str, layout: str, pieces: Sequence[str] | None, notes: list[str]
) -> dict[str, Any]:
    """The fields of an MMSA or MulT split, with `words` if a vocabulary tells them."""
    rows = {key: value for key, value in rows.items() if value is not None}
    fields = _mult_fields(rows, where) if layout == "mult" else rows
    for key in ("words", *(f"{modality}_valid" for modality in MODALITIES)):
        fields.pop(key, None)  # no field of these layouts, whatever it may hold
    if layout == "mmsa" and "labels" in fields:
        notes.append(second_labels(fields, where))
    if pieces is not None:
        for key in ("text", "text_bert"):
            if key not in fields:
                raise InputError(f"{where}: no key {key!r}; vocabulary needs it, drop vocabulary")
        fields["words"] = words_of_pieces(fields["text_bert"], pieces, where)
    return fields


def _mult_fields(rows: dict, where: str) -> dict[str, Any]:
    """MulT's fields under MMSA's names: labels go to one of two keys by their kind."""
    fields = dict(rows)
    labels = checked.numbers(checked.take(fields, "labels", where), where, "labels")
    n = len(labels) if labels.ndim else 0
    if labels.ndim == 3 and labels.shape[1:] == (len(checked.EMOTIONS), 2):
        checked.check_finite(labels, where, "labels")
        if bad := np.count_nonzero((np.sort(labels, axis=-1) != (0, 1)).any(axis=(1, 2))):
            raise InputError(
                f"{where}: labels: {bad} rows are not one-hot; each emotion is (1, 0) or (0, 1)"
            )
        fields["classification_labels"] = labels.argmax(-1)
    elif labels.shape in ((n,), (n, 1), (n, 1, 1)):
        fields["regression_labels"] = labels
    else:
        raise InputError(
            f"{where}: labels: shape {labels.shape} is not understood; expected (n, 1, 1) "
            "sentiment or (n, 4, 2) one-hot emotions"
        )
    return fields
