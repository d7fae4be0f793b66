"""Response distillation against closed forms, torch and its own invariances."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from corrkd_jax import losses

BATCH = 8
TEACHER = np.array([[2.0, 1.0, 0.0, -1.0]])
STUDENT = np.array([[1.0, 1.0, 0.0, 0.0]])
TARGET = np.array([0])
WEIGHTS = np.array([1, 1, 0.5, 1, 2, 0, 0, 0], np.float32)

# Compiled as a whole: the tests' time is compilation, and op by op there is more of it.
jit = partial(jax.jit, static_argnames=("reduction", "axis_name"))
kd = jit(losses.kd)
decoupled_kd = jit(losses.decoupled_kd)
target_nontarget_kl = jax.jit(losses.target_nontarget_kl)


def kd_with_labels(student, teacher, labels, **options):
    """Gives both losses one signature, for the tests of what they share."""
    del labels
    return kd(student, teacher, **options)


LOSSES = [
    pytest.param(partial(kd_with_labels, temperature=2.0), id="kd"),
    pytest.param(decoupled_kd, id="decoupled_kd"),
]


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def sample(classes=4, seed=0, scale=2.0, dtype=np.float32):
    """Student logits, teacher logits and labels."""
    rng = np.random.default_rng(seed)
    student, teacher = scale * rng.normal(size=(2, BATCH, classes)).astype(dtype)
    return student, teacher, rng.integers(0, classes, BATCH)


def torch_kd(student, teacher, temperature):
    """Hinton's loss for each example, by torch."""
    import torch.nn.functional as F

    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.softmax(teacher / temperature, dim=1),
        reduction="none",
    )
    return divergence.sum(dim=1) * temperature**2


def torch_decoupled_kd(student, teacher, labels, alpha, beta, temperature):
    """The formulation with masks of -1000: other route, same function, by torch."""
    import torch
    import torch.nn.functional as F

    target = F.one_hot(labels, student.shape[1]).to(student.dtype)

    def two_way(logits):
        p = F.softmax(logits / temperature, dim=1)
        return torch.stack([(p * target).sum(dim=1), (p * (1 - target)).sum(dim=1)], dim=1)

    tckd = F.kl_div(two_way(student).log(), two_way(teacher), reduction="none").sum(dim=1)
    nckd = F.kl_div(
        F.log_softmax(student / temperature - 1000 * target, dim=1),
        F.softmax(teacher / temperature - 1000 * target, dim=1),
        reduction="none",
    ).sum(dim=1)
    return temperature**2 * (alpha * tckd + beta * nckd)


class TestClosedForm:
    def test_split_of_one_example(self, x64):
        tckd, nckd = target_nontarget_kl(STUDENT, TEACHER, TARGET)
        assert tckd.dtype == jnp.float64
        np.testing.assert_allclose(tckd, [0.1589145018], atol=1e-9)
        np.testing.assert_allclose(nckd, [0.0538081763], atol=1e-9)
        np.testing.assert_allclose(kd(STUDENT, TEACHER), 0.1780748261, atol=1e-9)
        np.testing.assert_allclose(
            tckd + (1 - 0.64391426) * nckd, kd(STUDENT, TEACHER)[None], atol=1e-9
        )

    def test_float32(self):
        student, teacher = STUDENT.astype(np.float32), TEACHER.astype(np.float32)
        tckd, nckd = target_nontarget_kl(student, teacher, TARGET)
        np.testing.assert_allclose(tckd, [0.1589145018], rtol=1e-5)
        np.testing.assert_allclose(nckd, [0.0538081763], rtol=1e-5)
        np.testing.assert_allclose(kd(student, teacher), 0.1780748261, rtol=1e-5)

    def test_temperature_and_weights_of_the_parts(self, x64):
        tckd, nckd = target_nontarget_kl(STUDENT, TEACHER, TARGET, 3.0)
        np.testing.assert_allclose(
            target_nontarget_kl(STUDENT / 3, TEACHER / 3, TARGET), (tckd, nckd), rtol=1e-12
        )
        loss = decoupled_kd(STUDENT, TEACHER, TARGET, alpha=0.5, beta=7.0, temperature=3.0)
        np.testing.assert_allclose(loss, 9 * (0.5 * tckd[0] + 7 * nckd[0]), rtol=1e-12)
        np.testing.assert_allclose(
            kd(STUDENT, TEACHER, 3.0), 9 * kd(STUDENT / 3, TEACHER / 3), rtol=1e-12
        )

    @pytest.mark.parametrize("classes", [2, 4, 7])
    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    def test_parts_add_up_to_the_divergence(self, x64, classes, temperature):
        student, teacher, labels = sample(classes, dtype=np.float64)
        tckd, nckd = target_nontarget_kl(student, teacher, labels, temperature)
        p_teacher = jax.nn.softmax(teacher / temperature)[np.arange(BATCH), labels]
        total = temperature**2 * (tckd + (1 - p_teacher) * nckd)
        np.testing.assert_allclose(
            total, kd(student, teacher, temperature, reduction="none"), rtol=1e-10
        )


