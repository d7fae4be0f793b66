"""Where the project's packages are, whatever else has their names."""

import importlib.machinery
import importlib.util
from pathlib import Path

NAMES = ("corrkd_jax", "train", "configs", "envs")
"""Packages of the project, side by side; the names of some are common."""


class Finder:
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
