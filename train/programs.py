"""The programs that train: the only list of them, by the name in a run's `config.json`.

A program is a module with a name and three functions. It is imported when it is asked for, so that
nobody loads a simulator to look at a sentiment model.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from corrkd_jax.errors import InputError

PROGRAMS = {
    "msa": "train.sentiment.program",
    "debias": "train.sentiment.debiasing.program",
    "dfkd": "train.datafree.program",
    "quadruped": "train.control.program",
}
"""Name -> module."""
ON_RUNS_AND_FILES = ("evaluate", "export", "convert")
"""Doors that are no programs: of finished runs, and of files."""


class Program(Protocol):
    """What the module of a program holds."""

    NAME: str

    def main(self, argv: Sequence[str]) -> None:
        """Train, from files to report."""
        ...

    def evaluate(self, run: Path, argv: Sequence[str]) -> None:
        """Evaluate a finished run; has a `--help` of its own."""
        ...

    def export(self, run: Path, out: Path, argv: Sequence[str]) -> None:
        """Write what a finished run has learned, for use elsewhere; has a `--help` of its own."""
        ...


def find(name: str) -> Program:
    """The program of a name.

    Raises:
        KeyError: there is none.
    """
    return cast(Program, importlib.import_module(PROGRAMS[name]))


def of_run(run: Path) -> Program:
    """The program that trained a run.

    Raises:
        InputError: the folder is not that of a run, or of one that no program here trained.
    """
    from train.engine.finished import program_of  # brings JAX along
    from train.engine.workdir import CONFIG

    name = program_of(run)
    if name not in PROGRAMS:
        raise InputError(
            f"{run / CONFIG}: was written by no program of this version ({', '.join(PROGRAMS)}); "
            f"it says {name!r}"
        )
    return find(name)
