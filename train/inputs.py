"""A run's data: files read, checked and scaled, as sets that stages train on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from configs.debias import DebiasDataConfig
from configs.msa import DataConfig, SourceConfig
from corrkd_jax.data import msa
from corrkd_jax.errors import InputError
from train import parallel
from train.batches import Rows
from train.feed import Feed
from train.protocol import Task, make_task
from train.stage import Lanes, looped, vectorized


@dataclass(frozen=True)
class Inputs:
    """A data set, ready for stages.

    Attributes:
        dataset: as read.
        task: what its labels mean.
        sets: `train`, `valid`, `test`, `teacher` if the teacher has a file of its own, and the
            further splits of the file.
    """

    dataset: msa.Dataset
    task: Task
    sets: dict[str, Rows]


def load(config: DataConfig | DebiasDataConfig, dtype: Any) -> Inputs:
    """Read the files of a configuration, check them, fit the scaler.

    Raises:
        InputError: a file cannot be used; see `corrkd_jax.data.msa.read`.
    """
    vectors = config.word_vectors or None
    dataset = msa.read(
        config.path, vectors, config.max_frames, vocabulary=config.vocabulary or None
    )
    task = make_task(dataset, config.labels)
    # statistics of the student's training split alone: what will be known at test time
    scaler = msa.fit_scaler(dataset.train, config.clip) if config.scale else None
    splits = dict(dataset.splits)
    sources = dict.fromkeys(splits, dataset.source)
    if isinstance(config, DataConfig) and config.teacher_path:
        other = msa.read(config.teacher_path, vectors, config.max_frames)
        check_fits(dataset, other)
        make_task(other, config.labels)
        splits["teacher"], sources["teacher"] = other.train, other.source
    sets = {name: Rows(split, scaler, task, sources[name], dtype) for name, split in splits.items()}
    return Inputs(dataset, task, sets)


def check_fits(dataset: msa.Dataset, other: msa.Dataset) -> None:
    """Refuse a second file whose features are not the first one's.

    Raises:
        InputError: names both files, the modality and both sizes.
    """
    for name, array in dataset.train.features.items():
        found = other.train.features[name].shape[2]
        if found != array.shape[2]:
            raise InputError(
                f"{other.source}: train: {name} has {found} features, {dataset.source} has "
                f"{array.shape[2]}; a model takes only one of them"
            )


def stage_sets(inputs: Inputs) -> list[str]:
    """Names of the sets that stages train on."""
    return [name for name in ("train", "teacher") if name in inputs.sets]


def lanes_for(name: str) -> Lanes:
    """How seeds and arms share a device; `auto` is side by side except on CPU."""
    if name == "auto":
        name = "map" if jax.default_backend() == "cpu" else "vmap"
    return {"map": looped, "vmap": vectorized}[name]


def place(
    config: SourceConfig, inputs: Inputs, seeds: Sequence[int], batch: int
) -> tuple[Feed | None, dict[str, Any]]:
    """Put the sets on the device whole, or arrange for the training sets to be streamed."""
    names = stage_sets(inputs)
    streamed = config.feed == "grain" or (
        config.feed == "auto"
        and sum(inputs.sets[n].nbytes for n in (*names, "valid")) > parallel.memory() / 2
    )
    data = {"valid": inputs.sets["valid"].take()}
    if not streamed:
        return None, data | {name: inputs.sets[name].take() for name in names}
    first = slice(batch)
    feed = Feed({name: inputs.sets[name] for name in names}, seeds, config.threads)
    return feed, data | {name: inputs.sets[name].take(first) for name in names}
