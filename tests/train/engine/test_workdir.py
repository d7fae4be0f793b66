"""A run's folder: claims, metrics, checkpoints; what a full disk and a kill leave behind."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from corrkd_jax.errors import InputError
from tests.train.sentiment.tiny import ROOT
from train.engine.workdir import Workdir, first_difference, load_model, read_config, write_text

CONFIG = {"preset": "toy", "optimizer": {"rate": 0.1, "epochs": 3}, "arms": ("a", "b")}
TREE = {
    "teacher": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.int32([4, 5])},
    "student": [np.float32([0.1, np.pi]), np.uint32([7])],
}


def like(tree):
    return {
        "teacher": {k: np.zeros_like(v) for k, v in tree["teacher"].items()},
        "student": [np.zeros_like(x) for x in tree["student"]],
    }


def open_run(folder, resume=False, config=CONFIG):
    workdir = Workdir(folder, config, resume)
    workdir.claim()
    return workdir


def leave_a_run(folder):
    workdir = open_run(folder)
    workdir.log([row(0)])
    workdir.close()


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(found, wanted) -> bool:
    assert found.keys() == wanted.keys()
    pairs = [
        *((found["teacher"][k], wanted["teacher"][k]) for k in wanted["teacher"]),
        *zip(found["student"], wanted["student"], strict=True),
    ]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def row(epoch, **more):
    return {"stage": "teacher", "epoch": epoch, "global_epoch": epoch, "train_total": [1.5], **more}


def test_config_is_written_and_a_second_run_refused(tmp_path):
    folder = tmp_path / "deep" / "run"
    leave_a_run(folder)
    assert read_config(folder) == json.loads(json.dumps(CONFIG))
    with pytest.raises(InputError) as caught:
        open_run(folder)
    message = one_line(caught)
    assert str(folder) in message
    assert "holds a run already" in message
    assert "--resume" in message
    open_run(folder, resume=True).close()
    assert (folder / "config.json").exists()


def test_a_run_that_wrote_nothing_gives_the_folder_back(tmp_path):
    open_run(tmp_path / "run").close()
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    open_run(tmp_path / "mine").close()
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": {"rate": 0.2, "epochs": 3}}, "optimizer.rate is 0.1 there, 0.2 here"),
        ({"arms": ("a",)}, "arms is ['a', 'b'] there, ['a'] here"),
        ({"more": 1}, "more is None there, 1 here"),
    ],
)
def test_resume_names_the_field_that_differs(tmp_path, change, words):
    leave_a_run(tmp_path)
    with pytest.raises(InputError) as caught:
        open_run(tmp_path, resume=True, config={**CONFIG, **change})
    message = one_line(caught)
    assert words in message
    assert str(tmp_path / "config.json") in message
    assert read_config(tmp_path) == json.loads(json.dumps(CONFIG))


def test_first_difference_sees_fields_of_either_side():
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 1}}) is None
    assert first_difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}).startswith("a.c is 2 there")
    assert first_difference({"a": {"b": 1}}, {"a": 3}).startswith("a is {'b': 1} there, 3 here")


def test_resume_of_nothing_starts_a_run(tmp_path):
    workdir = open_run(tmp_path / "new", resume=True)
    assert workdir.latest() is None
    workdir.close()


@pytest.mark.parametrize("resume", [False, True])
def test_folder_is_a_file(tmp_path, resume):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(InputError) as caught:
        open_run(path, resume)
    assert one_line(caught) == f"--workdir {path}: is a file"
    assert path.read_text() == "mine"


def test_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError) as caught:
        open_run(tmp_path / "file" / "run")
    assert "file" in one_line(caught)


@pytest.mark.parametrize("text", ["{", "", "\x00"])
def test_config_that_is_no_json(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config.json: cannot be read as JSON") as caught:
        open_run(tmp_path, resume=True)
    one_line(caught)


def test_metrics_and_events(tmp_path):
    workdir = open_run(tmp_path)
    workdir.log([row(0), row(1)])
    workdir.log([row(2, arm="a")])
    workdir.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [row(0), row(1), row(2, arm="a")]
    (events,) = (tmp_path / "tensorboard").glob("events*")
    written = events.read_bytes()
    assert b"teacher/train_total" in written
    assert b"teacher/a/train_total" in written


def test_forgets_what_will_be_done_again(tmp_path):
    workdir = open_run(tmp_path)
    workdir.log([row(0), row(1), row(1, arm="a"), row(2), row(3)])
    workdir.forget_after(2)
    path = tmp_path / "metrics.jsonl"
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert kept == [row(0), row(1), row(1, arm="a")]
    workdir.log([row(2)])
    workdir.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [*kept, row(2)]


@pytest.mark.parametrize("length", range(1, 60, 7))
def test_forgets_a_line_that_a_kill_cut_short(tmp_path, length):
    """Even where the line belongs to an epoch that is kept, and is cut right after a brace."""
    path = tmp_path / "metrics.jsonl"
    workdir = open_run(tmp_path)
    whole = json.dumps(row(0)) + "\n"
    path.write_text(whole + json.dumps(row(1, nested={"a": 1}))[:length])
    workdir.forget_after(5)
    assert path.read_text() == whole
    workdir.log([row(1)])
    workdir.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [row(0), row(1)]


def test_times_of_what_will_be_done_again_are_forgotten_too(tmp_path):
    workdir = open_run(tmp_path)
    for epoch in (0, 1, 2):
        workdir.log_time({"stage": "teacher", "global_epoch": epoch, "seconds": 0.5})
    path = tmp_path / "timing.jsonl"
    path.write_text(path.read_text() + '{"stage": "teacher", "glo')
    workdir.forget_after(2)
    workdir.close()
    assert [json.loads(line)["global_epoch"] for line in path.read_text().splitlines()] == [0, 1]


def test_checkpoints_come_back_whole_and_two_are_kept(tmp_path):
    workdir = open_run(tmp_path)
    assert workdir.latest() is None
    for epoch in (1, 2, 5):
        workdir.save(epoch, {**TREE, "student": [np.float32([epoch, 0]), np.uint32([7])]}, {"n": 1})
    workdir.close()
    workdir = open_run(tmp_path, resume=True)
    assert workdir.latest() == 5
    for epoch in (2, 5):
        found, note = workdir.restore(epoch, like(TREE))
        assert same(found, {**TREE, "student": [np.float32([epoch, 0]), np.uint32([7])]})
        assert note == {"n": 1}
    with pytest.raises(InputError):
        workdir.restore(1, like(TREE))
    workdir.close()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            {**like(TREE), "student": [np.zeros(3, np.float32), np.zeros(1, np.uint32)]},
            "student/0 has shape (2,), this configuration needs (3,)",
        ),
        ({**like(TREE), "critic": np.zeros(2)}, "lacks critic"),
        ({"teacher": like(TREE)["teacher"]}, "holds student/0"),
    ],
    ids=["shape", "lacks", "extra"],
)
def test_checkpoint_of_another_shape_names_the_leaf(tmp_path, wanted, words):
    workdir = open_run(tmp_path)
    workdir.save(3, TREE, {})
    workdir.save_model(TREE)
    with pytest.raises(InputError) as caught:
        workdir.restore(3, wanted)
    assert words in one_line(caught)
    assert str(tmp_path / "checkpoints" / "3") in str(caught.value)
    with pytest.raises(InputError) as caught:
        load_model(tmp_path, wanted)
    assert words in one_line(caught)
    workdir.close()


def _truncate_largest(folder):
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def _empty(folder):
    for path in list(folder.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _without_arrays(folder):
    shutil.rmtree(next(p for p in folder.iterdir() if p.name == "tracks"))


@pytest.mark.parametrize("damage", [_truncate_largest, _empty, _without_arrays])
def test_damaged_checkpoint_is_one_line(tmp_path, damage):
    workdir = open_run(tmp_path)
    workdir.save(3, TREE, {})
    workdir.close()
    damage(tmp_path / "checkpoints" / "3")
    workdir = open_run(tmp_path, resume=True)
    with pytest.raises(InputError) as caught:
        workdir.restore(3, like(TREE))
    assert str(tmp_path / "checkpoints" / "3") in one_line(caught)
    workdir.close()


def test_model_is_replaced_whole(tmp_path):
    workdir = open_run(tmp_path)
    with pytest.raises(InputError, match="no trained model"):
        load_model(tmp_path, like(TREE))
    workdir.save_model({**TREE, "student": [np.float32([9, 9]), np.uint32([9])]})
    workdir.save_model(TREE)
    workdir.close()
    assert same(load_model(tmp_path, like(TREE)), TREE)


def test_text_is_whole_or_not_there(tmp_path):
    write_text(tmp_path / "a.txt", "one")
    write_text(tmp_path / "a.txt", "two")
    assert (tmp_path / "a.txt").read_text() == "two"
    with pytest.raises(InputError):
        write_text(tmp_path / "none" / "a.txt", "one")
    assert os.listdir(tmp_path) == ["a.txt"]


FULL_DISK = """
import json, resource, signal, sys
from pathlib import Path
import numpy as np
from corrkd_jax.errors import InputError
from train.engine.workdir import Workdir, write_text

