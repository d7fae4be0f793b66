"""Ctrl-C ends a program with 130 within seconds, whatever its main thread is doing."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.train.sentiment import tiny
from train.engine import interrupt
from train.engine.interrupt import Interrupts, unbroken

LONG = 60.0


class Process:
    """What stands for the end of this one."""

    def __init__(self):
        self.over, self.code = threading.Event(), None

    def leave(self, code):
        self.code = code
        self.over.set()


@pytest.fixture
def process():
    return Process()


@pytest.fixture
def watched(process):
    """Interrupts with a little patience; the suite's own handler comes back after them."""
    made = []

    def make(patience=LONG):
        made.append(Interrupts(lambda: "farewell", patience, process.leave))
        return made[-1]

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield make
    for each in made:
        each.close()
    signal.signal(signal.SIGINT, before)


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_it_is_raised_where_the_main_thread_is(watched, process):
    def waits():
        ctrl_c()
        time.sleep(LONG)

    with watched():
        with pytest.raises(KeyboardInterrupt):
            waits()
        assert not process.over.is_set()
    # past the end of the interpreter, which a compilation that goes on may crash
    assert process.code == 130


def test_one_that_a_callback_swallows_ends_the_process(watched, process):
    with watched(0.05):
        with contextlib.suppress(KeyboardInterrupt):
            ctrl_c()
            time.sleep(LONG)
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()  # what the loop of a training asks
        assert process.over.wait(LONG)
    assert process.code == 130


def test_a_write_comes_to_its_end_first(watched):
    done = []

    def writes():
        with unbroken():
            with unbroken():
                ctrl_c()
                done.append("inner")
            done.append("outer")
        done.append("after")

    with watched(), pytest.raises(KeyboardInterrupt):
        writes()
    assert done == ["inner", "outer"]


def test_the_process_ends_after_a_write_not_within(watched, process, monkeypatch):
    class Seen:
        """A lock that says when it is waited for."""

        def __init__(self):
            self.lock, self.wanted = threading.RLock(), threading.Event()
            self.release = self.lock.release

        def acquire(self, timeout):
            self.wanted.set()
            return self.lock.acquire(timeout=timeout)

        def __enter__(self):
            return self.lock.__enter__()

        def __exit__(self, *error):
            self.lock.release()

    seen = Seen()
    monkeypatch.setattr(interrupt, "_writing", seen)

    def writes():
        with unbroken():
            ctrl_c()
            assert seen.wanted.wait(LONG)
            assert not process.over.is_set()

    with watched(0.0):
        with pytest.raises(KeyboardInterrupt):
            writes()
        assert process.over.wait(LONG)


def test_one_that_python_alone_heard_of_counts_too(watched, process):
    """Event loops, such as those by which checkpoints are written, listen themselves."""
    with watched(0.0):
        told = signal.set_wakeup_fd(-1)
        with contextlib.suppress(KeyboardInterrupt):
            ctrl_c()
            time.sleep(LONG)
        assert process.over.wait(LONG)
        signal.set_wakeup_fd(told)
    assert process.code == 130


def test_a_second_one_ends_the_process_at_once(watched, process, monkeypatch):
    monkeypatch.setattr(interrupt, "_SAME", 0.0)

    def writes():
        with unbroken():
            ctrl_c()
            deadline = time.monotonic() + LONG
            while not process.over.is_set() and time.monotonic() < deadline:
                time.sleep(0.02)
                ctrl_c()

    with watched():
        with pytest.raises(KeyboardInterrupt):
            writes()
        assert process.code == 130


def test_what_is_not_interrupted_leaves_nothing_behind(watched):
    before = signal.getsignal(signal.SIGINT), threading.active_count()
    with watched() as inside:
        assert signal.getsignal(signal.SIGINT) != before[0]
        signal.raise_signal(signal.SIGWINCH)
        interrupt.check()
    assert (signal.getsignal(signal.SIGINT), threading.active_count()) == before
    inside.close = lambda: None  # closed already
    assert signal.set_wakeup_fd(-1) == -1


def test_ignored_interrupts_stay_ignored(watched):
    """As a shell without job control starts what it puts into the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with watched() as inside:
        ctrl_c()
        inside.close = lambda: None  # nothing was opened
        interrupt.check()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


BUSY = """
import hashlib, signal
from train.engine.interrupt import Interrupts

def works():
    try:
        print("ready", flush=True)
        {work}
    except KeyboardInterrupt:  # as a callback of a library does
        works()

signal.signal(signal.SIGINT, signal.default_int_handler)
with Interrupts(lambda: "this continues it: corrkd msa --resume", patience=0.1):
    works()
"""
IN_C = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
IN_PYTHON = "while True: pass"


@pytest.mark.parametrize("work", [IN_C, IN_PYTHON], ids=["in-C", "in-Python"])
def test_a_main_thread_that_never_comes_back_is_left(work):
    """Exit status 130 and the last words, of a process that alone would go on for an hour."""
    child = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(work=work)],
        cwd=tiny.ROOT,
        env=tiny.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=LONG)
    finally:
        child.kill()
    assert child.returncode == 130
    assert said == "this continues it: corrkd msa --resume\n"
