"""A run that was stopped and continued is the run that was not stopped, bit for bit."""

import json
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.train.engine import toy
from tests.train.sentiment import tiny
from train.engine import loop
from train.engine.parallel import Layout
from train.engine.workdir import Workdir
from train.sentiment import program as msa
from train.sentiment.trained import load_run

# whole runs of the program, one of them killed
pytestmark = pytest.mark.seconds(200)

SEEDS, ARMS = (5, 9), ("plain", "soft")


@pytest.fixture(scope="module")
def pipe():
    return toy.pipeline(Layout("batch", 1), epochs=(3, 12), noise=1.0, validate_every=2)


@pytest.fixture(scope="module")
def whole(pipe, tmp_path_factory):
    """Tracks and metrics of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    workdir = toy.claimed(folder)
    tracks = loop.run(pipe, toy.data(), SEEDS, ARMS, workdir)
    workdir.close()
    return tracks, (folder / "metrics.jsonl").read_text()


class Stopped(Exception):
    """What ends the run; not an error that the program knows."""


class Stops(Workdir):
    """A folder that fails at a chosen write of metrics or of a checkpoint."""

    log_calls = save_calls = 10**6

    def log(self, rows):
        super().log(rows)
        self.log_calls -= 1
        if not self.log_calls:
            raise Stopped

    def save(self, epoch, tree, note):
        self.save_calls -= 1
        if not self.save_calls:
            raise Stopped
        super().save(epoch, tree, note)


@pytest.mark.parametrize("save_every", [0.0, 1e9], ids=["each-chunk", "stages"])
@pytest.mark.parametrize(
    "stop", [("log_calls", 1), ("log_calls", 3), ("save_calls", 1), ("save_calls", 2)], ids=str
)
def test_stopped_and_continued(pipe, whole, tmp_path, stop, save_every):
    """Before the first checkpoint, after some, and with metrics ahead of the last one."""
    workdir = toy.claimed(tmp_path, Stops)
    setattr(workdir, *stop)
    with pytest.raises(Stopped):
        loop.run(pipe, toy.data(), SEEDS, ARMS, workdir, save_every=save_every)
    workdir.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"stage": "student", "ep')
    workdir = toy.claimed(tmp_path, resume=True)
    tracks = loop.run(pipe, toy.data(), SEEDS, ARMS, workdir, resume=True)
    workdir.close()
    jax.tree.map(np.testing.assert_array_equal, tracks, whole[0])
    assert path.read_text() == whole[1]


def test_a_finished_run_continues_to_the_same_end(pipe, whole, tmp_path):
    for resume in (False, True):
        workdir = toy.claimed(tmp_path, resume=resume)
        tracks = loop.run(pipe, toy.data(), SEEDS, ARMS, workdir, resume=resume)
        workdir.close()
        jax.tree.map(np.testing.assert_array_equal, tracks, whole[0])
    assert (tmp_path / "metrics.jsonl").read_text() == whole[1]


KILLED = """
import os, signal, sys

from train.engine.workdir import Workdir
from train.sentiment import program

log = Workdir.log


def log_and_die(self, rows):
    log(self, rows)
    if rows[-1]["stage"] == "student":
        os.kill(os.getpid(), signal.SIGKILL)


Workdir.log = log_and_die
program.main(sys.argv[1:])
"""


def test_killed_program_continues_bit_for_bit(tiny_run, tmp_path):
    """SIGKILL once the student's first epochs are written; then `--resume`."""
    folder, path = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    argv = tiny.arguments(tiny_run.files, folder)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *argv],
        cwd=tiny.ROOT,
        env=tiny.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (folder / "results.json").exists()
    last = json.loads(path.read_text().splitlines()[-1])
    assert tiny.TEACHER_EPOCHS <= last["global_epoch"] < tiny.TEACHER_EPOCHS + tiny.EPOCHS - 1

    msa.main([*argv, "--resume"])
    assert path.read_text() == (tiny_run.folder / "metrics.jsonl").read_text()
    results = [json.loads((f / "results.json").read_text()) for f in (folder, tiny_run.folder)]
    assert results[0] == results[1]
    models = [load_run(f).models for f in (folder, tiny_run.folder)]
    jax.tree.map(np.testing.assert_array_equal, *models)
