"""The benchmark of kills kills, continues and compares; two kills of a toy that trains."""

import json
import shlex
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from benchmarks import kills
from tests import xla
from tests.docs import pages
from tests.train.sentiment import tiny
from train import programs
from train.engine.workdir import Workdir

TOY = """
import json, random, sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import kills
from tests.train.engine import toy
from train.engine import cli
from train.engine.pipeline import Pipeline
from train.engine.run import Run, begin


@dataclass(frozen=True)
class Config:
    seeds: int = 1
    first_seed: int = 5


def main(argv):
    options = cli.parse_options(cli.RunOptions, argv, "toy", "")
    with Run("toy", "toy", Config(), options, begin(options, "toy", "toy")) as run:
        run.workdir.claim()
        layout = run.layout(16)
        (stage, _) = toy.stages(layout.axis_name, epochs=(8, 1), noise=1.0)
        pipeline = Pipeline([stage], layout, run.lanes())
        tracks = run.train(pipeline, toy.data(), [])
        run.workdir.save_model({name: track.best for name, track in tracks.items()})
        results = {name: track.history["valid"]["mse"].tolist() for name, track in tracks.items()}
        run.workdir.write("results.json", json.dumps(results))


argv = ["--save-every", "0", "--devices", "1"]
outcome = kills.trial(main, argv, Path(sys.argv[1]), 2, random.Random(0))
print(json.dumps([outcome.kills, outcome.runs, outcome.differences]))
"""


def test_a_toy_that_is_killed_and_continued_has_the_same_bits(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TOY, str(tmp_path / "toy")],
        cwd=tiny.ROOT,
        env=tiny.environment(XLA_FLAGS=xla.one_device_flags()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    count, runs, differences = json.loads(done.stdout.splitlines()[-1])
    assert (count, differences) == (2, [])
    assert 1 <= runs <= 2
    assert (tmp_path / "toy" / "killed-1" / "results.json").exists()


def leave_a_run(folder, value=1.0, more=()):
    workdir = Workdir(folder, {}, False)
    workdir.claim()
    workdir.save_model({"w": np.float32([value, 2])})
    workdir.write("results.json", str(value > 0))
    for name in more:
        (folder / name).mkdir()
    workdir.close()
    return folder


def test_what_differs_is_found(tmp_path):
    whole, same = leave_a_run(tmp_path / "whole"), leave_a_run(tmp_path / "same")
    assert list(kills.differences(same, whole)) == []
    bit = leave_a_run(tmp_path / "bit", np.nextafter(np.float32(1), np.float32(2)))
    assert list(kills.differences(bit, whole)) == ["model/w"]
    other = leave_a_run(tmp_path / "other", -1.0)
    assert list(kills.differences(other, whole)) == ["results.json", "model/w"]
    (same / "results.json").unlink()
    assert list(kills.differences(same, whole)) == ["results.json"]
    left = leave_a_run(tmp_path / "left", more=(".model.new", "2.orbax-checkpoint-tmp-3"))
    assert sorted(kills.litter(left)) == [".model.new", "2.orbax-checkpoint-tmp-3"]


def test_what_a_killed_process_had_come_to(tmp_path):
    phases = [kills.phase_of(tmp_path)]
    for name in ("metrics.jsonl", "model", "results.json"):
        (tmp_path / name).touch()
        phases.append(kills.phase_of(tmp_path))
    assert tuple(phases) == kills.PHASES
    outcome = kills.Outcome(2.0, 0.5, Counter(phases), 2, ["killed-1/model"])
    assert kills.row("toy", outcome) == ["toy", "4", *"1111", "2", "2.0", "0.5", "no"]


def test_a_file_grows_only_from_what_it_was_seen_to_be(tmp_path):
    """A continued run first drops the metrics of what it will do again."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("1234")
    grown = kills.grows(path)
    assert not grown()
    path.write_text("12")
    assert not grown()
    path.write_text("123")
    assert grown()
    assert not grown()


def test_every_program_has_a_tiny_run():
    assert set(kills.TINY) == set(programs.PROGRAMS)


@pytest.mark.parametrize("name", kills.TINY)
def test_a_tiny_run_is_what_its_program_takes(tmp_path, name):
    words = kills.arguments(tmp_path / "data")[name]
    (tmp_path / "runs").mkdir()
    pages.understand(f"corrkd {shlex.join([name, *words])}", tmp_path / "runs")
