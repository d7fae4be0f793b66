"""Counterfactual inference: subtract from an output what the bias alone would have given.

MCIS (arXiv:2403.05023) feeds a trained model two inputs without their content: one with nothing in
it (label bias) and one with context words only (context bias). It subtracts both outputs, scaled by
coefficients that are searched on the validation split. Nothing is trained. The paper's own code is
not public; the search is that of its direct ancestor (github.com/qianc62/Corsair).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

Score = Callable[[Array], ArrayLike]
"""Objective of a search: outputs `[n, classes]` -> a scalar, larger is better; traceable."""


class Found(NamedTuple):
    """Result of a search.

    Attributes:
        coefficients: coefficients of the label and of the context term.
        score: score at these coefficients.
        vanilla: score at (0, 0), never above `score`.
    """

    coefficients: tuple[float, float]
    score: float
    vanilla: float


def purify(
    factual: ArrayLike, label_bias: ArrayLike, context_bias: ArrayLike, coefficients: ArrayLike
) -> Array:
    """De-biased output, `o - l1 o_label - l2 o_context`.

    It works on raw logits or scores, before any softmax or clipping. Coefficients of zero give back
    the factual output bit for bit, even where a bias is not finite.

    Args:
        factual: `[..., classes]`, outputs of the factual input; one class for regression.
        label_bias: `[classes]`, output of the input without content; it may be batched as well.
        context_bias: `[..., classes]`, outputs of the inputs that keep context alone.
        coefficients: `[2]`, l1 and l2; may be negative, may be traced.

    Returns:
        `[..., classes]`, the dtype of `factual` or wider.

    References:
        MCIS, arXiv:2403.05023, reconstructed.
    """
    result = jnp.asarray(factual)
    for scale, bias in zip(
        jnp.asarray(coefficients, result.dtype), (label_bias, context_bias), strict=True
    ):
        result = result - jnp.where(scale == 0, 0, scale * jnp.asarray(bias, result.dtype))
    return result


def grid_search(
    factual: ArrayLike,
    label_bias: ArrayLike,
    context_bias: ArrayLike,
    score: Score,
    reach: float = 2.0,
    step: float = 0.1,
) -> Found:
    """Best pair of coefficients on the full grid `[-reach, reach]^2`, in one compiled call.

    Give it outputs of a validation split only: two public implementations of this family tune on
    test.

    Args:
        factual: `[n, classes]`.
        label_bias: `[classes]`.
        context_bias: `[n, classes]`.
        score: objective to maximise, such as a macro F1 of the predictions.
        reach: largest coefficient in size.
        step: step of the grid.

    Returns:
        The best point. Among equals it is the one with the least sum of sizes, then the first in
        ascending order.

    Raises:
        ValueError: the step does not divide the reach, or no score is a number.
    """
    return best_point(_evaluate(factual, label_bias, context_bias, score, reach, step), step)


def grid_scores(
    factual: ArrayLike,
    label_bias: ArrayLike,
    context_bias: ArrayLike,
    score: Score,
    reach: float = 2.0,
    step: float = 0.1,
) -> Array:
    """Score at every point of the grid `[-reach, reach]^2`, traceable: map it over models.

    Args:
        factual: `[n, classes]`.
        label_bias: `[classes]`.
        context_bias: `[n, classes]`.
        score: objective, see `grid_search`.
        reach: largest coefficient in size.
        step: step of the grid.

    Returns:
        `[points, points]`, by the coefficient of the label and of the context term, ascending.

    Raises:
        ValueError: the step does not divide the reach.
    """
    axis = jnp.asarray(_axis(reach, step), jnp.asarray(factual).dtype)

    def at(first: Array, second: Array) -> Array:
        return jnp.asarray(
            score(purify(factual, label_bias, context_bias, jnp.stack([first, second])))
        )

    # one row of the grid at a time bounds the memory by that of 41 copies of the outputs
    return lax.map(lambda first: jax.vmap(at, (None, 0))(first, axis), axis)


def best_point(table: ArrayLike, step: float, label: bool = True, context: bool = True) -> Found:
    """Best coefficients of a table of `grid_scores`.

    Args:
        table: `[points, points]`.
        step: step of its grid.
        label: False holds the label term's coefficient at zero.
        context: False holds the context term's at zero.

    Returns:
        The best point, with ties resolved as in `grid_search`.

    Raises:
        ValueError: the scores are no scalars, or none of them is a number.
    """
    table = np.array(table)
    if table.ndim != 2:
        raise ValueError(f"a score must be a scalar, got shape {table.shape[2:]}")
    middle = len(table) // 2
    allowed = np.ones(table.shape, bool)
    if not label:
        allowed &= np.arange(len(table))[:, None] == middle
    if not context:
        allowed &= np.arange(len(table)) == middle
    if np.isnan(table[allowed]).all():
        raise ValueError("no score is a number: are the outputs finite?")
    best = np.nanmax(table[allowed])
    points = [(int(i), int(j)) for i, j in np.argwhere(allowed & (table == best)) - middle]
    nearest = min(points, key=lambda p: (abs(p[0]) + abs(p[1]), p))
    return _found(table, nearest, step)


def beam_search(
    factual: ArrayLike,
    label_bias: ArrayLike,
    context_bias: ArrayLike,
    score: Score,
    reach: float = 2.0,
    step: float = 0.1,
    patience: int = 20,
) -> Found:
    """Best point of the ancestor's search: a walk in eight directions, until nothing moves.

    It serves comparisons with published coefficients; `grid_search` sees every point.

    Args:
        factual: `[n, classes]`.
        label_bias: `[classes]`.
        context_bias: `[n, classes]`.
        score: objective to maximise.
        reach: largest coefficient in size.
        step: step of a walk.
        patience: steps past the last improvement before a direction is given up.

    Returns:
        The best point reached; only a strictly better score moves it.

    Raises:
        ValueError: the step does not divide the reach, or the vanilla score is not a number.
    """
    table = _evaluate(factual, label_bias, context_bias, score, reach, step)
    return _walk(table, step, patience)


def stand_in(inputs: ArrayLike, valid: ArrayLike) -> Array:
    """Input without content: the mean over samples at each position, padding left out.

    Args:
        inputs: `[n, time, features]`, embedded inputs of the training split.
        valid: `[n, time]` bool, False on padding.

    Returns:
        `[time, features]`; zeros at a position that is padding in every sample.
    """
    valid = jnp.asarray(valid)[..., None]
    total = jnp.sum(jnp.where(valid, jnp.asarray(inputs), 0), axis=0)
    return total / jnp.maximum(jnp.sum(valid, axis=0), 1)


def replace_tokens(inputs: ArrayLike, content: ArrayLike, replacement: ArrayLike) -> Array:
    """Inputs whose content words are replaced, so that only their context is left.

    Args:
        inputs: `[batch, time, features]`.
        content: `[batch, time]` bool, True where a word carries content.
        replacement: `[time, features]` of `stand_in`, or `[features]`.

    Returns:
        Array like `inputs`.
    """
    inputs = jnp.asarray(inputs)
    return jnp.where(
        jnp.asarray(content)[..., None], jnp.asarray(replacement, inputs.dtype), inputs
    )


def _axis(reach: float, step: float) -> np.ndarray:
    count = round(reach / step) if step > 0 else 0
    if count < 1 or not math.isclose(count * step, reach, rel_tol=1e-6):
        raise ValueError(f"a step of {step} does not divide a reach of {reach}")
    # whole numbers first: (0, 0) and ties must be exact
    return np.round(np.arange(-count, count + 1) * step, 10)


def _evaluate(
    factual: ArrayLike,
    label_bias: ArrayLike,
    context_bias: ArrayLike,
    score: Score,
    reach: float,
    step: float,
) -> np.ndarray:
    """Score at every point, `[label, context]`, compiled."""
    arrays = (jnp.asarray(np.asarray(x)) for x in (factual, label_bias, context_bias))
    return np.asarray(jax.jit(partial(grid_scores, score=score, reach=reach, step=step))(*arrays))


def _walk(table: np.ndarray, step: float, patience: int) -> Found:
    if table.ndim != 2:
        raise ValueError(f"a score must be a scalar, got shape {table.shape[2:]}")
    middle = len(table) // 2
    best, moved = (0, 0), True

    def value(point: tuple[int, int]) -> float:
        return table[point[0] + middle, point[1] + middle]

    if np.isnan(value(best)):
        raise ValueError("the vanilla score is not a number: are the outputs finite?")
    directions = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
    while moved:
        moved, start = False, best
        for a, b in directions:
            point, idle = start, 0
            while idle < patience:
                point = (point[0] + a, point[1] + b)
                if max(map(abs, point)) > middle:
                    break
                idle += 1
                if value(point) > value(best):
                    best, moved, idle = point, True, 0
    return _found(table, best, step)


def _found(table: np.ndarray, point: tuple[int, int], step: float) -> Found:
    middle = len(table) // 2
    label, context = point
    # adding a zero turns a negative zero into a positive one
    coefficients = (round(label * step, 10) + 0.0, round(context * step, 10) + 0.0)
    score = float(table[label + middle, context + middle])
    return Found(coefficients, score, float(table[middle, middle]))
