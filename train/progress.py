"""Progress of a run: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from train import parallel


class Bar:
    """Counts steps; shows rate and time left. Silent on processes other than the first."""

    def __init__(self, total: int, quiet_seconds: float = 10.0):
        """Args:
        total: steps in the whole run.
        quiet_seconds: least time between two lines where there is no terminal.
        """
        self._total, self._quiet = total, quiet_seconds
        self._console = Console(file=sys.stderr)
        self._start = self._last = time.monotonic()
        self._what = ""
        self._since = self._until = (self._start, 0)
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
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        rate_text = f"{rate:.1f} steps/s" if rate else ""
        if self._bar:
            self._bar.update(self._task, completed=done, description=what, rate=rate_text)
        elif parallel.is_main() and (now - self._last > self._quiet or done == self._total):
            left = f", {rate_text}, {(self._total - done) / rate:.0f} s left" if rate else ""
            self._last = now
            elapsed = now - self._start
            print(
                f"{elapsed:.0f} s  {what}: {done}/{self._total} steps{left}",
                file=sys.stderr,
                flush=True,
            )


def say(text: str) -> None:
    """A line for the person at the terminal, from the first process only."""
    if parallel.is_main():
        print(text, flush=True)
