"""Dictionaries of confounders, built from training data alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from corrkd_jax.losses.reduction import Axis, at_least_float32


def subject_dictionary(
    features: ArrayLike,
    subjects: ArrayLike,
    count: int,
    weights: ArrayLike | None = None,
    axis_name: Axis = None,
) -> tuple[Array, Array]:
    """Dictionary of subjects: the mean feature and the share of each.

    Args:
        features: `[n, features]`, one row an utterance of the training split.
        subjects: `[n]` integers in `[0, count)`, the subject of each utterance.
        count: number of subjects, N.
        weights: `[n]`, 0 for padding; None counts every row once.
        axis_name: named axis over which the rows are sharded.

    Returns:
        Confounders `[count, features]` and prior `[count]`, which sums to one; float32 at least. A
        subject without a row has zeros in both, so that it adds nothing to an expectation.

    Raises:
        ValueError: `features` and `subjects` do not fit.

    References:
        SuCI, arXiv:2403.05025, reconstructed: the prior is that of the authors' twin method, CCIM.
    """
    features, subjects = at_least_float32(features), jnp.asarray(subjects)
    if features.ndim != 2 or subjects.shape != features.shape[:1]:
        raise ValueError(
            f"features {features.shape} and subjects {subjects.shape} do not fit: expected "
            "[n, features] and [n]"
        )
    ones = jnp.ones(subjects.shape, features.dtype)
    weights = ones if weights is None else jnp.asarray(weights, features.dtype)
    real = weights[:, None] > 0
    sums = jax.ops.segment_sum(jnp.where(real, features, 0) * weights[:, None], subjects, count)
    rows = jax.ops.segment_sum(weights, subjects, count)
    if axis_name is not None:
        sums, rows = jax.lax.psum((sums, rows), axis_name)
    total = jnp.sum(rows)
    return sums / jnp.where(rows > 0, rows, 1)[:, None], rows / jnp.where(total > 0, total, 1)


def prototype_dictionary(
    key: Array,
    features: ArrayLike,
    count: int,
    components: int,
    weights: ArrayLike | None = None,
    start: ArrayLike | None = None,
    steps: int = 50,
    tries: int = 3,
    variance: float = 0.95,
) -> tuple[Array, Array]:
    """Dictionary of prototypes: the mean feature and the share of each cluster.

    k-means++ clusters the principal components. The means are taken of the features as they were,
    because a centre among components could not be added to a prediction.

    Args:
        key: random key of the starts.
        features: `[n, features]`, a teacher's logits or features of the substitution data.
        count: number of prototypes, N.
        components: number of principal components to cluster in.
        weights: `[n]`, 0 for padding; None counts every row once.
        start: `[count, features]`, prototypes of an earlier dictionary, so that new ones keep their
            places; a prototype of zeros does not start anything. None starts afresh.
        steps: steps of k-means.
        tries: number of starts, of which the one of least spread is taken; one with `start`.
        variance: share of the variance after which further components are left out.

    Returns:
        Prototypes `[count, features]` and prior `[count]`, which sums to one; float32 at least. An
        empty cluster has a prior of zero, and its `start`, or zeros.

    Raises:
        ValueError: shapes do not fit.

    References:
        KDCI, arXiv:2403.19539, reconstructed.
    """
    features, weights = _weighted(features, weights)
    axes = pca(features, components, weights)
    needed = jnp.cumsum(axes.share) - axes.share < variance
    projected = (features - axes.mean) @ axes.axes.T * needed

    def spread(centers: Array, nearest: Array) -> Array:
        return jnp.sum(weights * jnp.sum(jnp.square(projected - centers[nearest]), axis=1))

    if start is None:
        keys = jax.random.split(key, tries)
        centers, nearest = jax.vmap(lambda k: kmeans(k, projected, count, steps, weights))(keys)
        nearest = nearest[jnp.argmin(jax.vmap(spread)(centers, nearest))]
        start = jnp.zeros((count, features.shape[1]), features.dtype)
    else:
        begin = (start - axes.mean) @ axes.axes.T * needed
        _, nearest = kmeans(key, projected, count, steps, weights, begin)
    prototypes, prior = subject_dictionary(features, nearest, count, weights)
    return jnp.where(prior[:, None] > 0, prototypes, start), prior


def random_dictionary(key: Array, confounders: ArrayLike) -> Array:
    """Noise with each feature's mean and deviation over a dictionary: the control for its content.

    Args:
        key: random key.
        confounders: `[strata, features]`.

    Returns:
        Array like `confounders`.
    """
    confounders = jnp.asarray(confounders)
    noise = jax.random.normal(key, confounders.shape, confounders.dtype)
    return jnp.mean(confounders, axis=0) + noise * jnp.std(confounders, axis=0)


def kmeans(
    key: Array,
    points: ArrayLike,
    count: int,
    steps: int,
    weights: ArrayLike | None = None,
    start: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Clusters by Lloyd's algorithm from a k-means++ start (Arthur & Vassilvitskii, 2007).

    Under `jit`, with `count` and `steps` static, it is one XLA program, which keeps `[n, count]`
    distances. For the best of several starts, `vmap` over keys and compare the distances.

    Args:
        key: random key of the start.
        points: `[n, features]`.
        count: number of clusters.
        steps: steps of assignment and update; 50 suffice for most data.
        weights: `[n]`, 0 for padding, which may hold anything; None counts every point once.
        start: `[count, features]`, centers to begin with instead, such as those of an earlier
            dictionary, so that its clusters keep their places.

    Returns:
        Centers `[count, features]`, float32 at least, and for each point the index of the nearest,
        `[n]`. A cluster that loses its last point keeps its center.

    Raises:
        ValueError: shapes do not fit.
    """
    points, weights = _weighted(points, weights)
    if start is not None and jnp.shape(start) != (count, points.shape[1]):
        raise ValueError(f"start must be {(count, points.shape[1])}, got {jnp.shape(start)}")
    # around their mean, points lose fewer digits to the expansion of the square
    mean = jnp.average(points, axis=0, weights=weights)
    points = points - mean
    if start is None:
        centers = _spread_out(key, points, count, weights)
    else:
        centers = at_least_float32(start).astype(points.dtype) - mean

    def step(_: int, centers: Array) -> Array:
        nearest = jnp.argmin(_square_distances(points, centers), axis=1)
        sums = jax.ops.segment_sum(points * weights[:, None], nearest, count)
        total = jax.ops.segment_sum(weights, nearest, count)[:, None]
        return jnp.where(total > 0, sums / jnp.where(total > 0, total, 1), centers)

    centers = jax.lax.fori_loop(0, steps, step, centers)
    return centers + mean, jnp.argmin(_square_distances(points, centers), axis=1)


