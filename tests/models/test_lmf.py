"""LMF: TFN's tensor and MMSA's model as oracles, the head of choice, padding, many seeds."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.models.lmf import LMF, LowRankProduct, mmsa_table
from corrkd_jax.models.tfn import outer
from tests.models import mmsa
from tests.models.fusion import (
    Doubled,
    assert_equals_mmsa,
    assert_seeds_are_separate,
    random_variables,
    randomize,
)
from tests.models.sequences import LENGTHS, TIME, padded_in_front, sample

WIDTHS = {"text": 6, "audio": 2, "vision": 3}
BATCH = len(LENGTHS["text"])
MODEL = LMF(fused_width=9, audio_hidden=4, vision_hidden=5, text_hidden=8)
PUBLISHED = MODEL.clone(fused_width=None)

forward = jax.jit(MODEL.apply)


@pytest.fixture(scope="module")
def variables():
    return random_variables(MODEL, *sample(WIDTHS))


class TestLowRankProduct:
    VECTORS = (("audio", 4), ("text", 3), ("vision", 5))

    def test_is_a_contraction_of_the_tensor(self):
        rng = np.random.default_rng(0)

        def normal(*shape):
            return rng.normal(size=shape).astype(np.float32)

        vectors = {name: normal(2, width) for name, width in self.VECTORS}
        params = {f"{name}_factor": normal(3, 1 + width, 6) for name, width in self.VECTORS}
        weight = np.einsum("r,rio,rjo,rko->ijko", mix := normal(3), *params.values())
        params |= {"weights": mix[None], "bias": normal(6)}
        expected = outer(*map(jnp.asarray, vectors.values())) @ weight.reshape(-1, 6)
        out = LowRankProduct(rank=3, width=6).apply({"params": params}, vectors)
        np.testing.assert_allclose(out, expected + params["bias"], rtol=1e-5, atol=1e-5)

    def test_every_rank_starts_as_a_xavier_matrix(self):
        vectors = {name: np.zeros((1, 99), np.float32) for name, _ in self.VECTORS}
        params = LowRankProduct(rank=5, width=60).init(jax.random.key(0), vectors)["params"]
        assert params["text_factor"].shape == (5, 100, 60)
        deviations = params["text_factor"].std(axis=(1, 2))
        np.testing.assert_allclose(deviations, np.sqrt(2 / 160), rtol=0.05)


class TestContract:
    def test_shapes(self, variables):
        logits, fused = forward(variables, *sample(WIDTHS))
        assert logits.shape == (BATCH, 1)
        assert fused.features.shape == (BATCH, 9)
        assert logits.dtype == fused.features.dtype == jnp.float32
        parts = {name: x.shape for name, x in fused.parts.items()}
        assert parts == {"text": (BATCH, 4), "audio": (BATCH, 4), "vision": (BATCH, 5)}

    def test_head_reads_the_features(self, variables):
        logits, fused = forward(variables, *sample(WIDTHS))
        alone = MODEL.apply(variables, fused.features, method="head")
        np.testing.assert_allclose(alone, logits, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("outputs", [1, 3])
    def test_published_form_has_no_head(self, outputs):
        model = PUBLISHED.clone(outputs=outputs)
        variables = random_variables(model, *sample(WIDTHS))
        assert "out" not in variables["params"]
        logits, fused = model.apply(variables, *sample(WIDTHS))
        assert logits.shape == (BATCH, outputs)
        assert logits is fused.features

    def test_text_encoder_is_in_embed_alone(self, variables):
        inputs, valid = sample(WIDTHS)
        model = MODEL.clone(text_encoder=Doubled())
        assert model.apply({}, inputs, method="embed")["audio"] is inputs["audio"]
        logits, _ = jax.jit(model.apply)(variables, inputs, valid)
        doubled = {**inputs, "text": 2 * inputs["text"]}
        np.testing.assert_allclose(logits, forward(variables, doubled, valid)[0], rtol=1e-5)


@pytest.mark.parametrize("garbage", [1e9, np.nan])
def test_padding_may_hold_anything_wherever_it_stands(variables, garbage):
    inputs, valid = sample(WIDTHS)
    out = forward(variables, inputs, valid)
    again = forward(variables, *padded_in_front(inputs, valid, garbage=garbage))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), again, out)


def test_statistics_are_of_all_shards(variables):
    def step(axis_name, *batch):
        model = MODEL.clone(audio_dropout=0.0, vision_dropout=0.0, axis_name=axis_name)
        return model.apply(variables, *batch, train=True, mutable="batch_stats")[0][0]

    batch = sample(WIDTHS)
    sharded = jax.tree.map(lambda x: x.reshape(2, BATCH // 2, *x.shape[1:]), batch)
    parts = jax.jit(jax.vmap(lambda *x: step("data", *x), axis_name="data"))(*sharded)
    logits = jax.jit(lambda *x: step(None, *x))(*batch)
    np.testing.assert_allclose(parts.reshape(BATCH, 1), logits, rtol=1e-5, atol=1e-5)


def test_seeds_are_separate():
    assert_seeds_are_separate(MODEL, *sample(WIDTHS))


@pytest.mark.parametrize("mode", ["regression", "classification"])
def test_equals_mmsas_outputs_and_gradients(mode):
    torch = pytest.importorskip("torch")
    args = SimpleNamespace(
        feature_dims=list(WIDTHS.values()),
        hidden_dims=[8, 4, 5],
        rank=3,
        dropouts=[0.3] * 4,
        num_classes=3,
        train_mode=mode,
    )
    theirs = mmsa.load("models.singleTask.LMF").LMF(args).eval()
    randomize(theirs)

    def run(theirs, inputs):
        # it is given audio and vision averaged over time
        text, *others = (torch.tensor(inputs[name]) for name in WIDTHS)
        return theirs(text, *(x.mean(dim=1, keepdim=True) for x in others))

    model = PUBLISHED.clone(outputs=1 if mode == "regression" else 3)
    full = {name: np.full(BATCH, time) for name, time in TIME.items()}
    assert_equals_mmsa(theirs, run, model, mmsa_table(), sample(WIDTHS, full))
