"""Sentiment metrics of the MOSI / MOSEI literature, from counts that can be summed.

F1 is not a mean over examples, so per-batch F1 scores cannot be averaged. Confusion matrices can be
added over batches and devices; `weighted_f1`, `macro_f1` and `accuracy` are functions of the sum.
The other scores (mean absolute error, correlation) take the whole evaluation set at once. Padding
rows carry weight 0.

All are pure functions of arrays, NumPy's or JAX's, and can be jitted with `num_classes`, `zero` and
`limit` static. Counts are float32, exact up to 16.7 million examples. Scores are fractions in
`[0, 1]`, not per cent.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from corrkd_jax.losses.reduction import reduce


def confusion(
    true: ArrayLike,
    predicted: ArrayLike,
    num_classes: int,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Confusion matrix: numbers of pairs of true and predicted class.

    Args:
        true: Integer (or, for two classes, boolean) classes of any shape, usually `[batch]`.
        predicted: Classes of the same shape.
        num_classes: Number of classes `C`.
        weights: Non-negative weight of each example, of the same shape; `None` counts each once.

    Returns:
        `[C, C]` float32 counts, rows by true class, columns by predicted class. An example whose
        true or predicted class lies outside `[0, C)` is counted nowhere.

    Raises:
        ValueError: If the shapes differ.
    """
    true, predicted, weights = _as_arrays(true, predicted, weights)
    classes = jnp.arange(num_classes)
    rows = (true.ravel()[:, None] == classes).astype(float)
    if weights is not None:
        rows = rows * weights.ravel()[:, None]
    columns = (predicted.ravel()[:, None] == classes).astype(float)
    # The default precision of a matrix product on an accelerator would round fractional weights.
    return jnp.matmul(rows.T, columns, precision=jax.lax.Precision.HIGHEST)


def accuracy(confusion: ArrayLike) -> jax.Array:
    """Share of examples on the diagonal.

    Args:
        confusion: Counts `[..., C, C]`, rows by true class.

    Returns:
        `[...]`; 0 where there are no examples.
    """
    confusion = jnp.asarray(confusion, dtype=float)
    hits = jnp.trace(confusion, axis1=-2, axis2=-1)
    return _ratio(hits, jnp.sum(confusion, axis=(-2, -1)))


def weighted_f1(confusion: ArrayLike, legacy_argument_order: bool = False) -> jax.Array:
    """F1 of each class, `2 TP / (2 TP + FP + FN)`, averaged by the class's true support.

    This is the headline number of multimodal sentiment analysis. The evaluation script that came
    with MulT passed (predictions, truth) to a function that expects (truth, predictions). The F1 of
    one class is the same either way. Its weight is not: it becomes the number of times the class
    was *predicted*. Tables that go back to that script hold the other number.

    Args:
        confusion: Counts `[..., C, C]`, rows by true class.
        legacy_argument_order: Weigh by predicted support, to compare with such a table. A model
            that predicts one class only then gets full weight on that class.

    Returns:
        `[...]`. A class that is neither true nor predicted has F1 0; without examples, 0.
    """
    confusion = jnp.asarray(confusion, dtype=float)
    support = jnp.sum(confusion, axis=-2 if legacy_argument_order else -1)
    weighted = jnp.sum(support * _class_f1(confusion), axis=-1)
    return _ratio(weighted, jnp.sum(support, axis=-1))


def macro_f1(confusion: ArrayLike) -> jax.Array:
    """F1 of each class, averaged with equal weights over all `C` classes.

    Args:
        confusion: Counts `[..., C, C]`, rows by true class.

    Returns:
        `[...]`. A class that is neither true nor predicted enters with F1 0. (scikit-learn leaves
        it out, unless it is told all `labels`.)
    """
    return jnp.mean(_class_f1(jnp.asarray(confusion, dtype=float)), axis=-1)


