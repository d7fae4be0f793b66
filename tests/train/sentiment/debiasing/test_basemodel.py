"""The stage of a base model: its step, its rates, the epoch that it keeps."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from configs.debias import DebiasOptimizerConfig
from corrkd_jax import losses
from corrkd_jax.errors import InputError
from corrkd_jax.models.fusion import Fused
from tests.train.sentiment.debiasing.stages import started
from train.sentiment.debiasing.forward import forward


@pytest.mark.parametrize(
    ("preset", "grouped", "factors"),
    [("mosi", True, (5, 5, 1)), ("mosei", True, (5, 0.1, 1)), ("mosi", False, (1, 1, 1))],
)
def test_self_mm_learns_by_groups(preset, grouped, factors):
    """Adam's first step is as long as the rate of its part: MMSA's for audio, vision, the rest."""
    chosen = DebiasOptimizerConfig(learning_rate=1e-3, clip_norm=1e9, grouped=grouped)
    stage, before, batch = started("self_mm", chosen, preset)
    after, _ = jax.jit(stage.step)(before, batch, jax.random.key(1))
    moved = jax.tree.map(
        lambda x, y: np.abs(x - y).max(), before.variables["params"], after.variables["params"]
    )
    for part, factor in zip(("sequence_audio", "sequence_vision", "fusion"), factors, strict=True):
        longest = max(jax.tree.leaves(moved[part]))
        np.testing.assert_allclose(longest, factor * 1e-3, rtol=0.02)


def test_outputs_of_another_shape_are_refused():
    class Wide(nn.Module):
        def embed(self, inputs, train=False):
            return inputs

        def fuse(self, embedded, valid, train=False):
            return Fused(embedded["text"][:, 0], {})

        def head(self, features, train=False):
            return features

    stage, state, batch = started("pooled", DebiasOptimizerConfig())
    with pytest.raises(InputError, match=r"--model pooled: gives outputs of shape \(4, 5\)"):
        dataclasses.replace(stage, model=Wide()).step(state, batch, jax.random.key(0))


@pytest.mark.parametrize("model", ["corrkd", "mag", "pooled"])
def test_training_minimises_the_loss_of_what_inference_gives(model):
    """Without dropout the first loss is that of `forward`, whatever the model's own call gives."""
    stage, state, batch = started(model, DebiasOptimizerConfig(batch_size=4))
    # a row without a label and one of padding count for nothing
    batch |= {"label_weight": np.array([[1.0], [0], [2], [1]]), "row": np.array([1.0, 1, 1, 0])}
    rates = {f.name: 0.0 for f in dataclasses.fields(stage.model) if "dropout" in f.name}
    stage = dataclasses.replace(stage, model=stage.model.clone(**rates))
    _, found = jax.jit(stage.step)(state, batch, jax.random.key(1))
    chosen = stage.select(state)
    outputs = forward(stage.model, chosen, batch["inputs"], batch["valid"])
    assert outputs.shape == (4, 2)
    expected = losses.cross_entropy(
        outputs, batch["labels"][:, 0], weights=np.array([1.0, 0, 2, 0])
    )
    np.testing.assert_allclose(found["task"], expected, rtol=1e-4)


def test_the_epoch_of_least_validation_loss_is_best():
    stage, state, batch = started("pooled", DebiasOptimizerConfig())
    batch |= {"target": batch["labels"], "target_weight": batch["label_weight"]}
    found = stage.summarize(stage.evaluate(state, batch))
    outputs = forward(stage.model, stage.select(state), batch["inputs"], batch["valid"])
    expected = losses.cross_entropy(outputs, batch["labels"][:, 0])
    np.testing.assert_allclose(found["score"], -expected, rtol=1e-5)
    right = (outputs.argmax(1) == batch["labels"][:, 0]).sum()
    counts = stage.evaluate(state, batch)["confusion"]
    assert np.trace(np.asarray(counts).reshape(2, 2)) == right


def test_the_rate_follows_its_schedule():
    """Cosine: at the middle of the run a step is half as long as under a constant rate."""
    moved = {}
    for schedule in ("constant", "cosine"):
        chosen = DebiasOptimizerConfig(
            learning_rate=1e-3, clip_norm=1e9, epochs=2, schedule=schedule
        )
        stage, state, batch = started("pooled", chosen)
        state = state._replace(step=np.int32(1))
        after, _ = jax.jit(stage.step)(state, batch, jax.random.key(0))
        before = state.variables["params"]["out"]["kernel"]
        moved[schedule] = np.abs(after.variables["params"]["out"]["kernel"] - before).max()
    np.testing.assert_allclose(moved["cosine"], moved["constant"] / 2, rtol=1e-2)
