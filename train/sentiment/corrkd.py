"""CorrKD (arXiv:2404.16456) as two stages: a teacher on complete input, a student on masked."""

from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from configs.msa import LossConfig, MsaConfig, NetworkConfig
from corrkd_jax import losses
from corrkd_jax.data import masks
from corrkd_jax.errors import InputError
from corrkd_jax.losses.batch import gather, own_columns
from corrkd_jax.metrics import confusion, weighted_f1
from corrkd_jax.models.corrkd import CorrKDNetwork, Output
from corrkd_jax.models.statistics import StatisticsNetwork
from train.engine import optimizer
from train.engine.finished import choose
from train.engine.parallel import compute_dtype
from train.engine.stage import Context, Stage, Tree, stacked
from train.sentiment.task import Task, predicted_classes

VALIDATION_KEY = 20240416
"""Seed of every mask that a protocol fixes; never that of a run."""


class Hyper(NamedTuple):
    """What may differ from arm to arm inside one program; traced scalars.

    Attributes:
        learning_rate: of Adam.
        margin: boundary of the contrastive term.
        scd: weight of sample-level contrastive distillation.
        cpd: weight of category-guided prototype distillation.
        rcd: weight of response-disentangled consistency distillation.
        kl: weight of plain KD.
        dkd: weight of decoupled KD.
        shuffle: 1 hands every sample another sample's teacher targets (negative control).
    """

    learning_rate: Any
    margin: Any
    scd: Any = 0.0
    cpd: Any = 0.0
    rcd: Any = 0.0
    kl: Any = 0.0
    dkd: Any = 0.0
    shuffle: Any = 0.0


TERMS = ("scd", "cpd", "rcd", "kl", "dkd")
"""Terms that tie a student to its teacher, as `Hyper` names their weights."""

TEACHER_ROW = "Teacher, zero-filled"
BASELINE = "MRM + CE"
METHOD = "CorrKD"
CONTROL = "CorrKD, shuffled teacher"


def arms(config: MsaConfig) -> dict[str, Hyper]:
    """Rows of the table that a configuration asks for: baseline and method, the ablation, sweeps.

    Raises:
        InputError: a sweep is not `FIELD=V1,V2,...` over a known field.
    """
    loss = config.losses
    plain = Hyper(config.optimizer.learning_rate, loss.margin)
    full = plain._replace(scd=loss.scd, cpd=loss.cpd, rcd=loss.rcd)
    rows = {BASELINE: plain, METHOD: full}
    if config.ablate or config.arms:
        rows = {
            BASELINE: plain,
            "MRM + CE + KL": plain._replace(kl=1.0),
            "MRM + CE + DKD": plain._replace(dkd=1.0),
            METHOD: full,
            "CorrKD w/o SCD": full._replace(scd=0.0),
            "CorrKD w/o CPD": full._replace(cpd=0.0),
            "CorrKD w/o RCD": full._replace(rcd=0.0),
            "CorrKD, KL for RCD": full._replace(rcd=0.0, kl=1.0),
            CONTROL: full._replace(shuffle=1.0),
        }
    axes = [_sweep_axis(text) for text in config.sweep]
    for point in product(*axes) if axes else ():
        name = ", ".join(f"{field}={value:g}" for field, value in point)
        rows[f"{METHOD}, {name}"] = full._replace(**dict(point))
    named = choose(rows, config.arms)
    return rows if config.ablate or not named else named


def _sweep_axis(text: str) -> list[tuple[str, float]]:
    fields = ("learning_rate", "margin", "scd", "cpd", "rcd")
    field, _, values = text.partition("=")
    try:
        axis = [(field, float(value)) for value in values.split(",")]
    except ValueError:
        axis = []
    if field not in fields or not axis:
        raise InputError(
            f"--sweep {text}: give FIELD=V1,V2,... with FIELD one of {', '.join(fields)}"
        )
    return axis


