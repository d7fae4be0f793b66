"""Atomic writes: a file is there whole or not at all."""

import contextlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from corrkd_jax.errors import InputError


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is there whole or not at all; an older one stays until then.

    Args:
        path: the file.
        write: receives the open binary file; its result is ignored.

    Raises:
        InputError: the system refuses (no such folder, no permission, no space); the older file, if
            any, is intact and nothing is left behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{path}: cannot be written: {reason}; check folder, rights and space"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_pickle(folder: str | Path, name: str, content: object) -> Path:
    """Write a pickle of protocol 4 atomically; the folder is made if absent.

    Args:
        folder: where to write.
        name: file name in the folder.
        content: any object that can be pickled.

    Returns:
        Path of the file.

    Raises:
        InputError: the folder or the file cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror or error}") from error
    write_atomically(folder / name, lambda file: pickle.dump(content, file, 4))
    return folder / name
