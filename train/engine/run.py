"""One run from settings to report: its folder, seeds, devices, training and clock."""

import difflib
import json
import platform
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

from corrkd_jax.errors import InputError
from train.engine import interrupt, loop, parallel
from train.engine.cli import RunOptions
from train.engine.feed import Feed
from train.engine.finished import Seeded, program_of
from train.engine.pipeline import Pipeline, Track
from train.engine.progress import say
from train.engine.stage import Lanes, lanes_for
from train.engine.workdir import CONFIG, METRICS, Workdir, fresh_folder


def begin(options: RunOptions, program: str, name: str) -> Path:
    """Join the processes that a run has, if it has several; the folder that it writes to.

    Args:
        options: of the command line.
        program: that trains, as `train.programs` knows it.
        name: of the folder in `runs`, where none is given.

    Raises:
        InputError: the processes cannot be joined, or there is no run to continue.
    """
    if options.devices > 1:
        parallel.offer_cpu_devices(options.devices)
    parallel.connect(options.coordinator, options.processes, options.process_id)
    return Path(parallel.decided(lambda: str(_folder(options, program, name))))


def _folder(options: RunOptions, program: str, name: str) -> Path:
    """The folder of a new run, or of the one that is to be continued."""
    if not options.workdir:
        return continued(Path("runs"), program, name) if options.resume else fresh_folder(name)
    folder = Path(options.workdir)
    if options.resume and not (folder / CONFIG).exists():
        near = [path.parent.name for path in folder.parent.glob(f"*/{CONFIG}")]
        near = difflib.get_close_matches(folder.name, near, 1)
        hint = f"{folder.parent / near[0]} does" if near else "leave --resume out to begin one"
        raise InputError(f"--workdir {folder}: holds no run to continue; {hint}")
    return folder


def continued(runs: Path, program: str, name: str) -> Path:
    """The run that `--resume` means where no folder is named: the one begun or continued last.

    Args:
        runs: folder of runs.
        program: that trained it.
        name: of its folder, to which a number may have been added.

    Raises:
        InputError: there is none.
    """
    folders = [
        path.parent
        for path in runs.glob(f"*/{CONFIG}")
        if re.fullmatch(re.escape(name) + r"(-\d+)?", path.parent.name)
        and program_of(path.parent) == program
    ]
    if not folders:
        raise InputError(
            f"--resume: {runs / name} holds no run to continue; name another with --workdir, or "
            "leave --resume out to begin one"
        )
    newest = max(folders, key=lambda folder: (folder / CONFIG).stat().st_mtime_ns)
    say(f"continuing {newest}")
    return newest


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
        if kind is None:
            interrupt.run_ends(self.folder)

    def layout(self, batch: int, option: str = "--optimizer.batch-size") -> parallel.Layout:
        """How the run lies on the devices; see `parallel.choose_layout`."""
        options = self.options
        self._layout = parallel.choose_layout(
            options.split, len(self.seeds), batch, options.devices, option
        )
        return self._layout

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

    def machine(self) -> str:
        """A report's line on the devices of the layout, versions and time."""
        device = jax.devices()[0].device_kind
        return (
            f"machine: {self._layout.devices} x {device}, {platform.machine()}, "
            f"jax {jax.__version__}; {self.seconds:.0f} s from start to report"
        )
