"""`python -m train.quadruped`: policies for a robot whose joints may fail, and what detects it.

python -m train.quadruped                           the surrogate, three seeds, all arms
python -m train.quadruped solo8 --workdir RUN       the real robot in MJX, for an accelerator
python -m train.quadruped solo8_cpu --workdir RUN   the same with few robots, for two cores
python -m train.quadruped export RUN OUT            policy, detector and switch for a robot
python -m train.quadruped render RUN OUT.gif        a fault striking in the middle of a gait
"""

import sys
from collections.abc import Sequence

from train import programs
from train.engine import cli


def main(argv: Sequence[str]) -> None:
    """Train, evaluate, report; see train.control.program."""
    programs.find("quadruped").main(argv)


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
