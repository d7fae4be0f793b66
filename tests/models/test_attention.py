"""The backward pass of attention, written by hand, against automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.models.attention import attend, keep_mask, key_words


def plain(query, key, value, allowed, dropout_key, rate):
    """The formula, for automatic differentiation."""
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])
    weights = jax.nn.softmax(jnp.where(allowed.swapaxes(-1, -2), scores, -1e9), axis=-1)
    if rate:
        keep = keep_mask(dropout_key, rate, weights.swapaxes(-1, -2).shape).swapaxes(-1, -2)
        weights = jnp.where(keep, weights / (1 - rate), 0)
    return weights @ value


def arrays(size, queries=5, keys=7, heads=2, batch=3):
    random = np.random.default_rng(size)
    shapes = ((batch, heads, n, size) for n in (queries, keys, keys, queries))
    return [jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes]


def masks(kind, batch=3, queries=5, keys=7):
    random = np.random.default_rng(1)
    if kind == "keys":
        mask = random.random((batch, 1, keys, 1)) < 0.6
        mask[:, :, 0] = True
    elif kind == "causal":
        mask = np.triu(np.ones((1, 1, keys, queries), bool), -2)
    else:
        mask = np.ones((1, 1, 1, 1), bool)
    return jnp.asarray(mask)


@pytest.mark.parametrize("size", [3, 16])  # as outer products, as a matrix product
@pytest.mark.parametrize("kind", ["keys", "causal", "none"])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_value_and_gradients(size, kind, rate):
    *inputs, direction = arrays(size)
    allowed, dropout_key = masks(kind), jax.random.key(4)

    def ours(*x):
        return attend(*x, allowed, key_words(dropout_key), rate)

    def oracle(*x):
        return plain(*x, allowed, dropout_key, rate)

    got, pull = jax.vjp(ours, *inputs)
    want, pull_plain = jax.vjp(oracle, *inputs)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    for a, b in zip(pull(direction), pull_plain(direction), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)


def test_no_words_no_dropout():
    *inputs, _ = arrays(4)
    allowed = masks("keys")
    np.testing.assert_array_equal(attend(*inputs, allowed, None, 0.5), attend(*inputs, allowed))


def test_masked_keys_get_no_gradient_and_may_hold_anything():
    *inputs, direction = arrays(4)
    allowed = masks("keys")
    hidden = ~allowed[:, 0, :, 0]
    _, pull = jax.vjp(lambda *x: attend(*x, allowed), *inputs)
    _, to_key, to_value = pull(direction)
    for gradient in (to_key, to_value):
        assert not np.asarray(gradient).swapaxes(1, 2)[hidden].any()
    other = [jnp.where(hidden[:, None, :, None], 1e4, x) for x in inputs[1:]]
    np.testing.assert_array_equal(attend(inputs[0], *other, allowed), attend(*inputs, allowed))


def test_large_scores_stay_finite():
    *inputs, direction = arrays(4)
    large = [1e3 * x for x in inputs]
    out, pull = jax.vjp(lambda *x: attend(*x, masks("none")), *large)
    assert all(np.isfinite(x).all() for x in (out, *pull(direction)))


def test_bfloat16_keeps_its_type():
    *inputs, direction = (x.astype(jnp.bfloat16) for x in arrays(4))
    out, pull = jax.vjp(lambda *x: attend(*x, masks("keys")), *inputs)
    assert {x.dtype for x in (out, *pull(direction))} == {jnp.dtype(jnp.bfloat16)}
    exact = attend(*(x.astype(jnp.float32) for x in inputs), masks("keys"))
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.05)


def test_mapped_over_seeds():
    *inputs, direction = arrays(4, batch=4)
    allowed, words = masks("none"), key_words(jax.random.key(0))

    def gradient(*x):
        return jax.grad(lambda q: jnp.sum(direction * attend(q, *x[1:], allowed, words, 0.2)))(x[0])

    stacked = [jnp.stack([x, 2 * x]) for x in inputs]
    both = jax.vmap(gradient)(*stacked)
    np.testing.assert_allclose(both[0], gradient(*inputs), rtol=1e-5, atol=1e-6)
