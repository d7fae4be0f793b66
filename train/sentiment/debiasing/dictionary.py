"""SuCI's dictionary of confounders, from the training split alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from configs.debias import SuciConfig
from corrkd_jax.causal import random_dictionary, subject_dictionary
from corrkd_jax.models.transformer import masked_mean
from train.engine.predict import by_block
from train.engine.stage import Tree
from train.sentiment.debiasing.arms import Hyper
from train.sentiment.debiasing.forward import Dictionary, fused


def empty(
    config: SuciConfig, base: nn.Module, key: Array, inputs: Tree, valid: Tree, strata: int
) -> Dictionary:
    """Zeros of the dictionary's shape.

    Args:
        config: of the method.
        base: the model under the intervention's head.
        key: any.
        inputs: of some rows.
        valid: of the same.
        strata: size of the dictionary.
    """
    if config.dictionary == "features":
        size = sum(x.shape[-1] for x in inputs.values())
    else:

        def features() -> Array:
            variables = base.init(key, inputs, valid)
            return nn.apply(lambda m: m.fuse(m.embed(inputs), valid), base)(variables).features

        size = jax.eval_shape(features).shape[-1]
    return Dictionary(jnp.zeros((strata, size)), jnp.zeros(strata))


def build(
    config: SuciConfig,
    model: nn.Module,
    variables: Tree,
    train: Tree,
    block: int,
    strata: int,
    hyper: Hyper,
) -> Dictionary:
    """Means of the strata and their shares; noise or equal shares for arms of that name.

    Args:
        config: of the method.
        model: whose fused features are taken, unless raw ones are.
        variables: its variables.
        train: the training split.
        block: rows at a time.
        strata: size of the dictionary.
        hyper: of the arm.
    """
    if config.dictionary == "features":
        features = mean_features(train)
    else:
        features = _all_fused(model, variables, train, block)
    confounders, prior = subject_dictionary(features, train["subject"], strata)
    noise = random_dictionary(jax.random.key(0), confounders)
    flat = jnp.full(prior.shape, 1.0 / strata)
    return Dictionary(
        jnp.where(hyper.random > 0, noise, confounders),
        jnp.where(hyper.flat > 0, flat, prior),
    )


def mean_features(rows: Tree) -> Array:
    """Means over the valid frames of all modalities side by side, `[n, features]`."""
    means = [masked_mean(rows["inputs"][m], v) for m, v in sorted(rows["valid"].items())]
    return jnp.concatenate(means, axis=-1)


def _all_fused(model: nn.Module, variables: Tree, rows: Tree, block: int) -> Array:
    """Fused features of a whole split, `[n, width]`, a block at a time."""
    seen = {name: rows[name] for name in ("inputs", "valid")}
    return by_block(lambda batch: fused(model, variables, batch).features, seen, block)
