"""Cross-entropy against closed forms and torch, with padding and shards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax import losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(8, 4)).astype(np.float32)
LABELS = RNG.integers(0, 4, 8)
WEIGHTS = np.array([1, 1, 0.5, 1, 2, 0, 0, 0], np.float32)

cross_entropy = jax.jit(losses.cross_entropy, static_argnames=("reduction", "axis_name"))
value_and_grad = jax.value_and_grad(cross_entropy)


def test_closed_form():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]], np.float32))
    labels = np.array([0, 2])
    np.testing.assert_allclose(
        cross_entropy(logits, labels, reduction="none"), -np.log([0.7, 0.25]), rtol=1e-5
    )
    np.testing.assert_allclose(cross_entropy(logits, labels), -np.log(0.7 * 0.25) / 2, rtol=1e-5)
    np.testing.assert_allclose(cross_entropy(np.zeros((3, 5)), np.arange(3)), np.log(5), rtol=1e-6)


def test_equals_torch_in_value_and_gradient():
    torch = pytest.importorskip("torch")
    logits = torch.tensor(LOGITS, requires_grad=True)
    values = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS), reduction="none")
    weights = torch.tensor(WEIGHTS)
    expected = (weights * values).sum() / weights.sum()
    expected.backward()
    value, gradient = value_and_grad(LOGITS, LABELS, WEIGHTS)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), atol=1e-6)


@pytest.mark.parametrize("label", [-1, 0, 99])
def test_padding_counts_for_nothing(label):
    value, gradient = value_and_grad(LOGITS, LABELS, WEIGHTS)
    logits, labels = LOGITS.copy(), LABELS.copy()
    logits[5:] = [1e4, -1e4, 0, 1e4]
    labels[5:] = label
    padded_value, padded_gradient = value_and_grad(logits, labels, WEIGHTS)
    np.testing.assert_allclose(padded_value, value, atol=1e-6)
    np.testing.assert_allclose(padded_gradient, gradient, atol=1e-6)
    np.testing.assert_array_equal(padded_gradient[5:], 0)


def test_several_heads_share_the_weight_of_their_example():
    logits = RNG.normal(size=(8, 3, 2)).astype(np.float32)
    labels = RNG.integers(0, 2, (8, 3))
    heads = [cross_entropy(logits[:, head], labels[:, head], WEIGHTS) for head in range(3)]
    np.testing.assert_allclose(cross_entropy(logits, labels, WEIGHTS), np.mean(heads), rtol=1e-6)


@pytest.mark.parametrize("shards", [2, 4])
def test_shards_agree_with_the_whole_batch(shards):
    value, gradient = value_and_grad(LOGITS, LABELS, WEIGHTS)

    def loss(bias, logits, labels, weights):
        return cross_entropy(logits + bias, labels, weights, axis_name="data")

    split = [a.reshape(shards, -1, *a.shape[1:]) for a in (LOGITS, LABELS, WEIGHTS)]
    values, gradients = jax.vmap(
        jax.value_and_grad(loss), in_axes=(None, 0, 0, 0), axis_name="data"
    )(jnp.zeros(4), *split)
    np.testing.assert_allclose(values, np.full(shards, value), rtol=1e-6)
    np.testing.assert_allclose(gradients.mean(axis=0), gradient.sum(axis=0), atol=1e-6)


def test_huge_logits_are_finite():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    value, gradient = jax.value_and_grad(cross_entropy)(logits, np.array([0, 0]))
    np.testing.assert_allclose(value, 1e4)
    assert np.isfinite(gradient).all()


def test_half_precision_is_promoted():
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    value = cross_entropy(logits, LABELS)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, cross_entropy(logits.astype(jnp.float32), LABELS))


def test_refuses_labels_that_do_not_fit():
    with pytest.raises(ValueError, match="do not fit"):
        cross_entropy(LOGITS, LABELS[:, None])
    with pytest.raises(ValueError, match="integers"):
        cross_entropy(LOGITS, LABELS.astype(np.float32))
    with pytest.raises(ValueError, match="prefix"):
        cross_entropy(LOGITS, LABELS, WEIGHTS[:4])
