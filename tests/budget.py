"""Time that the suite may take: `CORRKD_TEST_BUDGET=1`, or how many times the limits.

What counts is CPU seconds of a test, its threads and its children. Seconds of the wall would fail
a test for what else the machine does.
"""

import os
from collections.abc import Iterator

import pytest

TEST = 30.0
"""CPU seconds of one test with the fixtures that are made for it."""
SUITE = 2 * 25 * 60.0
"""CPU seconds of all tests: 25 minutes of two cores."""
VARIABLE = "CORRKD_TEST_BUDGET"

_seconds = pytest.StashKey[float]()


def used() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def limit(item: pytest.Item) -> float:
    """Most CPU seconds of a test: those that it is marked with, or `TEST`."""
    marker = item.get_closest_marker("seconds")
    return float(marker.args[0]) if marker else TEST


def longest_first(items: list[pytest.Item]) -> None:
    """Sort tests by the longest of their file, so that none is begun when the others have ended."""
    longest: dict[object, float] = {}
    for item in items:
        longest[item.path] = max(longest.get(item.path, 0.0), limit(item))
    items.sort(key=lambda item: -longest[item.path])


class Meter:
    """Writes into the report of each phase of a test what the phase took."""

    @staticmethod
    def _phase(item: pytest.Item) -> Iterator[None]:
        start = used()
        try:
            return (yield)
        finally:
            item.stash[_seconds] = used() - start

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self._phase(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self._phase(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        return (yield from self._phase(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report = yield
        # a list of the report's own; the only thing that a worker sends
        report.user_properties.append(("cpu", item.stash.get(_seconds, 0.0)))
        report.user_properties.append(("seconds", limit(item)))
        return report


class Budget:
    """Fails a session in which a test, or all of them, took too long."""

    def __init__(self, factor: float = 1.0) -> None:
        """Begin to listen.

        Args:
            factor: of all limits, for machines of which some take twice as long as others.
        """
        self.factor = factor
        self.seconds: dict[str, float] = {}
        self.allowed: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name, said = report.nodeid, dict(report.user_properties)
        self.seconds[name] = self.seconds.get(name, 0.0) + said.get("cpu", 0.0)
        self.allowed[name] = self.factor * said.get("seconds", TEST)

    def exceeded(self) -> list[str]:
        """A line for each limit that was exceeded."""
        took = [("the suite", sum(self.seconds.values()), self.factor * SUITE)]
        took += [(name, self.seconds[name], self.allowed[name]) for name in self.seconds]
        return [f"{name}: {x:.0f} CPU s of {limit:.0f}" for name, x, limit in took if x > limit]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.exceeded() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("CPU seconds")
        terminalreporter.write_line(f"{sum(self.seconds.values()):.0f} in all")
        slowest = sorted(self.seconds, key=self.seconds.__getitem__, reverse=True)[:20]
        for name in slowest:
            terminalreporter.write_line(f"{self.seconds[name]:.1f} {name}")
        for line in self.exceeded():
            terminalreporter.write_line(f"too slow: {line}")


def configure(config: pytest.Config) -> None:
    """Declare `seconds`, a test's own limit; meter tests, and judge where all are heard of."""
    config.addinivalue_line("markers", "seconds(limit): most CPU seconds of a test in CI")
    if not (factor := os.environ.get(VARIABLE)):
        return
    config.pluginmanager.register(Meter())
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Budget(float(factor)))
