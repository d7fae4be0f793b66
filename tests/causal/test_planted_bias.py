"""MCIS on its planted task: a small pooled network, biased training, three kinds of test split."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from corrkd_jax import causal
from corrkd_jax.data import planted_bias
from corrkd_jax.data.planted_bias import BIASED, LABEL_BIASED, REVERSED, UNBIASED
from corrkd_jax.metrics import confusion, macro_f1

MODALITIES = ("text", "audio", "vision")
SEEDS = range(5)


def forward(params, text, audio, vision):
    pooled = jnp.mean(text @ params["embed"], axis=-2)
    joint = jnp.concatenate([pooled, audio.mean(-2), vision.mean(-2)], axis=-1)
    hidden = jax.nn.relu(joint @ params["hidden"] + params["hidden_bias"])
    return hidden @ params["out"] + params["out_bias"]


@jax.jit
def train(inputs, labels, seed):
    """12 epochs of AdamW on batches of 50."""
    embed, hidden, out, order = jax.random.split(jax.random.key(seed), 4)
    dense = jax.nn.initializers.lecun_normal()
    params = {
        "embed": jax.random.normal(embed, (len(planted_bias.WORDS), 32)),
        "hidden": dense(hidden, (57, 64)),
        "hidden_bias": jnp.zeros(64),
        "out": dense(out, (64, 2)),
        "out_bias": jnp.zeros(2),
    }
    tx = optax.adamw(3e-3, weight_decay=1e-3)

    def step(carry, rows):
        params, state = carry

        def loss(params):
            logits = forward(params, *(inputs[m][rows] for m in MODALITIES))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    epochs = jax.vmap(lambda key: jax.random.permutation(key, len(labels)))
    batches = epochs(jax.random.split(order, 12)).reshape(-1, 50)
    return jax.lax.scan(step, (params, tx.init(params)), batches)[0][0]


def labels_of(split):
    return split["classification_labels"].astype(int)


def run(seed, bias):
    """Accuracy in % before and after, and the coefficients, for training with a bias."""
    split = partial(planted_bias.generate, seed)
    known = split(bias, 1500, 1)
    params = train({m: known[m] for m in MODALITIES}, labels_of(known), seed)
    always = np.ones((len(known["id"]), planted_bias.FRAMES), bool)
    means = {m: causal.stand_in(known[m], always) for m in MODALITIES}
    label = forward(params, *(means[m] for m in MODALITIES))

    def outputs(split):
        words = causal.replace_tokens(
            split["text"], planted_bias.content(split["raw_text"]), means["text"]
        )
        rest = (jnp.broadcast_to(means[m], split[m].shape) for m in MODALITIES[1:])
        factual = forward(params, *(split[m] for m in MODALITIES))
        return factual, label, forward(params, words, *rest)

    def searched(split):
        score = lambda o: macro_f1(confusion(labels_of(split), o.argmax(-1), 2))  # noqa: E731
        return causal.grid_search(*outputs(split), score).coefficients

    def accuracy(split, coefficients):
        found = causal.purify(*outputs(split), coefficients)
        return 100 * np.mean(found.argmax(-1) == labels_of(split))

    chosen, biased = searched(split(UNBIASED, 500, 2)), searched(split(bias, 500, 3))
    tests = {"unbiased": split(UNBIASED, 2000, 4), "reversed": split(REVERSED, 2000, 5)}
    tests["biased"] = split(bias, 2000, 6)
    return {
        "coefficients": chosen,
        "vanilla": {k: accuracy(t, (0, 0)) for k, t in tests.items()},
        "purified": {k: accuracy(t, chosen) for k, t in tests.items()},
        "context": accuracy(tests["unbiased"], (0, chosen[1])),
        "searched on biased": accuracy(tests["unbiased"], biased),
    }


def gain(runs, test):
    return np.mean([r["purified"][test] - r["vanilla"][test] for r in runs])


@pytest.fixture(scope="module")
def biased():
    return [run(seed, BIASED) for seed in SEEDS]


def test_the_planted_bias_goes(biased):
    assert gain(biased, "unbiased") >= 8
    assert gain(biased, "reversed") >= 25
    both = np.mean([r["purified"]["unbiased"] for r in biased])
    assert both >= np.mean([r["context"] for r in biased]) - 1
    assert 0.5 <= np.mean([r["coefficients"][1] for r in biased]) <= 1.3


def test_it_costs_where_the_bias_holds(biased):
    assert gain(biased, "biased") < -2


def test_a_biased_validation_split_hides_the_bias(biased):
    hidden = [r["searched on biased"] - r["vanilla"]["unbiased"] for r in biased]
    assert np.mean(hidden) < gain(biased, "unbiased") / 2


def test_label_bias_alone():
    assert gain([run(seed, LABEL_BIASED) for seed in SEEDS], "unbiased") >= 3


def test_negative_control():
    assert -1.5 <= gain([run(seed, UNBIASED) for seed in SEEDS], "unbiased") <= 3.5
