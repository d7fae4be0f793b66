"""Two runs in one folder: the second gets one line, and the first keeps its files."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from corrkd_jax.errors import InputError
from train.engine.lock import LOCK, FolderLock
from train.engine.workdir import Workdir

HOLDS = """
import fcntl, sys, time
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX)
file.write("process 7 on there")
file.flush()
print("held", flush=True)
time.sleep(600)
"""


def row(epoch):
    return {"stage": "s", "epoch": epoch, "global_epoch": epoch, "train_total": [0.5]}


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_is_refused_and_cuts_nothing(tmp_path, resume):
    folder = tmp_path / "run"
    first = Workdir(folder, {}, False)
    first.claim()
    first.log([row(0), row(1)])
    before = (folder / "metrics.jsonl").read_text()
    with pytest.raises(InputError) as refused:
        Workdir(folder, {}, resume)
    message = str(refused.value)
    assert message.startswith(f"{folder}: process {os.getpid()} on ")
    assert "is writing a run there; wait for its end, or choose another --workdir" in message
    assert "\n" not in message
    first.log([row(2)])
    first.close()
    assert (folder / "metrics.jsonl").read_text().startswith(before)
    second = Workdir(folder, {}, True)
    second.close()


def test_a_run_that_wrote_nothing_yet_has_its_folder_too(tmp_path):
    """Data are planted before the run is claimed, and by the winner alone."""
    first = Workdir(tmp_path / "run", {}, False)
    with pytest.raises(InputError, match="is writing a run there"):
        Workdir(tmp_path / "run", {"other": 1}, False)
    first.close()
    assert not (tmp_path / "run").exists()


def test_the_lock_dies_with_its_process(tmp_path):
    """SIGKILL leaves the file; the file is not what locks."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", HOLDS, str(tmp_path / LOCK)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="process 7 on there is writing a run there"):
            FolderLock(tmp_path)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert (tmp_path / LOCK).exists()
    FolderLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_folders_that_the_lock_made_go_with_it_unless_something_is_in_them(tmp_path):
    FolderLock(tmp_path / "runs" / "deep" / "run").release()
    assert list(tmp_path.iterdir()) == []
    lock = FolderLock(tmp_path / "runs" / "run")
    (tmp_path / "runs" / "mine").touch()
    lock.release()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]
    FolderLock(tmp_path / "runs").release()
    (tmp_path / "empty").mkdir()
    FolderLock(tmp_path / "empty").release()
    assert (tmp_path / "empty").is_dir()


def test_a_file_that_its_last_holder_removed_locks_nothing(tmp_path, monkeypatch):
    """Between open and flock the first run ends, and a third takes the folder."""
    taken, ends = [], [FolderLock(tmp_path)]
    flock = fcntl.flock

    def late(file, how):
        if ends:
            ends.pop().release()
            taken.append(FolderLock(tmp_path))
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(InputError, match="is writing a run there"):
        FolderLock(tmp_path)
    taken.pop().release()


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, capsys):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    FolderLock(tmp_path).release()
    said = capsys.readouterr().out
    assert said == f"{tmp_path}: this file system has no locks; let no other run write there\n"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/run: cannot be written: Not a directory"):
        FolderLock(tmp_path / "file" / "run")
