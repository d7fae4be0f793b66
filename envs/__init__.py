"""Brax environments of corrkd_jax; importing this package registers them with Brax."""

import contextlib
import importlib
import io


def _import_mjx() -> None:
    """Import MJX without its two lines on Warp, another backend, which nothing here uses."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            importlib.import_module("mujoco.mjx")
    finally:
        for line in printed.getvalue().splitlines():
            if not line.startswith(("Failed to import warp:", "Failed to import mujoco_warp:")):
                print(line)


_import_mjx()

from brax.envs import register_environment  # noqa: E402

from envs.compat import brax_trainers  # noqa: E402
from envs.solo8 import Solo8  # noqa: E402

__all__ = ["Solo8", "brax_trainers"]

register_environment("solo8", Solo8)
