"""The packages of the project's top are the project's: their names are common ones."""

import importlib.machinery
import importlib.util
from pathlib import Path

from corrkd_jax.errors import InputError
from corrkd_jax.packages import NAMES

_MARK = "corrkd_jax"
"""Stands in the `__init__.py` of each."""


def require_ours() -> None:
    """Refuse a package of one of our names which is another's, before it is imported.

    A folder of that name where a program is started comes before ours, and another distribution
    may have put its own in our place.

    Raises:
        InputError: names the package, where it was found, and what to do.
    """
    for name in NAMES:
        stranger = another(importlib.util.find_spec(name), name)
        if stranger:
            raise InputError(
                f"{stranger}: stands in the way of corrkd_jax's own {name!r}; start with the "
                "command corrkd or in another folder; if it is installed, uninstall what it is "
                "of and install corrkd-jax again"
            )


def another(spec: importlib.machinery.ModuleSpec | None, name: str) -> str:
    """Where Python finds a package that is not ours; empty if it finds ours.

    Args:
        spec: as Python finds it.
        name: of ours.
    """
    ours = Path(__file__).parents[2] / name / "__init__.py"
    if spec is None:
        return str(ours.parent)
    if spec.origin is None:  # a folder without an __init__.py
        return str(next(iter(spec.submodule_search_locations or ()), name))
    same = Path(spec.origin).resolve() == ours.resolve()
    return "" if same and _MARK in ours.read_text(encoding="utf-8") else spec.origin