def build_network(config: NetworkConfig, task: Task) -> CorrKDNetwork:
    """The network of a configuration; `dtype` `auto` is bfloat16 except on CPU."""
    return CorrKDNetwork(
        classes=task.classes,
        tasks=len(task.names),
        features=config.features,
        layers=config.layers,
        heads=config.heads,
        embed_dropout=config.embed_dropout,
        attention_dropout=config.attention_dropout,
        relu_dropout=config.relu_dropout,
        residual_dropout=config.residual_dropout,
        head_dropout=config.head_dropout,
        dtype=compute_dtype(config.dtype),
    )


class Training(NamedTuple):
    """State of either stage.

    Attributes:
        params: `{"network": ..., "statistics": ...}`, the latter for the student alone.
        optimizer: Adam's state.
        step: steps taken.
        hyper: the arm's hyper-parameters.
    """

    params: Tree
    optimizer: Tree
    step: Array
    hyper: Hyper


def build_stages(
    config: MsaConfig, task: Task, steps: dict[str, int], axis_name: str | None
) -> list[Stage]:
    """Teacher and student.

    Args:
        config: the run.
        task: what the labels mean.
        steps: steps an epoch on data set `"train"`, and on `"teacher"` where the teacher has
            one of its own.
        axis_name: mapped axis over which batches are sharded, or None.
    """
    network = build_network(config.network, task)
    chosen_arms = arms(config)
    used = tuple(t for t in TERMS if any(getattr(h, t) for h in chosen_arms.values()))
    teacher_set = "teacher" if "teacher" in steps else "train"
    settings = config.optimizer
    teacher_epochs = settings.teacher_epochs or settings.epochs
    shared = {"config": config, "network": network, "axis_name": axis_name}
    teacher = Stage(
        name="teacher",
        epochs=teacher_epochs,
        data=teacher_set,
        batch=settings.batch_size,
        init=partial(_teacher_init, **shared),
        step=partial(_teacher_step, **shared, total=teacher_epochs * steps[teacher_set]),
        evaluate=partial(_evaluate, network=network, task=task, subsets=masks.SUBSETS[-1:]),
        summarize=_summarize,
        select=_network_params,
        validate_every=settings.validate_every,
    )
    student = Stage(
        name="student",
        epochs=settings.epochs,
        data="train",
        batch=settings.batch_size,
        init=partial(_student_init, **shared, task=task),
        step=partial(
            _student_step, **shared, task=task, terms=used, total=settings.epochs * steps["train"]
        ),
        evaluate=partial(_evaluate, network=network, task=task, subsets=masks.SUBSETS),
        summarize=_summarize,
        select=_network_params,
        validate_every=settings.validate_every,
        prepare=partial(_prepare, network=network),
        hyper=stacked(chosen_arms),
    )
    return [teacher, student]


def _network_params(state: Training) -> Tree:
    return state.params["network"]


def _forward(network: CorrKDNetwork, params: Tree, inputs: Tree, valid: Tree) -> Output:
    return network.apply({"params": params}, inputs, valid, train=False)


def _teacher_init(
    key: Array,
    batch: Tree,
    hyper: None,
    context: Context,
    *,
    config: MsaConfig,
    network: CorrKDNetwork,
    axis_name: str | None,
) -> Training:
    params = {"network": network.init(key, batch["inputs"], batch["valid"])["params"]}
    rate = Hyper(jnp.float32(config.optimizer.learning_rate), jnp.float32(config.losses.margin))
    tx = optimizer.adam(config.optimizer.clip_norm, ("network",))
    return Training(params, tx.init(params), jnp.int32(0), rate)


def _student_init(
    key: Array,
    batch: Tree,
    hyper: Hyper,
    context: Context,
    *,
    config: MsaConfig,
    network: CorrKDNetwork,
    axis_name: str | None,
    task: Task,
) -> Training:
    student_key, target, others = jax.random.split(key, 3)
    if config.student_start == "teacher":
        student = context["teacher"]
    else:
        student = network.init(student_key, batch["inputs"], batch["valid"])["params"]
    scorer = StatisticsNetwork(config.losses.statistics_hidden)
    one, rest = jnp.zeros((1, 1)), jnp.zeros((1, task.classes - 1))
    params = {
        "network": student,
        "statistics": {
            "target": scorer.init(target, one, one)["params"],
            "others": scorer.init(others, rest, rest)["params"],
        },
    }
    tx = optimizer.adam(config.optimizer.clip_norm, ("network", "statistics"))
    return Training(params, tx.init(params), jnp.int32(0), hyper)


