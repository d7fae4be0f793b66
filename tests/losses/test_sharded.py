"""Losses that couple the batch do not depend on the number of devices that share it."""

from functools import partial

import jax
import numpy as np
import pytest

from corrkd_jax import losses
from corrkd_jax.models.statistics import StatisticsNetwork

BATCH, INPUTS, CLASSES = 16, 6, 4
# On eight devices some shards hold two rows, some one, and two hold padding only.
WEIGHTS = np.array([1, 1, 0, 0, 1, 0, 0, 0, 1, 0.5, 2, 1, 0, 1, 1, 0], np.float32)

NETWORK = StatisticsNetwork(4)


def contrastive(params, student, teacher, labels, **shared):
    return losses.sample_contrastive(student, teacher, **shared)


def raw_sum_contrastive(params, student, teacher, labels, **shared):
    return losses.sample_contrastive(
        student, teacher, 3.0, normalize=False, reduction="sum", **shared
    )


def active_fraction(params, student, teacher, labels, **shared):
    return losses.active_negative_fraction(student, teacher, **shared)


def prototype(params, student, teacher, labels, **shared):
    return losses.category_prototype(student, teacher, labels, CLASSES, **shared)


def literal_prototype(params, student, teacher, labels, **shared):
    return losses.category_prototype(
        student, teacher, labels, CLASSES, distance="norm", count_absent=True, **shared
    )


def response(params, student, teacher, labels, negatives="all", **shared):
    scorers = [partial(NETWORK.apply, {"params": params[name]}) for name in ("target", "others")]
    return losses.response_consistency(
        student, teacher, labels, *scorers, negatives=negatives, **shared
    )


def response_to_the_next(params, student, teacher, labels, **shared):
    return response(params, student, teacher, labels, "next", **shared)


def kd(params, student, teacher, labels, **shared):
    return losses.kd(student, teacher, 2.0, **shared)


def decoupled_kd(params, student, teacher, labels, **shared):
    return losses.decoupled_kd(student, teacher, labels, **shared)


def cross_entropy(params, student, teacher, labels, **shared):
    return losses.cross_entropy(student, labels, **shared)


LOSSES = {
    loss.__name__: loss
    for loss in (
        contrastive,
        raw_sum_contrastive,
        active_fraction,
        prototype,
        literal_prototype,
        response,
        response_to_the_next,
        kd,
        decoupled_kd,
        cross_entropy,
    )
}


def values_and_gradients(params, batch, axis_name=None):
    """Every loss of a linear student, and its gradient, the shards' mean as in training."""

    def objective(params, loss):
        student = batch["inputs"] @ params["kernel"]
        return loss(
            params,
            student,
            batch["teacher"],
            batch["labels"],
            weights=batch["weights"],
            axis_name=axis_name,
        )

    found = {name: jax.value_and_grad(objective)(params, loss) for name, loss in LOSSES.items()}
    if axis_name is None:
        return found
    return {
        name: (value, jax.lax.pmean(gradient, axis_name))
        for name, (value, gradient) in found.items()
    }


on_one_device = jax.jit(values_and_gradients)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(INPUTS, CLASSES)).astype(np.float32)

    def scorer(parts):
        shapes = jax.eval_shape(
            lambda: NETWORK.init(jax.random.key(0), *np.zeros((2, 1, parts), np.float32))
        )
        return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes["params"])

    return {"kernel": kernel, "target": scorer(1), "others": scorer(CLASSES - 1)}


@pytest.fixture(scope="module")
def batch():
    """Sixteen rows, every padding row full of garbage."""
    rng = np.random.default_rng(1)
    padding = WEIGHTS == 0
    inputs = rng.normal(size=(BATCH, INPUTS)).astype(np.float32)
    teacher = rng.normal(size=(BATCH, CLASSES)).astype(np.float32)
    inputs[padding], teacher[padding] = 1e3, -1e3
    labels = np.where(padding, 0, np.arange(BATCH) % CLASSES)
    return {"inputs": inputs, "teacher": teacher, "labels": labels, "weights": WEIGHTS}


@pytest.fixture(scope="module")
def whole(params, batch):
    """The rows that count, alone, on one device and without a named axis."""
    return on_one_device(params, {k: v[WEIGHTS > 0] for k, v in batch.items()})


@pytest.fixture(scope="module", params=[1, 2, 8])
def sharded(request, params, batch):
    shards = request.param
    program = jax.pmap(
        partial(values_and_gradients, axis_name="data"),
        axis_name="data",
        in_axes=(None, 0),
        devices=jax.devices("cpu")[:shards],
    )
    return program(params, {k: v.reshape(shards, -1, *v.shape[1:]) for k, v in batch.items()})


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_do_not_depend_on_the_number_of_devices(name, sharded, whole):
    value, gradient = whole[name]
    values, gradients = sharded[name]
    assert abs(value) > 1e-2
    # every shard has the value of the whole batch
    np.testing.assert_allclose(values, np.full(len(values), value), rtol=1e-5)

    def agree(shards, alone):
        scale = max(1.0, np.abs(alone).max())
        for shard in shards:
            np.testing.assert_allclose(shard, alone, atol=1e-5 * scale)

    jax.tree.map(agree, gradients, gradient)


@pytest.mark.parametrize("name", ["contrastive", "prototype", "response", "cross_entropy"])
def test_a_mean_of_shards_on_their_own_is_something_else(name, params, batch, whole):
    halves = [{k: v[half] for k, v in batch.items()} for half in (slice(0, 8), slice(8, 16))]
    alone = [on_one_device(params, half)[name][0] for half in halves]
    assert abs(np.mean(alone) - whole[name][0]) > 1e-3
