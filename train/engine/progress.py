"""Progress of a run: a bar on a terminal, a line now and then elsewhere."""

import os
import sys
import threading
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from train.engine import parallel


class Bar:
    """Counts steps; shows rate and time left. Silent on processes other than the first."""

    def __init__(self, total: int, quiet_seconds: float = 10.0, unit: str = "steps"):
        """Start the clock.

        Args:
            total: steps in the whole run.
            quiet_seconds: time between two lines where there is no terminal, whether or not a step
                was done in it: compilation may take minutes.
            unit: what is counted.
        """
        self._total, self._quiet, self._unit = total, quiet_seconds, unit
        self._console = Console(file=sys.stderr)
        self._start = self._last = time.monotonic()
        self._what = ""
        self._done, self._rate = 0, 0.0
        self._since = self._until = (self._start, 0)
        self._lock, self._over = threading.Lock(), threading.Event()
        self._bar: Progress | None = None
        if self._console.is_terminal and parallel.is_main():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )

    def __enter__(self) -> "Bar":
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("compiling", total=self._total, rate="")
        elif parallel.is_main():
            threading.Thread(target=self._remind, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._bar:
            self._bar.stop()

    def update(self, done: int, what: str) -> None:
        """Show that `done` steps of the total are behind us, and what is under way.

        The rate counts from the end of what came before it.
        """
        now = time.monotonic()
        if what != self._what or what == "compiling":
            # stages differ in cost, and none is to blame for compilation
            self._what, self._since = what, self._until if what != "compiling" else (now, done)
        self._until = (now, done)
        since, before = self._since
        rate = (done - before) / (now - since) if now > since and done > before else 0.0
        self._done, self._rate = done, rate
        if self._bar:
            self._bar.update(self._task, completed=done, description=what, rate=self._rate_text())
        elif parallel.is_main() and (now - self._last > self._quiet or done == self._total):
            self._line()

    def _rate_text(self) -> str:
        return f"{self._rate:.1f} {self._unit}/s" if self._rate else ""

    def _remind(self) -> None:
        while not self._over.wait(max(self._last + self._quiet - time.monotonic(), 0.01)):
            if time.monotonic() - self._last >= self._quiet:
                self._line()

    def _line(self) -> None:
        with self._lock:
            now, rate = time.monotonic(), self._rate
            left = ""
            if rate:
                left = f", {self._rate_text()}, {(self._total - self._done) / rate:.0f} s left"
            self._last = now
            _print(
                f"{now - self._start:.0f} s  {self._what}: {self._done}/{self._total} "
                f"{self._unit}{left}",
                sys.stderr,
            )


def say(text: str) -> None:
    """A line for the person at the terminal, from the first process only."""
    if parallel.is_main():
        _print(text, sys.stdout)


def _print(text: str, stream: TextIO) -> None:
    """Print a line; a terminal or a pipe that is gone does not end a run."""
    try:
        print(text, file=stream, flush=True)
    except OSError:
        # nor does what is still in its buffer end the interpreter with a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
