"""Rows of the table."""

import dataclasses

from configs.debias import DebiasConfig
from tests.train.sentiment.debiasing.stages import TASK
from train.sentiment.debiasing.arms import OWN, arms
from train.sentiment.debiasing.models import build_model


def test_heads_of_all_arms_are_alike():
    """One parameter tree serves every arm; only the mixture differs."""
    config = DebiasConfig(model="pooled", debias="suci")
    model = build_model(config, TASK)
    assert set(model.weightings) == {"dot", "own_subject"}
    rows = arms(dataclasses.replace(config, ablate=True), 7)
    mixtures = {name: tuple(hyper.mixture) for name, hyper in rows.items()}
    assert mixtures == {
        "Pooled": (0, 0, 0, 0),
        "SuCI, dot": (1, 0, 0, 0),
        "SuCI, dot, random dictionary": (1, 0, 0, 0),
        OWN: (0, 0, 0, 1),
        "SuCI, additive": (0, 1, 0, 0),
        "SuCI, no attention": (0, 0, 1, 0),
        "SuCI, dot, flat prior": (1, 0, 0, 0),
        "SuCI, dot x 7": (7, 0, 0, 0),
        "SuCI, own_subject, flat prior": (0, 0, 0, 1),
    }
    assert {name for name, hyper in rows.items() if hyper.random} == {
        "SuCI, dot, random dictionary"
    }
    assert {name for name, hyper in rows.items() if hyper.flat} == {
        "SuCI, dot, flat prior",
        "SuCI, own_subject, flat prior",
    }
