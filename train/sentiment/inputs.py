"""A run's data: files read, checked and scaled, as sets that stages train on."""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.debias import DebiasDataConfig
from configs.msa import DataConfig, SourceConfig
from corrkd_jax.data import msa, subjects
from corrkd_jax.errors import InputError
from train.engine import parallel
from train.engine.feed import Feed, released
from train.sentiment.rows import Rows
from train.sentiment.task import Task, check_known, make_task


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
    dealt = isinstance(config, DebiasDataConfig) and config.folds
    dataset = msa.read(
        config.path,
        vectors,
        config.max_frames,
        vocabulary=config.vocabulary or None,
        context=config.context,
        fold=None if dealt else config.fold or None,
    )
    if isinstance(config, DebiasDataConfig):
        dataset = by_subject(config, dataset)
    # the scale first: scores of another one are of a single class, which says less
    told = msa.label_notes(dataset.train, config.labels, dataset.source, "train")
    notes = [*dataset.notes, *told]
    task = make_task(dataset, config.labels)
    # statistics of the student's training split alone: what will be known at test time
    scaler = msa.fit_scaler(dataset.train, config.clip) if config.scale else None
    splits = dict(dataset.splits)
    sources = dict.fromkeys(splits, dataset.source)
    if isinstance(config, DataConfig) and config.teacher_path:
        other = msa.read(config.teacher_path, vectors, config.max_frames, context=config.context)
        check_fits(dataset, other)
        told = msa.label_notes(other.train, config.labels, other.source, "train")
        make_task(other, config.labels)
        check_known(other, task)
        notes += [
            f"the teacher's {Path(other.source).name}: {note}" for note in (*other.notes, *told)
        ]
        splits["teacher"], sources["teacher"] = other.train, other.source
    sets = {name: Rows(split, scaler, task, sources[name], dtype) for name, split in splits.items()}
    return Inputs(dataclasses.replace(dataset, notes=tuple(notes)), task, sets)


def described(inputs: Inputs) -> str:
    """File, rows and features, as a line of a report's facts."""
    sizes = ", ".join(f"{name} {len(rows)}" for name, rows in inputs.sets.items())
    shapes = ", ".join(
        f"{m} {x.shape[1]} x {x.shape[2]}" for m, x in inputs.dataset.train.features.items()
    )
    return (
        f"data: {Path(inputs.dataset.source).name} ({inputs.dataset.layout}); rows: {sizes}; "
        f"frames x features: {shapes}"
    )


def release(inputs: Inputs, keep: Collection[str] = ("test",)) -> Inputs:
    """The same with a single row of all splits but some; see `train.sentiment.rows.released`."""
    sets = released(inputs.sets, keep)
    splits = {name: sets[name].split for name in inputs.dataset.splits}
    more = {name: splits.pop(name) for name in inputs.dataset.more}
    return dataclasses.replace(
        inputs, dataset=dataclasses.replace(inputs.dataset, more=more, **splits), sets=sets
    )


def check_source(config: SourceConfig) -> None:
    """Refuse settings of reading that cannot be, before anything is read.

    Raises:
        InputError: names the option and what would do.
    """
    if not config.path and (config.context or config.fold):
        option = "--data.context" if config.context else f"--data.fold {config.fold}"
        raise InputError(f"{option}: planted data have neither; name a file: --data.path")
    if not isinstance(config, DebiasDataConfig):
        return
    if not config.path and (config.folds or config.leave_out):
        option = "--data.folds" if config.folds else "--data.leave-out"
        raise InputError(f"{option}: planted data have splits of their own; give --data.path")
    if config.folds and config.leave_out:
        raise InputError("--data.folds and --data.leave-out both split by subject; give one")
    if config.validate_on and not config.leave_out:
        raise InputError("--data.validate-on: is for --data.leave-out, which is empty")
    if config.folds in (1, 2):
        raise InputError(
            f"--data.folds {config.folds}: training, validation and test take three; give 3 or more"
        )
    if config.folds and not 1 <= config.fold <= config.folds:
        raise InputError(
            f"--data.fold {config.fold}: which of the --data.folds is tested? give 1 to "
            f"{config.folds}"
        )


def by_subject(config: DebiasDataConfig, dataset: msa.Dataset) -> msa.Dataset:
    """The data set split by subject, if that is asked for; a note says who went where.

    Raises:
        InputError: names the subject that is unknown or on both sides; see
            `corrkd_jax.data.subjects.split_by_subject`.
    """
    if not (config.folds or config.leave_out):
        return dataset
    names = subjects.all_subject_names(dataset, config.subjects or None)
    pooled = [name for split in msa.SPLITS for name in names[split]]
    if config.folds:
        dealt = subjects.deal_subjects(pooled, config.folds)
        test, valid = dealt[config.fold - 1], dealt[config.fold % config.folds]
    else:
        test, valid = _listed(config.leave_out), _listed(config.validate_on)
        others = [name for name in pooled if name not in test]
        if not valid:
            if len(set(others)) < 2:
                raise InputError(
                    f"--data.leave-out {config.leave_out}: leaves {len(set(others))} subjects of "
                    f"{dataset.source} to train and validate on; leave out fewer"
                )
            valid = subjects.deal_subjects(others, min(5, len(set(others))))[-1]
    dataset = subjects.split_by_subject(dataset, names, valid, test)
    parts = []
    for name in msa.SPLITS:
        rows = dataset.splits[name].ids
        members = {"valid": valid, "test": test}.get(name, set(pooled) - set(valid) - set(test))
        shown = ", ".join(sorted(members)) if len(members) <= 8 else "many"
        parts.append(f"{name} {len(rows)} rows of {len(members)} ({shown})")
    notes = (*dataset.notes, f"split by subject: {'; '.join(parts)}")
    return dataclasses.replace(dataset, notes=notes)


def _listed(text: str) -> frozenset[str]:
    """Names between commas."""
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def check_fits(dataset: msa.Dataset, other: msa.Dataset) -> None:
    """Refuse a second file whose features are not the first one's.

    Raises:
        InputError: names both files, the modality and both sizes.
    """
    for name, array in dataset.train.features.items():
        size = other.train.features[name].shape[2]
        if size != array.shape[2]:
            raise InputError(
                f"{other.source}: train: {name} has {size} features, {dataset.source} has "
                f"{array.shape[2]}; a model takes only one of them"
            )


def stage_sets(inputs: Inputs) -> list[str]:
    """Names of the sets that stages train on."""
    return [name for name in ("train", "teacher") if name in inputs.sets]


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
