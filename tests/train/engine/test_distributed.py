"""Two processes of one device each, on this machine, do what one process with two devices does."""

import contextlib
import io
import json
import socket
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest

from tests import xla
from tests.train.engine import toy
from tests.train.sentiment import tiny
from train.engine.lock import FolderLock
from train.engine.parallel import Layout
from train.sentiment import program as msa
from train.sentiment.trained import load_run

# whole runs of the program in two processes
pytestmark = pytest.mark.seconds(400)

TOY = """
import sys

import jax
import numpy as np

from corrkd_jax.errors import InputError
from train.engine import loop, parallel
from tests.train.engine import toy
from train.engine.workdir import Workdir
from pathlib import Path

address, number, split, folder = sys.argv[1:]
parallel.connect(address, 2, int(number))
assert jax.device_count() == 2 and jax.local_device_count() == 1
pipe = toy.pipeline(parallel.choose_layout(split, 2, 16))
try:
    Workdir(Path(folder) / "taken", {}, False)
except InputError as error:
    assert "is writing a run there" in str(error), "the first process alone looks, and says it"
else:
    raise AssertionError("two runs in one folder")
workdir = Workdir(Path(folder) / "run", {}, False)
workdir.claim()
tracks = loop.run(pipe, toy.data(), (5, 9), ("plain", "soft"), workdir, save_every=0.0)
workdir.save_model(tracks["student"].best)
workdir.close()
print(number, "writes" if parallel.is_main() else "does not write")
np.savez(Path(folder) / f"{number}.npz", *jax.tree.leaves(tracks))
"""


@pytest.fixture
def address():
    """An address of this machine that no other process can take before the coordinator does.

    Its port stays bound as long as the test runs. The coordinator binds it as well, for gRPC
    shares ports among those who agree to that, and alone listens.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def outputs_of(processes):
    """What each printed, once all have ended well; none outlives the test."""
    try:
        ended = [process.communicate() for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [printed for printed, _ in ended]


@pytest.mark.parametrize("split", ["batch", "seeds"])
def test_both_processes_hold_the_result_of_one(tmp_path, address, split):
    taken = FolderLock(tmp_path / "taken")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TOY, address, str(number), split, str(tmp_path)],
            cwd=tiny.ROOT,
            env=tiny.environment(XLA_FLAGS=xla.one_device_flags()),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs_of(processes)
    taken.release()
    one = toy.train(toy.pipeline(Layout(split, 2)), toy.data(), (5, 9))
    for number in range(2):
        with np.load(tmp_path / f"{number}.npz") as found:
            for x, y in zip(found.values(), jax.tree.leaves(one), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 3 + 2 * 4, "one process writes, once"
    assert [json.loads(row)["global_epoch"] for row in rows] == [0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert len(list((tmp_path / "run" / "tensorboard").glob("events*"))) == 1


def test_the_program_on_two_processes(tiny_files, tmp_path, address):
    """Dropout off, for each device draws its own; no encoders, which treat rows one by one."""
    changes = {
        f"network__{part}_dropout": 0.0
        for part in ("embed", "attention", "relu", "residual", "head")
    }
    changes |= {
        "network__layers": 0,
        "optimizer__epochs": 2,
        "optimizer__teacher_epochs": 1,
        "split": "batch",
    }
    processes = [
        tiny.start(
            "train.msa",
            *tiny.arguments(
                tiny_files,
                tmp_path / "two",
                **{**changes, "devices": 0},
                coordinator=address,
                processes=2,
                process_id=number,
            ),
            XLA_FLAGS=xla.one_device_flags(),
        )
        for number in range(2)
    ]
    first, second = outputs_of(processes)
    assert "| CorrKD |" in first
    assert "| CorrKD |" not in second, "the second process is silent"

    with contextlib.redirect_stdout(io.StringIO()):
        msa.main(tiny.arguments(tiny_files, tmp_path / "one", **{**changes, "devices": 2}))
    metrics = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(metrics[0]) == len(metrics[1]) == 1 + 2 * 2
    for a, b in zip(*metrics, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            # sums over a batch round differently across processes, and differently per machine
            assert a[name] == (
                b[name] if isinstance(a[name], str) else pytest.approx(b[name], rel=1e-4, abs=1e-4)
            )
    models = [load_run(tmp_path / name).models for name in ("one", "two")]
    # a fortieth of one of Adam's steps, which magnify the rounding of small gradients
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4), *models)
