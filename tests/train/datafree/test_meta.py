"""Meta-gradients of a quadratic, whose descents are known."""

import jax
import jax.numpy as jnp
import numpy as np

from train.datafree.meta import fomaml_update, reptile_update

CENTRE = jnp.array([1.0, -2.0])


def descend(weights):
    """Two steps of SGD of rate 0.1 on half the squared distance to `CENTRE`."""

    def step(copy, _):
        gradient = jax.grad(lambda w: 0.5 * jnp.sum((w["w"] - CENTRE) ** 2))(copy)
        return jax.tree.map(lambda w, g: w - 0.1 * g, copy, gradient), gradient

    return jax.lax.scan(step, weights, length=2)


def test_closed_forms():
    weights = {"w": jnp.array([3.0, 5.0])}
    copy, gradients = descend(weights)
    away = weights["w"] - CENTRE
    np.testing.assert_allclose(fomaml_update(gradients)["w"], 1.9 * away, rtol=1e-6)
    np.testing.assert_allclose(reptile_update(weights, copy)["w"], 12.73 * away, rtol=1e-5)
    np.testing.assert_allclose(reptile_update(weights, copy, 1.0)["w"], 0.19 * away, rtol=1e-5)
