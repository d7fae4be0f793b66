"""One run from settings to report: its folder, seeds, devices, training and clock."""

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

from train.engine import loop, parallel
from train.engine.cli import RunOptions
from train.engine.feed import Feed
from train.engine.finished import Seeded
from train.engine.pipeline import Pipeline, Track
from train.engine.stage import Lanes, lanes_for
from train.engine.workdir import METRICS, Workdir, fresh_folder


def begin(options: RunOptions, name: str) -> Path:
    """Join the processes that a run has, if it has several; the folder that it writes to.

    Args:
        options: of the command line.
        name: of the folder in `runs`, where none is given.

    Raises:
        InputError: the processes cannot be joined.
    """
    parallel.connect(options.coordinator, options.processes, options.process_id)
    return Path(options.workdir) if options.workdir else fresh_folder(name)


class Run:
    """A run under way; leaves its folder in order, whatever ends it.

    Attributes:
        folder: everything that the run writes.
        workdir: writes it.
        seeds: one training each.
        options: how the run is carried out.
    """

    def __init__(
        self, program: str, preset: str, config: Seeded, options: RunOptions, folder: Path
    ):
        """See whether the folder can take the run; nothing is written before `claim`.

        Args:
            program: that trains, as `train.programs` knows it.
            preset: that the configuration was made from.
            config: dataclass; written to `config.json`.
            options: how the run is carried out.
            folder: for everything that it writes.

        Raises:
            InputError: the folder holds a run and `--resume` is off, or a run of another
                configuration.
        """
        self._started = time.monotonic()
        self.folder, self.options = folder, options
        self.seeds = [config.first_seed + number for number in range(config.seeds)]
        saved = {"program": program, "preset": preset, **asdict(config)}  # type: ignore[call-overload]
        self.workdir = Workdir(folder, saved, options.resume)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.workdir.close()

    def layout(self, batch: int, option: str = "--optimizer.batch-size") -> parallel.Layout:
        """How the run lies on the devices; see `parallel.choose_layout`."""
        options = self.options
        return parallel.choose_layout(
            options.split, len(self.seeds), batch, options.devices, option
        )

    def lanes(self, small: bool = False) -> Lanes:
        """How seeds and arms share a device.

        Args:
            small: whether the networks leave a CPU idle one at a time.
        """
        name = self.options.lanes
        return lanes_for("vmap" if small and name == "auto" else name)

    def train(
        self,
        pipeline: Pipeline,
        data: dict[str, Any],
        arms: Sequence[str],
        feed: Feed | None = None,
    ) -> dict[str, Track]:
        """Train all stages, from the start or from the newest checkpoint; see `loop.run`."""
        return loop.run(
            pipeline,
            data,
            self.seeds,
            arms,
            self.workdir,
            feed=feed,
            resume=self.options.resume,
            fused=self.options.fused,
            save_every=self.options.save_every,
        )

    def metrics(self) -> list[dict[str, Any]]:
        """Rows of `metrics.jsonl`."""
        lines = (self.folder / METRICS).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    def machine(self, devices: int) -> str:
        """A report's line on devices, versions and time.

        Args:
            devices: that the run used.
        """
        return (
            f"machine: {devices} x {jax.devices()[0].device_kind}, {platform.machine()}, "
            f"jax {jax.__version__}; {self.seconds:.0f} s from start to report"
        )
