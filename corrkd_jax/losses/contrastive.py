"""Sample-level contrastive distillation (SCD) of CorrKD, arXiv:2404.16456."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from corrkd_jax.losses.batch import gather, normalize_rows, off_diagonal, student_and_teacher
from corrkd_jax.losses.reduction import Reduction, reduce

_EPS = 1e-12


class PairDistances(NamedTuple):
    """Student-to-teacher distances of a batch.

    Attributes:
        matched: `[batch]`, distance of student row i to teacher row i.
        crossed: `[batch, global_batch]`, distance of student row i to every teacher row j, the
            matched pair included.
    """

    matched: Array
    crossed: Array


def pair_distances(
    student: ArrayLike,
    teacher: ArrayLike,
    normalize: bool,
    weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> PairDistances:
    """Euclidean distances between student rows and the teacher rows of the whole batch.

    Args:
        student: `[batch, features]`.
        teacher: `[batch, features]`; no gradient flows into it.
        normalize: divide every row by its length first.
        weights: `[batch]`; rows of weight 0 are set to zero.
        axis_name: mapped axis over which the batch is sharded; teacher rows of all shards are
            gathered.

    Returns:
        `PairDistances`, float32 at least. The square roots carry an epsilon of 1e-12 inside, so
        that the gradient at distance zero is zero.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = student_and_teacher(student, teacher, weights)
    if normalize:
        student, teacher = normalize_rows(student), normalize_rows(teacher)
    matched = jnp.sqrt(jnp.sum((student - teacher) ** 2, axis=-1) + _EPS)
    everyone = gather(teacher, axis_name)
    crossed = jnp.sqrt(jnp.sum((student[:, None] - everyone[None]) ** 2, axis=-1) + _EPS)
    return PairDistances(matched, crossed)


def sample_contrastive(
    student: ArrayLike,
    teacher: ArrayLike,
    margin: ArrayLike = 1.2,
    *,
    normalize: bool = True,
    reduction: Reduction = "mean",
    weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> Array:
    """SCD loss: pull each student feature to its teacher's and push it away from other samples'.

    `sum_i sum_{j != i} w_i w_j [ D(s_i, t_i)^2 + max(0, margin - D(s_i, t_j))^2 ]` with the
    Euclidean distance D. Negatives are the *teacher* features of all other samples, those of the
    same class too: labels are not used.

    Args:
        student: `[batch, features]`, joint representation of the masked input.
        teacher: `[batch, features]`, joint representation of the complete input; no gradient flows
            into it.
        margin: distance beyond which a negative no longer counts, eta in the paper, in units of the
            feature space, or of the unit sphere if `normalize`; may be traced.
        normalize: put all rows on the unit sphere first. The paper writes no normalisation, but its
            margins of 1.0 to 1.4 have a meaning only there (orthogonal rows are 1.414 apart). Raw
            rows lie beyond the margin, which leaves a plain squared error.
        reduction: `"mean"` divides by the number of ordered pairs, N (N - 1), so that weights of 1
            for all losses are comparable; `"sum"` is the paper's formula to the letter; `"none"`
            returns the weighted pairs, `[batch, global_batch]`.
        weights: `[batch]`; rows of weight 0 count neither as anchors nor as negatives, and may hold
            anything.
        axis_name: mapped axis over which the batch is sharded; every shard then returns the value
            of the whole batch.

    Returns:
        Scalar, or pairs for `"none"`; float32 at least. 0 if fewer than two rows have weight.

    Raises:
        ValueError: the shapes differ, or `reduction` is unknown.

    References:
        Li et al., arXiv:2404.16456, L_SCD.
    """
    distances = pair_distances(student, teacher, normalize, weights, axis_name)
    pairs = off_diagonal(weights, len(distances.matched), distances.crossed.dtype, axis_name)
    negatives = jax.nn.relu(margin - distances.crossed) ** 2
    return reduce(distances.matched[:, None] ** 2 + negatives, pairs, reduction, axis_name)


def active_negative_fraction(
    student: ArrayLike,
    teacher: ArrayLike,
    margin: ArrayLike = 1.2,
    *,
    normalize: bool = True,
    weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> Array:
    """Share of negative pairs closer than the margin, those that still have a gradient.

    With a share near 0 the contrastive loss is only a squared error.

    Args:
        student: see `sample_contrastive`.
        teacher: see `sample_contrastive`.
        margin: see `sample_contrastive`.
        normalize: see `sample_contrastive`.
        weights: see `sample_contrastive`.
        axis_name: see `sample_contrastive`.

    Returns:
        Scalar in [0, 1], without a gradient; 0 if fewer than two rows have weight.

    Raises:
        ValueError: the shapes differ.
    """
    distances = pair_distances(student, teacher, normalize, weights, axis_name)
    pairs = off_diagonal(weights, len(distances.matched), distances.crossed.dtype, axis_name)
    return lax.stop_gradient(reduce(distances.crossed < margin, pairs, axis_name=axis_name))
