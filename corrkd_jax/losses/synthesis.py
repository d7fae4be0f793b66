"""Losses on images that are synthesised without data, from a teacher's and a student's logits.

Whoever makes the images minimises them: a generator, its latents, or the images themselves. Unlike
in the losses of distillation, gradients flow through both networks' logits; the networks' own
parameters are not optimised. Which loss belongs to which method, as in zju-vipa's benchmark:

* DAFL (arXiv:1904.01186): `class_prior`, `activation`, `balance`.
* ZSKT (arXiv:1905.09768), DFQ (arXiv:2005.10514): `adversarial_kl`; DFQ also the first and third
  of DAFL and `bn_statistics`. DFAD (arXiv:1912.11006): `adversarial_l1`.
* DeepInversion (arXiv:1912.08795): `class_prior`, `bn_statistics`, `adversarial_js`, the three
  priors of images.
* CMI (arXiv:2105.08584), Fast (arXiv:2112.06253): `class_prior`, `bn_statistics`,
  `decision_adversarial`; CMI also `instance_contrastive`.
* MosaicKD (arXiv:2110.15094): `adversarial_kl`, `mean_entropy`, `balance`, `patch_generator`.

With `axis_name`, the batch is sharded over that named axis, and every shard returns the value of
the whole batch. The mean over shards of the gradients of replicated parameters is then that value's
gradient. The gradient of a shard's own images is as many times too large as there are shards.
"""

import functools
import math
from collections.abc import Mapping
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from corrkd_jax.losses.batch import gather, own_columns, psum, row_weights
from corrkd_jax.losses.classification import cross_entropy
from corrkd_jax.losses.reduction import Axis, at_least_float32, reduce


def class_prior(
    logits: ArrayLike,
    targets: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    axis_name: Axis = None,
) -> Array:
    """Cross-entropy of a teacher's logits with one class: it should be sure of every image.

    Args:
        logits: `[batch, classes]`, the teacher's.
        targets: `[batch]` integers, the classes that the images should show (DeepInversion, CMI,
            Fast). None: the class that the teacher already prefers (DAFL, DFQ).
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar mean, float32 at least, in nats.
    """
    logits = jnp.asarray(logits)
    targets = jnp.argmax(logits, axis=-1) if targets is None else targets
    return cross_entropy(logits, targets, weights, axis_name=axis_name)


def activation(
    features: ArrayLike, weights: ArrayLike | None = None, axis_name: Axis = None
) -> Array:
    """Minus the mean magnitude of a teacher's features (DAFL, arXiv:1904.01186).

    Args:
        features: `[batch, features]`, the teacher's.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar mean over rows and features, float32 at least.
    """
    return -reduce(jnp.abs(at_least_float32(features)), weights, axis_name=axis_name)


def balance(
    logits: ArrayLike,
    base: float = math.e,
    weights: ArrayLike | None = None,
    axis_name: Axis = None,
) -> Array:
    """Minus the entropy of the batch's mean probabilities: all classes should be equally frequent.

    Args:
        logits: `[batch, classes]`, the teacher's.
        base: base of the logarithm, which scales the loss. DAFL's own code has 10, its copy in
            zju-vipa's benchmark e, MosaicKD 2, and their weights were tuned with these.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar in `[-log(classes), 0]` of that base, float32 at least.
    """
    probabilities = jax.nn.softmax(at_least_float32(logits))
    rows = jnp.ones(probabilities.shape[0]) if weights is None else jnp.asarray(weights)
    real = (rows > 0)[:, None]
    total = psum(jnp.sum(jnp.where(real, probabilities, 0) * rows[:, None], axis=0), axis_name)
    count = psum(jnp.sum(rows), axis_name)
    return -_entropy(total / jnp.where(count > 0, count, 1)) / math.log(base)


