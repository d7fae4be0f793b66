"""`python -m train.convert FILE OUT [options]`: a file of others, checked and written plainly.

* Weights of an image classifier become Flax variables, or torch's names again.
* A feature file of sentiment becomes an .npz of plain arrays, cleaned.

The kind is told by the names of the files; `python -m train.convert FILE OUT --help` shows its
options.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from train.engine import cli


def main(argv: Sequence[str]) -> None:
    """Convert one file."""
    question = "which file, and where to? python -m train.convert FILE OUT"
    (source, target), options = cli.leading(argv, 2, question, __doc__ or "")
    # within the guard, as everything that brings libraries along
    from train.images import convert as weights
    from train.sentiment import convert as features

    kind = weights if weights.takes(Path(source), Path(target), options) else features
    kind.convert(Path(source), Path(target), options)


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
