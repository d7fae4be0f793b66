"""A CorrKD run of seconds on a generated file, its compilation apart."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from corrkd_jax.data import planted

ROOT = Path(__file__).parents[3]
TEACHER_EPOCHS, EPOCHS = 2, 10


def files(folder: Path) -> tuple[Path, Path]:
    """Write the student's and the teacher's file: 64, 32 and 40 rows; 64 for the teacher.

    As in the real ones, some values are not finite.
    """
    paths = folder / "small.pkl", folder / "small_teacher.pkl"
    contents = planted.generate(3, train=64, valid=32, test=40, teacher_train=64, frames=4)
    for split in ("train", "test"):
        contents[0][split]["audio"][0, 0, :2] = -np.inf
        contents[0][split]["vision"][1, 1, 0] = np.nan
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(pickle.dumps(content))
    return paths


def arguments(data: tuple[Path, Path], workdir: Path, **changes: Any) -> list[str]:
    """Options of the run; `changes` are options with dots written as `__` and dashes as `_`."""
    options = {
        "--data.path": data[0],
        "--data.teacher-path": data[1],
        "--data.labels": "classes",
        "--network.features": 8,
        "--network.layers": 1,
        "--network.heads": 2,
        "--optimizer.batch-size": 16,
        "--optimizer.epochs": EPOCHS,
        "--optimizer.teacher-epochs": TEACHER_EPOCHS,
        "--seeds": 1,
        "--devices": 1,
        "--save-every": 0,
        "--workdir": workdir,
    }
    for name, value in changes.items():
        options["--" + name.replace("__", ".").replace("_", "-")] = value
    words = ["mosi"]
    for name, value in options.items():
        words += [name, str(value)]
    return [*words, "--arms", "MRM + CE", "CorrKD"]


def environment(**changes: str) -> dict[str, str]:
    """This process's variables, on CPU."""
    return {**os.environ, "JAX_PLATFORMS": "cpu", **changes}


def start(*words: object, **variables: str) -> subprocess.Popen:
    """`python -m WORDS...` in the project's root, output piped."""
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, words)],
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*words: object, **variables: str) -> None:
    """`python -m WORDS...`, from its start to its end."""
    process = start(*words, **variables)
    _, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]
