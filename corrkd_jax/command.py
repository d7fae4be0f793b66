"""The command `corrkd`: every program, whatever the current folder holds.

The one file here that imports from above: only this package has a name that nobody else uses.
"""

import sys

from corrkd_jax.packages import Finder


def main() -> None:
    """Run the command line of this process."""
    sys.meta_path.insert(0, Finder)
    from train import command
    from train.engine import cli

    cli.guard(command.main, sys.argv[1:])


if __name__ == "__main__":
    main()
