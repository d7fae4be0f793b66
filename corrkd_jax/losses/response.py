"""Response-disentangled consistency distillation (RCD) of CorrKD, arXiv:2404.16456."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from corrkd_jax.losses.batch import (
    counted_rows,
    gather,
    off_diagonal,
    own_columns,
    row_weights,
    student_and_teacher,
)
from corrkd_jax.losses.classification import check_labels
from corrkd_jax.losses.reduction import at_least_float32, reduce

Negatives = Literal["all", "next"]
"""Product pairs of a mutual-information estimate; see `jsd_mutual_information`."""

Scorer = Callable[[Array, Array], Array]
"""Statistics network: `([n, p], [m, p]) -> [n, m]`, the score of every pair of rows."""


class Responses(NamedTuple):
    """A network's class probabilities, split by the true class.

    Attributes:
        target: `[batch, 1]` probability of the true class.
        others: `[batch, classes - 1]` probabilities of the rest, in ascending class order.
    """

    target: Array
    others: Array


def split_responses(logits: ArrayLike, labels: ArrayLike, renormalize: bool = False) -> Responses:
    """Softmax responses split into the target class and the others.

    Args:
        logits: `[batch, classes]`.
        labels: `[batch]` integers in `[0, classes)`.
        renormalize: let the non-target part sum to one, as decoupled KD does; the paper keeps the
            raw probabilities.

    Returns:
        `Responses`, float32 at least. Non-target classes are in ascending order with the target
        left out, so that a column means the same class for all samples of one target.

    Raises:
        ValueError: `labels` are not integers `[batch]`.

    References:
        Li et al., arXiv:2404.16456, TCR and NTCR.
    """
    logits, labels = at_least_float32(logits), jnp.asarray(labels)
    check_labels(logits, labels)
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    kept = jnp.arange(logits.shape[-1] - 1)[None]
    kept = kept + (kept >= labels[:, None])
    others = jnp.take_along_axis(log_probs, kept, axis=-1)
    if renormalize:
        others = jax.nn.log_softmax(others, axis=-1)
    target = jnp.take_along_axis(log_probs, labels[:, None], axis=-1)
    return Responses(jnp.exp(target), jnp.exp(others))


def jsd_mutual_information(
    scorer: Scorer,
    a: ArrayLike,
    b: ArrayLike,
    *,
    negatives: Negatives = "all",
    weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> Array:
    """Jensen-Shannon estimate of the mutual information of two variables.

    `E_joint[-softplus(-T(a, b))] - E_product[softplus(T(a, b'))]`. Joint pairs are the rows (i, i).
    Product pairs are all (i, j) with j != i, which needs no shuffle and no key.

    Args:
        scorer: statistics network T.
        a: `[batch, p]`.
        b: `[batch, q]`; row i belongs to row i of `a`.
        negatives: product pairs: `"all"` with j != i, or `"next"`, the row that follows in the
            whole batch, padding left out, as a shuffle by one gives.
        weights: `[batch]`; rows of weight 0 form no pair, and may hold anything.
        axis_name: mapped axis over which the batch is sharded; rows of `b` of all shards are
            gathered.

    Returns:
        Scalar, at most 0, float32 at least; `-2 log 2` for a scorer that is zero everywhere. An
        expectation over no pairs is 0: a single row has no product pairs.

    Raises:
        ValueError: `negatives` is unknown.

    References:
        Hjelm et al., arXiv:1808.06670, eq. 4; used by arXiv:2404.16456 for both parts.
    """
    if negatives not in ("all", "next"):
        raise ValueError(f"negatives must be all or next, got {negatives!r}")
    a = counted_rows(at_least_float32(a), weights)
    b = counted_rows(at_least_float32(b), weights)
    scores = at_least_float32(scorer(a, gather(b, axis_name)))
    batch = len(a)
    joint = jnp.take_along_axis(scores, own_columns(batch, axis_name)[:, None], axis=1)[:, 0]
    rows = row_weights(weights, batch, scores.dtype)
    joint = reduce(-jax.nn.softplus(-joint), rows, axis_name=axis_name)
    pairs = off_diagonal(weights, batch, scores.dtype, axis_name)
    if negatives == "next":
        columns = scores.shape[1]
        ahead = (jnp.arange(columns) - own_columns(batch, axis_name)[:, None] - 1) % columns
        ahead = jnp.where(pairs > 0, ahead, columns)
        nearest = jnp.min(ahead, axis=1, keepdims=True)
        pairs = jnp.where(ahead == nearest, pairs, 0.0)
    return joint - reduce(jax.nn.softplus(scores), pairs, axis_name=axis_name)


def response_consistency(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    target_scorer: Scorer,
    others_scorer: Scorer,
    *,
    renormalize: bool = False,
    negatives: Negatives = "all",
    weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> Array:
    """RCD loss: keep the mutual information of teacher and student responses, part by part.

    `-I(target^t, target^s) - I(others^t, others^s)`, minimised over the student and over the
    statistics networks together. There is no adversarial step.

    Args:
        student_logits: `[batch, classes]`.
        teacher_logits: `[batch, classes]`; no gradient flows into them.
        labels: `[batch]` integers, the true classes.
        target_scorer: statistics network over target responses, `[n, 1], [m, 1] -> [n, m]`.
        others_scorer: statistics network over the others,
            `[n, classes - 1], [m, classes - 1] -> [n, m]`.
        renormalize: see `split_responses`.
        negatives: see `jsd_mutual_information`.
        weights: `[batch]`; rows of weight 0 count for nothing, and may hold anything.
        axis_name: mapped axis over which the batch is sharded.

    Returns:
        Scalar, float32 at least; `4 log 2` for statistics networks that are zero, 0 at best. With
        two classes both parts carry the same information.

    Raises:
        ValueError: the logits differ in shape, or `labels` are not integers `[batch]`.

    References:
        Li et al., arXiv:2404.16456, L_RCD; the estimator's form is that of arXiv:1808.06670.
    """
    student_logits, teacher_logits = student_and_teacher(student_logits, teacher_logits, weights)
    labels = counted_rows(jnp.asarray(labels), weights)
    student = split_responses(student_logits, labels, renormalize)
    teacher = split_responses(teacher_logits, labels, renormalize)
    information = partial(
        jsd_mutual_information, negatives=negatives, weights=weights, axis_name=axis_name
    )
    return -(
        information(target_scorer, teacher.target, student.target)
        + information(others_scorer, teacher.others, student.others)
    )