folder = Path(sys.argv[1])
random = np.random.default_rng(0)
tree = {"w": random.random(40000).astype(np.float32)}
workdir = Workdir(folder, {}, False)
workdir.claim()
workdir.save(1, tree, {"epoch": 1})
workdir.save_model(tree)
write_text(folder / "report.md", "first")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
bigger = {"w": tree["w"] + 1}
failed = []
for name, write in {
    "save": lambda: workdir.save(2, bigger, {"epoch": 2}),
    "model": lambda: workdir.save_model(bigger),
    "text": lambda: write_text(folder / "report.md", "x" * 10000),
    "log": lambda: workdir.log([{"stage": "s", "epoch": 0, "m": "x" * 10000}]),
}.items():
    try:
        write()
    except InputError as error:
        failed.append([name, str(error)])
print(json.dumps(failed))
"""


def test_full_disk_is_one_line_and_leaves_the_older_files(tmp_path):
    """Files may not grow past 4 kB in the second half of the child's life."""
    folder = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    failed = dict(json.loads(done.stdout.splitlines()[-1]))
    assert list(failed) == ["save", "model", "text", "log"]
    for message in failed.values():
        assert "\n" not in message
        assert "cannot be written" in message
        assert str(folder) in message
    tree = {"w": np.random.default_rng(0).random(40000).astype(np.float32)}
    zeros = {"w": np.zeros(40000, np.float32)}
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["1"]
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == [".lock"]
    workdir = Workdir(folder, {}, resume=True)
    assert workdir.latest() == 1
    np.testing.assert_array_equal(workdir.restore(1, zeros)[0]["w"], tree["w"])
    workdir.save(2, tree, {"epoch": 2})
    assert workdir.latest() == 2
    workdir.close()
    np.testing.assert_array_equal(load_model(folder, zeros)["w"], tree["w"])
    assert (folder / "report.md").read_text() == "first"