def mean_entropy(
    logits: ArrayLike, weights: ArrayLike | None = None, axis_name: Axis = None
) -> Array:
    """Mean entropy of each row's probabilities (MosaicKD's alignment, arXiv:2110.15094).

    Args:
        logits: `[batch, classes]`, the teacher's.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar mean, float32 at least, in nats.
    """
    probabilities = jax.nn.softmax(at_least_float32(logits))
    return reduce(_entropy(probabilities), weights, axis_name=axis_name)


def bn_statistics(
    running: Mapping[str, Any], batch: Mapping[str, Any], scales: Mapping[str, float] | None = None
) -> Array:
    """Distance of a batch's statistics from the running statistics of a teacher's batch norms.

    `sum over layers of |var_running - var_batch| + |mean_running - mean_batch|`, norms not squared.
    The published variance of the batch is biased while torch's running variance is not, so that
    even training data leave a small rest. The statistics are those of the whole batch already
    (`corrkd_jax.models.backbones.layers.BatchNorm`); there is nothing to sum over shards.

    Args:
        running: the collection `batch_stats`: a tree whose innermost mappings hold `mean` and
            `var`, `[channels]` each. Constant under differentiation.
        batch: the collection `bn_inputs`, a tree like it, or the result of `blend_statistics`.
        scales: factors of single layers by their path with slashes, such as `{"stem/norm": 10.0}`
            for DeepInversion's emphasis on the first layer.

    Returns:
        Scalar, float32 at least.

    Raises:
        ValueError: the trees differ, or a scale names no layer.

    References:
        DeepInversion, arXiv:1912.08795.
    """
    running, batch = _by_layer(running), _by_layer(batch)
    if running.keys() != batch.keys():
        raise ValueError(f"statistics differ in layers: {sorted(running.keys() ^ batch.keys())}")
    scales = scales or {}
    if unknown := sorted(scales.keys() - running.keys()):
        raise ValueError(f"scales name no layers: {unknown}; there are {sorted(running)}")
    total = jnp.zeros(())
    for layer, wanted in running.items():
        for name in ("mean", "var"):
            difference = jax.lax.stop_gradient(wanted[name]) - batch[layer][name]
            total += scales.get(layer, 1.0) * _norm(jnp.sum(jnp.square(difference)))
    return total


def blend_statistics(batch: Any, previous: Any | None, momentum: float = 0.9) -> Any:
    """Batch statistics mixed with those of earlier batches (Fast, arXiv:2112.06253).

    A small batch of a good generator need not have the teacher's statistics; the stream should.
    Give the result to `bn_statistics`, and keep that of a call's last step, which carries no
    gradient back, as the next call's `previous`.

    Args:
        batch: the collection `bn_inputs`.
        previous: an earlier result, constant under differentiation; None in the first call, which
            takes the batch as it is.
        momentum: share of `previous`.

    Returns:
        A tree like `batch`.
    """
    if previous is None:
        return batch
    return jax.tree.map(
        lambda old, new: momentum * jax.lax.stop_gradient(old) + (1 - momentum) * new,
        previous,
        batch,
    )


def adversarial_kl(
    student: ArrayLike,
    teacher: ArrayLike,
    temperature: float = 1.0,
    weights: ArrayLike | None = None,
    axis_name: Axis = None,
) -> Array:
    """Minus `T^2 KL(teacher || student)`, the student's loss: it should be wrong about the images.

    Args:
        student: logits `[batch, classes]`.
        teacher: logits `[batch, classes]`; the gradient flows into them too.
        temperature: T. The benchmark's scripts say 20, and its code replaces the loss by one of T =
            1, with which the published numbers were made.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar mean, at most 0, float32 at least, in nats.

    Raises:
        ValueError: the shapes differ.
    """
    return -(temperature**2) * reduce(
        _kl(student, teacher, temperature), weights, "mean", axis_name
    )


