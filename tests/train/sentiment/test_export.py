"""Which network of a distillation is exported; every network is a mark."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from configs.msa import MsaConfig
from train.engine.finished import Finished
from train.sentiment import corrkd, export
from train.sentiment.task import Task


@pytest.mark.parametrize(("seed", "number"), [(0, 0), (7, 0), (8, 1), (9, 2)])
def test_the_network_of_the_seed_is_exported(monkeypatch, seed, number):
    config = MsaConfig(seeds=3, first_seed=7)
    marks = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    models = {corrkd.METHOD: {"mark": marks}, corrkd.BASELINE: {"mark": -marks}}
    run = SimpleNamespace(
        config=config,
        one=Finished("x", config, models).one,
        task=Task("binary", 2, ("sentiment",)),
        scaler=None,
        shapes=dict.fromkeys(("text", "audio", "vision"), (4, 2)),
        preset="x",
    )

    def apply(variables, inputs, present, train):
        return SimpleNamespace(logits=variables["params"]["mark"])

    network = SimpleNamespace(apply=apply)
    monkeypatch.setattr(corrkd, "build_network", lambda *_: network)
    features = {name: jnp.zeros((1, 4, 2)) for name in run.shapes}
    frames = {name: jnp.ones((1, 4), bool) for name in run.shapes}
    for arm, sign in (("", 1), (corrkd.BASELINE, -1)):
        found = export.exportable(run, arm, seed)
        assert found.metadata["seed"] == 7 + number
        odds = np.exp(sign * marks[number])
        answer = found.function(features, frames, frames)
        np.testing.assert_allclose(answer, odds / odds.sum(), rtol=1e-6)
