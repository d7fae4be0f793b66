"""What the weights of Fast's generator learn from a copy, of a quadratic whose descent is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.datafree.hosts import fast
from train.datafree.hosts.descent import Group, Outcome, descend

CENTRE = np.array([1.0, -2.0])
WEIGHTS = np.array([3.0, -5.0])
RATE = 0.1


@pytest.mark.parametrize("method", ["fomaml", "reptile"])
def test_closed_forms(method):
    def loss(parameters, key):
        return Outcome((), {"miss": 0.5 * jnp.sum((parameters["copy"]["w"] - CENTRE) ** 2)})

    weights = {"w": jnp.asarray(WEIGHTS)}
    groups = {"copy": Group(weights, RATE)}
    asked = ("copy",) if method == "fomaml" else ()
    end = descend(loss, groups, jax.random.key(0), 2, None, gradients_of=asked)
    assert set(end.gradients) == set(asked)
    gradient = fast.meta_gradient(method, weights, end)["w"]
    away = WEIGHTS - CENTRE
    if method == "fomaml":
        # Adam's first step is as long as its rate, whatever the gradient
        expected = away + away - RATE * np.sign(away)
    else:
        expected = fast.REPTILE_FACTOR * (WEIGHTS - np.asarray(end.parameters["copy"]["w"]))
        assert np.all(expected * away > 1.9 * fast.REPTILE_FACTOR * RATE * np.abs(away))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)
