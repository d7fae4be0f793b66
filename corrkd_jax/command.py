"""The command `corrkd`: every program, whatever the current folder holds."""

import importlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path

NAMES = ("corrkd_jax", "train", "configs", "envs")
"""Packages of the project; the names of some are common."""


class Ours:
    """Finds the project's packages, before any others of their names are looked for."""

    @staticmethod
    def find_spec(
        name: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Where a package of ours is; None for all others, as `sys.meta_path` has it."""
        if name not in NAMES:
            return None
        folder = Path(__file__).resolve().parents[1] / name
        return importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )


def main() -> None:
    """Run the command line of this process."""
    sys.meta_path.insert(0, Ours)
    # by name: this floor knows none of those above, which this file only opens the door to
    command, cli = map(importlib.import_module, ("train.command", "train.engine.cli"))
    cli.guard(command.main, sys.argv[1:])


if __name__ == "__main__":
    main()
