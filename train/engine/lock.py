"""A lock on a run's folder: one process writes there at a time."""

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path

from corrkd_jax.errors import InputError
from train.engine.progress import say

LOCK = ".lock"
"""File that is locked, not what says so: a lock ends with its process, a file does not."""

_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class FolderLock:
    """Holds a folder until it is released, or its process ends in whatever way.

    `flock` reaches other machines too where the folder lies on NFS. A child process that is
    started, unlike one that is forked, does not inherit it.
    """

    def __init__(self, folder: Path):
        """Take the lock; the folder, and those above it, are made where they do not exist.

        Args:
            folder: to be written by this process alone.

        Raises:
            InputError: another process has it, or the folder cannot be made or written.
        """
        self._path = folder / LOCK
        # innermost first, as they are removed
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                # not truncated: what stands there is of the process that has it
                self._file = open(self._path, "a+", encoding="utf-8")  # noqa: SIM115
            except FileNotFoundError:
                continue  # its last user removed the folder in between
            except OSError as error:
                raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _TAKEN:
                    self._refuse(folder)
                say(f"{folder}: this file system has no locks; let no other run write there")
            if self._is_current():
                break
            self._file.close()
        with contextlib.suppress(OSError):  # a full disk may still be read
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            self._file.flush()

    def release(self) -> None:
        """Let go of the folder, and remove it if the lock made it and nothing is in it."""
        self._path.unlink(missing_ok=True)  # while it is held
        self._file.close()
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()

    def _refuse(self, folder: Path) -> None:
        self._file.seek(0)
        holder = self._file.readline().strip() or "another process"
        self._file.close()
        raise InputError(
            f"{folder}: {holder} is writing a run there; wait for its end, or choose another "
            "--workdir"
        )

    def _is_current(self) -> bool:
        """Whether the locked file is still the folder's: its last holder may have removed it."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False
