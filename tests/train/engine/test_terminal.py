"""A terminal shows a program's own words, whatever signs it has, and others' that say something."""

import io
import os
import subprocess
import sys
import warnings

import pytest

from tests.train.sentiment import tiny
from train.engine import terminal

RULE = b"********************************\n"
WHAT = (
    b"[Compiling module pmap_advance] Very slow compile? If you want to file a bug, run with "
    b"envvar XLA_FLAGS=--xla_dump_to=/tmp/foo and attach the results.\n"
)
ALARM = (
    b"2025-03-19 07:30:02.045318: E external/xla/xla/service/slow_operation_alarm.cc:73] \n"
    + RULE + WHAT + RULE
)  # fmt: skip
ITS_END = (
    b"E0319 07:30:14.895694 1234 slow_operation_alarm.cc:140] The operation took 2m12.850942799s\n"
    + b"\n" + RULE + WHAT + RULE
)  # fmt: skip
ERROR = b"E1128 07:31:00.000000    1234 client.cc:9] out of memory\n"
STARS = b"********************************\n\nVery slow compile? says the author\n"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (ALARM, b""),
        (ALARM + ITS_END, b""),
        (ERROR + ALARM + ERROR + ITS_END + ERROR, 3 * ERROR),
        # cut short by something else
        (ALARM[: ALARM.index(WHAT)] + ERROR + STARS, ERROR + STARS),
        (ALARM + STARS, STARS),
        (STARS, STARS),
        (b"no end of line", b"no end of line"),
    ],
    ids=["begins", "ends", "between", "cut", "after", "like", "rest"],
)
def test_the_alarm_alone_is_taken_out(written, shown):
    assert b"".join(terminal.passed(io.BytesIO(written))) == shown


CRASH = """
import os, sys
from train.engine import terminal

with terminal.without_alarms():
    print("from Python", file=sys.stderr)
    os.write(2, {alarm!r})
    os.write(2, b"LLVM ERROR: out of memory\\n")
    {end}
print("after", file=sys.stderr)
"""


@pytest.mark.parametrize(("end", "code"), [("", 0), ("os.abort()", -6), ("os._exit(3)", 3)])
def test_what_is_written_past_python_is_shown_whatever_ends_the_program(end, code):
    done = subprocess.run(
        [sys.executable, "-c", CRASH.format(alarm=ALARM, end=end)],
        cwd=tiny.ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == code
    lines = done.stderr.splitlines()
    assert sorted(lines[:2]) == [b"LLVM ERROR: out of memory", b"from Python"]
    assert lines[2:] == [b"after"] * (not end)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", b"| 64.59 +- 0.65 | gro?er |"),
        ("latin-1", b"| 64.59 \xb1 0.65 | gro\xdfer |"),
        ("utf-8", "| 64.59 ± 0.65 | großer |".encode()),
    ],
)
def test_a_finished_run_can_say_so_on_any_terminal(encoding, shown, monkeypatch):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with warnings.catch_warnings():
        terminal.prepare()
    print("| 64.59 ± 0.65 | großer |", end="", flush=True)
    assert written.getvalue() == shown


def test_warnings_of_libraries_about_themselves_are_silent(recwarn):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        terminal.prepare()
        for module in ("brax.io.mjcf", "orbax.checkpoint.x", "train.engine.loop"):
            warnings.warn_explicit("not maintained", UserWarning, f"{module}.py", 1, module)
    assert [each.filename for each in recwarn] == ["train.engine.loop.py"]


def test_nothing_is_redirected_where_standard_error_is_not_the_terminals():
    before = os.fstat(2).st_ino
    with terminal.without_alarms():  # pytest has put its own there
        assert os.fstat(2).st_ino == before
