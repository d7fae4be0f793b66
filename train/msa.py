"""`python -m train.msa`: distil a student robust to missing modalities.

python -m train.msa                                    planted data, five seeds
python -m train.msa mosi --data.path FILE --workdir runs/mosi
python -m train.msa mosi --data.path FILE --seeds 5 --ablate

With --model or --debias it trains base models and takes bias away; see
train.sentiment.debiasing.program.
"""

import sys
from collections.abc import Sequence

from train import programs
from train.engine import cli


def main(argv: Sequence[str]) -> None:
    """Train, evaluate, report; see train.sentiment.program."""
    programs.find("msa").main(argv)


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
