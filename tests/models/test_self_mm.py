"""Self-MM: MMSA's model and losses as the oracle, padding, pooling, classes, many seeds at once."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.losses.unimodal import init_tables, multitask_l1, update_tables
from corrkd_jax.models import torch_weights
from corrkd_jax.models.self_mm import ORDER, SelfMM, first_frame, mmsa_table
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
SIZES = {
    "audio_state": 4,
    "vision_state": 5,
    "audio_vector": 3,
    "vision_vector": 6,
    "fused_width": 8,
    "text_width": 5,
    "audio_width": 4,
    "vision_width": 7,
}
BRANCHES = {"fusion": 8, "text": 5, "audio": 4, "vision": 7}
MODEL = SelfMM(**SIZES)
BATCH = len(LENGTHS["text"])

forward = jax.jit(MODEL.apply, static_argnames="train")


@pytest.fixture(scope="module")
def variables():
    return random_variables(MODEL, *sample(WIDTHS))


def predictions_of(logits, fused):
    return {"fusion": logits} | {name: fused.parts[f"predicted_{name}"] for name in ORDER}


class TestContract:
    @pytest.mark.parametrize("outputs", [1, 3])
    def test_shapes(self, outputs):
        model = MODEL.clone(outputs=outputs)
        (logits, fused), _ = jax.eval_shape(
            model.init_with_output, jax.random.key(0), *sample(WIDTHS)
        )
        assert logits.shape == (BATCH, outputs)
        assert fused.features.shape == (BATCH, BRANCHES["fusion"])
        assert logits.dtype == fused.features.dtype == jnp.float32
        for name in ORDER:
            assert fused.parts[name].shape == (BATCH, BRANCHES[name])
            assert fused.parts[f"predicted_{name}"].shape == (BATCH, outputs)

    def test_text_encoder_is_in_embed_alone(self):
        class Doubled(nn.Module):
            @nn.compact
            def __call__(self, text, train):
                return 2 * text

        inputs, _ = sample(WIDTHS)
        embedded = MODEL.clone(text_encoder=Doubled()).apply({}, inputs, method="embed")
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

    def test_first_frame(self):
        x = np.arange(12.0).reshape(2, 3, 2)
        valid = np.array([[False, True, True], [False, False, False]])
        np.testing.assert_array_equal(first_frame(x, valid), [[2, 3], [0, 0]])


def test_dropout_depends_on_its_key_alone(variables):
    def trained(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return forward(variables, *sample(WIDTHS), train=True, rngs=rngs)[1].parts["text"]

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


@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "unaligned"])
def test_equals_mmsas_outputs_losses_labels_and_gradients(aligned):
    torch = pytest.importorskip("torch")
    # aligned, MMSA reads as many frames of everything as there are of text
    lengths = dict.fromkeys(LENGTHS, LENGTHS["text"]) if aligned else LENGTHS
    inputs, valid = sample(WIDTHS, lengths)
    args = SimpleNamespace(
        need_data_aligned=aligned,
        use_finetune=True,
        transformers="bert",
        pretrained="",
        feature_dims=[WIDTHS["text"], WIDTHS["audio"], WIDTHS["vision"]],
        text_out=WIDTHS["text"],
        a_lstm_hidden_size=SIZES["audio_state"],
        v_lstm_hidden_size=SIZES["vision_state"],
        audio_out=SIZES["audio_vector"],
        video_out=SIZES["vision_vector"],
        post_fusion_dim=BRANCHES["fusion"],
        post_text_dim=BRANCHES["text"],
        post_audio_dim=BRANCHES["audio"],
        post_video_dim=BRANCHES["vision"],
        train_mode="regression",
        dataset_name="mosi",
        device="cpu",
        train_samples=BATCH,
        excludeZero=True,
        H=3.0,
        **{f"{m}_lstm_layers": 1 for m in "av"},
        **{f"{m}_lstm_dropout": 0.0 for m in "av"},
        **{f"post_{m}_dropout": 0.1 for m in ("fusion", "text", "audio", "video")},
    )
    oracle = build_oracle(mmsa.load("models.multiTask.SELF_MM"), "SELF_MM", args)
    trainer = load_trainer("multiTask.SELF_MM").SELF_MM(args)
    sequences = [(torch.tensor(inputs[m]), torch.tensor(lengths[m])) for m in ("audio", "vision")]
    theirs = oracle(text_of(oracle, inputs["text"], valid["text"]), *sequences)

    # one epoch on other features, so that labels of modalities differ from the multimodal one
    scores = np.array([2.0, -1.5, 0.5, -3], np.float32)
    rng = np.random.default_rng(0)
    rows = np.arange(BATCH)
    before = {m: rng.normal(size=(BATCH, w)).astype(np.float32) for m, w in BRANCHES.items()}
    trainer.init_labels(torch.tensor(rows), torch.tensor(scores))
    trainer.update_features(*map(torch.tensor, before.values()), torch.tensor(rows))
    trainer.update_centers()
    features = [theirs[f"Feature_{m}"].detach() for m in "ftav"]
    trainer.update_labels(*features, 2, torch.tensor(rows), theirs)
    names = {"fusion": "M", "text": "T", "audio": "A", "vision": "V"}
    expected = sum(
        trainer.weighted_loss(theirs[short], trainer.label_map[name], torch.tensor(rows), name)
        for name, short in names.items()
    )
    expected.backward()

    model = MODEL.clone(text_pool="first")
    like = jax.eval_shape(model.init, jax.random.key(0), inputs, valid)
    table = mmsa_table()
    variables = torch_weights.to_flax(state_of(oracle), table, like, "oracle")
    tables = update_tables(init_tables(scores, BRANCHES), rows, before, 1)

    def objective(variables):
        logits, fused = model.apply(variables, inputs, valid)
        features = {"fusion": fused.features} | {name: fused.parts[name] for name in ORDER}
        labels = update_tables(tables, rows, features, 2).labels
        loss = multitask_l1(predictions_of(logits, fused), labels)
        return loss, (predictions_of(logits, fused), features, labels)

    (loss, (predictions, ours, labels)), gradients = jax.jit(
        jax.value_and_grad(objective, has_aux=True)
    )(variables)
    for name, short in names.items():
        np.testing.assert_allclose(predictions[name], theirs[short].detach(), atol=1e-5)
        feature = theirs[f"Feature_{'f' if name == 'fusion' else name[0]}"].detach()
        np.testing.assert_allclose(ours[name], feature, atol=1e-5)
        np.testing.assert_allclose(labels[name], trainer.label_map[name], atol=1e-4)
        assert (np.abs(labels[name] - scores).max() > 0.1) == (name != "fusion")
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)

    def agree(ours, theirs):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1, np.abs(theirs).max()))

    wanted = torch_weights.to_flax(gradients_of(oracle), table, like, "gradients")
    assert all(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(wanted))
    jax.tree.map(agree, gradients, wanted)
