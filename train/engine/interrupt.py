"""Ctrl-C ends a program within seconds, whatever its main thread is doing.

Python raises KeyboardInterrupt in the main thread, between two of its instructions. A compilation
is one instruction that takes minutes, and a callback of XLA's swallows what is raised in it. So a
second thread hears of the signal as well. It gives the main thread some seconds to leave in good
order, and then ends the process.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

CODE = 130
"""Exit status of a program that was interrupted: that of a shell's command."""
PATIENCE = 5.0
"""Seconds that the main thread has to leave in good order."""
_LONGEST_WRITE = 60.0
"""Seconds that a write has to come to its end, after that."""
_SAME = 0.5
"""Seconds within which two signals are one: `timeout` sends both to a process and to its group."""
_END, _RAISED = b"\0", b"\xff"
"""What the watching thread is told at the end of a program that was not interrupted, and when
Python has heard of a signal. No signal has these numbers.
"""
_SHOW_CURSOR = "\x1b[?25h\n"

_writing = threading.RLock()


class _State:
    """What a signal of this process is about; there is one process, and one of these."""

    asked = False
    """Whether there was an interrupt."""
    late = False
    """Whether one came in the middle of a write, and is still to be raised."""
    depth = 0
    """Writes of the main thread, one within the other."""
    folder: Path | None = None
    """Of the run under way."""


@contextlib.contextmanager
def unbroken() -> Generator[None]:
    """What is written within is written to its end; an interrupt comes after it."""
    if threading.current_thread() is not threading.main_thread():
        with _writing:
            yield
        return
    with _writing:
        _State.depth += 1
        try:
            yield
        finally:
            _State.depth -= 1
    if _State.late and not _State.depth:
        _State.late = False
        raise KeyboardInterrupt


def asked() -> bool:
    """Whether there was an interrupt; a library may have made another error of it."""
    return _State.asked


def check() -> None:
    """Raise KeyboardInterrupt if there was an interrupt that somebody swallowed."""
    if _State.asked:
        raise KeyboardInterrupt


def run_begins(folder: Path) -> None:
    """Note the folder of a run that can be continued; of runs within a run, the first one's."""
    _State.folder = _State.folder or folder


def run_ends(folder: Path) -> None:
    """Forget the folder of a run of which nothing is left to continue."""
    if _State.folder == folder:
        _State.folder = None


def run_under_way() -> Path | None:
    """Folder of the run under way, or that an interrupt ended; None if there is none."""
    return _State.folder


class Interrupts:
    """Within it an interrupt is never lost; a second one ends the process at once.

    Does nothing outside the main thread, and where interrupts are ignored, as under `nohup`.

    Attributes:
        said: whether the farewell has been said.
    """

    def __init__(
        self,
        farewell: Callable[[], str],
        patience: float = PATIENCE,
        leave: Callable[[int], Any] = os._exit,
    ):
        """Install nothing yet.

        Args:
            farewell: last words of a process that its main thread does not end.
            patience: seconds that the main thread has.
            leave: ends the process.
        """
        self._farewell, self._patience, self._leave = farewell, patience, leave
        self._installed = self.said = False

    def __enter__(self) -> Self:
        _State.asked = _State.late = False
        _State.depth, _State.folder = 0, None
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
            return self
        self._hears, self._tells = os.pipe()
        os.set_blocking(self._tells, False)
        # a byte for every signal, written by C, whatever the main thread does
        self._told_before = signal.set_wakeup_fd(self._tells, warn_on_full_buffer=False)
        self._before = signal.signal(signal.SIGINT, self._raise)
        self._thread = threading.Thread(target=self._watch, daemon=True, name="interrupts")
        self._thread.start()
        self._installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._installed:
            return
        if not _State.asked:
            self.close()
            return
        # past the end of the interpreter, which waits for devices, or crashes in a compilation
        # that goes on; the watch goes on, too
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        self._leave(CODE)

    def close(self) -> None:
        """Put everything back as it was."""
        _State.asked = False
        signal.set_wakeup_fd(self._told_before)
        signal.signal(signal.SIGINT, self._before)
        os.write(self._tells, _END)
        self._thread.join()
        os.close(self._tells)
        os.close(self._hears)
        self._installed = False

    def _watch(self) -> None:
        first, deadline = 0.0, None
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not select.select([self._hears], [], [], left)[0]:
                break  # the main thread had its time
            heard = os.read(self._hears, 1)
            if heard == _END:
                return
            now = time.monotonic()
            if deadline is None and (heard == _RAISED or heard[0] == signal.SIGINT):
                first, deadline = now, now + self._patience
                _State.asked = True
            elif heard[0] == signal.SIGINT and now - first > _SAME:
                self._end()
                return
        # nothing is half written when the process ends
        _writing.acquire(timeout=_LONGEST_WRITE)
        try:
            self._end()
        finally:
            with contextlib.suppress(RuntimeError):  # not acquired
                _writing.release()

    def _end(self) -> None:
        """Say farewell past Python's own locks, which the main thread may hold."""
        with contextlib.suppress(OSError, ValueError):
            cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
            text = f"{cursor}{self._farewell()}\n" * (not self.said)
            os.write(sys.stderr.fileno(), text.encode(errors="replace"))
        self._leave(CODE)

    def _raise(self, signum: int, frame: FrameType | None) -> None:
        _State.asked = True
        # an event loop of a library's may listen in the place of the watching thread
        with contextlib.suppress(OSError):
            os.write(self._tells, _RAISED)
        if _State.depth:
            _State.late = True
            return
        raise KeyboardInterrupt
