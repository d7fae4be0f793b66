"""Training sets that do not fit on the device: Grain reads them from disk, batch by batch.

The order of the rows, the keys and the steps are those of the resident run, so the numbers are
the same; what is lost is the single compiled program (one call a few steps instead).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from corrkd_jax.errors import InputError
from train.engine import parallel
from train.engine.pipeline import FROZEN, Pipeline, Track, epoch_order, seen
from train.engine.stage import Stage

_STEPS_A_CALL = 16


@runtime_checkable
class Set(Protocol):
    """Rows that a run reads, of whatever kind."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def take(self, index: np.ndarray | slice = slice(None)) -> dict[str, Any]:
        """Some rows as NumPy arrays by name, all of them by default."""
        ...

    def first(self) -> Self:
        """The same with a copy of its first row alone."""
        ...


S = TypeVar("S", bound=Set)


def released(sets: Mapping[str, S], keep: Collection[str] = ()) -> dict[str, S]:
    """The same sets with a single row each, for their shapes; let go of the others with them.

    For when the rows lie on the device, or are never asked for again: a set is then held once.

    Args:
        sets: by name.
        keep: names of those that stay whole.
    """
    return {name: rows if name in keep else rows.first() for name, rows in sets.items()}


class Feed:
    """Streams the training sets of a pipeline."""

    def __init__(self, sets: Mapping[str, Set], seeds: Sequence[int], threads: int):
        """Nothing is read before `advance`.

        Args:
            sets: data set -> rows on disk.
            seeds: of the run, in order.
            threads: that read.
        """
        self.sets = dict(sets)
        self._seeds = np.asarray(seeds, np.int32)
        self._threads = threads
        self._programs: dict[str, dict[str, Callable[..., Any]]] = {}

    def steps(self, stage: Stage) -> int:
        """Steps an epoch; the last partial batch is dropped."""
        return len(self.sets[stage.data]) // stage.batch

    def advance(
        self,
        pipeline: Pipeline,
        tracks: dict[str, Track],
        seeds: Array,
        data: dict[str, Any],
        first: int,
        last: int,
    ) -> dict[str, Track]:
        """As `Pipeline.advance`; of each streamed set `data` holds a batch or more of its rows."""
        for number in range(first, last):
            stage, epoch = pipeline.where(number)
            if stage.refresh is not None and stage.refresh_needs_all:
                raise InputError(
                    f"{stage.name}: works on its whole training set between epochs; "
                    "--data.feed device"
                )
            tracks = self._epoch(pipeline, stage, tracks, seeds, data, epoch)
        return tracks

    def _epoch(
        self,
        pipeline: Pipeline,
        stage: Stage,
        tracks: dict[str, Track],
        seeds: Array,
        data: dict[str, Any],
        epoch: int,
    ) -> dict[str, Track]:
        if stage.name not in self._programs:
            self._programs[stage.name] = self._compile(pipeline, stage, self.steps(stage))
        program = self._programs[stage.name]
        context = {
            earlier.name: tracks[earlier.name].best
            for earlier in pipeline.stages[: pipeline.stages.index(stage)]
        }
        track, at = tracks[stage.name], jnp.int32(epoch)
        track = program["begin"](track, (seeds, context), data, at)
        done = 0
        for batches in self._batches(pipeline, stage, epoch):
            batches = parallel.place(batches, pipeline.layout)
            frozen = {FROZEN: data.get(FROZEN, {})}
            mapped = (seeds, context, batches)
            track = program["steps"](track, mapped, frozen, at, jnp.int32(done))
            done += jax.tree.leaves(batches)[0].shape[1]
        track = program["finish"](track, (seeds, context), data, at)
        return {**tracks, stage.name: track}

    def _compile(
        self, pipeline: Pipeline, stage: Stage, count: int
    ) -> dict[str, Callable[..., Any]]:
        def begin(track: Track, mapped: Any, data: Any, epoch: Array) -> Track:
            track = pipeline.start(stage, mapped[0], track, data, mapped[1], epoch == 0)
            return pipeline.begin(track)

        def steps(track: Track, mapped: Any, frozen: Any, epoch: Array, first: Array) -> Track:
            seeds, context, batches = mapped

            def step(seed: Array, track: Track, batch: Any, context: Any, *at: Array) -> Track:
                return pipeline.step(stage, seed, track, batch, seen(frozen, context), *at)

            def body(carry: tuple[Track, Array], batch: Any) -> tuple[tuple[Track, Array], None]:
                track, number = carry
                one = pipeline.lanes(step, (0, 0, 0, 0, None, None))
                return (one(seeds, track, batch, context, epoch, number), number + 1), None

            (track, _), _ = lax.scan(body, (track, first), batches)
            return track

        def finish(track: Track, mapped: Any, data: Any, epoch: Array) -> Track:
            seeds, context = mapped
            one = pipeline.lanes(
                partial(pipeline.finish, stage, steps=count), (0, 0, None, 0, None)
            )
            return one(seeds, track, data, context, epoch)

        return {
            "begin": parallel.Program(begin, pipeline.layout),
            "steps": parallel.Program(steps, pipeline.layout),
            "finish": parallel.Program(finish, pipeline.layout),
        }

    def _batches(self, pipeline: Pipeline, stage: Stage, epoch: int) -> Any:
        """Iterates `[local_devices, steps, seeds, rows, ...]`, read ahead by Grain's threads."""
        rows, layout = self.sets[stage.data], pipeline.layout
        steps = self.steps(stage)
        order = jax.vmap(lambda seed: epoch_order(stage, seed, jnp.int32(epoch), len(rows)))(
            self._seeds
        )
        order = np.asarray(order)[:, : steps * stage.batch].reshape(
            len(self._seeds), steps, stage.batch
        )
        index = parallel.own_batches(order, layout)  # [local_devices, steps, seeds, rows]
        together = max(n for n in range(1, _STEPS_A_CALL + 1) if steps % n == 0)

        def read(call: int) -> dict[str, Any]:
            wanted = index[:, call * together : (call + 1) * together]
            flat = rows.take(wanted.reshape(-1))
            return jax.tree.map(lambda x: x.reshape(*wanted.shape, *x.shape[1:]), flat)

        import grain

        options = grain.ReadOptions(
            num_threads=self._threads, prefetch_buffer_size=2 * self._threads
        )
        return iter(grain.MapDataset.range(steps // together).map(read).to_iter_dataset(options))
