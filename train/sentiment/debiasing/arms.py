"""The rows of a de-biasing table, as arms of one program."""

from typing import Any, NamedTuple

from configs.debias import DebiasConfig
from corrkd_jax.models.deconfounded import Mixture

TITLES = {
    "pooled": "Pooled",
    "tfn": "TFN",
    "lmf": "LMF",
    "mult": "MulT",
    "misa": "MISA",
    "self_mm": "Self-MM",
    "mag": "MAG",
    "mmim": "MMIM",
    "corrkd": "CorrKD's network",
}
"""What the row of a base model without de-biasing is called."""

OWN = "SuCI, own_subject"
DOT = "SuCI, dot"
RANDOM = "SuCI, dot, random dictionary"


class Hyper(NamedTuple):
    """What may differ from arm to arm; traced scalars.

    Attributes:
        learning_rate: of AdamW.
        mixture: of weightings; zeros for the base model under the same head.
        random: 1 puts noise of the dictionary's mean and spread in its place (control).
        flat: 1 puts equal shares in the prior's place (ablation).
    """

    learning_rate: Any
    mixture: Mixture = Mixture()
    random: Any = 0.0
    flat: Any = 0.0


def arms(config: DebiasConfig, strata: int) -> dict[str, Hyper]:
    """Rows of the table: the base model and, for an intervention, its forms and controls.

    Args:
        config: of the run.
        strata: size of the dictionary.
    """
    base = Hyper(config.optimizer.learning_rate)
    rows = {TITLES[config.model]: base}
    if config.debias == "suci":

        def form(**weights: float) -> Hyper:
            return base._replace(mixture=Mixture(**weights))

        rows |= {
            DOT: form(dot=1.0),
            RANDOM: form(dot=1.0)._replace(random=1.0),
            OWN: form(own_subject=1.0),
        }
        if config.ablate:
            rows |= {
                "SuCI, additive": form(additive=1.0),
                "SuCI, no attention": form(uniform=1.0),
                "SuCI, dot, flat prior": form(dot=1.0)._replace(flat=1.0),
                f"SuCI, dot x {strata}": form(dot=float(strata)),
                "SuCI, own_subject, flat prior": form(own_subject=1.0)._replace(flat=1.0),
            }
    return rows
