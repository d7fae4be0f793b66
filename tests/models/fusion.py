"""What every base model's test does: random weights, a text encoder, MMSA's outputs and losses."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from corrkd_jax.models import torch_weights
from corrkd_jax.models.torch_weights import Layer
from tests.models.sequences import gradients_of, state_of

LABELS = np.array([0, 2, 1, 2])
"""Scores or classes, as the mode has it."""


class Doubled(nn.Module):
    """A text encoder."""

    @nn.compact
    def __call__(self, text, train):
        return 2 * text


def random_variables(model: nn.Module, inputs: dict, valid: dict, seeds: int | None = None) -> Any:
    """Random weights, biases and scales too; those of several seeds side by side.

    They take the time of no compilation, unlike `init`.
    """
    rng = np.random.default_rng(0)
    like = jax.eval_shape(model.init, jax.random.key(0), inputs, valid)
    before = () if seeds is None else (seeds,)

    def uniform(low, high):
        def fill(x):
            return rng.uniform(low, high, (*before, *x.shape)).astype(np.float32)

        return fill

    return {
        name: jax.tree.map(uniform(-0.5, 0.6) if name == "params" else uniform(0.5, 1.5), tree)
        for name, tree in like.items()
    }


def randomize(model: Any) -> None:
    """The same for a model of MMSA's; its constants stay."""
    import torch

    torch.manual_seed(0)
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if weight.ndim and weight.is_floating_point() and "output_" not in name:
            low, high = (0.5, 1.5) if "running" in name else (-0.4, 0.5)
            torch.nn.init.uniform_(weight, low, high)


def assert_seeds_are_separate(model: nn.Module, inputs: dict, valid: dict) -> None:
    """Parameters of two seeds mapped over at once give what one after another gives."""
    variables = random_variables(model, inputs, valid, seeds=2)
    together, _ = jax.jit(jax.vmap(model.apply, (0, None, None)))(variables, inputs, valid)
    apply = jax.jit(model.apply)
    assert np.abs(together[0] - together[1]).max() > 1e-3
    for seed, logits in enumerate(together):
        own = jax.tree.map(lambda x, i=seed: x[i], variables)
        np.testing.assert_allclose(logits, apply(own, inputs, valid)[0], atol=1e-5)


def assert_equals_mmsa(
    theirs: Any,
    run: Callable[[Any, dict], dict],
    model: nn.Module,
    table: list[Layer],
    batch: tuple[dict, dict],
) -> None:
    """Outputs, vectors of the modalities and gradients of all weights, without dropout.

    Args:
        theirs: MMSA's model in evaluation.
        run: gives its outputs for our inputs.
        model: ours, for scores or classes.
        table: of the weights.
        batch: inputs and masks, True everywhere, of as many rows as there are `LABELS`.
    """
    import torch

    like = jax.eval_shape(model.init, jax.random.key(0), *batch)
    variables = torch_weights.to_flax(state_of(theirs), table, like, "MMSA")

    def loss(params):
        logits, fused = model.apply(variables | {"params": params}, *batch)
        if model.outputs == 1:
            return jnp.mean(jnp.abs(logits[:, 0] - LABELS)), (logits, fused)
        chosen = jnp.take_along_axis(nn.log_softmax(logits), LABELS[:, None], axis=1)
        return -jnp.mean(chosen), (logits, fused)

    ours = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, (logits, fused)), gradients = ours(variables["params"])
    expected = run(theirs, batch[0])
    np.testing.assert_allclose(logits, expected["M"].detach(), atol=1e-5)
    for name in batch[0]:
        vector = expected[f"Feature_{name[0]}"].detach()
        np.testing.assert_allclose(fused.parts[name], vector, atol=1e-5)
    if model.outputs == 1:
        torch.nn.functional.l1_loss(expected["M"][:, 0], torch.tensor(LABELS)).backward()
    else:
        torch.nn.functional.cross_entropy(expected["M"], torch.tensor(LABELS)).backward()
    wanted = torch_weights.to_flax(
        gradients_of(theirs), table, {"params": like["params"]}, "gradients"
    )
    assert max(np.abs(x).max() for x in jax.tree.leaves(wanted)) > 1e-2

    def compare(x, y):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)

    jax.tree.map(compare, gradients, wanted["params"])
