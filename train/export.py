"""`python -m train.export RUN OUT [options]`: what a finished run has learned, for use elsewhere.

Networks become one function of raw input as serialized StableHLO (for `jax.export.deserialize`;
CPU, CUDA and TPU; any batch size), a robot's policy a controller in NumPy alone. The run's own
program has the options: `python -m train.export RUN OUT --help` shows them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from train import programs
from train.engine import cli


def main(argv: Sequence[str]) -> None:
    """Export a finished run by the program that trained it."""
    question = "which run, and where to? python -m train.export RUN OUT"
    (run, out), options = cli.leading(argv, 2, question, __doc__ or "")
    programs.of_run(Path(run)).export(Path(run), Path(out), options)


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
