"""The rows of a data-free distillation's table, as arms of one program."""

from typing import Any, NamedTuple

from configs.dfkd import DfkdConfig


class Hyper(NamedTuple):
    """What may differ from arm to arm; traced scalars.

    Attributes:
        strength: factor on the expected confounder; 0 is the host alone.
        train_confounder: 1 trains W_z, 0 leaves it where it starts.
        random: 1 puts noise of the dictionary's mean and spread in its place (control).
        flat: 1 puts equal shares in the prior's place (control).
        skew: share of the last class over that of the first among the classes drawn.
    """

    strength: Any = 0.0
    train_confounder: Any = 0.0
    random: Any = 0.0
    flat: Any = 0.0
    skew: Any = 1.0


class Arm(NamedTuple):
    """One row of the table."""

    name: str
    hyper: Hyper


BALANCED, ALONE, KDCI, TRAINED = "host, balanced", "host", "KDCI", "KDCI, trained W_z"
RANDOM, FLAT, SCALED = "random dictionary", "uniform prior", "prior times its size"


def arms(config: DfkdConfig, prototypes: int) -> list[Arm]:
    """The rows that a configuration asks for; without `--ablate`, the host with and without KDCI.

    Args:
        config: of the run.
        prototypes: size of the dictionary.
    """
    scale = float(prototypes) if config.compensation.prior_scale == "count" else 1.0
    skew = config.skew
    own = Hyper(scale, float(config.compensation.train_confounder), skew=skew)
    every = [Arm(ALONE, Hyper(skew=skew)), Arm(KDCI, own)]
    if config.ablate and skew != 1.0:
        every.insert(0, Arm(BALANCED, Hyper()))
    if config.ablate:
        every += [
            Arm(TRAINED, own._replace(train_confounder=1.0)),
            Arm(RANDOM, own._replace(random=1.0)),
            Arm(FLAT, own._replace(flat=1.0)),
            Arm(SCALED, own._replace(strength=float(prototypes))),
        ]
    if not config.kdci:
        every = [arm for arm in every if not arm.hyper.strength]
    return [arm for arm in every if not config.arms or arm.name in config.arms]
