"""Distillation of responses: a student's logits learn from a frozen teacher's.

Both losses are the reference points that newer ones are compared with: plain knowledge
distillation, and its decoupled form, which weighs the teacher's confidence in the target apart
from its view of the other classes. An identity ties them: at temperature 1,
`KL = TCKD + (1 - p_teacher[target]) * NCKD` for every example.

No gradient reaches a teacher.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from corrkd_jax.losses.classification import check_labels
from corrkd_jax.losses.reduction import Axis, Reduction, at_least_float32, reduce


def kd(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    temperature: ArrayLike = 1.0,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    axis_name: Axis = None,
) -> jax.Array:
    """Knowledge distillation: `T^2 KL(softmax(teacher / T) || softmax(student / T))`.

    The divergence is summed over classes, and the factor `T^2` keeps the size of its gradient
    independent of the temperature `T`. The source states the cross-entropy form; the
    Kullback-Leibler form differs from it by the teacher's entropy, which is constant for the
    student, and is zero where the two agree.

    Args:
        student_logits: `[..., classes]`; half precision is promoted to float32.
        teacher_logits: `[..., classes]`, held constant under differentiation.
        temperature: Positive scalar; may be traced.
        weights: Weight of each example, a prefix of `[...]`; see `reduce`. Logits of rows of
            weight 0 must be finite, and may otherwise be anything.
        reduction: `"mean"` over all weighted positions, `"sum"`, or `"none"`.
        axis_name: Named axis over which the batch is sharded; see `reduce`.

    Returns:
        A scalar, or `[...]` for `"none"`; at least float32, in nats.

    Raises:
        ValueError: If the logits differ in shape, or if `weights` or `reduction` is refused by
            `reduce`.

    References:
        Hinton et al., *Distilling the Knowledge in a Neural Network*, arXiv:1503.02531, section 2.
    """
    student, teacher = _soften(student_logits, teacher_logits, temperature)
    log_student = jax.nn.log_softmax(student)
    log_teacher = jax.nn.log_softmax(teacher)
    divergence = jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), axis=-1)
    return reduce(jnp.square(temperature) * divergence, weights, reduction, axis_name)


def target_nontarget_kl(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """KL divergence of teacher and student, split at the target class of each example.

    It is summed over classes, not multiplied by `temperature ** 2`, not reduced over examples. `kl
    = tckd + (1 - p_teacher[target]) * nckd` holds exactly, with `p_teacher` and `kl` at the same
    temperature.

    Args:
        student_logits: `[..., classes]`; half precision is promoted to float32.
        teacher_logits: `[..., classes]`, held constant under differentiation.
        labels: Integers `[...]` in `[0, classes)`, the target class of each example.
        temperature: Positive scalar; may be traced.

    Returns:
        `(tckd, nckd)`, both `[...]`, at least float32, in nats. `tckd` is the divergence of the
        two-way distributions (target, everything else); `nckd` that of the distributions over the
        other classes, renormalised to sum to 1. With two classes there is one other class, so that
        `nckd` and its gradient are exactly 0.

    Raises:
        ValueError: If the logits differ in shape or have fewer than two classes, or if `labels` are
            not integers `[...]`.

    References:
        Zhao et al., *Decoupled Knowledge Distillation*, arXiv:2203.08679, eq. 3 to 6.
    """
    student, teacher = _soften(student_logits, teacher_logits, temperature)
    labels = jnp.asarray(labels)
    check_labels(student, labels)
    num_classes = student.shape[-1]
    if num_classes < 2:
        raise ValueError(f"a target and a non-target class are needed, got {num_classes} classes")
    target = labels[..., None] == jnp.arange(num_classes)

    log_odds_student, others_student = _split(student, target)
    log_odds_teacher, others_teacher = _split(teacher, target)
    # Both log-probabilities of each pair come from the log-odds, so that neither is found as
    # log(1 - p), which is lost to rounding as soon as the network is confident.
    tckd = jax.nn.sigmoid(log_odds_teacher) * (
        jax.nn.log_sigmoid(log_odds_teacher) - jax.nn.log_sigmoid(log_odds_student)
    ) + jax.nn.sigmoid(-log_odds_teacher) * (
        jax.nn.log_sigmoid(-log_odds_teacher) - jax.nn.log_sigmoid(-log_odds_student)
    )
    nckd = jnp.sum(jnp.exp(others_teacher) * (others_teacher - others_student), axis=-1)
    return tckd, nckd


def decoupled_kd(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    alpha: ArrayLike = 1.0,
    beta: ArrayLike = 8.0,
    temperature: ArrayLike = 4.0,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    axis_name: Axis = None,
) -> jax.Array:
    """Decoupled knowledge distillation: `T^2 (alpha * TCKD + beta * NCKD)`.

    Plain distillation multiplies what the teacher says about the wrong classes by its doubt about
    the right one, so that a confident teacher teaches little. Here `beta` is free. The defaults are
    the source's for CIFAR-100. Its authors also raise the loss linearly over the first 20 epochs,
    which is left to the caller (`alpha` and `beta` may be traced).

    With two classes NCKD is 0 and only `alpha` matters.

    Args:
        student_logits: `[..., classes]`; half precision is promoted to float32.
        teacher_logits: `[..., classes]`, held constant under differentiation.
        labels: Integers `[...]` in `[0, classes)`. Rows of weight 0 may carry any label.
        alpha: Weight of the target part, a scalar; may be traced.
        beta: Weight of the non-target part, a scalar; may be traced.
        temperature: Positive scalar `T`; may be traced.
        weights: Weight of each example, a prefix of `[...]`; see `reduce`. Logits of rows of weight
            0 must be finite, and may otherwise be anything.
        reduction: `"mean"` over all weighted positions, `"sum"`, or `"none"`.
        axis_name: Named axis over which the batch is sharded; see `reduce`.

    Returns:
        A scalar, or `[...]` for `"none"`; at least float32, in nats.

    Raises:
        ValueError: As `target_nontarget_kl` and `reduce`.

    References:
        Zhao et al., *Decoupled Knowledge Distillation*, arXiv:2203.08679, eq. 7.
    """
    tckd, nckd = target_nontarget_kl(student_logits, teacher_logits, labels, temperature)
    values = jnp.square(temperature) * (alpha * tckd + beta * nckd)
    return reduce(values, weights, reduction, axis_name)


def _soften(
    student_logits: ArrayLike, teacher_logits: ArrayLike, temperature: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Both logits over the temperature, the teacher's cut from differentiation."""
    student, teacher = at_least_float32(student_logits), at_least_float32(teacher_logits)
    if student.shape != teacher.shape:
        raise ValueError(
            f"student_logits of shape {student.shape} and teacher_logits of shape {teacher.shape} "
            "must agree"
        )
    return student / temperature, jax.lax.stop_gradient(teacher) / temperature


def _split(logits: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-odds of the target `[...]`, and log-probabilities among the rest `[..., classes]`.

    The second holds 0 at the target, where the difference of two networks then vanishes.
    """
    log_rest = jax.nn.logsumexp(logits, axis=-1, where=~target)
    log_odds = jnp.sum(jnp.where(target, logits, 0), axis=-1) - log_rest
    return log_odds, jnp.where(target, 0, logits - log_rest[..., None])
