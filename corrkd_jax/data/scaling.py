"""Scaling to z-scores, by the valid frames of the train split."""

from dataclasses import dataclass, replace

import numpy as np

from corrkd_jax.data.dataset import Split
from corrkd_jax.data.fields import row_chunks
from corrkd_jax.errors import InputError


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of every feature, from `fit_scaler`.

    Attributes:
        mean: modality -> `[features]` float32.
        std: modality -> `[features]` float32, positive.
        clip: largest z-score in size; others are clipped to [-clip, clip].
    """

    mean: dict[str, np.ndarray]
    std: dict[str, np.ndarray]
    clip: float = 5.0


def fit_scaler(split: Split, clip: float = 5.0) -> Scaler:
    """Mean and standard deviation of each feature over the valid frames of a split.

    Sums are kept in float64 over chunks of rows, so an array larger than memory will do. The
    standard deviation divides by the number of frames. A feature that does not vary (by more than a
    millionth of its mean) gets 1.

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
        for rows in row_chunks(array):
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
    """Split whose valid frames are clipped z-scores and whose padding is exactly zero.

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
        for rows in row_chunks(array):
            part = scaled[rows]
            # A value far outside of the train range may overflow to infinity; the clip takes it.
            with np.errstate(over="ignore"):
                np.subtract(array[rows], scaler.mean[modality], out=part)
                np.divide(part, scaler.std[modality], out=part)
            np.clip(part, -scaler.clip, scaler.clip, out=part)
            part[~split.valid[modality][rows]] = 0.0
        features[modality] = scaled
    return replace(split, features=features)