def test_a_save_for_which_there_is_no_room_is_not_begun(tmp_path, monkeypatch):
    workdir = Workdir(tmp_path / "run", {}, resume=False)
    workdir.claim()
    tree = {"w": np.zeros(500_000, np.float32)}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2_900_000))
    for save in (lambda: workdir.save(1, tree, {}), lambda: workdir.save_model(tree)):
        with pytest.raises(InputError, match=r"run: no space left: a save takes 3\.0 MB, 2\.9 MB"):
            save()
    assert not (tmp_path / "run" / "checkpoints").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3_100_000))
    workdir.save(1, tree, {})
    workdir.close()


SAVES = """
import sys
from pathlib import Path
import numpy as np
from train.engine.workdir import Workdir

workdir = Workdir(Path(sys.argv[1]), {}, True)
workdir.claim()
first = (workdir.latest() or 0) + 1
print("ready", flush=True)
for epoch in range(first, 10**6):
    workdir.save(epoch, {"w": np.full(400_000, epoch, np.float32)}, {"epoch": epoch})
"""


def test_kill_in_the_middle_of_a_save_leaves_a_whole_checkpoint(tmp_path):
    """The same folder, killed and continued; what `latest` names is all of one epoch."""
    moments, reached = random.Random(0), 0
    zeros = {"w": np.zeros(400_000, np.float32)}
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", SAVES, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert child.stdout.readline() == "ready\n"
            folder = tmp_path / "checkpoints"
            while not (folder.exists() and any(int(p.name) > reached for p in whole(folder))):
                assert child.poll() is None
                time.sleep(0.01)
            time.sleep(moments.uniform(0.0, 0.4))
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
            child.stdout.close()
        workdir = Workdir(tmp_path, {}, resume=True)
        latest = workdir.latest()
        assert latest > reached
        tree, note = workdir.restore(latest, zeros)
        workdir.close()
        assert all(p.name.isdigit() for p in folder.iterdir())
        assert note == {"epoch": latest}
        np.testing.assert_array_equal(tree["w"], np.full(400_000, latest, np.float32))
        reached = latest


def whole(folder):
    """Checkpoints that have their final name."""
    return [p for p in folder.iterdir() if p.name.isdigit()]
