import io
import os
import sys
import time

import pytest

from train.engine.progress import Bar, say


def test_long_silences_are_broken(capsys):
    """Compilation says nothing for minutes; a person must see that the program lives."""
    with Bar(7, quiet_seconds=0.01, unit="cells") as bar:
        bar.update(0, "compiling")
        deadline = time.monotonic() + 20
        text = ""
        while text.count("compiling: 0/7 cells") < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
            text += capsys.readouterr().err
    assert text.count("compiling: 0/7 cells") >= 2


def test_the_last_step_always_has_its_line(capsys):
    with Bar(2, quiet_seconds=1e6) as bar:
        bar.update(1, "policies")
        bar.update(2, "policies")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "policies: 2/2 steps" in lines[0]


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_pipe_that_nobody_reads_ends_no_run(monkeypatch, name):
    """As of `corrkd msa | head`, whose reader leaves before the report."""
    reads, writes = os.pipe()
    os.close(reads)
    with io.TextIOWrapper(os.fdopen(writes, "wb")) as stream:
        monkeypatch.setattr(sys, name, stream)
        for _ in range(2):
            say("a table")
            with Bar(1, quiet_seconds=1e6) as bar:
                bar.update(1, "policies")
