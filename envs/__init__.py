"""Brax environments; importing this package registers them with Brax."""

from brax.envs import register_environment

from envs.compat import brax_trainers
from envs.solo8 import Solo8

__all__ = ["Solo8", "brax_trainers"]

register_environment("solo8", Solo8)