class TestTorch:
    @pytest.mark.parametrize("classes", [2, 4, 7])
    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    @pytest.mark.parametrize("decoupled", [False, True])
    def test_equals_torch_in_value_and_gradient(self, x64, classes, temperature, decoupled):
        torch = pytest.importorskip("torch")
        student, teacher, labels = sample(classes, dtype=np.float64)
        theirs = torch.tensor(student, requires_grad=True)
        if decoupled:
            loss = partial(decoupled_kd, labels=labels, alpha=1.5, beta=6.0)
            values = torch_decoupled_kd(
                theirs, torch.tensor(teacher), torch.tensor(labels), 1.5, 6.0, temperature
            )
        else:
            loss = kd
            values = torch_kd(theirs, torch.tensor(teacher), temperature)
        values.mean().backward()

        per_example = loss(student, teacher, temperature=temperature, reduction="none")
        np.testing.assert_allclose(per_example, values.detach().numpy(), atol=1e-10)
        value, gradient = jax.value_and_grad(loss)(student, teacher, temperature=temperature)
        np.testing.assert_allclose(value, values.mean().item(), atol=1e-10)
        np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-10)


class TestTwoClasses:
    def test_non_target_part_is_exactly_zero(self):
        student, teacher, labels = sample(classes=2, scale=30.0)

        def nontarget(student):
            return target_nontarget_kl(student, teacher, labels)[1].sum()

        value, gradient = jax.value_and_grad(nontarget)(student)
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)

    def test_beta_does_not_matter(self):
        student, teacher, labels = sample(classes=2)
        gradients = [
            jax.grad(decoupled_kd)(student, teacher, labels, beta=beta) for beta in (0.0, 8.0)
        ]
        np.testing.assert_allclose(*gradients, atol=1e-6)
        assert np.isfinite(gradients[0]).all()


