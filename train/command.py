"""`corrkd COMMAND [options]`: every program by one command.

corrkd msa | debias | dfkd | quadruped [PRESET]   train
corrkd evaluate RUN                               tables and predictions of a finished run
corrkd export RUN OUT                             what it has learned, for use elsewhere
corrkd convert FILE OUT                           a file of others, checked and written plainly

`corrkd COMMAND --help` shows the options. Folders of yours that have a name of ours are not seen.
"""

import importlib
from collections.abc import Sequence

from corrkd_jax.errors import InputError
from train import programs
from train.engine import cli


def main(argv: Sequence[str]) -> None:
    """Hand a command line to its program."""
    words = (*programs.PROGRAMS, *programs.ON_RUNS_AND_FILES)
    question = f"which command? corrkd {' | '.join(words)}"
    (word,), rest = cli.leading(argv, 1, question, __doc__ or "")
    if word not in words:
        raise InputError(f"{word}: no such command; choose from {', '.join(words)}")
    door = word in programs.ON_RUNS_AND_FILES
    (importlib.import_module(f"train.{word}") if door else programs.find(word)).main(rest)
