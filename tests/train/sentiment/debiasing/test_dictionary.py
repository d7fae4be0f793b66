"""Confounders of SuCI."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from configs.debias import DebiasConfig, DebiasOptimizerConfig, SuciConfig
from tests.train.sentiment.debiasing.stages import TASK, started
from train.sentiment.debiasing.arms import arms
from train.sentiment.debiasing.basemodel import BaseStage
from train.sentiment.debiasing.models import build_model


def test_dictionary_of_every_arm():
    """Means and shares of training's subjects; noise or equal shares for arms of that name."""
    config = DebiasConfig(model="pooled", debias="suci", small=True)
    stage = BaseStage(config, "mosi", TASK, build_model(config, TASK), 2, 1, None)
    batch = started("pooled", DebiasOptimizerConfig())[2] | {"subject": np.array([0, 0, 0, 1])}
    plain = jax.tree.map(np.float32, arms(config, 2)["Pooled"])
    state = stage.init(jax.random.key(0), batch, plain, {})
    batch = jax.tree.map(jnp.asarray, batch)
    data = {"train": batch, "valid": jax.tree.map(jnp.zeros_like, batch)}
    refresh = jax.jit(lambda hyper: stage.refresh(state._replace(hyper=hyper), data, None, {}, 0))
    found = {
        name: refresh(plain._replace(**{n: np.float32(n == name) for n in ("random", "flat")}))
        for name in ("none", "random", "flat")
    }
    means = np.concatenate(
        [batch["inputs"][m].mean(1) for m in ("audio", "text", "vision")], axis=1
    )
    real = np.stack([means[:3].mean(0), means[3]])
    for name in ("none", "flat"):
        np.testing.assert_allclose(found[name].dictionary.confounders, real, rtol=1e-5, atol=1e-6)
    assert np.abs(found["random"].dictionary.confounders - real).min() > 1e-5
    for name, prior in (("none", [0.75, 0.25]), ("random", [0.75, 0.25]), ("flat", [0.5, 0.5])):
        np.testing.assert_allclose(found[name].dictionary.prior, prior)

    fused = dataclasses.replace(config, suci=SuciConfig(dictionary="fused"))
    stage = dataclasses.replace(stage, config=fused)
    state = stage.refresh(stage.init(jax.random.key(0), batch, plain, {}), data, None, {}, 0)
    features = stage.model.apply(
        state.variables, batch["inputs"], batch["valid"], method="fuse"
    ).features
    real = np.stack([features[:3].mean(0), features[3]])
    np.testing.assert_allclose(state.dictionary.confounders, real, rtol=1e-5, atol=1e-6)
