"""Which frames of a file are real: by what the file says, and by where its content is.

A file says it by the `*_lengths` of a modality and by the attention mask in `text_bert`. Extractors
leave lengths uncut, pad in front, or store the lengths of another field. So each of these is
compared with the frames that are not zero before it is used.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from corrkd_jax.data import fields as checked
from corrkd_jax.errors import InputError


def real_frames(
    fields: Mapping[str, Any], features: Mapping[str, np.ndarray], where: str, counts: Counter
) -> dict[str, np.ndarray]:
    """Masks of the real frames of a split; `corrkd_jax.data.msa.read` states the law.

    Args:
        fields: MMSA's keys; `words`, if they were read from `text_bert`; or a mask `audio_valid` of
            a reader that padded the sequences itself.
        features: modality -> `[n, time, features]`, cleaned.
        where: file and split, for messages.
        counts: receives the numbers that `padding_notes` reports.

    Returns:
        Modality -> `[n, time]` bool with a True in every row.

    Raises:
        InputError: lengths or an attention mask that are none; words of other frames.
    """
    content = {modality: array.any(axis=-1) for modality, array in features.items()}
    aligned = len({mask.shape for mask in content.values()}) == 1
    union = np.logical_or.reduce(list(content.values())) if aligned else None
    attention = _attention(fields, content, where)
    if attention is not None and fields.get("words") is not None:
        wrong, padded = _misfits(attention, content["text"] if union is None else union)
        if _contradicts(wrong, padded, len(attention)):
            raise InputError(
                f"{where}: text_bert: ends elsewhere than the frames of text in {wrong} of "
                f"{padded} padded rows, so their words are not those of vocabulary; drop vocabulary"
            )
    valid = {}
    for modality, own in content.items():
        mask = fields.get(f"{modality}_valid")
        if mask is None:
            shown = own if union is None else union
            claims = []
            if (key := f"{modality}_lengths") in fields and fields[key] is not None:
                claims.append(_Claim(key, _by_lengths(fields, modality, own, where, counts), own))
            if attention is not None and (aligned or modality == "text"):
                claims.append(_Claim("text_bert", attention, shown))
            claims.append(_Claim("frames of zeros", _span(shown), shown))
            chosen = _first_that_fits(claims, modality, fields, content, counts)
            mask = chosen.mask
            # what an attention mask says of all three is counted once
            once = chosen.name != "text_bert" or modality == "text"
            idle = once & mask & ~_span(chosen.content) & chosen.content.any(axis=1, keepdims=True)
            counts[modality, "idle"] += np.count_nonzero(idle)
            counts[modality, "outside"] += np.count_nonzero(own & ~mask)
        counts[modality, "real"] += np.count_nonzero(own)
        empty = ~mask.any(axis=1, keepdims=True)
        counts[modality, "empty"] += np.count_nonzero(empty)
        valid[modality] = mask | (empty & (np.arange(mask.shape[1]) < 1))
    return valid


def padding_notes(counts: Counter, modality: str) -> list[str]:
    """Notes on how the real frames of a modality were found, all splits together.

    Args:
        counts: numbers that `real_frames` collected.
        modality: the modality.

    Returns:
        Notes; none where nothing was in doubt.
    """
    notes = []
    if cut := counts[modality, "cut"]:
        notes.append(
            f"{modality}: {cut} of {counts[modality, 'lengths']} lengths are longer than the array "
            f"(up to {counts[modality, 'longest']:g} frames) and are cut to it"
        )
    if counts[modality, "front"]:
        notes.append(
            f"{modality}: padding is in front of the frames, so {modality}_lengths are counted "
            "from the end"
        )
    for key, wrong in counts.items():
        if key[:2] == (modality, "misfit"):
            name, instead, fits = key[2:]
            others = f" (it fits {fits})" if fits else ""
            notes.append(
                f"{modality}: {name} is not used, since in {wrong} of "
                f"{counts[modality, 'padded', name, instead, fits]} padded rows it ends elsewhere "
                f"than the non-zero frames{others}; padding is taken from {instead}"
            )
    if outside := counts[modality, "outside"]:
        share = 100 * outside / counts[modality, "real"]
        notes.append(
            f"{modality}: {outside} non-zero frames ({share:.2g} %) lie in what lengths or "
            "text_bert call padding and are ignored"
        )
    if idle := counts[modality, "idle"]:
        notes.append(
            f"{modality}: {idle} frames of zeros at the ends of rows are real by lengths or "
            "text_bert and are kept"
        )
    if (modality, "real") in counts and not counts[modality, "real"]:
        notes.append(f"{modality}: every value is zero, as if it were missing")
    elif empty := counts[modality, "empty"]:
        notes.append(f"{modality}: {empty} rows have no real frame; their first counts as one")
    return notes


def blind_rows(mask: np.ndarray, features: np.ndarray) -> int:
    """Number of rows whose mask shows zeros alone and hides what is not zero.

    Args:
        mask: `[n, time]` bool, True for a real frame.
        features: `[n, time, features]`.

    Returns:
        The number; an inverted mask over zero-padded frames has it in every row.
    """
    content = features.any(axis=-1)
    return int(np.sum(content.any(axis=1) & ~(content & mask).any(axis=1)))


class _Claim(NamedTuple):
    """What one field says.

    Attributes:
        name: of the field.
        mask: `[n, time]`, real frames by it.
        content: `[n, time]`, frames that are not zero, in the modalities that it is about.
    """

    name: str
    mask: np.ndarray
    content: np.ndarray


def _first_that_fits(
    claims: list[_Claim],
    modality: str,
    fields: Mapping[str, Any],
    content: Mapping[str, np.ndarray],
    counts: Counter,
) -> _Claim:
    """The first claim that its content does not contradict; the last one is the content itself."""
    for claim, later in pairwise(claims):
        wrong, padded = _misfits(claim.mask, claim.content)
        if not _contradicts(wrong, padded, len(claim.mask)):
            return claim
        fits = ""
        if claim.name != "text_bert":
            fits = " and ".join(_fitting(fields[claim.name], modality, content))
        counts[modality, "misfit", claim.name, later.name, fits] += wrong
        counts[modality, "padded", claim.name, later.name, fits] += padded
    return claims[-1]


def _misfits(mask: np.ndarray, content: np.ndarray) -> tuple[int, int]:
    """Rows in which a mask ends elsewhere than the content, and rows that can tell.

    A row can tell if some of its frames are not zero, and those at an end are. One zero frame more
    at each end is no misfit: special tokens often have no sound and no picture.
    """
    span = _span(content)
    padded = span.any(axis=1) & ~span.all(axis=1)
    wider = span.copy()
    wider[:, 1:] |= span[:, :-1]
    wider[:, :-1] |= span[:, 1:]
    wrong = padded & ((content & ~mask).any(axis=1) | (mask & ~wider).any(axis=1))
    return int(wrong.sum()), int(padded.sum())


def _contradicts(wrong: int, padded: int, n: int) -> bool:
    """Whether most of the rows that can tell are misfits.

    They must be a tenth of all rows: padding that is not zero, such as noise or BERT's own
    features of [PAD], leaves a few by chance.
    """
    return wrong > max(padded / 2, n / 10)


def _fitting(lengths: Any, modality: str, content: Mapping[str, np.ndarray]) -> list[str]:
    """Other modalities whose content these lengths fit."""
    found = []
    for name, frames in content.items():
        mask = np.arange(frames.shape[1]) < np.reshape(lengths, (-1, 1))
        wrong, padded = _misfits(mask, frames)
        if name != modality and padded and not _contradicts(wrong, padded, len(mask)):
            found.append(name)
    return found


def _attention(
    fields: Mapping[str, Any], content: Mapping[str, np.ndarray], where: str
) -> np.ndarray | None:
    """Attention mask of `text_bert` `[n, time]`, if the file has text and it."""
    if fields.get("text_bert") is None or "text" not in content:
        return None
    tokens = checked.numbers(fields["text_bert"], where, "text_bert")
    n, time = content["text"].shape
    if tokens.shape != (n, 3, time):
        raise InputError(
            f"{where}: text_bert: shape {tokens.shape}, but {(n, 3, time)} as text is needed; "
            "correct or remove the field"
        )
    attention = tokens[:, 1] != 0
    empty = np.count_nonzero(~attention.any(axis=1))
    if 2 * empty > n or not np.isin(tokens[:, 1], (0, 1)).all():
        what = f"is empty in {empty} of {n} rows" if 2 * empty > n else "is not of 0 and 1"
        raise InputError(
            f"{where}: text_bert: the attention mask, [:, 1], {what}; stack ids, attention mask "
            "and segment ids in this order"
        )
    return attention


def _span(nonzero: np.ndarray) -> np.ndarray:
    """[n, time] bool: from the first to the last True of each row, both included."""
    begun = np.logical_or.accumulate(nonzero, axis=1)
    to_come = np.logical_or.accumulate(nonzero[:, ::-1], axis=1)[:, ::-1]
    return begun & to_come


def _by_lengths(
    fields: Mapping[str, Any], modality: str, content: np.ndarray, where: str, counts: Counter
) -> np.ndarray:
    """Mask by lengths, which are cut to the array and counted from the end that has content."""
    key = f"{modality}_lengths"
    n, time = content.shape
    lengths = checked.numbers(fields[key], where, key)
    if lengths.ndim == 0 or lengths.size != len(lengths):
        raise InputError(f"{where}: {key}: shape {lengths.shape}; one length per sample is needed")
    checked.check_rows(len(lengths), n, where, key)
    lengths = lengths.reshape(n, 1)
    if not np.all((lengths >= 0) & (lengths == np.rint(lengths)) & np.isfinite(lengths)):
        raise InputError(f"{where}: {key}: lengths must be whole numbers from 0; correct the field")
    counts[modality, "lengths"] += n
    counts[modality, "cut"] += np.count_nonzero(lengths > time)
    counts[modality, "longest"] = max(counts[modality, "longest"], float(lengths.max()))
    lengths = np.minimum(lengths, time).astype(np.int64)
    back, front = np.arange(time) < lengths, np.arange(time) >= time - lengths
    # Without zeros around the content both lose as much, and padding is where most files have it.
    if 10 * np.count_nonzero(content & ~front) < np.count_nonzero(content & ~back):
        counts[modality, "front"] += 1
        return front
    return back