def _teacher_step(
    state: Training,
    batch: Tree,
    key: Array,
    *,
    config: MsaConfig,
    network: CorrKDNetwork,
    axis_name: str | None,
    total: int,
) -> tuple[Training, dict[str, Array]]:
    def objective(params: Tree) -> tuple[Array, dict[str, Array]]:
        out = network.apply(
            {"params": params["network"]},
            batch["inputs"],
            batch["valid"],
            train=True,
            rngs={"dropout": key},
        )
        task_loss = _task_loss(out.logits, batch, axis_name)
        return task_loss, {"task": task_loss}

    return _descend(state, objective, config, total, axis_name)


def _student_step(
    state: Training,
    batch: Tree,
    key: Array,
    *,
    config: MsaConfig,
    network: CorrKDNetwork,
    axis_name: str | None,
    task: Task,
    terms: tuple[str, ...],
    total: int,
) -> tuple[Training, dict[str, Array]]:
    def objective(params: Tree) -> tuple[Array, dict[str, Array]]:
        out = network.apply(
            {"params": params["network"]},
            batch["masked"],
            batch["valid"],
            train=True,
            rngs={"dropout": key},
        )
        teacher = _mismatch(batch["teacher"], state.hyper.shuffle, axis_name)
        values = distillation_terms(
            terms,
            out,
            teacher,
            batch,
            params["statistics"],
            state.hyper.margin,
            config.losses,
            task.classes,
            axis_name,
        )
        weighted = {name: getattr(state.hyper, name) * value for name, value in values.items()}
        task_loss = _task_loss(out.logits, batch, axis_name)
        watched = {}
        if "scd" in terms:
            # near 0 the contrastive term is nothing but a squared error
            watched["active_negatives"] = losses.active_negative_fraction(
                out.features,
                teacher.features,
                state.hyper.margin,
                normalize=config.losses.normalize,
                weights=batch["row"],
                axis_name=axis_name,
            )
        total = task_loss + sum(weighted.values())
        return total, {"task": task_loss, **values, **watched}

    state, metrics = _descend(state, objective, config, total, axis_name)
    return state, metrics


def distillation_terms(
    terms: tuple[str, ...],
    student: Output,
    teacher: Output,
    batch: Tree,
    statistics: Tree,
    margin: Array,
    config: LossConfig,
    classes: int,
    axis_name: str | None,
) -> dict[str, Array]:
    """Terms that tie a student to its teacher, unweighted, each over the whole batch.

    The terms that use labels are means over the tasks and leave out rows without a label (a
    score of zero in binary mode); the contrastive one takes every real row.

    Args:
        terms: which of `TERMS`; what no arm weighs need not be computed.
        student: on masked input.
        teacher: on complete input; constant.
        batch: holds `labels`, `label_weight` `[batch, tasks]` and `row` `[batch]`.
        statistics: parameters of the two statistics networks.
        margin: boundary of the contrastive term.
        config: choices of the losses.
        classes: classes per task.
        axis_name: mapped axis over which the batch is sharded.

    Returns:
        Scalars by name.
    """
    weights = batch["label_weight"] * batch["row"][:, None]
    scorer = StatisticsNetwork(config.statistics_hidden)
    score_target, score_others = (
        (lambda a, b, part=part: scorer.apply({"params": statistics[part]}, a, b))
        for part in ("target", "others")
    )

    def of_task(
        student_logits: Array, teacher_logits: Array, labels: Array, weights: Array
    ) -> dict[str, Array]:
        shared = {"weights": weights, "axis_name": axis_name}
        logits = (student_logits, teacher_logits)
        each = {
            "cpd": lambda: losses.category_prototype(
                student.features,
                teacher.features,
                labels,
                classes,
                distance=config.prototype_distance,
                count_absent=config.count_absent,
                **shared,
            ),
            "rcd": lambda: losses.response_consistency(
                *logits,
                labels,
                score_target,
                score_others,
                renormalize=config.renormalize,
                negatives=config.negatives,
                **shared,
            ),
            "kl": lambda: losses.kd(*logits, config.kd_temperature, **shared),
            "dkd": lambda: losses.decoupled_kd(
                *logits,
                labels,
                config.dkd_alpha,
                config.dkd_beta,
                config.dkd_temperature,
                **shared,
            ),
        }
        return {name: term() for name, term in each.items() if name in terms}

    per_task = jax.vmap(of_task, in_axes=1)(
        student.logits, teacher.logits, batch["labels"], weights
    )
    values = {name: jnp.mean(value) for name, value in per_task.items()}
    if "scd" in terms:
        values["scd"] = losses.sample_contrastive(
            student.features,
            teacher.features,
            margin,
            normalize=config.normalize,
            reduction=config.reduction,
            weights=batch["row"],
            axis_name=axis_name,
        )
    return values