@pytest.mark.parametrize("loss", LOSSES)
class TestBoth:
    def test_zero_with_zero_gradient_where_student_is_teacher(self, loss):
        _, teacher, labels = sample()
        value, gradient = jax.value_and_grad(loss)(teacher, teacher, labels)
        np.testing.assert_allclose(value, 0, atol=1e-6)
        np.testing.assert_allclose(gradient, 0, atol=1e-6)

    def test_no_gradient_reaches_the_teacher(self, loss):
        gradient = jax.grad(loss, argnums=1)(*sample())
        np.testing.assert_array_equal(gradient, 0)

    def test_gradient_equals_finite_differences(self, loss, x64):
        student, teacher, labels = sample(dtype=np.float64)
        check_grads(
            lambda s: loss(s, teacher, labels, weights=WEIGHTS),
            (student,),
            order=1,
            modes=["rev"],
            atol=1e-6,
            rtol=1e-6,
        )

    @pytest.mark.parametrize("scale", [0.0, 1e3, 1e4])
    def test_finite_at_zero_and_at_huge_logits(self, loss, scale):
        student, teacher, labels = sample(scale=scale)
        value, gradient = jax.value_and_grad(loss)(student, teacher, labels)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()

    def test_order_of_the_batch_does_not_matter(self, loss):
        student, teacher, labels = sample()
        order = np.random.default_rng(1).permutation(BATCH)
        value = loss(student, teacher, labels, weights=WEIGHTS)
        permuted = loss(student[order], teacher[order], labels[order], weights=WEIGHTS[order])
        np.testing.assert_allclose(permuted, value, rtol=1e-5)
        assert abs(loss(student, teacher[order], labels, weights=WEIGHTS) - value) > 1e-2

    def test_order_of_the_classes_does_not_matter(self, loss):
        student, teacher, labels = sample()
        order = np.array([2, 0, 3, 1])
        permuted = loss(student[:, order], teacher[:, order], np.argsort(order)[labels])
        np.testing.assert_allclose(permuted, loss(student, teacher, labels), rtol=1e-5)

    @pytest.mark.parametrize("label", [-1, 0, 99])
    def test_padding_counts_for_nothing(self, loss, label):
        student, teacher, labels = sample()
        value, gradient = jax.value_and_grad(loss)(student, teacher, labels, weights=WEIGHTS)
        np.testing.assert_allclose(
            value, loss(student[:5], teacher[:5], labels[:5], weights=WEIGHTS[:5]), rtol=1e-6
        )
        student[5:], teacher[5:], labels[5:] = [1e4, -1e4, 0, 1e4], [-1e4, 1e4, 1e4, 0], label
        padded = jax.value_and_grad(loss)(student, teacher, labels, weights=WEIGHTS)
        np.testing.assert_allclose(padded[0], value, atol=1e-6)
        np.testing.assert_allclose(padded[1], gradient, atol=1e-6)
        np.testing.assert_array_equal(padded[1][5:], 0)

    def test_no_examples_give_zero(self, loss):
        value, gradient = jax.value_and_grad(loss)(*sample(), weights=np.zeros(BATCH))
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)

    def test_reductions_agree(self, loss):
        values = loss(*sample(), weights=WEIGHTS, reduction="none")
        assert values.shape == (BATCH,)
        total = loss(*sample(), weights=WEIGHTS, reduction="sum")
        mean = loss(*sample(), weights=WEIGHTS)
        np.testing.assert_allclose(total, values.sum(), rtol=1e-6)
        np.testing.assert_allclose(mean, values.sum() / WEIGHTS.sum(), rtol=1e-6)

    @pytest.mark.parametrize("shards", [2, 4])
    def test_shards_agree_with_the_whole_batch(self, loss, shards):
        student, teacher, labels = sample()
        kernel = np.eye(4, dtype=np.float32)

        def objective(kernel, student, teacher, labels, weights, axis_name=None):
            return loss(student @ kernel, teacher, labels, weights=weights, axis_name=axis_name)

        batch = (student, teacher, labels, WEIGHTS)
        value, gradient = jax.value_and_grad(objective)(kernel, *batch)
        # The last shards hold padding only: a mean of the shards' means would be wrong.
        split = [a.reshape(shards, -1, *a.shape[1:]) for a in batch]
        values, gradients = jax.vmap(
            jax.value_and_grad(partial(objective, axis_name="data")),
            in_axes=(None, 0, 0, 0, 0),
            axis_name="data",
        )(kernel, *split)
        np.testing.assert_allclose(values, np.full(shards, value), rtol=1e-5)
        np.testing.assert_allclose(gradients.mean(axis=0), gradient, atol=1e-5)

    def test_leading_axes_are_examples(self, loss):
        student, teacher, labels = sample()
        folded = loss(*(a.reshape(2, 4, *a.shape[1:]) for a in (student, teacher, labels)))
        np.testing.assert_allclose(folded, loss(student, teacher, labels), rtol=1e-6)

    def test_half_precision_is_promoted(self, loss):
        student, teacher, labels = sample()
        student, teacher = jnp.asarray(student, jnp.bfloat16), jnp.asarray(teacher, jnp.bfloat16)
        value = loss(student, teacher, labels)
        assert value.dtype == jnp.float32
        wide = loss(student.astype(jnp.float32), teacher.astype(jnp.float32), labels)
        np.testing.assert_allclose(value, wide, rtol=1e-6)

    def test_refuses_arrays_that_do_not_fit(self, loss):
        student, teacher, labels = sample()
        with pytest.raises(ValueError, match="must agree"):
            loss(student, teacher[:, :1], labels)
        with pytest.raises(ValueError, match="prefix"):
            loss(student, teacher, labels, weights=WEIGHTS[:, None])
        with pytest.raises(ValueError, match="reduction must be"):
            loss(student, teacher, labels, reduction="batchmean")


def test_scalars_may_be_traced_or_static():
    student, teacher, labels = sample()
    np.testing.assert_allclose(
        decoupled_kd(student, teacher, labels, 0.5, 2.0, 3.0),
        losses.decoupled_kd(student, teacher, labels, 0.5, 2.0, 3.0),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        kd(student, teacher, 3.0), losses.kd(student, teacher, 3.0), rtol=1e-5
    )


def test_split_refuses_labels_that_do_not_fit():
    student, teacher, labels = sample()
    with pytest.raises(ValueError, match="do not fit"):
        target_nontarget_kl(student, teacher, labels[:, None])
    with pytest.raises(ValueError, match="integers"):
        decoupled_kd(student, teacher, labels.astype(np.float32))
    with pytest.raises(ValueError, match="non-target"):
        target_nontarget_kl(student[:, :1], teacher[:, :1], np.zeros(BATCH, int))
