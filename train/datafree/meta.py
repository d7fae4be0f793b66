"""Gradients for what a copy is started from: what Fast's generator learns from its copies.

A call copies the weights, descends K times from there on one batch, and throws the copy away; the
weights move so that the next copy starts nearer to its end (arXiv:2112.06253, sections 3.2, 3.3).
"""

from typing import Any

import jax
import jax.numpy as jnp

REPTILE_FACTOR = 67.0
"""Fast-Datafree's on CIFAR; for ImageNet it has 1."""


def fomaml_update(gradients: Any) -> Any:
    """First-order MAML (arXiv:1703.03400): the sum of the gradients that the copy met.

    As Fast-Datafree has it: at all K places from the copied weights on, the last one excepted,
    which no gradient was taken at. Give it to an optimizer of K times the copy's rate.

    Args:
        gradients: a tree of `[steps, ...]`, as `jax.lax.scan` stacks them.
    """
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), gradients)


def reptile_update(weights: Any, copy: Any, factor: float = REPTILE_FACTOR) -> Any:
    """Reptile (arXiv:1803.02999): the way back from where the copy ended.

    Args:
        weights: that were copied.
        copy: after its descents.
        factor: on their difference.
    """
    return jax.tree.map(lambda start, end: factor * (start - end), weights, copy)
