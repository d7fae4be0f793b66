"""Losses of DFND (CVPR 2021): selection of pool images, and learning from noisy labels."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from corrkd_jax.losses.classification import check_labels
from corrkd_jax.losses.reduction import at_least_float32, reduce


def confidence(logits: ArrayLike) -> Array:
    """Log-probability of the class that a teacher prefers.

    Args:
        logits: `[pool, classes]`, the teacher's.

    Returns:
        `[pool]`, at most 0, float32 at least, in nats.
    """
    return jnp.max(jax.nn.log_softmax(at_least_float32(logits)), axis=-1)


def select_confident(logits: ArrayLike, count: int) -> Array:
    """Images that a teacher is most confident about.

    Args:
        logits: `[pool, classes]`, the teacher's.
        count: number of images to take, a Python integer.

    Returns:
        `[count]` indices into the pool, most confident first; of equals the earlier one first.
    """
    return jnp.argsort(-confidence(logits), stable=True)[:count]


def noise_matrix(free: ArrayLike, accuracy: ArrayLike) -> Array:
    """Probabilities that the teacher labels a class as another one.

    Args:
        free: `[classes, classes - 1]`, learned logits of the wrong labels of each class, in order.
        accuracy: accuracy of the teacher, the constant diagonal: .9523 on CIFAR-10 and .7774 on
            CIFAR-100 in the published code.

    Returns:
        `[classes, classes]`, rows by true class, which sum to one; float32 at least.

    Raises:
        ValueError: `free` is not `[classes, classes - 1]`.
    """
    free = at_least_float32(free)
    classes = free.shape[0]
    if free.shape != (classes, classes - 1):
        raise ValueError(f"free must be [classes, classes - 1], got {free.shape}")
    wrong = (1 - accuracy) * jax.nn.softmax(free)
    row, column = jnp.arange(classes)[:, None], jnp.arange(classes)
    # beyond the diagonal the wrong names are one place further
    place = jnp.clip(column - (column > row), 0, classes - 2)
    return jnp.where(row == column, accuracy, jnp.take_along_axis(wrong, place, axis=1))


def noisy_nll(
    logits: ArrayLike,
    labels: ArrayLike,
    noise: ArrayLike,
    weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> Array:
    """Negative log likelihood of noisy labels, `-log (softmax(logits) @ noise)[label]`.

    Args:
        logits: `[batch, classes]`, the student's.
        labels: `[batch]` integers, the classes that the teacher prefers.
        noise: `[classes, classes]` of `noise_matrix`.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar mean, float32 at least, in nats.

    Raises:
        ValueError: labels are not integers `[batch]`.
    """
    logits, labels = at_least_float32(logits), jnp.asarray(labels)
    check_labels(logits, labels)
    # in logarithms, so that a sure student's small probabilities keep their gradient
    joint = jax.nn.log_softmax(logits) + jnp.log(jnp.asarray(noise)).T[labels]
    return reduce(-jax.nn.logsumexp(joint, axis=-1), weights, axis_name=axis_name)