def decision_adversarial(
    student: ArrayLike,
    teacher: ArrayLike,
    weights: ArrayLike | None = None,
    axis_name: Axis = None,
) -> Array:
    """Minus `KL(teacher || student)` of images on whose class both agree (CMI, Fast).

    The images should be near the student's decision border, on the teacher's side of it. Images on
    whose class the two disagree add zero and stay in the denominator.

    Args:
        student: logits `[batch, classes]`.
        teacher: logits `[batch, classes]`; the gradient flows into them too.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar mean, at most 0, float32 at least, in nats.

    Raises:
        ValueError: the shapes differ.
    """
    agree = jnp.argmax(student, axis=-1) == jnp.argmax(teacher, axis=-1)
    return -reduce(jnp.where(agree, _kl(student, teacher, 1.0), 0), weights, axis_name=axis_name)


def adversarial_l1(
    student: ArrayLike,
    teacher: ArrayLike,
    weights: ArrayLike | None = None,
    axis_name: Axis = None,
) -> Array:
    """Minus the mean absolute difference of logits (DFAD, arXiv:1912.11006).

    Args:
        student: logits `[batch, classes]`.
        teacher: logits `[batch, classes]`; the gradient flows into them too.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar mean over rows and classes, at most 0, float32 at least.
    """
    distance = jnp.abs(at_least_float32(student) - at_least_float32(teacher))
    return -reduce(distance, weights, axis_name=axis_name)


def js_divergence(
    student: ArrayLike,
    teacher: ArrayLike,
    temperature: float = 3.0,
    reverse: bool = True,
    clamp: float = 0.01,
    weights: ArrayLike | None = None,
    axis_name: Axis = None,
) -> Array:
    """Mean Jensen-Shannon divergence of two networks' probabilities, as in DeepInversion's code.

    Args:
        student: logits `[batch, classes]`.
        teacher: logits `[batch, classes]`.
        temperature: temperature of both softmaxes.
        reverse: `KL(middle || p)`, averaged over both networks' p, with the mean of the two as
            middle. The published code computes this because of the order of torch's arguments;
            False is the textbook's `KL(p || middle)`.
        clamp: probabilities are clipped to `[clamp, 1 - clamp]` and not normalised again, as
            published. Classes that one of the networks excludes then have no gradient. 0 clips
            nothing.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar mean, float32 at least, in nats.

    References:
        DeepInversion, arXiv:1912.08795.
    """
    answers = [jax.nn.softmax(at_least_float32(x) / temperature) for x in (student, teacher)]
    middle = (answers[0] + answers[1]) / 2
    floor = max(clamp, jnp.finfo(middle.dtype).tiny)
    middle, *answers = (jnp.clip(x, floor, 1 - clamp) for x in (middle, *answers))

    def kl(p: Array, q: Array) -> Array:
        return jnp.sum(p * (jnp.log(p) - jnp.log(q)), axis=-1)

    halves = [kl(middle, x) if reverse else kl(x, middle) for x in answers]
    return reduce((halves[0] + halves[1]) / 2, weights, axis_name=axis_name)


def adversarial_js(
    student: ArrayLike,
    teacher: ArrayLike,
    temperature: float = 3.0,
    reverse: bool = True,
    clamp: float = 0.01,
    bounded: bool = False,
    weights: ArrayLike | None = None,
    axis_name: Axis = None,
) -> Array:
    """Competition of DeepInversion: minus `js_divergence`, as published reverse and clamped.

    Args:
        student: logits `[batch, classes]`.
        teacher: logits `[batch, classes]`.
        temperature: temperature of both softmaxes.
        reverse: see `js_divergence`.
        clamp: see `js_divergence`.
        bounded: one minus the divergence clipped to [0, 1], as the authors' code has it; else minus
            the divergence, as zju-vipa's copies have it. Both have the same gradient up to a
            divergence of one; beyond it the first has none.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar, float32 at least.

    References:
        DeepInversion, arXiv:1912.08795.
    """
    divergence = js_divergence(student, teacher, temperature, reverse, clamp, weights, axis_name)
    return 1 - jnp.clip(divergence, 0, 1) if bounded else -divergence