def _mismatch(teacher: Output, shuffle: Array, axis_name: str | None) -> Output:
    """Each row's teacher targets, or its neighbour's in the whole batch.

    Batches come in random order, so a neighbour is a random other sample.
    """

    def of(x: Array) -> Array:
        everyone = gather(x, axis_name)
        others = everyone[(own_columns(x.shape[0], axis_name) + 1) % everyone.shape[0]]
        return jnp.where(shuffle > 0, others, x)

    return jax.tree.map(of, teacher)


def _task_loss(logits: Array, batch: Tree, axis_name: str | None) -> Array:
    """Cross-entropy, summed over tasks, each a mean over the rows that have its label."""

    def of_task(logits: Array, labels: Array, weights: Array) -> Array:
        return losses.cross_entropy(logits, labels, weights, axis_name=axis_name)

    weights = batch["label_weight"] * batch["row"][:, None]
    return jnp.sum(jax.vmap(of_task, in_axes=1)(logits, batch["labels"], weights))


def _descend(
    state: Training, objective: Any, config: MsaConfig, total: int, axis_name: str | None
) -> tuple[Training, dict[str, Array]]:
    settings = config.optimizer
    factor = optimizer.schedule(settings.schedule, state.step, total)
    tx = optimizer.adam(settings.clip_norm, tuple(state.params))
    rate = state.hyper.learning_rate * factor
    step = optimizer.gradient_step(
        objective, state.params, tx, state.optimizer, rate, axis_name=axis_name
    )
    metrics = {
        **step.extra,
        "total": step.value,
        "gradient_norm": optax.tree.norm(step.gradients["network"]),
    }
    return Training(step.params, step.state, state.step + 1, state.hyper), metrics


def _prepare(batch: Tree, key: Array, context: Context, *, network: CorrKDNetwork) -> Tree:
    """The teacher's view of the complete input, and the masked input; alike for all arms."""
    teacher = _forward(network, context["teacher"], batch["inputs"], batch["valid"])
    keep = masks.training_masks(key, batch["ids"], batch["valid"])
    return {**batch, "teacher": teacher, "masked": masks.drop(batch["inputs"], keep)}


def _evaluate(
    state: Training,
    batch: Tree,
    *,
    network: CorrKDNetwork,
    task: Task,
    subsets: tuple[tuple[bool, ...], ...],
) -> Array:
    """Confusion counts `[subsets, tasks, classes, classes]`, whole modalities missing."""
    weights = batch["target_weight"] * batch["row"][:, None]

    def of_subset(subset: Array) -> Array:
        keep = masks.subset_masks(batch["valid"], subset)
        inputs = masks.drop(batch["inputs"], keep)
        logits = _forward(network, state.params["network"], inputs, batch["valid"]).logits
        predicted = predicted_classes(logits, task.mode)
        return jax.vmap(lambda t, p, w: confusion(t, p, task.metric_classes, w), in_axes=1)(
            batch["target"], predicted, weights
        )

    return jax.lax.map(of_subset, jnp.asarray(subsets))


def _summarize(counts: Array) -> dict[str, Array]:
    f1 = jnp.mean(weighted_f1(counts), axis=-1)
    named = zip(masks.SUBSET_NAMES[-f1.shape[0] :], f1, strict=True)
    return {"score": jnp.mean(f1), **{f"f1_{name}": value for name, value in named}}
