"""TFN: closed forms of the tensor, MMSA's model as the oracle, padding, shards, many seeds."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.models import torch_weights
from corrkd_jax.models.tfn import TFN, mmsa_table, outer
from tests.models import mmsa
from tests.models.fusion import (
    Doubled,
    assert_equals_mmsa,
    assert_seeds_are_separate,
    random_variables,
    randomize,
)
from tests.models.sequences import LENGTHS, TIME, padded_in_front, sample, state_of

WIDTHS = {"text": 6, "audio": 2, "vision": 3}
BATCH = len(LENGTHS["text"])
MODEL = TFN(audio_hidden=4, vision_hidden=5, text_hidden=8, text_out=3, fused_width=7)
DRY = MODEL.clone(audio_dropout=0.0, vision_dropout=0.0, tensor_dropout=0.0)
FULL = {name: np.full(BATCH, time) for name, time in TIME.items()}

forward = jax.jit(MODEL.apply)
train = jax.jit(lambda *x, **rngs: MODEL.apply(*x, train=True, mutable="batch_stats", **rngs))
train_dry = jax.jit(lambda *x: DRY.apply(*x, train=True, mutable="batch_stats"))


@pytest.fixture(scope="module")
def variables():
    return random_variables(MODEL, *sample(WIDTHS))


def build_oracle(mode):
    args = SimpleNamespace(
        feature_dims=list(WIDTHS.values()),
        hidden_dims=[8, 4, 5],
        text_out=3,
        post_fusion_dim=7,
        dropouts=[0.0] * 4,
        num_classes=3,
        train_mode=mode,
    )
    model = mmsa.load("models.singleTask.TFN").TFN(args)
    randomize(model)
    return model


def run_oracle(model, inputs):
    """It is given audio and vision averaged over time."""
    torch = pytest.importorskip("torch")
    text, *others = (torch.tensor(inputs[name]) for name in WIDTHS)
    return model(text, *(x.mean(dim=1, keepdim=True) for x in others))


class TestOuter:
    def test_of_zeros_is_one_at_the_first_place(self):
        tensor = outer(*(jnp.zeros((2, width)) for width in (4, 5, 3)))
        np.testing.assert_array_equal(tensor, np.eye(1, 5 * 6 * 4).repeat(2, axis=0))

    def test_first_is_outermost(self):
        a, b, c = (np.random.default_rng(i).normal(size=(2, i)) for i in (2, 3, 4))
        ones = [np.concatenate([np.ones((2, 1)), x], axis=1) for x in (a, b, c)]
        expected = np.einsum("ni,nj,nk->nijk", *ones).reshape(2, -1)
        np.testing.assert_allclose(outer(*map(jnp.asarray, (a, b, c))), expected, rtol=1e-5)


class TestContract:
    def test_shapes(self, variables):
        logits, fused = forward(variables, *sample(WIDTHS))
        assert variables["params"]["fused_1"]["kernel"].shape == (5 * 6 * 4, 7)
        assert logits.shape == (BATCH, 1)
        assert fused.features.shape == (BATCH, 7)
        assert logits.dtype == fused.features.dtype == jnp.float32
        parts = {name: x.shape for name, x in fused.parts.items()}
        assert parts == {"text": (BATCH, 3), "audio": (BATCH, 4), "vision": (BATCH, 5)}

    def test_head_reads_the_features(self, variables):
        logits, fused = forward(variables, *sample(WIDTHS))
        alone = MODEL.apply(variables, fused.features, method="head")
        np.testing.assert_allclose(alone, logits, atol=1e-6)
        far = MODEL.apply(variables, 1e6 * fused.features, method="head")
        np.testing.assert_array_equal(np.abs(far), 3)

    def test_text_encoder_is_in_embed_alone(self, variables):
        inputs, valid = sample(WIDTHS)
        model = MODEL.clone(text_encoder=Doubled())
        assert model.apply({}, inputs, method="embed")["audio"] is inputs["audio"]
        logits, _ = jax.jit(model.apply)(variables, inputs, valid)
        doubled = {**inputs, "text": 2 * inputs["text"]}
        np.testing.assert_allclose(logits, forward(variables, doubled, valid)[0], atol=1e-6)


@pytest.mark.parametrize("garbage", [1e9, np.nan])
def test_padding_may_hold_anything_wherever_it_stands(variables, garbage):
    inputs, valid = sample(WIDTHS)
    out = forward(variables, inputs, valid)
    again = forward(variables, *padded_in_front(inputs, valid, garbage=garbage))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), again, out)


def test_dropout_depends_on_its_key_alone(variables):
    one, same, other = (
        train(variables, *sample(WIDTHS), rngs={"dropout": jax.random.key(seed)})[0][1].features
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_statistics_are_of_all_shards(variables):
    batch = sample(WIDTHS)
    (logits, _), expected = train_dry(variables, *batch)
    sharded = jax.tree.map(lambda x: x.reshape(2, BATCH // 2, *x.shape[1:]), batch)

    def step(*batch):
        model = DRY.clone(axis_name="data")
        return model.apply(variables, *batch, train=True, mutable="batch_stats")

    (parts, _), statistics = jax.jit(jax.vmap(step, axis_name="data"))(*sharded)
    np.testing.assert_allclose(parts.reshape(BATCH, 1), logits, atol=1e-5)
    for shard in range(2):
        own = jax.tree.map(lambda x, i=shard: x[i], statistics)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), own, expected)


def test_seeds_are_separate():
    assert_seeds_are_separate(MODEL, *sample(WIDTHS))


class TestMMSA:
    @pytest.mark.parametrize("mode", ["regression", "classification"])
    def test_outputs_and_gradients(self, mode):
        model = MODEL.clone(outputs=1 if mode == "regression" else 3)
        batch = sample(WIDTHS, FULL)
        assert_equals_mmsa(build_oracle(mode).eval(), run_oracle, model, mmsa_table(), batch)

    def test_batch_statistics(self):
        theirs, batch = build_oracle("regression").train(), sample(WIDTHS, FULL)
        like = jax.eval_shape(DRY.init, jax.random.key(0), *batch)
        before = torch_weights.to_flax(state_of(theirs), mmsa_table(), like, "MMSA")
        (logits, _), after = train_dry(before, *batch)
        expected = run_oracle(theirs, batch[0])["M"].detach()
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        theirs = torch_weights.to_flax(state_of(theirs), mmsa_table(), like, "MMSA")
        for name in ("audio", "vision"):
            was, ours, wanted = (
                tree["batch_stats"][name]["norm"] for tree in (before, after, theirs)
            )
            assert np.abs(wanted["mean"] - was["mean"]).max() > 1e-2
            np.testing.assert_allclose(ours["mean"], wanted["mean"], atol=1e-6)
            # torch's variance is the unbiased one
            new = (wanted["var"] - 0.9 * was["var"]) * (BATCH - 1) / BATCH
            np.testing.assert_allclose(ours["var"], 0.9 * was["var"] + new, atol=1e-6)