def total_variation_l1(
    images: ArrayLike,
    diagonals: bool = True,
    weights: ArrayLike | None = None,
    axis_name: Axis = None,
) -> Array:
    """Mean absolute difference of neighbouring pixels, summed over directions.

    Args:
        images: `[batch, height, width, channels]`.
        diagonals: also along both diagonals, as published; else along the two axes alone.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar, float32 at least, in units of the pixels.

    References:
        DeepInversion, arXiv:1912.08795, with the norm of zju-vipa's benchmark.
    """
    differences = _differences(images, diagonals)
    terms = (reduce(jnp.abs(x), weights, axis_name=axis_name) for x in differences)
    return functools.reduce(add, terms)


def total_variation_l2(
    images: ArrayLike, weights: ArrayLike | None = None, axis_name: Axis = None
) -> Array:
    """Norm of all differences of neighbouring pixels of the batch, summed over four directions.

    One norm spans the whole batch, as published, so that it grows with the root of the batch's
    size.

    Args:
        images: `[batch, height, width, channels]`.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar, float32 at least, in units of the pixels.

    References:
        DeepInversion, arXiv:1912.08795, as its authors' code has it.
    """
    differences = _differences(images, diagonals=True)
    norms = (_norm(reduce(jnp.square(x), weights, "sum", axis_name)) for x in differences)
    return functools.reduce(add, norms)


def image_norm(
    images: ArrayLike, weights: ArrayLike | None = None, axis_name: Axis = None
) -> Array:
    """Norm of the whole batch of images: one root for all of them, as published.

    Args:
        images: `[batch, height, width, channels]`.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar, float32 at least, in units of the pixels.

    References:
        DeepInversion, arXiv:1912.08795.
    """
    return _norm(reduce(jnp.square(at_least_float32(images)), weights, "sum", axis_name))


