"""The LSTM over real frames against Flax's own over sequences without padding."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.models.recurrent import LSTM

FEATURES, TIME, WIDTH = 4, 5, 3


@pytest.fixture(scope="module")
def params():
    shape = (1, TIME, WIDTH)
    init = jax.jit(LSTM(FEATURES).init)
    return init(jax.random.key(0), np.zeros(shape, np.float32), np.ones(shape[:2], bool))["params"]


@pytest.mark.parametrize("reverse", [False, True])
def test_equals_flaxs_on_the_frames_that_are_real(params, reverse):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, TIME, WIDTH)).astype(np.float32)
    valid = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [1, 0, 0, 1, 0]], bool)
    last, states = LSTM(FEATURES, reverse).apply({"params": params}, x, valid)
    plain = nn.RNN(nn.OptimizedLSTMCell(FEATURES), reverse=reverse, keep_order=True)
    for i, real in enumerate(valid):
        expected = plain.apply({"params": params}, x[i : i + 1, real])[0]
        np.testing.assert_allclose(states[i, real], expected, atol=1e-6)
        np.testing.assert_allclose(last[i], expected[0 if reverse else -1], atol=1e-6)


@pytest.mark.parametrize("garbage", [1e30, np.nan])
def test_padding_reaches_neither_state_nor_gradient(params, garbage):
    x = np.ones((2, TIME, WIDTH), np.float32)
    valid = np.array([[0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)

    @jax.jit
    @jax.value_and_grad
    def total(params, x):
        last, _ = LSTM(FEATURES).apply({"params": params}, x, valid)
        return jnp.sum(last**2)

    value, gradient = total(params, x)
    assert value > 1e-3
    spoilt = np.where(valid[..., None], x, np.float32(garbage))
    jax.tree.map(np.testing.assert_array_equal, total(params, spoilt), (value, gradient))


def test_starts_within_torchs_bound(params):
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    assert 0.4 < max(np.abs(kernel).max() for kernel in kernels) <= FEATURES**-0.5
