"""The robots that there are: the only place where a configuration's `robot` is looked at."""

from configs.quadruped import QuadrupedConfig
from train.control.robot import Kind, Robot
from train.control.solo8 import Solo8
from train.control.surrogate import Surrogate


def kind_of(config: QuadrupedConfig) -> Kind:
    """The kind of robot that a configuration names."""
    return Surrogate() if config.robot == "surrogate" else Solo8()


def build(config: QuadrupedConfig) -> Robot:
    """The robot of a configuration.

    Raises:
        InputError: an unknown leg, or an onset or takeover beyond the episode.
    """
    return kind_of(config).build(config)
