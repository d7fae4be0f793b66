"""What a program's terminal shows: its own words, and of others' all but what is known to be idle.

* Warnings of libraries about their own internals and upkeep are filtered by Python's own means.
* XLA writes an alarm past Python when it compiles for more than two minutes, which a program's
  progress bar says better. It is taken out of what is written to file descriptor 2, by a process of
  its own: what a crash says last is passed on as well.
* A terminal without a sign gets another for it, and nothing ends for want of a sign.
"""

import codecs
import contextlib
import io
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Generator, Iterable, Iterator

_ERRORS = "corrkd_jax.plain"
"""Name under which `codecs` has `replace_signs`."""
_PLAIN = {"±": "+-", "—": "-"}

_ALARM = re.compile(rb"\bslow_operation_alarm\.cc:\d+\] ")
_ALARM_GOES_ON = re.compile(rb"\s*$|\*{20,}\s*$|(\[Compiling module .*\] )?Very slow compile\? ")
_RULES = 2
"""Rows of asterisks in an alarm."""


def replace_signs(error: UnicodeError) -> tuple[str | bytes, int]:
    """Handler of `codecs` that writes `+-` for ± and a question mark for what has no like."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign, "?") for sign in signs), error.end


def prepare() -> None:
    """Let print write every sign to any terminal, and silence what warns in vain."""
    codecs.register_error(_ERRORS, replace_signs)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)
    # these warn about their own internals and upkeep; nothing there is the user's to mend
    warnings.filterwarnings("ignore", module=r"(orbax|flax|tensorboardX|brax)\..*")


@contextlib.contextmanager
def without_alarms() -> Generator[None]:
    """Take XLA's alarm of a slow compilation out of what is written to file descriptor 2.

    Python's own `sys.stderr` goes straight to where it went. Does nothing where that is not file
    descriptor 2.
    """
    stream = sys.stderr
    if not isinstance(stream, io.TextIOWrapper) or stream is not sys.__stderr__:
        yield
        return
    try:
        straight = os.dup(stream.fileno())
        command = [sys.executable, "-I", "-S", __file__]
        # of no terminal's, or Ctrl-C would end it before what it waits for
        child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    except OSError:  # without file descriptors, memory or processes: everything is shown
        yield
        return
    assert child.stdin is not None
    stream.flush()
    os.dup2(child.stdin.fileno(), 2)
    child.stdin.close()
    sys.stderr = io.TextIOWrapper(
        os.fdopen(straight, "wb", 0),
        stream.encoding,
        stream.errors,
        line_buffering=True,
        write_through=True,
    )
    try:
        yield
    finally:
        os.dup2(straight, 2)
        # the other stays open: handlers of logs and progress bars may have it
        sys.stderr = stream
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1.0)  # children of ours may still write


def passed(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without XLA's alarms of slow compilations."""
    rules = None
    for line in lines:
        if _ALARM.search(line):
            rules = 0
            continue
        if rules is not None and _ALARM_GOES_ON.match(line):
            rules += line.startswith(b"*")
            if rules == _RULES:
                rules = None
            continue
        rules = None
        yield line


if __name__ == "__main__":
    for _line in passed(sys.stdin.buffer):
        os.write(2, _line)
