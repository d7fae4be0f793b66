"""MISA: MMSA's model and losses as the oracle, padding, text encoders, many seeds at once."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.losses.subspaces import subspace_terms
from corrkd_jax.models import torch_weights
from corrkd_jax.models.misa import MISA, ORDER, mmsa_table
from tests.losses.mmsa import load_trainer
from tests.models import mmsa
from tests.models.sequences import (
    LENGTHS,
    build_oracle,
    gradients_of,
    padded_in_front,
    random_variables,
    sample,
    state_of,
    text_of,
)

WIDTHS = {"text": 6, "audio": 2, "vision": 3}
MODEL = MISA(width=8, feed_forward=16)
BATCH = len(LENGTHS["text"])
SUBSPACES = ("projected", "private", "shared", "reconstructed")

forward = jax.jit(MODEL.apply, static_argnames="train")


@pytest.fixture(scope="module")
def variables():
    return random_variables(MODEL, *sample(WIDTHS))


class TestContract:
    def test_shapes(self, variables):
        logits, fused = forward(variables, *sample(WIDTHS))
        assert logits.shape == (BATCH, 1)
        assert fused.features.shape == (BATCH, 24)
        assert logits.dtype == fused.features.dtype == jnp.float32
        assert {name: fused.parts[name].shape for name in SUBSPACES} == dict.fromkeys(
            SUBSPACES, (BATCH, 3, 8)
        )
        for i, name in enumerate(ORDER):
            own = fused.parts["projected"][:, i]
            np.testing.assert_allclose(fused.parts[name], own, rtol=1e-6, atol=1e-6)

    def test_text_encoder_is_in_embed_alone(self):
        class Doubled(nn.Module):
            @nn.compact
            def __call__(self, text, train):
                return 2 * text

        inputs, _ = sample(WIDTHS)
        embedded = MODEL.clone(text_encoder=Doubled()).apply({}, inputs, method="embed")
        np.testing.assert_array_equal(embedded["text"], 2 * inputs["text"])
        np.testing.assert_array_equal(embedded["audio"], inputs["audio"])


class TestPadding:
    @pytest.mark.parametrize("garbage", [1e9, np.nan])
    def test_may_hold_anything_wherever_it_stands(self, variables, garbage):
        inputs, valid = sample(WIDTHS)
        logits, fused = forward(variables, inputs, valid)
        again = forward(variables, *padded_in_front(inputs, valid, garbage=garbage))
        np.testing.assert_allclose(again[0], logits, atol=1e-5)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), again[1], fused)

    def test_row_without_frames_is_finite(self, variables):
        inputs, valid = sample(WIDTHS)
        logits, _ = forward(variables, inputs, {m: np.zeros_like(x) for m, x in valid.items()})
        assert np.isfinite(logits).all()


def test_dropout_depends_on_its_key_alone(variables):
    def trained(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return forward(variables, *sample(WIDTHS), train=True, rngs=rngs)[0]

    np.testing.assert_array_equal(trained(0), trained(0))
    assert np.abs(trained(0) - trained(1)).max() > 1e-2


def test_parameters_of_many_seeds_at_once_equal_one_after_another():
    inputs, valid = sample(WIDTHS)
    seeds = [random_variables(MODEL, inputs, valid, seed) for seed in (0, 1)]
    variables = jax.tree.map(lambda *x: np.stack(x), *seeds)
    together = jax.jit(jax.vmap(MODEL.apply, (0, None, None)))(variables, inputs, valid)[0]
    assert np.abs(together[0] - together[1]).max() > 1e-2
    for own, logits in zip(seeds, together, strict=True):
        np.testing.assert_allclose(logits, forward(own, inputs, valid)[0], atol=1e-5)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("mode", ["regression", "classification"])
def test_equals_mmsas_outputs_losses_and_gradients(mode):
    torch = pytest.importorskip("torch")
    widths = WIDTHS | {"text": 768}  # MMSA knows no other
    # and it reads as many frames of everything as there are of text
    lengths = dict.fromkeys(LENGTHS, LENGTHS["text"])
    inputs, valid = sample(widths, lengths)
    args = SimpleNamespace(
        use_bert=True,
        use_finetune=True,
        transformers="bert",
        pretrained="",
        feature_dims=[widths["text"], widths["audio"], widths["vision"]],
        num_classes=3,
        train_mode=mode,
        dataset_name="mosi",
        dropout=0.2,
        rnncell="lstm",
        hidden_size=8,
        use_cmd_sim=True,
    )
    oracle = build_oracle(mmsa.load("models.singleTask.MISA"), "MISA", args)
    trainer = load_trainer("singleTask.MISA").MISA(args)
    trainer.model = SimpleNamespace(Model=oracle)
    text = text_of(oracle, inputs["text"], valid["text"])
    logits = oracle(text, torch.tensor(inputs["audio"]), torch.tensor(inputs["vision"]))["M"]
    if mode == "regression":
        labels = np.linspace(-3, 3, BATCH, dtype=np.float32)[:, None]
    else:
        labels = np.arange(BATCH) % 3
    terms = [trainer.get_diff_loss(), trainer.get_cmd_loss(), trainer.get_recon_loss()]
    task = trainer.criterion(logits, torch.tensor(labels))
    (task + sum(terms)).backward()

    def objective(variables):
        ours, fused = model.apply(variables, inputs, valid)
        terms = subspace_terms(**{name: fused.parts[name] for name in SUBSPACES})
        if mode == "regression":
            task = jnp.mean((ours - labels) ** 2)
        else:
            task = -jnp.mean(jax.nn.log_softmax(ours)[np.arange(BATCH), labels])
        return task + sum(terms), (ours, terms)

    model = MISA(outputs=logits.shape[1], width=8, feed_forward=2048)
    like = jax.eval_shape(model.init, jax.random.key(0), inputs, valid)
    table = mmsa_table()
    variables = torch_weights.to_flax(state_of(oracle), table, like, "oracle")
    gradients, (ours, found) = jax.jit(jax.grad(objective, has_aux=True))(variables)
    np.testing.assert_allclose(ours, logits.detach(), atol=1e-5)
    np.testing.assert_allclose(found, [term.item() for term in terms], rtol=1e-5)

    def agree(ours, theirs):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1, np.abs(theirs).max()))

    expected = torch_weights.to_flax(gradients_of(oracle), table, like, "gradients")
    assert all(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(expected))
    jax.tree.map(agree, gradients, expected)
