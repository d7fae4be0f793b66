"""Brax environments; importing this package registers them with Brax."""

from brax.envs import register_environment

from envs.solo8 import Solo8

register_environment("solo8", Solo8)
