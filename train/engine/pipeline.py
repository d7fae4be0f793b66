"""A pipeline of stages as one compiled program.

`Pipeline.advance` runs every stage of the pipeline, all seeds and arms, from one global epoch to
another. Both ends are traced, so the fused run (one call) and the chunked run (many calls, with
progress and checkpoints between them) execute the very same program and give the same numbers.
Shuffling, masking, training, validation and the choice of the best epoch happen on the device.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from train.engine import parallel
from train.engine.stage import Context, Lanes, Limit, Stage, Tree

_SHUFFLE, _PREPARE, _REFRESH, _STEPS = range(4)
_LARGEST = float(np.finfo(np.float32).max)

FROZEN = "frozen"
"""Of a run's data, what stages see in their context as if an earlier stage had selected it.

Weights from a file, by name, the same for all seeds.
"""


class Track(NamedTuple):
    """What training one stage carries from epoch to epoch, for one seed.

    With arms, every leaf has them as its leading axis; seeds come before that.

    Attributes:
        state: the stage's own state.
        best: `stage.select` of the state at the best validation score so far.
        best_score: that score.
        best_epoch: its epoch, counted from 0; -1 before the first validation.
        totals: metric -> sum over the steps of the epoch under way.
        history: `"train"` and `"valid"` -> metric -> `[epochs]`.
        fault: `[3]` int32: epoch and step of the first metric that was not finite, or over its
            limit, and the bit mask of such metrics in sorted order; all zero while all is well.
    """

    state: Tree
    best: Tree
    best_score: Array
    best_epoch: Array
    totals: dict[str, Array]
    history: dict[str, dict[str, Array]]
    fault: Array


class Pipeline:
    """Stages that train one after another, each seeing what the earlier ones selected."""

    def __init__(self, stages: Sequence[Stage], layout: parallel.Layout, lanes: Lanes):
        """Nothing is compiled before `advance`.

        Args:
            stages: in training order.
            layout: how the run lies on the devices.
            lanes: `train.engine.stage.vectorized` or `looped`, for seeds and arms.
        """
        self.stages = tuple(stages)
        self.layout = layout
        self.lanes = lanes
        self.epochs = sum(stage.epochs for stage in stages)
        self._advance = parallel.Program(self._advance_on_device, layout)

    def empty(self, data: dict[str, Tree], seeds: Sequence[int]) -> dict[str, Track]:
        """Tracks in canonical layout, NumPy arrays: all zeros, and no epoch the best.

        Stages fill in a state at their start.
        """

        def abstract(stage: Stage, context: Context, data: dict[str, Tree]) -> Track:
            def one() -> Track:
                return self._untrained(stage, data, context)

            if not self.layout.axis_name:
                return one()
            # stands for the devices; where there is nothing to stand for it would trace twice
            mapped = jax.vmap(one, axis_name=parallel.AXIS, axis_size=1)
            return jax.tree.map(lambda x: x[0], mapped())

        def zeros(x: Any) -> Any:
            if parallel.is_own(x) and self.layout.axis_name:
                lead = (self.layout.shards, len(seeds))
                return jax.tree.map(lambda own: np.zeros((*lead, *own.shape), own.dtype), x)
            return jax.tree.map(lambda own: np.zeros((len(seeds), *own.shape), own.dtype), x)

        tracks, context = {}, {}
        for stage in self.stages:
            shapes = jax.eval_shape(partial(abstract, stage), context, data)
            context[stage.name] = shapes.best
            track = jax.tree.map(zeros, shapes, is_leaf=parallel.is_own)
            tracks[stage.name] = track._replace(best_epoch=track.best_epoch - 1)
        return tracks

    def advance(
        self, tracks: dict[str, Track], seeds: Array, data: dict[str, Tree], first: int, last: int
    ) -> dict[str, Track]:
        """Run global epochs `first` to `last - 1`, all stages laid end to end.

        Args:
            tracks: on the devices (`parallel.spread`); donated.
            seeds: on the devices.
            data: data set -> arrays, on the devices (`parallel.replicate`); `"valid"` among them.
            first: global epoch to start at.
            last: global epoch to stop before; equal to `first` to compile and do nothing.

        Returns:
            The tracks, on the devices.
        """
        return self._advance(tracks, seeds, data, jnp.int32(first), jnp.int32(last))

    def planned_bytes(self, tracks: dict[str, Track], seeds: Array, data: dict[str, Tree]) -> int:
        """Memory that `advance` takes on a device, as its compiler plans it; nothing is run."""
        plan = self.compiled(tracks, seeds, data).memory_analysis()
        return plan.argument_size_in_bytes + plan.temp_size_in_bytes

    def compiled(self, tracks: dict[str, Track], seeds: Array, data: dict[str, Tree]) -> Any:
        """`advance` as a `jax.stages.Compiled`; nothing is run."""
        return self._advance.compiled(tracks, seeds, data, jnp.int32(0), jnp.int32(0))

    def where(self, epoch: int) -> tuple[Stage, int]:
        """Stage that a global epoch belongs to, and the epoch within it."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage, epoch
            epoch -= stage.epochs
        return self.stages[-1], self.stages[-1].epochs

    def steps(self, stage: Stage, data: dict[str, Tree]) -> int:
        """Steps an epoch; the last partial batch is dropped."""
        return _rows(data[stage.data]) // stage.batch

    def _advance_on_device(
        self,
        tracks: dict[str, Track],
        seeds: Array,
        data: dict[str, Tree],
        first: Array,
        last: Array,
    ) -> dict[str, Track]:
        context: Context = {}
        done = {}
        for stage in self.stages:
            epoch = self.lanes(partial(self._epoch, stage), (0, 0, None, 0, None))

            def body(e: Array, track: Track, epoch: Callable[..., Track] = epoch) -> Track:
                return epoch(seeds, track, data, context, e)  # noqa: B023 — used in this turn only

            begin, end = (jnp.clip(e, 0, stage.epochs) for e in (first, last))
            track = self.start(
                stage, seeds, tracks[stage.name], data, context, (first <= 0) & (last > 0)
            )
            done[stage.name] = lax.fori_loop(begin, end, body, track)
            context = {**context, stage.name: done[stage.name].best}
            first, last = first - stage.epochs, last - stage.epochs
        return done

    def _epoch(
        self,
        stage: Stage,
        seed: Array,
        track: Track,
        data: dict[str, Tree],
        context: Context,
        epoch: Array,
    ) -> Track:
        track = self.begin(track)
        shown = seen(data, context)
        rows = data[stage.data]
        steps = self.steps(stage, data)
        share = stage.batch // self.layout.shards
        order = epoch_order(stage, seed, epoch, _rows(rows))[: steps * stage.batch]
        order = order.reshape(steps, self.layout.shards, share)
        order = lax.dynamic_index_in_dim(
            order, parallel.shard_index(self.layout.axis_name), axis=1, keepdims=False
        )

        def body(track: Track, step: tuple[Array, Array]) -> tuple[Track, None]:
            number, index = step
            batch = jax.tree.map(lambda x: x[index], rows)
            return self.step(stage, seed, track, batch, shown, epoch, number), None

        track, _ = lax.scan(body, track, (jnp.arange(steps), order))
        return self.finish(stage, seed, track, data, context, epoch, steps)

    def start(
        self,
        stage: Stage,
        seeds: Array,
        track: Track,
        data: dict[str, Tree],
        context: Context,
        now: Array,
    ) -> Track:
        """Initialise a stage for all seeds if its first epoch is `now` due."""
        fresh = self.lanes(partial(self._fresh, stage), (0, 0, None, 0))
        return lax.cond(now, lambda: fresh(seeds, track, data, context), lambda: track)

    def begin(self, track: Track) -> Track:
        """Start an epoch: empty the totals."""
        return track._replace(totals=jax.tree.map(jnp.zeros_like, track.totals))

    def step(
        self,
        stage: Stage,
        seed: Array,
        track: Track,
        batch: Tree,
        context: Context,
        epoch: Array,
        number: Array,
    ) -> Track:
        """One step of all arms on one batch."""
        key = _epoch_key(stage, seed, epoch)
        batch = stage.prepare(batch, jax.random.fold_in(key, _PREPARE), context)
        key = jax.random.fold_in(key, _STEPS + number)
        key = jax.random.fold_in(key, parallel.shard_index(self.layout.axis_name))
        state, metrics = self._arms(stage, stage.step, 2)(track.state, batch, key)
        return track._replace(
            state=state,
            totals=jax.tree.map(jnp.add, track.totals, metrics),
            fault=_first_fault(track.fault, metrics, stage.limits, epoch, number),
        )

    def finish(
        self,
        stage: Stage,
        seed: Array,
        track: Track,
        data: dict[str, Tree],
        context: Context,
        epoch: Array,
        steps: int,
    ) -> Track:
        """End an epoch: refresh, validate if it is due, keep the best, write the history."""
        state = track.state
        if stage.refresh is not None:
            key = jax.random.fold_in(_epoch_key(stage, seed, epoch), _REFRESH)
            shown = state, data, key, seen(data, context), epoch + 1
            state = self._arms(stage, stage.refresh, 4)(*shown)
        track = track._replace(state=state)
        train = jax.tree.map(lambda total: total / steps, track.totals)
        history = jax.tree.map(partial(_record, epoch), track.history["train"], train)
        track = track._replace(history={**track.history, "train": history})
        return lax.cond(
            validates(stage, epoch),
            lambda: self._keep_best(stage, track, data["valid"], epoch),
            lambda: track,
        )

    def _keep_best(self, stage: Stage, track: Track, rows: Tree, epoch: Array) -> Track:
        valid = self._validate(stage, track.state, rows, stage.batch)
        score = valid["score"]
        # a score that is not a number never wins
        better = (score > track.best_score) | (track.best_epoch < 0)
        selected = self._arms(stage, stage.select, 0)(track.state)
        history = jax.tree.map(partial(_record, epoch), track.history["valid"], valid)
        return track._replace(
            best=jax.tree.map(partial(_choose, better), selected, track.best),
            best_score=jnp.where(better, score, track.best_score),
            best_epoch=jnp.where(better, epoch, track.best_epoch).astype(jnp.int32),
            history={**track.history, "valid": history},
        )

    def _fresh(
        self, stage: Stage, seed: Array, track: Track, data: dict[str, Tree], context: Context
    ) -> Track:
        """An empty track with a state to begin from."""
        key, context = _stage_key(stage, seed), seen(data, context)
        batch = self._first_batch(stage, data)
        if stage.hyper is None:
            state = stage.init(key, batch, None, context)
        else:
            state = self.lanes(lambda hyper: stage.init(key, batch, hyper, context), (0,))(
                stage.hyper
            )
        if stage.refresh is not None:
            refresh_key = jax.random.fold_in(key, _REFRESH)
            state = self._arms(stage, stage.refresh, 4)(
                state, data, refresh_key, context, jnp.int32(0)
            )
        return track._replace(state=state, best=self._arms(stage, stage.select, 0)(state))

    def _untrained(self, stage: Stage, data: dict[str, Tree], context: Context) -> Track:
        """A track of one seed whose shapes alone are of use."""
        zero = jnp.int32(0)
        key = _stage_key(stage, zero)
        nothing = Track(None, None, zero, zero, {}, {}, zero)
        begun = self._fresh(stage, zero, nothing, data, context)
        batch = stage.prepare(self._first_batch(stage, data), key, seen(data, context))
        _, metrics = self._arms(stage, stage.step, 2)(begun.state, batch, key)
        valid = self._validate(stage, begun.state, data["valid"], stage.batch)
        lanes = valid["score"].shape
        return begun._replace(
            best_score=jnp.zeros(lanes),
            best_epoch=jnp.zeros(lanes, jnp.int32),
            totals=metrics,
            history=jax.tree.map(
                lambda x: jnp.zeros((*x.shape, stage.epochs), x.dtype),
                {"train": metrics, "valid": valid},
            ),
            fault=jnp.zeros((*lanes, 3), jnp.int32),
        )

    def _first_batch(self, stage: Stage, data: dict[str, Tree]) -> Tree:
        """This shard's share of the first batch, which tells a network its shapes."""
        return jax.tree.map(lambda x: x[: stage.batch // self.layout.shards], data[stage.data])

    def _validate(self, stage: Stage, state: Tree, rows: Tree, block: int) -> dict[str, Array]:
        """Metrics over all rows, the blocks spread over the shards of the batch."""
        count, shards = _rows(rows), self.layout.shards
        block = min(block, -(-count // shards))
        blocks = -(-count // (block * shards))
        position = jnp.arange(blocks * shards * block).reshape(shards, blocks, block)
        position = position[parallel.shard_index(self.layout.axis_name)]

        def evaluate(position: Array) -> Tree:
            batch = jax.tree.map(lambda x: x[jnp.minimum(position, count - 1)], rows)
            batch = {**batch, "row": jnp.where(position < count, batch["row"], 0.0)}
            return self._arms(stage, stage.evaluate, 1)(state, batch)

        sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), lax.map(evaluate, position))
        sums = parallel.total(sums, self.layout.axis_name)
        return self._arms(stage, stage.summarize, 0)(sums)

    def _arms(
        self, stage: Stage, function: Callable[..., Tree], shared: int
    ) -> Callable[..., Tree]:
        """`function` over all arms of its first argument, the `shared` others alike for all."""
        if stage.hyper is None:
            return function
        return self.lanes(function, (0, *(None,) * shared))


def seen(data: dict[str, Tree], context: Context) -> Context:
    """What a stage sees: what was given from the start, and what earlier stages selected."""
    return {**data.get(FROZEN, {}), **context}


def epoch_order(stage: Stage, seed: Array, epoch: Array, rows: int) -> Array:
    """Order in which one seed visits `rows` rows in one epoch, `[rows]`."""
    key = jax.random.fold_in(_epoch_key(stage, seed, epoch), _SHUFFLE)
    return jax.random.permutation(key, rows)


def validates(stage: Stage, epoch: Any) -> Any:
    """Whether a stage looks at the validation split after this epoch; its last one always."""
    return ((epoch + 1) % stage.validate_every == 0) | (epoch + 1 == stage.epochs)


def fault_of(track: Track, stage: Stage) -> tuple[int, int, list[str], tuple[int, ...]] | None:
    """First metric that was not finite or over its limit, in a track collected on the host.

    Returns:
        Epoch and step within it, both from 0, the names of the metrics (the terms rather than
        sums of them, where terms are among them), and the index `(seed,)` or `(seed, arm)`;
        None if all is well.
    """
    fault = np.asarray(track.fault)
    if not (bad := fault[..., 2] > 0).any():
        return None
    candidates = [(*fault[index][:2], index) for index in zip(*np.nonzero(bad), strict=True)]
    epoch, step, index = min(candidates)
    names = sorted(track.totals)
    names = [name for bit, name in enumerate(names) if fault[index][2] >> bit & 1]
    terms = [name for name in names if name not in ("total", "gradient_norm")]
    return int(epoch), int(step), terms or names, tuple(int(i) for i in index)


def _first_fault(
    fault: Array,
    metrics: dict[str, Array],
    limits: Mapping[str, Limit],
    epoch: Array,
    step: Array,
) -> Array:
    # not a number is not below anything
    largest = {name: limit.largest for name, limit in limits.items()}
    broken = jnp.stack(
        [~(jnp.abs(metrics[name]) <= largest.get(name, _LARGEST)) for name in sorted(metrics)],
        axis=-1,
    )
    mask = jnp.sum(broken << jnp.arange(broken.shape[-1]), axis=-1, dtype=jnp.int32)
    now = jnp.stack(jnp.broadcast_arrays(epoch, step, mask), axis=-1).astype(jnp.int32)
    is_first = (mask > 0) & (fault[..., 2] == 0)
    return jnp.where(is_first[..., None], now, fault)


def _record(epoch: Array, past: Array, now: Array) -> Array:
    return past.at[..., epoch].set(now)


def _choose(better: Array, new: Array, old: Array) -> Array:
    return jnp.where(better.reshape(better.shape + (1,) * (new.ndim - better.ndim)), new, old)


def _rows(data: Tree) -> int:
    return jax.tree.leaves(data)[0].shape[0]


def _stage_key(stage: Stage, seed: Array) -> Array:
    # from the name, so that a stage keeps its numbers when others are added before it
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(stage.name.encode()) & 0x7FFFFFFF)


def _epoch_key(stage: Stage, seed: Array, epoch: Array) -> Array:
    return jax.random.fold_in(_stage_key(stage, seed), epoch)
