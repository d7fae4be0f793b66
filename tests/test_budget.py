"""Which tests are too slow, by CPU seconds."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import budget


def heard(*phases, **limits):
    """After reports of (test, CPU seconds) of its phases; limits by test."""
    listener = budget.Budget()
    for nodeid, seconds in phases:
        said = [("cpu", seconds)]
        said += [("seconds", limits[nodeid])] if nodeid in limits else []
        listener.pytest_runtest_logreport(SimpleNamespace(nodeid=nodeid, user_properties=said))
    return listener


def finished(listener, status=pytest.ExitCode.OK):
    session = SimpleNamespace(exitstatus=status)
    listener.pytest_sessionfinish(session)
    return session.exitstatus


def test_phases_of_a_test_count_together():
    listener = heard(("a", 16), ("b", 29), ("a", 15), ("b", 0.5))
    assert listener.exceeded() == ["a: 31 CPU s of 30"]
    assert finished(listener) == pytest.ExitCode.TESTS_FAILED
    assert finished(listener, pytest.ExitCode.INTERRUPTED) == pytest.ExitCode.INTERRUPTED


def test_a_limit_of_its_own():
    assert heard(("a", 31), ("b", 61), a=60.0, b=60.0).exceeded() == ["b: 61 CPU s of 60"]
    assert finished(heard(("a", 31), a=60.0)) == pytest.ExitCode.OK


def test_a_slow_machine():
    listener = budget.Budget(factor=2.0)
    for name, seconds in (("a", 59), ("b", 61)):
        report = SimpleNamespace(nodeid=name, user_properties=[("cpu", seconds)])
        listener.pytest_runtest_logreport(report)
    assert listener.exceeded() == ["b: 61 CPU s of 60"]


def test_all_of_them(monkeypatch):
    listener = heard(("a", 1), ("b", 2))
    monkeypatch.setattr(budget, "SUITE", 2.5)
    assert listener.exceeded() == ["the suite: 3 CPU s of 2"]


SLOW = """
import subprocess, sys, time
import pytest

SPIN = "import time; end = time.process_time() + 0.6\\nwhile time.process_time() < end: pass"

@pytest.fixture
def slow():
    exec(SPIN)

def test_work(slow):
    pass

def test_child():
    subprocess.run([sys.executable, "-c", SPIN])

def test_sleep():
    time.sleep(0.6)

@pytest.mark.seconds(9)
def test_allowed():
    exec(SPIN)
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_work_and_children_count_and_sleep_does_not(tmp_path, workers):
    """A suite with limits of half a second, in the process and by workers."""
    (tmp_path / "test_slow.py").write_text(SLOW)
    (tmp_path / "conftest.py").write_text(
        "from tests import budget\nbudget.TEST = 0.5\n\n\ndef pytest_configure(config):\n"
        "    budget.configure(config)\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    root = Path(budget.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", workers, "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root), "CORRKD_TEST_BUDGET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    slow = [line for line in done.stdout.splitlines() if line.startswith("too slow")]
    names = {line.rpartition("::")[2].partition(":")[0] for line in slow}
    assert names == {"test_work", "test_child"}, done.stdout
    assert "4 passed" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_files_with_a_long_test_come_first_and_stay_whole():
    def item(path, seconds=None):
        marker = SimpleNamespace(args=(seconds,)) if seconds else None
        return SimpleNamespace(path=path, get_closest_marker=lambda _: marker)

    items = [item("a"), item("b"), item("b", 400), item("c", 5), item("d", 60)]
    budget.longest_first(items)
    assert [each.path for each in items] == ["b", "b", "d", "a", "c"]
    assert items[1].get_closest_marker("seconds").args == (400,), "in their own order"
