"""Category-guided prototype distillation (CPD) of CorrKD, arXiv:2404.16456."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.lax import Precision
from jax.typing import ArrayLike

from corrkd_jax.losses.batch import (
    counted_rows,
    normalize_rows,
    psum,
    row_weights,
    student_and_teacher,
)
from corrkd_jax.losses.reduction import at_least_float32, reduce


class Prototypes(NamedTuple):
    """Class means of a batch.

    Attributes:
        centers: `[classes, features]`; zeros for a class that the batch lacks.
        present: `[classes]` float, 1 where the batch holds the class.
    """

    centers: Array
    present: Array


def class_prototypes(
    features: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    *,
    weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> Prototypes:
    """Mean feature of each class over the whole batch, over all its shards.

    Args:
        features: `[batch, features]`.
        labels: `[batch]` integers in `[0, num_classes)`.
        num_classes: number of classes.
        weights: `[batch]`, weights of the mean; rows of weight 0 may hold anything.
        axis_name: mapped axis over which the batch is sharded.

    Returns:
        `Prototypes`, float32 at least, the same on every shard.
    """
    features = counted_rows(at_least_float32(features), weights)
    members = jax.nn.one_hot(labels, num_classes, dtype=features.dtype)
    members = members * row_weights(weights, len(features), features.dtype)[:, None]
    # accelerators would round the factors to ten bits or less
    sums = psum(jnp.matmul(members.T, features, precision=Precision.HIGHEST), axis_name)
    counts = psum(jnp.sum(members, axis=0), axis_name)
    present = lax.stop_gradient((counts > 0).astype(features.dtype))
    return Prototypes(sums / jnp.where(counts > 0, counts, 1.0)[:, None], present)


def cosine_to_prototypes(features: ArrayLike, prototypes: Prototypes) -> Array:
    """Cosine of every row with every class mean.

    Args:
        features: `[batch, features]`.
        prototypes: class means of the same width.

    Returns:
        `[batch, classes]` in [-1, 1], float32 at least; 0 where the row or the mean is zero.
    """
    rows = normalize_rows(at_least_float32(features))
    centers = normalize_rows(prototypes.centers)
    return jnp.matmul(rows, centers.T, precision=Precision.HIGHEST)


def category_prototype(
    student: ArrayLike,
    teacher: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    *,
    distance: Literal["square", "norm"] = "square",
    count_absent: bool = False,
    weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> Array:
    """CPD loss: the student's cosines to its class prototypes should be the teacher's to its own.

    `1 / (N K) sum_i sum_k (M^s_k(i) - M^t_k(i))^2`, where `M^w_k(i)` is the cosine between sample i
    and the batch prototype of class k. Teacher prototypes are means of teacher features, student
    prototypes means of student features. The gradient reaches the student through its prototypes
    too.

    Args:
        student: `[batch, features]`.
        teacher: `[batch, features]`; no gradient flows into it.
        labels: `[batch]` integers in `[0, num_classes)`.
        num_classes: number of classes, K.
        distance: `"square"` takes the square of a difference, as the paper's text says; `"norm"`
            its absolute value, as the printed formula may be read.
        count_absent: divide by the N K of the formula even where the batch lacks a class, whose
            cosines are all 0; else absent classes are left out of the mean.
        weights: `[batch]`; rows of weight 0 enter neither prototypes nor the mean, and may hold
            anything.
        axis_name: mapped axis over which the batch is sharded; prototypes are global then.

    Returns:
        Scalar, float32 at least: weighted mean over rows and over the classes present in the batch
        (equal to the paper's N K when none is absent). 0 if no row has weight.

    Raises:
        ValueError: the shapes differ, or the distance is unknown.

    References:
        Li et al., arXiv:2404.16456, L_CPD.
    """
    if distance not in ("square", "norm"):
        raise ValueError(f"distance must be square or norm, got {distance!r}")
    student, teacher = student_and_teacher(student, teacher, weights)

    def cosines(features: Array) -> tuple[Array, Array]:
        prototypes = class_prototypes(
            features, labels, num_classes, weights=weights, axis_name=axis_name
        )
        return cosine_to_prototypes(features, prototypes), prototypes.present

    of_student, present = cosines(student)
    of_teacher, _ = cosines(teacher)
    rows = row_weights(weights, len(student), of_student.dtype)
    apart = of_student - of_teacher
    each = apart**2 if distance == "square" else jnp.abs(apart)
    counted = jnp.ones_like(present) if count_absent else present
    return reduce(each, rows[:, None] * counted, axis_name=axis_name)
