"""`python -m train.evaluate RUN [options]`: tables and predictions of a finished run.

The run's own program evaluates it, and has the options:
`python -m train.evaluate RUN --help` shows them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from train import programs
from train.engine import cli


def main(argv: Sequence[str]) -> None:
    """Evaluate a finished run by the program that trained it."""
    question = "which run? python -m train.evaluate RUN"
    (run,), options = cli.leading(argv, 1, question, __doc__ or "")
    programs.of_run(Path(run)).evaluate(Path(run), options)


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
