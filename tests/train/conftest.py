"""One finished CorrKD run for all tests that look at one; compiling it takes half a minute."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.train.sentiment import tiny
from train.sentiment import program as msa


@dataclass(frozen=True)
class Run:
    """A run's folder, the student's and the teacher's file, and what it printed."""

    folder: Path
    files: tuple[Path, Path]
    output: str


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory) -> tuple[Path, Path]:
    return tiny.files(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def tiny_run(tiny_files, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        msa.main(tiny.arguments(tiny_files, folder))
    return Run(folder, tiny_files, printed.getvalue())
