"""MMIM's three terms: closed forms, padding, rows of other shards, finite gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from corrkd_jax import losses

BATCH, WIDTH = 8, 3
WEIGHTS = np.array([1, 1, 0.5, 1, 2, 0, 0, 0], np.float32)
SIGN = np.array([1, -1, 1, -1, -1, 1, 0, 1], np.float32)


def sample(seed=0, count=3, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(count, BATCH, WIDTH)).astype(dtype)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


class TestContrast:
    def test_closed_form(self):
        # two orthogonal vectors, each predicted exactly, at another length
        x = np.eye(2, dtype=np.float32)
        expected = np.log(np.e + 1) - 1
        np.testing.assert_allclose(losses.predictive_contrast(x, 3 * x), expected, rtol=1e-6)
        # and mistaken for one another
        swapped = losses.predictive_contrast(x, x[::-1])
        np.testing.assert_allclose(swapped, np.log(np.e + 1), rtol=1e-6)

    def test_a_row_of_weight_two_is_two_rows(self):
        x, p, _ = sample()
        weights = np.ones(BATCH, np.float32)
        weights[2] = 2
        twice = losses.predictive_contrast(*(np.concatenate([a, a[2:3]]) for a in (x, p)))
        found = losses.predictive_contrast(x, p, weights=weights)
        np.testing.assert_allclose(found, twice, rtol=1e-6)

    def test_refuses_shapes_that_differ(self):
        x, p, _ = sample()
        with pytest.raises(ValueError, match="must agree"):
            losses.predictive_contrast(x, p[:, :2])


class TestLikelihood:
    def test_closed_form(self):
        mean, log_variance = np.array([[1.0, 2.0]]), np.array([[0.0, np.log(4.0)]])
        found = losses.gaussian_likelihood(mean, log_variance, np.array([[3.0, 0.0]]))
        np.testing.assert_allclose(found, -(4 / 2 + 4 / 8), rtol=1e-6)

    def test_is_highest_where_the_mean_is_right(self):
        mean, log_variance, _ = sample()
        assert losses.gaussian_likelihood(mean, log_variance, mean) == 0


class TestEntropy:
    def test_closed_form(self):
        # deviations of +-1 and +-2 along two axes: the covariance is diag(1, 4)
        one = np.array([[1.0, 2.0], [1.0, -2.0], [-1.0, 2.0], [-1.0, -2.0]])
        rows = np.concatenate([one + 7, 3 * one])
        sign = np.repeat([1, -1], 4)
        expected = 0.25 * (np.log(4) + np.log(4 * 81))
        np.testing.assert_allclose(losses.class_entropy(rows, sign), expected, rtol=1e-4)

    def test_a_memory_is_as_good_as_rows_and_constant(self):
        x, past, _ = sample()
        whole = np.concatenate([x, past])
        signs = np.concatenate([SIGN, SIGN[::-1]])
        value, gradient = jax.value_and_grad(losses.class_entropy)(whole, signs)

        def remembered(x, past):
            return losses.class_entropy(x, SIGN, past, SIGN[::-1])

        found, (mine, none) = jax.value_and_grad(remembered, (0, 1))(x, past)
        np.testing.assert_allclose(found, value, rtol=1e-5)
        np.testing.assert_allclose(mine, gradient[:BATCH], atol=1e-5)
        np.testing.assert_array_equal(none, 0)

    @pytest.mark.parametrize("sign", [np.ones(BATCH), np.zeros(BATCH), np.eye(BATCH)[0]])
    def test_a_class_of_few_rows_is_finite(self, sign):
        value, gradient = jax.value_and_grad(losses.class_entropy)(sample()[0], sign)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient[sign == 0], 0)


def contrast(x, p, y, weights, **shared):
    return losses.predictive_contrast(x, p, weights=weights, **shared)


def likelihood(x, p, y, weights, **shared):
    return losses.gaussian_likelihood(x, p, y, weights=weights, **shared)


def entropy(x, p, y, weights, **shared):
    return losses.class_entropy(x, SIGN * (weights > 0), p, SIGN, **shared)


@pytest.mark.parametrize("loss", [contrast, likelihood, entropy])
class TestEachLoss:
    @pytest.mark.parametrize("garbage", [1e30, np.inf, np.nan])
    def test_padding_counts_for_nothing(self, loss, garbage):
        x, p, y = sample()
        ready = jax.value_and_grad(loss)
        value, gradient = ready(x, p, y, WEIGHTS)
        x[5:] = garbage
        if loss is not entropy:
            p[5:], y[5:] = -garbage, garbage
        padded = ready(x, p, y, WEIGHTS)
        np.testing.assert_allclose(padded[0], value, rtol=1e-6)
        np.testing.assert_allclose(padded[1][:5], gradient[:5], atol=1e-6)
        np.testing.assert_array_equal(padded[1][5:], 0)

    def test_gradient_is_finite_at_zero_and_without_rows(self, loss):
        for weights in (np.ones(BATCH, np.float32), np.zeros(BATCH, np.float32)):
            value, gradient = jax.value_and_grad(loss)(*np.zeros((3, BATCH, WIDTH)), weights)
            assert np.isfinite(value)
            assert np.isfinite(gradient).all()

    def test_gradient_equals_finite_differences(self, loss, x64):
        x, p, y = sample(dtype=np.float64)
        check_grads(
            lambda x: loss(x, p, y, WEIGHTS), (x,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6
        )

    def test_two_shards_give_the_whole_batch(self, loss):
        """Shard by shard under a mapped axis, as on several devices."""
        x, p, y = sample()
        sign = SIGN

        def of_rows(scale, x, p, y, weights, sign, past):
            shared = {"axis_name": "data"}
            if loss is entropy:
                return losses.class_entropy(scale * x, sign * (weights > 0), past, SIGN, **shared)
            return loss(scale * x, p, y, weights, **shared)

        split = [a.reshape(2, 4, *a.shape[1:]) for a in (x, p, y, WEIGHTS, sign)]
        shards = jax.vmap(
            jax.value_and_grad(of_rows), (None, 0, 0, 0, 0, 0, None), axis_name="data"
        )
        values, gradients = shards(1.3, *split, p)
        value, gradient = jax.value_and_grad(lambda s: loss(s * x, p, y, WEIGHTS))(1.3)
        np.testing.assert_allclose(values, [value, value], rtol=1e-5)
        np.testing.assert_allclose(gradients.mean(), gradient, rtol=1e-4, atol=1e-6)


def test_what_is_remembered():
    projected = {"audio": sample()[0]}
    projected["audio"][6] = np.nan
    found = losses.remember(projected, SIGN)
    np.testing.assert_array_equal(found.sign, SIGN)
    np.testing.assert_array_equal(found.projected["audio"][6], 0)
    np.testing.assert_array_equal(found.projected["audio"][:6], projected["audio"][:6])
    split = {"audio": projected["audio"].reshape(2, 4, WIDTH)}
    remember = partial(losses.remember, axis_name="data")
    shards = jax.vmap(remember, axis_name="data")(split, SIGN.reshape(2, 4))
    for shard in range(2):
        np.testing.assert_array_equal(shards.projected["audio"][shard], found.projected["audio"])
    empty = losses.empty_memory({"audio": WIDTH}, BATCH)
    assert jax.tree.map(jnp.shape, empty) == jax.tree.map(jnp.shape, found)
