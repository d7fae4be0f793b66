"""`python -m train.msa`: distil a student robust to missing modalities.

python -m train.msa                                    planted data, five seeds
python -m train.msa mosi --data.path FILE --workdir runs/mosi
python -m train.msa mosi --data.path FILE --seeds 5 --ablate

With --model or --debias it trains base models and takes bias away; see
train.sentiment.debiasing.program.
"""

import sys

from train.engine import cli
from train.sentiment.program import main

__all__ = ["main"]

if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
