"""`python -m train.dfkd`: distil a student without the teacher's data, de-confounded by KDCI.

python -m train.dfkd                                   real digits, skewed substitution data
python -m train.dfkd cifar10 --host fast --data.root DIR --teacher wrn40_2.pth --student wrn16_1
python -m train.dfkd digits --host dfnd                another host on the digits
python -m train.dfkd cifar10 --host dafl --synthesis.joint ...     DAFL's own step and schedule
"""

import sys
from collections.abc import Sequence

from train import programs
from train.engine import cli


def main(argv: Sequence[str]) -> None:
    """Train, evaluate, report; see train.datafree.program."""
    programs.find("dfkd").main(argv)


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
