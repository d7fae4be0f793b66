"""Back-door adjustment over a dictionary of confounders, with the expectation moved inside.

With a prediction that is linear in the confounder, `sum_z P(Y|X,z) P(z)` becomes one forward pass
at the expected confounder (normalised weighted geometric mean). Published methods differ in the
weights of that expectation, and there the letter and the purpose part: see `backdoor_expectation`.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from corrkd_jax.losses.reduction import at_least_float32

Weighting = Literal["dot", "additive", "uniform", "own_subject"]
"""Weights of the strata of a dictionary; see `backdoor_expectation`."""


def backdoor_expectation(
    query: ArrayLike,
    confounders: ArrayLike,
    prior: ArrayLike,
    *,
    keys: ArrayLike | None = None,
    weighting: Weighting = "dot",
    vector: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    scale: float | None = None,
    renormalize: bool = False,
    present: ArrayLike | None = None,
) -> Array:
    """Expected confounder of each sample, `sum_i lambda_i P(s_i) s_i`.

    No gradient flows into the confounders or the prior: the dictionary is data.

    Args:
        query: `[batch, width]`, the projected feature `W_q h`; `[batch, anything]` for the two
            weightings that do not read it.
        confounders: `[strata, features]`, the dictionary S.
        prior: `[strata]`, P(s_i), summing to one.
        keys: `[strata, width]`, the projected dictionary `W_k s_i`; None takes the confounders
            themselves, which must then be as wide as the query.
        weighting: `"dot"`: `lambda = softmax_i(query . key_i / scale)`, the paper's letter;
            `"additive"`: `softmax_i(vector . tanh(query + key_i))`; `"uniform"`: `1 / strata`;
            `"own_subject"`: `lambda P` is the one-hot of a sample's own stratum where `strata` is
            given (training) and the prior where it is not (inference). At the level of logits the
            last is the exact adjustment, and the form that removes a planted confounder.
        vector: `[width]`, for `"additive"`.
        strata: `[batch]` integers, each sample's own stratum, for `"own_subject"` in training.
        scale: divisor of the dot products; None: the root of the query's width. CCIM's code has the
            root of the raw dictionary's width.
        renormalize: divide by `sum_i lambda_i P(s_i)`. CCIM does not, so that with a uniform prior
            the result shrinks as `1 / strata`.
        present: `[strata]` booleans, False for empty places of the dictionary, which are then as if
            they were not there; None takes all. A prior of zero alone leaves a place its share of
            the attention.

    Returns:
        `[batch, features]`, at least float32.

    Raises:
        ValueError: shapes do not fit, the weighting is unknown or misses its argument.

    References:
        SuCI, arXiv:2403.05025, reconstructed from the authors' twin method (CCIM).
    """
    query = at_least_float32(query)
    confounders = jax.lax.stop_gradient(at_least_float32(confounders))
    prior = jax.lax.stop_gradient(at_least_float32(prior))
    if confounders.ndim != 2 or prior.shape != confounders.shape[:1]:
        raise ValueError(
            f"confounders {confounders.shape} and prior {prior.shape} do not fit: expected "
            "[strata, features] and [strata]"
        )
    if weighting not in get_args(Weighting):
        raise ValueError(f"weighting must be one of {get_args(Weighting)}, got {weighting!r}")
    if query.ndim != 2:
        raise ValueError(f"query must be [batch, width], got {query.shape}")
    if weighting == "own_subject":
        weights = _own(strata, query.shape[0], prior)
    else:
        present = jnp.ones(prior.shape, bool) if present is None else jnp.asarray(present)
        weights = _attention(query, confounders, keys, weighting, vector, scale, present) * prior
    if renormalize:
        # with the dot form every weight is positive; a prior of zeros gives zeros
        total = jnp.sum(weights, axis=-1, keepdims=True)
        weights = weights / jnp.where(total > 0, total, 1)
    return weights @ confounders


def intervene(
    features: ArrayLike,
    expectation: ArrayLike,
    kernel: ArrayLike | None,
    confounder_kernel: ArrayLike,
) -> Array:
    """Input of the head in place of the fused feature: `W_h h + W_g E[s]`.

    It is linear in the confounder, so that the expectation of the result is the result at the
    expectation.

    Args:
        features: `[batch, in]`, h.
        expectation: `[batch, confounder features]`, of `backdoor_expectation`.
        kernel: `[in, out]`, W_h; None leaves the features as they are, to the bit.
        confounder_kernel: `[confounder features, out]`, W_g.

    Returns:
        `[batch, out]`.

    References:
        SuCI, arXiv:2403.05025, reconstructed.
    """
    features = jnp.asarray(features)
    own = features if kernel is None else features @ jnp.asarray(kernel)
    return own + jnp.asarray(expectation) @ jnp.asarray(confounder_kernel)


def backdoor_probabilities(logits: ArrayLike, prior: ArrayLike) -> Array:
    """Exact adjustment, `sum_i P(s_i) softmax(phi_i)`: one forward pass a stratum.

    Args:
        logits: `[..., strata, classes]`, phi of each stratum.
        prior: `[strata]`, P(s_i), summing to one.

    Returns:
        `[..., classes]` probabilities, float32 at least.
    """
    probabilities = jax.nn.softmax(at_least_float32(logits), axis=-1)
    return jnp.einsum("...sk,s->...k", probabilities, at_least_float32(prior))


def geometric_probabilities(logits: ArrayLike, prior: ArrayLike) -> Array:
    """Normalised weighted geometric mean of the strata's softmaxes.

    It equals the softmax of the mean logits exactly, which lets the expectation move inside, and
    only approximates `backdoor_probabilities`.

    Args:
        logits: `[..., strata, classes]`.
        prior: `[strata]`, summing to one.

    Returns:
        `[..., classes]` probabilities, float32 at least.
    """
    mean = jnp.einsum("...sk,s->...k", at_least_float32(logits), at_least_float32(prior))
    return jax.nn.softmax(mean, axis=-1)


def _attention(
    query: Array,
    confounders: Array,
    keys: ArrayLike | None,
    weighting: Weighting,
    vector: ArrayLike | None,
    scale: float | None,
    present: Array,
) -> Array:
    count = confounders.shape[0]
    if weighting == "uniform":
        share = present / jnp.maximum(jnp.sum(present), 1)
        return jnp.broadcast_to(share.astype(query.dtype), (query.shape[0], count))
    keys = confounders if keys is None else at_least_float32(keys)
    if keys.shape != (count, query.shape[1]):
        raise ValueError(
            f"keys of shape {keys.shape} do not fit: expected {(count, query.shape[1])}, one a "
            "confounder and as wide as the query"
        )
    if weighting == "additive":
        vector = jnp.zeros(0) if vector is None else at_least_float32(vector)
        if vector.shape != query.shape[1:]:
            raise ValueError(f"weighting 'additive' needs a vector of shape ({query.shape[1]},)")
        scores = jnp.tanh(query[:, None] + keys[None]) @ vector
    else:
        scores = query @ keys.T / (math.sqrt(query.shape[1]) if scale is None else scale)
    # an empty dictionary attends to all of its nothing rather than divide zero by zero
    return jax.nn.softmax(scores, axis=-1, where=present | ~jnp.any(present))


def _own(strata: ArrayLike | None, batch: int, prior: Array) -> Array:
    if strata is None:
        return jnp.broadcast_to(prior, (batch, prior.shape[0]))
    strata = jnp.asarray(strata)
    if strata.shape != (batch,) or not jnp.issubdtype(strata.dtype, jnp.integer):
        raise ValueError(
            f"strata must be {batch} integers, got {strata.dtype} of shape {strata.shape}"
        )
    return jax.nn.one_hot(strata, prior.shape[0], dtype=prior.dtype)
