"""Splits of a multimodal file as the arrays that stages see."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import jax.numpy as jnp
import numpy as np

from corrkd_jax.data import msa
from train.sentiment.task import Task, targets


@dataclass(frozen=True)
class Rows:
    """A split, turned into batches on demand.

    Attributes:
        split: as read; features may be memory maps.
        scaler: z-scores and clips, or None for literal values.
        task: what the labels mean.
        source: the file, for messages.
        dtype: compute type of the features on the device.
        more: further columns `[n, ...]` by name, such as the subject of a row.
    """

    split: msa.Split
    scaler: msa.Scaler | None
    task: Task
    source: str
    dtype: Any = jnp.float32
    more: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.split.ids)

    @property
    def nbytes(self) -> int:
        """Bytes of the features on the device."""
        size = sum(x.size for x in self.split.features.values())
        return size * jnp.dtype(self.dtype).itemsize

    def take(self, index: np.ndarray | slice = slice(None)) -> dict[str, Any]:
        """Some rows as NumPy arrays, all of them by default.

        Returns:
            `inputs` modality -> `[n, time, features]` in `dtype`, padding zero; `valid` modality ->
            `[n, time]` bool; `ids` `[n, 2]` uint32; `labels`, `label_weight`, `target`,
            `target_weight` `[n, tasks]`; `row` `[n]` ones; the columns of `more`.
        """
        part = self._part(index)
        labels, weights, _ = msa.labels(part, self.task.mode, self.source)
        target, target_weight = targets(part, self.task, self.source)
        return {
            "inputs": self._features(part),
            "valid": dict(part.valid),
            "ids": msa.id_hashes(part.ids),
            "labels": labels,
            "label_weight": weights,
            "target": target,
            "target_weight": target_weight,
            "row": np.ones(len(part.ids), np.float32),
            **{name: column[index] for name, column in self.more.items()},
        }

    def first(self) -> Self:
        """The same with a copy of its first row alone, and without further columns."""
        return replace(self, split=msa.take_rows(self.split, np.arange(1)), more={})

    def _part(self, index: np.ndarray | slice) -> msa.Split:
        if isinstance(index, slice) and index == slice(None):
            return self.split
        return msa.take_rows(self.split, index)

    def _features(self, part: msa.Split) -> dict[str, np.ndarray]:
        if self.scaler is not None:
            features = msa.apply_scaler(part, self.scaler).features
        else:
            features = {
                name: np.where(part.valid[name][..., None], x, np.float32(0))
                for name, x in part.features.items()
            }
        return {name: x.astype(self.dtype, copy=False) for name, x in features.items()}