def instance_contrastive(
    local: ArrayLike,
    whole: ArrayLike,
    cached_local: ArrayLike | None = None,
    cached_whole: ArrayLike | None = None,
    temperature: float = 0.1,
    weights: ArrayLike | None = None,
    cached_weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> Array:
    """Contrast of CMI (arXiv:2105.08584): a crop should be told from all others by its whole image.

    Cross-entropy of each local row with its own whole row among all whole rows, present and cached.
    It is averaged over present and over cached rows apart, and the two are added. No gradient flows
    into the whole rows.

    Args:
        local: `[batch, width]`, projected descriptors of crops, rows of length one.
        whole: `[batch, width]`, projected descriptors of the images that they were cropped from.
        cached_local: `[cached, width]` of earlier images, projected by the present head; the same
            on every shard. None, or no `cached_whole`: there are none.
        cached_whole: `[cached, width]`, likewise.
        temperature: divisor of the inner products.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`; a row of weight 0 is neither an anchor
            nor a negative of others.
        cached_weights: `[cached]`, likewise: 0 for places of the memory that are not yet filled.
        axis_name: named axis over which the present rows are sharded.

    Returns:
        Scalar, float32 at least, in nats.
    """
    local, whole = at_least_float32(local), at_least_float32(whole)
    if cached_local is None or cached_whole is None:
        cached_local = cached_whole = jnp.zeros((0, local.shape[-1]))
    cached_local, cached_whole = at_least_float32(cached_local), at_least_float32(cached_whole)
    present, cached = len(local), len(cached_local)
    weights = row_weights(weights, present, local.dtype)
    cached_weights = row_weights(cached_weights, cached, local.dtype)
    counted = jnp.concatenate([gather(weights, axis_name), cached_weights]) > 0
    columns = jax.lax.stop_gradient(jnp.concatenate([gather(whole, axis_name), cached_whole]))
    first = len(columns) - cached

    def loss(rows: Array, own: Array) -> Array:
        logits = rows @ columns.T / temperature
        logits -= jnp.take_along_axis(logits, own[:, None], axis=-1)
        return jax.nn.logsumexp(logits, axis=-1, where=counted)

    total = reduce(loss(local, own_columns(present, axis_name)), weights, axis_name=axis_name)
    return total + reduce(loss(cached_local, first + jnp.arange(cached)), cached_weights)


def patch_discriminator(
    fake: ArrayLike,
    real: ArrayLike,
    fake_weights: ArrayLike | None = None,
    real_weights: ArrayLike | None = None,
    axis_name: Axis = None,
) -> Array:
    """Cross-entropy of a patch discriminator (MosaicKD, arXiv:2110.15094).

    It is summed over the patches of an image, not averaged.

    Args:
        fake: `[batch, ...]`, logits of the patches of fake images, high for real.
        real: `[batch, ...]`, logits of real ones; both kinds weigh the same, whatever their
            numbers.
        fake_weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        real_weights: `[batch]`, likewise.
        axis_name: named axis over which both batches are sharded.

    Returns:
        Scalar, half the sum of both kinds' means over images; float32 at least, in nats.
    """
    wrong_fake = _per_image(jax.nn.softplus(at_least_float32(fake)))
    wrong_real = _per_image(jax.nn.softplus(-at_least_float32(real)))
    total = reduce(wrong_fake, fake_weights, axis_name=axis_name)
    return (total + reduce(wrong_real, real_weights, axis_name=axis_name)) / 2


def patch_generator(
    fake: ArrayLike, weights: ArrayLike | None = None, axis_name: Axis = None
) -> Array:
    """Cross-entropy of a generator whose patches should pass for real (MosaicKD, arXiv:2110.15094).

    It is summed over the patches of an image, not averaged.

    Args:
        fake: `[batch, ...]`, logits of `patch_discriminator` for generated images.
        weights: `[batch]`, see `corrkd_jax.losses.reduce`.
        axis_name: named axis over which the batch is sharded.

    Returns:
        Scalar mean over images, float32 at least, in nats.
    """
    return reduce(_per_image(jax.nn.softplus(-at_least_float32(fake))), weights, "mean", axis_name)


def _entropy(probabilities: Array) -> Array:
    """Entropy in nats; a probability of zero adds nothing, nor does its gradient."""
    return -jnp.sum(probabilities * jnp.log(jnp.where(probabilities > 0, probabilities, 1)), -1)


def _kl(student: ArrayLike, teacher: ArrayLike, temperature: float) -> Array:
    """`KL(teacher || student)` of each row, with gradients for both."""
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    if student.shape != teacher.shape:
        raise ValueError(f"student {student.shape} and teacher {teacher.shape} must agree in shape")
    log_student = jax.nn.log_softmax(student / temperature)
    log_teacher = jax.nn.log_softmax(teacher / temperature)
    return jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), axis=-1)


def _differences(images: ArrayLike, diagonals: bool) -> list[Array]:
    x = at_least_float32(images)
    found = [x[:, :, 1:] - x[:, :, :-1], x[:, 1:] - x[:, :-1]]
    if diagonals:
        found += [x[:, 1:, 1:] - x[:, :-1, :-1], x[:, 1:, :-1] - x[:, :-1, 1:]]
    return found


def _norm(square: Array) -> Array:
    """The root of a sum of squares; its gradient at zero is zero instead of infinite."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def _per_image(patches: Array) -> Array:
    return jnp.sum(patches, axis=tuple(range(1, patches.ndim)))


def _by_layer(tree: Mapping[str, Any], path: str = "") -> dict[str, Mapping[str, Array]]:
    if "mean" in tree and not isinstance(tree["mean"], Mapping):
        return {path: tree}
    found: dict[str, Mapping[str, Array]] = {}
    for name, inner in tree.items():
        found |= _by_layer(inner, f"{path}/{name}" if path else name)
    return found
