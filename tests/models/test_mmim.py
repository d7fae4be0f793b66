"""MMIM: MMSA's model and losses as the oracle, padding, text encoders, many seeds at once."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax import losses
from corrkd_jax.models import torch_weights
from corrkd_jax.models.mmim import MMIM, ORDER, SENSES, mmsa_table
from tests.models import fusion, mmsa
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
SIZES = {
    "audio_state": 3,
    "vision_state": 5,
    "audio_vector": 8,
    "vision_vector": 9,
    "fused_width": 7,
}
VECTORS = {"text": 6, "audio": 8, "vision": 9}
MODEL = MMIM(**SIZES)
BATCH = len(LENGTHS["text"])

forward = jax.jit(MODEL.apply, static_argnames="train")


@pytest.fixture(scope="module")
def variables():
    return random_variables(MODEL, *sample(WIDTHS))


class TestContract:
    @pytest.mark.parametrize("outputs", [1, 3])
    def test_shapes(self, outputs):
        model = MODEL.clone(outputs=outputs)
        (logits, fused), _ = jax.eval_shape(
            model.init_with_output, jax.random.key(0), *sample(WIDTHS)
        )
        assert logits.shape == (BATCH, outputs)
        assert fused.features.shape == (BATCH, 7)
        assert logits.dtype == fused.features.dtype == jnp.float32
        for name, width in VECTORS.items():
            assert fused.parts[name].shape == fused.parts[f"predicted_{name}"].shape
            assert fused.parts[name].shape == (BATCH, width)
        for name in SENSES:
            for what in ("mean", "log_variance"):
                assert fused.parts[f"{what}_{name}"].shape == (BATCH, VECTORS[name])
            assert fused.parts[f"projected_{name}"].shape == (BATCH, 2)

    def test_text_encoder_is_in_embed_alone(self):
        inputs, _ = sample(WIDTHS)
        model = MODEL.clone(text_encoder=fusion.Doubled())
        embedded = model.apply({}, inputs, method="embed")
        np.testing.assert_array_equal(embedded["text"], 2 * inputs["text"])
        np.testing.assert_array_equal(embedded["audio"], inputs["audio"])

    def test_refuses_an_unknown_pool(self):
        with pytest.raises(ValueError, match="text_pool"):
            jax.eval_shape(MODEL.clone(text_pool="last").init, jax.random.key(0), *sample(WIDTHS))


class TestPadding:
    @pytest.mark.parametrize("garbage", [1e9, np.nan])
    @pytest.mark.parametrize("pool", ["mean", "first"])
    def test_may_hold_anything_wherever_it_stands(self, variables, pool, garbage):
        apply = jax.jit(MODEL.clone(text_pool=pool).apply)
        inputs, valid = sample(WIDTHS)
        logits, fused = apply(variables, inputs, valid)
        again = apply(variables, *padded_in_front(inputs, valid, garbage=garbage))
        np.testing.assert_allclose(again[0], logits, atol=1e-5)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), again[1], fused)


def test_projection_for_the_entropy_is_constant_and_what_it_reads_is_not(variables):
    inputs, valid = sample(WIDTHS)

    def total(variables):
        return sum(MODEL.apply(variables, inputs, valid)[1].parts["projected_audio"].sum(0))

    found = jax.jit(jax.grad(total))(variables)["params"]
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(found["bound_audio"][name], 0)
    assert np.abs(found["sequence_audio"]["out"]["kernel"]).max() > 1e-3


def test_dropout_depends_on_its_key_alone(variables):
    def trained(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return forward(variables, *sample(WIDTHS), train=True, rngs=rngs)[0]

    np.testing.assert_array_equal(trained(0), trained(0))
    assert max(np.abs(trained(0) - trained(seed)).max() for seed in range(1, 4)) > 1e-2


def test_parameters_of_many_seeds_at_once_equal_one_after_another():
    fusion.assert_seeds_are_separate(MODEL, *sample(WIDTHS))


@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "unaligned"])
def test_equals_mmsas_outputs_losses_and_gradients(aligned):
    """All terms of the second stage of MMSA's training, with the batch before in the memory."""
    torch = pytest.importorskip("torch")
    rows = 12
    lengths = {name: np.tile(x, 3) for name, x in LENGTHS.items()}
    if aligned:  # MMSA reads as many frames of everything as there are of text
        lengths = dict.fromkeys(LENGTHS, lengths["text"])
    inputs, valid = sample(WIDTHS, lengths)
    args = SimpleNamespace(
        use_bert=True,
        use_finetune=True,
        transformers="bert",
        pretrained="",
        train_mode="regression",
        num_classes=3,
        need_data_aligned=aligned,
        add_va=False,
        feature_dims=[WIDTHS["text"], WIDTHS["audio"], WIDTHS["vision"]],
        d_vh=SIZES["vision_state"],
        d_ah=SIZES["audio_state"],
        d_vout=SIZES["vision_vector"],
        d_aout=SIZES["audio_vector"],
        d_prjh=SIZES["fused_width"],
        n_layer=1,
        cpc_layers=1,
        bidirectional=True,
        dropout_a=0.1,
        dropout_v=0.1,
        dropout_prj=0.1,
        mmilb_mid_activation="ReLU",
        mmilb_last_activation="Tanh",
        cpc_activation="Tanh",
    )
    oracle = build_oracle(mmsa.load("models.singleTask.MMIM"), "MMIM", args)
    scores = np.linspace(-3, 3, rows, dtype=np.float32)
    scores[4] = 0
    rng = np.random.default_rng(3)
    before = {name: rng.normal(size=(rows, 2)).astype(np.float32) for name in SENSES}
    signs = np.sign(rng.normal(size=rows)).astype(np.float32)
    memory = {
        f"t{name[0]}": {
            "pos": [torch.tensor(x[signs > 0])],
            "neg": [torch.tensor(x[signs < 0])],
        }
        for name, x in before.items()
    }
    sequences = [(torch.tensor(inputs[m]), torch.tensor(lengths[m])) for m in ("audio", "vision")]
    text = text_of(oracle, inputs["text"], valid["text"])
    labels = torch.tensor(scores)[:, None]
    theirs = oracle(text, *sequences, y=labels, mem=memory)
    task = torch.nn.functional.l1_loss(theirs["M"], labels)
    (task + 0.1 * theirs["nce"] - 0.2 * theirs["lld"] - 0.3 * theirs["H"]).backward()

    model = MODEL.clone(text_pool="first")
    like = jax.eval_shape(model.init, jax.random.key(0), inputs, valid)
    table = mmsa_table()
    variables = torch_weights.to_flax(state_of(oracle), table, like, "oracle")

    def objective(variables):
        ours, fused = model.apply(variables, inputs, valid)
        parts = fused.parts
        contrast = sum(
            losses.predictive_contrast(parts[name], parts[f"predicted_{name}"]) for name in ORDER
        )
        likelihood = sum(
            losses.gaussian_likelihood(
                parts[f"mean_{name}"], parts[f"log_variance_{name}"], parts[name]
            )
            for name in SENSES
        )
        entropy = sum(
            losses.class_entropy(parts[f"projected_{name}"], np.sign(scores), before[name], signs)
            for name in SENSES
        )
        total = jnp.mean(jnp.abs(ours[:, 0] - scores))
        total += 0.1 * contrast - 0.2 * likelihood - 0.3 * entropy
        return total, (ours, fused, contrast, likelihood, entropy)

    gradients, found = jax.jit(jax.grad(objective, has_aux=True))(variables)
    ours, fused, *terms = found
    np.testing.assert_allclose(ours, theirs["M"].detach(), atol=1e-5)
    for name in (*ORDER, "fused"):
        feature = theirs[f"Feature_{name[0]}"].detach()
        mine = fused.features if name == "fused" else fused.parts[name]
        np.testing.assert_allclose(mine, feature, atol=1e-5)
    expected = [theirs[name].item() for name in ("nce", "lld", "H")]
    np.testing.assert_allclose(terms, expected, rtol=1e-4)
    wanted = torch_weights.to_flax(gradients_of(oracle), table, like, "gradients")
    for name in SENSES:
        # MMSA's first stage alone would train these, and its loss does not read them
        wanted["params"][f"bound_{name}"]["kernel"][:] = 0
        wanted["params"][f"bound_{name}"]["bias"][:] = 0
    assert sum(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(wanted)) >= 40

    def agree(ours, theirs):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1, np.abs(theirs).max()))

    jax.tree.map(agree, gradients, wanted)
