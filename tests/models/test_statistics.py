"""Statistics networks against the network on concatenated pairs that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.models.statistics import StatisticsNetwork


@pytest.fixture(scope="module")
def fitted():
    """A network with random parameters everywhere, its zero layer too, and its inputs."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 2)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    params = StatisticsNetwork(8).init(jax.random.key(0), a, b)["params"]
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)
    return params, a, b


class TestStatisticsNetwork:
    def test_equals_a_network_on_concatenated_pairs(self, fitted):
        params, a, b = fitted
        first = np.concatenate([params["left"]["kernel"], params["right"]["kernel"]])
        expected = np.zeros((5, 4))
        for i in range(5):
            for j in range(4):
                x = np.concatenate([a[i], b[j]]) @ first + params["left"]["bias"]
                x = np.maximum(x, 0) @ params["hidden"]["kernel"] + params["hidden"]["bias"]
                x = np.maximum(x, 0) @ params["score"]["kernel"] + params["score"]["bias"]
                expected[i, j] = x[0]
        scores = StatisticsNetwork(8).apply({"params": params}, a, b)
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)

    def test_starts_at_zero_for_any_input(self):
        network = StatisticsNetwork()
        a, b = 100 * np.ones((3, 1)), -100 * np.ones((2, 4))
        params = network.init(jax.random.key(0), a, b)
        assert params["params"]["hidden"]["kernel"].shape == (64, 64)
        np.testing.assert_array_equal(network.apply(params, a, b), np.zeros((3, 2)))

    def test_scores_are_float32_at_least(self, fitted):
        params, a, b = fitted
        half = (jnp.asarray(x, jnp.bfloat16) for x in (a, b))
        assert StatisticsNetwork(8).apply({"params": params}, *half).dtype == jnp.float32