class Components(NamedTuple):
    """Principal components; `(points - mean) @ axes.T` projects points.

    Attributes:
        mean: `[features]`.
        axes: `[count, features]`, orthonormal rows, the most varied first; the coordinate of
            largest magnitude is positive.
        share: `[count]`, share of the total variance along each.
    """

    mean: Array
    axes: Array
    share: Array


def pca(points: ArrayLike, count: int, weights: ArrayLike | None = None) -> Components:
    """Principal components, from the eigenvectors of the covariance.

    Args:
        points: `[n, features]`.
        count: number of components, at most the features.
        weights: `[n]`, as in `kmeans`.

    Returns:
        `Components`, float32 at least.

    Raises:
        ValueError: shapes do not fit, or more components than features.
    """
    points, weights = _weighted(points, weights)
    if not 0 < count <= points.shape[1]:
        raise ValueError(f"count must be between 1 and {points.shape[1]} features, got {count}")
    mean = jnp.average(points, axis=0, weights=weights)
    centered = (points - mean) * jnp.sqrt(weights / jnp.sum(weights))[:, None]
    variances, axes = jnp.linalg.eigh(jnp.matmul(centered.T, centered, precision="highest"))
    axes = axes.T[::-1][:count]
    largest = jnp.take_along_axis(axes, jnp.argmax(jnp.abs(axes), axis=1)[:, None], axis=1)
    total = jnp.sum(variances)
    share = jnp.maximum(variances[::-1][:count], 0) / jnp.where(total > 0, total, 1)
    return Components(mean, axes * jnp.sign(largest), share)


def _weighted(points: ArrayLike, weights: ArrayLike | None) -> tuple[Array, Array]:
    """Points, those of weight 0 turned to zeros, and their weights."""
    points = at_least_float32(points)
    ones = jnp.ones(points.shape[:1], points.dtype)
    weights = ones if weights is None else jnp.asarray(weights, points.dtype)
    if points.ndim != 2 or weights.shape != points.shape[:1]:
        raise ValueError(
            f"points {points.shape} and weights {weights.shape} do not fit: expected "
            "[n, features] and [n]"
        )
    return jnp.where(weights[:, None] > 0, points, 0), weights


def _spread_out(key: Array, points: Array, count: int, weights: Array) -> Array:
    """Points drawn one after another, each with a chance that grows as its squared distance."""

    def draw(nearest: Array, key: Array) -> tuple[Array, Array]:
        chances = weights * nearest
        # fewer places than clusters: any point will do
        chances = jnp.where(jnp.sum(chances) > 0, chances, weights)
        center = points[jax.random.categorical(key, jnp.log(chances))]
        distance = jnp.sum(jnp.square(points - center), axis=1)
        return jnp.minimum(nearest, distance), center

    # before there is a center all points are equally far, further than any distance
    far = jnp.full(len(points), jnp.finfo(points.dtype).max ** 0.5)
    return jax.lax.scan(draw, far, jax.random.split(key, count))[1]


def _square_distances(points: Array, centers: Array) -> Array:
    """`[n, count]`, each less its point's own square, which no comparison of centers needs."""
    products = jnp.matmul(points, centers.T, precision="highest")
    return jnp.sum(jnp.square(centers), axis=1) - 2 * products
