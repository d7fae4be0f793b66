"""Drives a pipeline from the host: progress, metrics, checkpoints, resume."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from corrkd_jax.errors import InputError
from train.engine import interrupt, parallel
from train.engine.feed import Feed
from train.engine.pipeline import Pipeline, Track, fault_of, validates
from train.engine.progress import Bar
from train.engine.workdir import Workdir

_LONGEST_CALL = 2.0
"""Seconds that one call to the device may take once its speed is known."""


def run(
    pipeline: Pipeline,
    data: dict[str, Any],
    seeds: Sequence[int],
    arms: Sequence[str],
    workdir: Workdir | None = None,
    *,
    feed: Feed | None = None,
    resume: bool = False,
    fused: bool = False,
    save_every: float = 60.0,
) -> dict[str, Track]:
    """Train all stages, from the start or from the newest checkpoint.

    Args:
        pipeline: the stages.
        data: data set -> arrays on the host, see `Pipeline.advance`; emptied as they go to the
            device, so that they are held once.
        seeds: one run each.
        arms: names of the arms, for metrics and messages.
        workdir: where to write; None writes nothing.
        feed: streams the training batches from disk; None if `data` holds the whole sets.
        resume: continue from the newest checkpoint of `workdir`, if there is one.
        fused: one call for everything.
        save_every: least seconds between checkpoints; every stage ends with one.

    Returns:
        Tracks of all stages in canonical layout, NumPy arrays.

    Raises:
        InputError: a stage's batch is larger than its data set; a loss was not finite: names stage,
            epoch, step, term, seed and arm.
    """
    layout = pipeline.layout
    counts = [
        feed.steps(s) if feed and s.data in feed.sets else pipeline.steps(s, data)
        for s in pipeline.stages
    ]
    _require_steps(pipeline, counts)
    tracks = pipeline.empty(data, seeds)
    done = 0
    if resume and workdir is not None and (latest := workdir.latest()) is not None:
        tracks, _ = workdir.restore(latest, tracks)
        done = latest
    if workdir is not None:
        workdir.forget_after(done)
    data = parallel.hand_over(data, layout)
    on_device = parallel.spread(tracks, layout)
    own_seeds = parallel.spread(np.asarray(seeds, np.int32), layout)
    total = sum(n * s.epochs for n, s in zip(counts, pipeline.stages, strict=True))

    def steps_before(epoch: int) -> int:
        behind = 0
        for count, stage in zip(counts, pipeline.stages, strict=True):
            behind += count * min(max(epoch, 0), stage.epochs)
            epoch -= stage.epochs
        return behind

    def advance(tracks: Any, first: int, last: int) -> Any:
        if feed is not None:
            return feed.advance(pipeline, tracks, own_seeds, data, first, last)
        return pipeline.advance(tracks, own_seeds, data, first, last)

    with Bar(total) as bar:
        bar.update(steps_before(done), "compiling")
        if feed is None:
            on_device = advance(on_device, done, done)
            jax.block_until_ready(on_device)
        saved, chunk = time.monotonic(), 1
        bar.update(steps_before(done), "compiling")
        while done < pipeline.epochs:
            interrupt.check()
            stage, within = pipeline.where(done)
            end_of_stage = done + stage.epochs - within
            last = pipeline.epochs if fused else min(done + chunk, end_of_stage)
            start = time.monotonic()
            on_device = advance(on_device, done, last)
            jax.block_until_ready(on_device)
            took = time.monotonic() - start
            _stop_on_fault(pipeline, on_device, seeds, arms)
            if workdir is not None:
                workdir.log(_rows(pipeline, on_device, arms, done, last))
                # a fused call is of several stages, none of which has a time of its own
                if last <= end_of_stage:
                    steps = steps_before(last) - steps_before(done)
                    workdir.log_time(_timing(layout, stage.name, done, steps, took))
                due = last == end_of_stage or time.monotonic() - saved > save_every
                if due or last == pipeline.epochs:
                    workdir.save(last, parallel.collect(on_device, layout), {"epoch": last})
                    saved = time.monotonic()
            chunk = max(1, min(2 * chunk, int(_LONGEST_CALL * (last - done) / max(took, 1e-3))))
            done = last
            bar.update(steps_before(done), stage.name)
    return parallel.collect(on_device, layout)


def _require_steps(pipeline: Pipeline, counts: Sequence[int]) -> None:
    """Refuse a stage that would go through its epochs without a step and report no numbers."""
    for count, stage in zip(counts, pipeline.stages, strict=True):
        if stage.epochs and not count:
            raise InputError(
                f"{stage.name}: a batch of {stage.batch} is larger than its data set "
                f"{stage.data!r}; lower the batch size"
            )


def _timing(
    layout: parallel.Layout, stage: str, first: int, steps: int, took: float
) -> dict[str, Any]:
    """What `timing.jsonl` says of one call; compilation is in none but a streamed stage's first."""
    return {
        "stage": stage,
        "global_epoch": first,
        "steps": steps,
        "seconds": took,
        "devices": layout.devices,
        "device": jax.devices()[0].device_kind,
    }


def _stop_on_fault(
    pipeline: Pipeline, tracks: dict[str, Track], seeds: Sequence[int], arms: Sequence[str]
) -> None:
    for stage in pipeline.stages:
        track = tracks[stage.name]
        fault = fault_of(
            track._replace(fault=parallel.collect(track.fault, pipeline.layout)), stage
        )
        if fault is None:
            continue
        epoch, step, names, (lane, *of_arm) = fault
        arm = f", arm {arms[of_arm[0]]}" if of_arm else ""
        limits = [
            f"{name} is over {limit.largest:g} ({limit.meaning})"
            for name, limit in stage.limits.items()
            if name in names
        ]
        rest = [name for name in names if name not in stage.limits]
        what = [f"{', '.join(rest)} is not finite"] if rest else []
        raise InputError(
            f"{stage.name}: epoch {epoch + 1}, step {step + 1}: {'; '.join(what + limits)} "
            f"(seed {seeds[lane]}{arm}); nothing of this chunk was saved; lower the learning "
            "rate or look at the data"
        )


def _rows(
    pipeline: Pipeline, tracks: dict[str, Track], arms: Sequence[str], first: int, last: int
) -> list[dict[str, Any]]:
    """Metrics of global epochs `first` to `last - 1`, one row an epoch and arm."""
    rows = []
    histories: dict[str, Any] = {}
    for epoch in range(first, last):
        stage, within = pipeline.where(epoch)
        if stage.name not in histories:
            histories[stage.name] = parallel.collect(tracks[stage.name].history, pipeline.layout)
        history = histories[stage.name]
        for number, arm in enumerate(arms if stage.hyper is not None else [None]):
            row: dict[str, Any] = {"stage": stage.name, "epoch": within, "global_epoch": epoch}
            if arm is not None:
                row["arm"] = arm
            for part, metrics in history.items():
                if part == "valid" and not validates(stage, within):
                    continue
                for name, values in metrics.items():
                    of_arm = values[:, number] if arm is not None else values
                    row[f"{part}_{name}"] = [float(x) for x in of_arm[:, within]]
            rows.append(row)
    return rows
