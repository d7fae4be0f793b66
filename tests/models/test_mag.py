"""MAG-BERT: MMSA's gate as the oracle, the plugs around it, padding, frames, many seeds at once."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.models import torch_weights
from corrkd_jax.models.mag import MAG, Gate, mmsa_table
from tests.models import fusion, mmsa
from tests.models.sequences import gradients_of, padded_in_front, random_variables, sample, state_of

WIDTHS = {"text": 6, "audio": 2, "vision": 3}
LENGTHS = dict.fromkeys(WIDTHS, np.array([5, 3, 1, 4]))
TIME = dict.fromkeys(WIDTHS, 5)
MODEL = MAG()
BATCH = 4

forward = jax.jit(MODEL.apply, static_argnames="train")


def batch(seed=0):
    return sample(WIDTHS, LENGTHS, TIME, seed)


@pytest.fixture(scope="module")
def variables():
    return random_variables(MODEL, *batch())


class Shifted(nn.Module):
    """Layers after the gate: each word plus the mean of all valid ones."""

    @nn.compact
    def __call__(self, words, valid, train):
        real = valid[..., None]
        return words + jnp.sum(jnp.where(real, words, 0), 1, keepdims=True) / jnp.sum(
            real, 1, keepdims=True
        )


class TestContract:
    @pytest.mark.parametrize(("text_width", "width"), [(0, 6), (4, 4)])
    def test_shapes(self, text_width, width):
        model = MODEL.clone(outputs=3, text_width=text_width)
        (logits, fused), _ = jax.eval_shape(model.init_with_output, jax.random.key(0), *batch())
        assert logits.shape == (BATCH, 3)
        assert fused.features.shape == (BATCH, width)
        assert logits.dtype == fused.features.dtype == jnp.float32

    def test_text_encoder_is_in_embed_alone(self):
        inputs, _ = batch()
        model = MODEL.clone(text_encoder=fusion.Doubled())
        embedded = model.apply({}, inputs, method="embed")
        np.testing.assert_array_equal(embedded["text"], 2 * inputs["text"])
        np.testing.assert_array_equal(embedded["audio"], inputs["audio"])

    def test_layers_read_the_moved_words(self, variables):
        """With an encoder the pool is of what it makes of the gate's words, not of the text."""
        inputs, valid = batch()
        seen = MODEL.clone(encoder=Shifted()).apply(variables, inputs, valid)[1].features

        def moved(module):
            return module.gate(inputs["text"], inputs, valid, False)

        words = nn.apply(moved, MODEL)(variables)
        words = Shifted().apply({}, words, valid["text"], False)
        pooled = np.where(valid["text"][..., None], words, 0).sum(1) / LENGTHS["text"][:, None]
        dense = variables["params"]["pooler"]["dense"]
        expected = np.tanh(pooled @ dense["kernel"] + dense["bias"])
        np.testing.assert_allclose(seen, expected, atol=1e-5)
        assert np.abs(seen - forward(variables, inputs, valid)[1].features).max() > 1e-2

    def test_refuses_an_unknown_pool(self):
        with pytest.raises(ValueError, match="text_pool"):
            jax.eval_shape(MODEL.clone(text_pool="last").init, jax.random.key(0), *batch())


class TestPadding:
    @pytest.mark.parametrize("garbage", [1e9, np.nan])
    @pytest.mark.parametrize("pool", ["mean", "first"])
    def test_may_hold_anything_wherever_it_stands(self, variables, pool, garbage):
        apply = jax.jit(MODEL.clone(text_pool=pool).apply)
        inputs, valid = batch()
        logits, fused = apply(variables, inputs, valid)
        again = apply(variables, *padded_in_front(inputs, valid, garbage=garbage))
        np.testing.assert_allclose(again[0], logits, atol=1e-5)
        np.testing.assert_allclose(again[1].features, fused.features, atol=1e-5)

    def test_silent_frames_move_nothing(self, variables):
        """Where audio and vision are padding, a word is normalised and no more."""
        inputs, valid = batch()
        valid = valid | {name: np.zeros_like(valid[name]) for name in ("audio", "vision")}
        gate = {"params": variables["params"]["gate"]}
        words = Gate().apply(gate, inputs["text"], inputs, valid, False)
        norm = {"params": variables["params"]["gate"]["norm"]}
        expected = nn.LayerNorm(epsilon=1e-5).apply(norm, inputs["text"])
        np.testing.assert_allclose(words, expected, atol=1e-5)