def binary_sentiment(
    scores_true: ArrayLike,
    scores_pred: ArrayLike,
    zero: Literal["exclude", "non_negative"],
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Confusion matrix of the sign of sentiment, in either of the field's two conventions.

    Args:
        scores_true: Real scores, usually `[batch]` in `[-3, 3]`.
        scores_pred: Predicted scores of the same shape.
        zero: Treatment of neutral examples. `"exclude"` drops those whose *true* score is 0 and
            calls `> 0` positive ("non0", negative against positive); `"non_negative"` keeps all and
            calls `>= 0` positive ("has0", negative against non-negative).
        weights: Non-negative weight of each example, of the same shape.

    Returns:
        `[2, 2]` float32 counts, rows by true class; class 0 is negative. A NaN prediction counts as
        negative, as it does in the published evaluations; `mae` shows it.

    Raises:
        ValueError: If the shapes differ or `zero` is neither of the two.
    """
    true, predicted, weights = _as_arrays(scores_true, scores_pred, weights)
    if zero == "exclude":
        kept = true != 0
        weights = kept.astype(float) if weights is None else jnp.where(kept, weights, 0)
        return confusion(true > 0, predicted > 0, 2, weights)
    if zero == "non_negative":
        return confusion(true >= 0, predicted >= 0, 2, weights)
    raise ValueError(f"zero must be 'exclude' or 'non_negative', got {zero!r}")


def mae(
    scores_true: ArrayLike, scores_pred: ArrayLike, weights: ArrayLike | None = None
) -> jax.Array:
    """Mean absolute error.

    Args:
        scores_true: Real scores, usually `[batch]`.
        scores_pred: Predicted scores of the same shape.
        weights: Non-negative weight of each example, of the same shape.

    Returns:
        Scalar weighted mean, in units of the scores; 0 when there are no examples.

    Raises:
        ValueError: If the shapes differ.
    """
    true, predicted, weights = _as_arrays(scores_true, scores_pred, weights, float)
    return reduce(jnp.abs(true - predicted), weights)


def pearson(
    scores_true: ArrayLike, scores_pred: ArrayLike, weights: ArrayLike | None = None
) -> jax.Array:
    """Pearson's correlation coefficient.

    Args:
        scores_true: Real scores, usually `[batch]`.
        scores_pred: Predicted scores of the same shape.
        weights: Non-negative weight of each example, of the same shape.

    Returns:
        Scalar in `[-1, 1]`. Where either side is constant the coefficient is undefined and 0 is
        returned, so that a collapsed model scores as uninformative and not as NaN; a NaN among the
        scores does give NaN.

    Raises:
        ValueError: If the shapes differ.
    """
    true, predicted, weights = _as_arrays(scores_true, scores_pred, weights, float)
    weights = jnp.ones_like(true) if weights is None else weights
    true, true_constant = _standardize(true, weights)
    predicted, predicted_constant = _standardize(predicted, weights)
    covariance = jnp.sum(weights * true * predicted)
    variances = jnp.sum(weights * true**2) * jnp.sum(weights * predicted**2)
    constant = true_constant | predicted_constant
    correlation = covariance / jnp.sqrt(jnp.where(constant, 1, variances))
    return jnp.where(constant, 0, jnp.clip(correlation, -1, 1))


def accuracy_at(
    scores_true: ArrayLike,
    scores_pred: ArrayLike,
    limit: int,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Share of scores that agree once both are clipped to `[-limit, limit]` and rounded.

    `limit` 3, 2 and 1 give the accuracies over seven, five and three classes. Halves round to the
    even neighbour (0.5 to 0, 1.5 to 2, 2.5 to 2), as in the published evaluations.

    Args:
        scores_true: Real scores, usually `[batch]` in `[-3, 3]`.
        scores_pred: Predicted scores of the same shape.
        limit: Largest class.
        weights: Non-negative weight of each example, of the same shape.

    Returns:
        Scalar weighted mean; 0 when there are no examples.

    Raises:
        ValueError: If the shapes differ.
    """
    true, predicted, weights = _as_arrays(scores_true, scores_pred, weights, float)
    true = jnp.round(jnp.clip(true, -limit, limit))
    predicted = jnp.round(jnp.clip(predicted, -limit, limit))
    return reduce(true == predicted, weights)


def sentiment_report(
    scores_true: ArrayLike, scores_pred: ArrayLike, weights: ArrayLike | None = None
) -> dict[str, jax.Array]:
    """All scores that a table of sentiment regression reports.

    Args:
        scores_true: Real scores, usually `[batch]` in `[-3, 3]`.
        scores_pred: Predicted scores of the same shape.
        weights: Non-negative weight of each example, of the same shape.

    Returns:
        Scalars `non0_acc`, `non0_f1`, `has0_acc`, `has0_f1` (see `binary_sentiment`; F1 is
        `weighted_f1`), `acc7`, `acc5` (see `accuracy_at`), `mae` and `corr`.

    Raises:
        ValueError: If the shapes differ.
    """
    non0 = binary_sentiment(scores_true, scores_pred, "exclude", weights)
    has0 = binary_sentiment(scores_true, scores_pred, "non_negative", weights)
    return {
        "non0_acc": accuracy(non0),
        "non0_f1": weighted_f1(non0),
        "has0_acc": accuracy(has0),
        "has0_f1": weighted_f1(has0),
        "acc7": accuracy_at(scores_true, scores_pred, 3, weights),
        "acc5": accuracy_at(scores_true, scores_pred, 2, weights),
        "mae": mae(scores_true, scores_pred, weights),
        "corr": pearson(scores_true, scores_pred, weights),
    }


class ConstantFloors(NamedTuple):
    """Scores of the models that always predict one class.

    Attributes:
        weighted_f1: `[..., C]`, by the class that is predicted.
        accuracy: `[..., C]`, likewise.
    """

    weighted_f1: jax.Array
    accuracy: jax.Array


def constant_floors(counts: ArrayLike) -> ConstantFloors:
    """Scores of a model that has collapsed to one class, for each class.

    They are worth printing beside any result: in published tables of missing modalities, whole
    columns lie exactly on these floors.

    Args:
        counts: True examples of each class `[..., C]`, such as `confusion.sum(-1)`.

    Returns:
        `ConstantFloors`: weighted F1 and accuracy of always predicting each class; 0 when there are
        no examples.
    """
    counts = jnp.asarray(counts, dtype=float)
    total = jnp.sum(counts, axis=-1, keepdims=True)
    share = _ratio(counts, total)
    return ConstantFloors(weighted_f1=share * _ratio(2 * counts, counts + total), accuracy=share)


def _class_f1(confusion: jax.Array) -> jax.Array:
    """F1 of each class `[..., C]`, 0 where the class is neither true nor predicted."""
    hits = jnp.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(2 * hits, jnp.sum(confusion, axis=-1) + jnp.sum(confusion, axis=-2))


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """The quotient, 0 where the denominator is 0."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), 0)


def _standardize(scores: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scores moved and scaled to a range of 1 and a mean of 0, and whether they were constant.

    Taking the range first keeps float32 exact for scores far from 0 or tiny, and recognises a
    constant without a threshold. Rows of weight 0 come out finite.
    """
    counted = weights > 0
    low = jnp.min(scores, where=counted, initial=jnp.inf)
    high = jnp.max(scores, where=counted, initial=-jnp.inf)
    # True also without any counted score; false, as it should be, if one of them is NaN.
    constant = high <= low
    scale = jnp.where(constant, 1, high - low)
    scores = jnp.where(counted & ~constant, (scores - low) / scale, 0)
    return scores - reduce(scores, weights), constant


def _as_arrays(
    true: ArrayLike,
    predicted: ArrayLike,
    weights: ArrayLike | None,
    dtype: type | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Arrays of one shape, or an error: `[batch, 1]` against `[batch]` is the classic mistake.

    `dtype` is that of truth and prediction; weights become floating point.
    """
    true, predicted = jnp.asarray(true, dtype=dtype), jnp.asarray(predicted, dtype=dtype)
    if weights is not None:
        weights = jnp.asarray(weights, dtype=float)
    shapes = [array.shape for array in (true, predicted, weights) if array is not None]
    if len(set(shapes)) > 1:
        raise ValueError(f"shapes of truth, prediction and weights must agree, got {shapes}")
    return true, predicted, weights
