"""The rows of a data-free distillation's table, as arms of one program."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from configs.dfkd import DfkdConfig
from train.engine.finished import choose


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


BALANCED, ALONE, KDCI, TRAINED = "host, balanced", "host", "KDCI", "KDCI, trained W_z"
RANDOM, FLAT, SCALED = "random dictionary", "uniform prior", "prior times its size"


def arms(config: DfkdConfig, prototypes: int) -> dict[str, Hyper]:
    """The rows that a configuration asks for; without `--ablate`, the host with and without KDCI.

    Args:
        config: of the run.
        prototypes: size of the dictionary.

    Raises:
        InputError: `--arms` names a row that this table does not have, or one twice.
    """
    scale = float(prototypes) if config.compensation.prior_scale == "count" else 1.0
    skew = config.skew
    kdci = Hyper(scale, float(config.compensation.train_confounder), skew=skew)
    rows = {ALONE: Hyper(skew=skew), KDCI: kdci}
    if config.ablate and skew != 1.0:
        rows = {BALANCED: Hyper(), **rows}
    if config.ablate:
        rows |= {
            TRAINED: kdci._replace(train_confounder=1.0),
            RANDOM: kdci._replace(random=1.0),
            FLAT: kdci._replace(flat=1.0),
            SCALED: kdci._replace(strength=float(prototypes)),
        }
    if not config.kdci:
        rows = {name: hyper for name, hyper in rows.items() if not hyper.strength}
    return choose(rows, config.arms) if config.arms else rows


def pictured(names: Sequence[str]) -> str:
    """The row whose images are shown: KDCI's, or the host's, or the only one's."""
    return next(name for name in (KDCI, ALONE, *names) if name in names)