def test_one_frame_holds_for_all_words(variables):
    inputs, valid = batch()
    valid = jax.tree.map(np.ones_like, valid)
    once = {name: x if name == "text" else x[:, :1] for name, x in inputs.items()}
    seen = {name: x if name == "text" else x[:, :1] for name, x in valid.items()}
    repeated = {n: x if n == "text" else np.repeat(x[:, :1], 5, 1) for n, x in inputs.items()}
    np.testing.assert_allclose(
        forward(variables, once, seen)[0], forward(variables, repeated, valid)[0], atol=1e-6
    )


def test_displacement_is_no_longer_than_the_word(variables):
    """`|alpha h| <= shift |z|`; a word of zeros stays where it is, with a finite gradient."""
    inputs, valid = batch()
    inputs["text"][0, 0] = 0
    params = variables["params"]["gate"]
    plain = params | {"norm": {"scale": np.ones(6), "bias": np.zeros(6)}}

    def words(text, shift):
        return Gate(shift).apply({"params": plain}, text, inputs, valid, False)

    gradient = jax.grad(lambda text: jnp.sum(words(text, 0.3) ** 3))(inputs["text"])
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(words(inputs["text"], 0.3)[0, 0], 0, atol=1e-2)
    # without a displacement what comes out is the word itself, normalised
    still = nn.LayerNorm(epsilon=1e-5).apply({"params": plain["norm"]}, inputs["text"])
    np.testing.assert_allclose(words(inputs["text"], 0.0), still, atol=1e-6)
    assert np.abs(words(inputs["text"], 0.3) - still).max() > 1e-2


def test_dropout_depends_on_its_key_alone(variables):
    def trained(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return forward(variables, *batch(), train=True, rngs=rngs)[0]

    np.testing.assert_array_equal(trained(0), trained(0))
    assert np.abs(trained(0) - trained(1)).max() > 1e-2


def test_parameters_of_many_seeds_at_once_equal_one_after_another():
    fusion.assert_seeds_are_separate(MODEL, *batch())


@pytest.mark.parametrize("shift", [1.0, 0.05])
def test_equals_mmsas_gate_pooler_and_gradients(shift):
    """Without BERT's layers: embeddings given, then the gate, the pooler and the classifier."""
    torch = pytest.importorskip("torch")
    module = mmsa.load("models.singleTask.BERT_MAG")
    inputs, valid = batch()
    widths = [WIDTHS["text"], WIDTHS["audio"], WIDTHS["vision"]]
    args = SimpleNamespace(feature_dims=widths, beta_shift=shift, dropout_prob=0.3, device="cpu")

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = torch.nn.Module()
            self.bert.MAG = module.MAG(SimpleNamespace(hidden_size=WIDTHS["text"]), args)
            self.bert.pooler = torch.nn.Module()
            self.bert.pooler.dense = torch.nn.Linear(6, 6)
            self.classifier = torch.nn.Linear(6, 1)

        def forward(self, text, audio, vision):
            words = self.bert.MAG(text, vision, audio)
            # as BertPooler has it
            return self.classifier(torch.tanh(self.bert.pooler.dense(words[:, 0])))

    oracle = Theirs().eval()
    fusion.randomize(oracle)
    scores = oracle(*(torch.tensor(inputs[name]) for name in WIDTHS))
    labels = np.linspace(-3, 3, BATCH, dtype=np.float32)[:, None]
    torch.nn.functional.mse_loss(scores, torch.tensor(labels)).backward()

    model = MAG(text_pool="first", shift=shift)
    like = jax.eval_shape(model.init, jax.random.key(0), inputs, valid)
    variables = torch_weights.to_flax(state_of(oracle), mmsa_table(), like, "oracle")

    def objective(variables):
        ours, _ = model.apply(variables, inputs, valid)
        return jnp.mean((ours - labels) ** 2), ours

    gradients, ours = jax.jit(jax.grad(objective, has_aux=True))(variables)
    np.testing.assert_allclose(ours, scores.detach(), atol=1e-5)
    expected = torch_weights.to_flax(gradients_of(oracle), mmsa_table(), like, "gradients")
    assert all(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(expected))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), gradients, expected
    )
