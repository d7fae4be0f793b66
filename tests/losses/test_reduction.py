"""The one reduction that every loss goes through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.losses.reduction import reduce

VALUES = np.array([1.0, 2.0, 4.0, 8.0], np.float32)
WEIGHTS = np.array([1.0, 0.5, 0.0, 2.0], np.float32)


def test_closed_form():
    np.testing.assert_allclose(reduce(VALUES), 3.75)
    np.testing.assert_allclose(reduce(VALUES, reduction="sum"), 15)
    np.testing.assert_allclose(reduce(VALUES, reduction="none"), VALUES)
    np.testing.assert_allclose(reduce(VALUES, WEIGHTS), 18 / 3.5, rtol=1e-6)
    np.testing.assert_allclose(reduce(VALUES, WEIGHTS, "sum"), 18)
    np.testing.assert_allclose(reduce(VALUES, WEIGHTS, "none"), [1, 1, 0, 16])


def test_boolean_weights_count_rows():
    np.testing.assert_allclose(reduce(VALUES, WEIGHTS > 0), 11 / 3, rtol=1e-6)


def test_weights_of_examples_spread_over_trailing_axes():
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_allclose(
        reduce(values, WEIGHTS), reduce(values.mean(axis=1), WEIGHTS), rtol=1e-6
    )


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e38])
def test_values_at_weight_zero_may_be_anything(garbage):
    values = VALUES.copy()
    values[2] = garbage
    for reduction in ("mean", "sum", "none"):
        np.testing.assert_array_equal(
            reduce(values, WEIGHTS, reduction), reduce(VALUES, WEIGHTS, reduction)
        )


def test_no_examples_give_zero_and_finite_gradients():
    for argument in (0, 1):
        value, gradient = jax.value_and_grad(reduce, argument)(VALUES, jnp.zeros(4))
        assert value == 0
        assert np.isfinite(gradient).all()


def test_half_precision_is_summed_in_float32():
    values = jnp.full(4096, 1 / 256, jnp.bfloat16)
    total = reduce(values, reduction="sum")
    assert total.dtype == jnp.float32
    assert total == 16


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_shard_returns_the_global_value(shards, reduction):
    sharded = jax.vmap(lambda v, w: reduce(v, w, reduction, "data"), axis_name="data")
    values = sharded(VALUES.reshape(shards, -1), WEIGHTS.reshape(shards, -1))
    np.testing.assert_allclose(values, np.full(shards, reduce(VALUES, WEIGHTS, reduction)))


def test_refuses_what_it_cannot_reduce():
    with pytest.raises(ValueError, match="reduction must be"):
        reduce(VALUES, reduction="average")
    with pytest.raises(ValueError, match="prefix"):
        reduce(VALUES, WEIGHTS[:, None])
    with pytest.raises(ValueError, match="prefix"):
        reduce(VALUES, WEIGHTS[:1])
