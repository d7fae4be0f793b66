"""Losses of synthesis: values by hand, who receives gradients, one device against eight."""

import inspect
import math
from functools import partial, wraps
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.losses import kd, selection, synthesis

LOG3 = math.log(3)
BATCH, CLASSES = 16, 4


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


STATIC = {"base", "reverse", "clamp", "bounded", "diagonals", "count"}


def compiled(loss):
    """The loss as one program, of anything that NumPy reads."""
    static = tuple(STATIC.intersection(inspect.signature(loss).parameters))
    program = jax.jit(loss, static_argnames=static)

    @wraps(loss)
    def call(*arguments, **options):
        arguments = [np.asarray(x) if isinstance(x, list) else x for x in arguments]
        options = {k: np.asarray(x) if isinstance(x, list) else x for k, x in options.items()}
        return program(*arguments, **options)

    return call


losses = SimpleNamespace(
    **{
        name: compiled(loss)
        for module in (synthesis, selection)
        for name, loss in vars(module).items()
        if getattr(loss, "__module__", None) == module.__name__ and not name.startswith("_")
    }
)


def layer(mean, var):
    return {"mean": jnp.array(mean), "var": jnp.array(var)}


class TestClassPrior:
    def test_by_hand(self):
        close(losses.class_prior([[0.0, LOG3]]), 0.287682)
        close(losses.class_prior([[0.0, LOG3]], [0]), math.log(4))

    def test_padding_counts_for_nothing(self):
        close(losses.class_prior([[0.0, LOG3], [9.0, 9.0]], weights=[1, 0]), 0.287682)


def test_activation():
    close(losses.activation([[1.0, -3.0]]), -2)
    close(losses.activation([[1.0, -3.0], [50.0, 50.0]], [1, 0]), -2)


class TestBalance:
    @pytest.mark.parametrize(
        ("base", "value"), [(math.e, -0.562335), (10, -0.244219), (2, -0.811278)]
    )
    def test_by_hand(self, base, value):
        # two sure answers, one to three, and a row that does not count
        logits = [[0.0, LOG3], [0.0, LOG3], [80.0, 0.0]]
        close(losses.balance(logits, base, [1, 1, 0]), value)

    def test_is_of_the_mean_answer_and_mean_entropy_of_each(self):
        sure = 40 * np.eye(3)
        close(losses.balance(sure), -LOG3)
        close(losses.mean_entropy(sure), 0)
        close(losses.mean_entropy(np.zeros((2, 3))), LOG3)

    @pytest.mark.parametrize("loss", [losses.balance, losses.mean_entropy])
    def test_impossible_classes_have_finite_gradients(self, loss):
        gradient = jax.grad(loss)(jnp.array([[0.0, 500.0], [1.0, 500.0]]))
        assert np.isfinite(gradient).all()


class TestBatchNormStatistics:
    remembered = {"norm": layer([0.0], [1.0])}  # noqa: RUF012

    def test_by_hand(self):
        # of the values 0 and 2: the biased variance is 1, the unbiased one would add a second 1
        values = jnp.array([0.0, 2.0])
        batch = {"norm": layer([values.mean()], [values.var()])}
        close(losses.bn_statistics(self.remembered, batch), 1)

    def test_norms_are_neither_squared_nor_joined(self):
        remembered = {
            "block": {"norm1": layer([0.0, 0.0], [0.0, 0.0])},
            "norm": layer([0.0], [0.0]),
        }
        batch = {"block": {"norm1": layer([3.0, 4.0], [6.0, 8.0])}, "norm": layer([1.0], [-2.0])}
        close(losses.bn_statistics(remembered, batch), 5 + 10 + 1 + 2)
        scaled = losses.bn_statistics(remembered, batch, {"block/norm1": 10.0})
        close(scaled, 10 * (5 + 10) + 1 + 2)

    def test_equal_statistics_give_zero_and_finite_gradients(self):
        def loss(mean):
            return losses.bn_statistics(self.remembered, {"norm": layer(mean, [1.0])})

        value, gradient = jax.value_and_grad(loss)(jnp.zeros(1))
        assert value == 0
        assert np.isfinite(gradient).all()

    def test_memory_is_constant(self):
        def loss(remembered, batch):
            return losses.bn_statistics(remembered, batch)

        to_memory, to_batch = jax.grad(loss, argnums=(0, 1))(
            self.remembered, {"norm": layer([1.0], [3.0])}
        )
        close(to_memory["norm"]["mean"], [0])
        close(to_batch["norm"]["mean"], [1])

    def test_blend_with_earlier_batches(self):
        batch = {"norm": layer([1.0], [1.0])}
        assert synthesis.blend_statistics(batch, None) is batch
        blended = synthesis.blend_statistics(batch, {"norm": layer([0.0], [1.0])}, 0.9)
        close(losses.bn_statistics(self.remembered, blended), 0.1)

    def test_blend_passes_a_share_of_the_gradient_to_the_batch_alone(self):
        def loss(mean, earlier):
            blended = synthesis.blend_statistics({"norm": layer(mean, [1.0])}, earlier)
            return losses.bn_statistics(self.remembered, blended)

        gradients = jax.grad(loss, argnums=(0, 1))(jnp.array([1.0]), {"norm": layer([0.0], [1.0])})
        close(gradients[0], [0.1])
        close(gradients[1]["norm"]["mean"], [0])

    def test_refusals(self):
        with pytest.raises(ValueError, match=r"differ in layers: \['other'\]"):
            losses.bn_statistics(self.remembered, {**self.remembered, "other": layer([0], [1])})
        with pytest.raises(ValueError, match=r"no layers: \['stem'\]; there are \['norm'\]"):
            losses.bn_statistics(self.remembered, self.remembered, {"stem": 2.0})


STUDENT = np.array([[0.0, 0.0, 1.0], [2.0, 0.0, 0.0]])
TEACHER = np.array([[0.0, 1.0, 3.0], [0.0, 1.0, 0.5]])  # agrees with the first row alone


class TestAdversarial:
    def test_kl_is_minus_the_students_loss(self):
        for temperature in (1.0, 4.0):
            found = losses.adversarial_kl(STUDENT, TEACHER, temperature)
            close(found, -kd(STUDENT, TEACHER, temperature))

    def test_both_networks_carry_gradients(self):
        for loss in (
            losses.adversarial_kl,
            losses.decision_adversarial,
            losses.adversarial_l1,
            losses.adversarial_js,
        ):
            for gradient in jax.grad(loss, argnums=(0, 1))(STUDENT, TEACHER):
                assert np.abs(gradient[0]).max() > 0

    def test_decisions(self):
        agreed = kd(STUDENT[:1], TEACHER[:1])
        close(losses.decision_adversarial(STUDENT, TEACHER), -agreed / 2)
        close(losses.decision_adversarial(STUDENT, TEACHER, [1, 0]), -agreed)
        gradient = jax.grad(losses.decision_adversarial)(STUDENT, TEACHER)
        assert np.abs(gradient[0]).max() > 0
        assert not gradient[1].any()

    def test_l1(self):
        close(losses.adversarial_l1(STUDENT, TEACHER), -(0 + 1 + 2 + 2 + 1 + 0.5) / 6)

    def test_js_by_hand(self):
        p, q = np.log([[0.9, 0.1]]), np.log([[0.5, 0.5]])
        js = partial(losses.js_divergence, p, q, 1.0)
        close(js(), 0.117973)
        close(js(reverse=False), 0.101749)
        close(js(clamp=0.0), 0.117973)
        # the answers are cut, (.8, .2) and (.5, .5); their mean is that of the uncut ones
        close(js(clamp=0.2), 0.0552252)

    def test_js_passes_its_quirks_on(self):
        p, q = jnp.log(jnp.array([[0.9, 0.1]])), jnp.zeros((1, 2))
        js = partial(losses.adversarial_js, p, q, 1.0)
        close(js(), -0.117973)
        close(js(reverse=False), -0.101749)
        close(js(clamp=0.2), -0.0552252)

    def test_bounded_js(self):
        value = losses.js_divergence(STUDENT, TEACHER)
        close(losses.adversarial_js(STUDENT, TEACHER), -value)
        close(losses.adversarial_js(STUDENT, TEACHER, bounded=True), 1 - value)
        # clamped at .01, opposite answers are log(.25 / .0099) / 2 = 1.61 apart
        far = jnp.array([[60.0, 0.0]])
        value, gradient = jax.value_and_grad(partial(losses.adversarial_js, bounded=True))(
            far, -far
        )
        close(losses.adversarial_js(far, -far), -1.614, 1e-3)
        close(value, 0)
        close(gradient, 0)

    def test_js_at_impossible_classes_is_finite_without_a_clamp(self):
        far = jnp.array([[900.0, 0.0]])
        value, gradient = jax.value_and_grad(partial(losses.js_divergence, clamp=0.0))(far, -far)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()

    def test_a_constant_added_to_logits_changes_nothing(self):
        for loss in (losses.adversarial_kl, losses.adversarial_js):
            close(loss(STUDENT + 5, TEACHER - 7), loss(STUDENT, TEACHER))
        close(losses.balance(TEACHER + 5), losses.balance(TEACHER))
        close(losses.class_prior(TEACHER + 5), losses.class_prior(TEACHER))

    def test_shapes_that_differ_are_refused(self):
        with pytest.raises(ValueError, match="must agree in shape"):
            losses.adversarial_kl(STUDENT, TEACHER[:1])


class TestImagePriors:
    # one bright pixel in a corner of two by two
    corner = np.array([1.0, 0.0, 0.0, 0.0]).reshape(1, 2, 2, 1)

    def test_l1(self):
        # along rows and columns one of two pairs differs; one of the diagonals does
        close(losses.total_variation_l1(self.corner), 0.5 + 0.5 + 1 + 0)
        close(losses.total_variation_l1(self.corner, diagonals=False), 1)
        flat = np.concatenate([self.corner, 0 * self.corner])
        close(losses.total_variation_l1(flat), 1)
        close(losses.total_variation_l1(flat, weights=[1, 0]), 2)

    def test_l2_and_norm_are_of_the_whole_batch(self):
        close(losses.total_variation_l2(self.corner), 3)
        pair = np.concatenate([self.corner, self.corner])
        close(losses.total_variation_l2(pair), 3 * 2**0.5)
        close(losses.total_variation_l2(pair, [1, 0]), 3)
        close(losses.image_norm(np.full((2, 2, 2, 1), 3.0)), 72**0.5)

    @pytest.mark.parametrize("loss", [losses.total_variation_l2, losses.image_norm])
    def test_black_images_have_finite_gradients(self, loss):
        value, gradient = jax.value_and_grad(loss)(jnp.zeros((1, 3, 3, 1)))
        assert value == 0
        assert np.isfinite(gradient).all()


class TestInstanceContrastive:
    rows = np.eye(4)

    def test_by_hand(self):
        two = self.rows[:2]
        close(losses.instance_contrastive(two, two, temperature=0.5), 0.126928)
        close(losses.instance_contrastive(two, two, temperature=0.1), 4.53989e-5, 1e-7)

    def test_present_and_cached_rows_are_averaged_apart(self):
        found = losses.instance_contrastive(
            self.rows[:1], self.rows[:1], self.rows[1:], self.rows[1:], 0.5
        )
        each = math.log(1 + 3 * math.exp(-2))
        close(found, 2 * each)

    def test_rows_of_weight_zero_are_not_there(self):
        present, cached = self.rows[:2], self.rows[2:]
        full = losses.instance_contrastive(present, present, cached, cached)
        garbage = np.concatenate([cached, 9 * present])
        filled = losses.instance_contrastive(
            present, present, garbage, garbage, cached_weights=[1, 1, 0, 0]
        )
        close(filled, full)
        garbage = np.concatenate([present, 9 * present])
        padded = losses.instance_contrastive(garbage, garbage, cached, cached, weights=[1, 1, 0, 0])
        close(padded, full)

    def test_gradients_reach_local_rows_alone(self):
        rows = np.random.default_rng(0).normal(size=(4, 3, 4))
        gradients = jax.grad(losses.instance_contrastive, argnums=(0, 1, 2, 3))(*rows)
        for gradient, flows in zip(gradients, (True, False, True, False), strict=True):
            assert gradient.any() == flows


class TestPatches:
    def test_undecided_is_64_log_2_for_any_batch(self):
        for batch in (1, 3):
            zeros = np.zeros((batch, 8, 8))
            close(losses.patch_discriminator(zeros, zeros), 44.36142)
            close(losses.patch_generator(zeros), 44.36142)

    def test_signs(self):
        high, low = np.full((1, 2), 20.0), np.full((1, 2), -20.0)
        close(losses.patch_discriminator(low, high), 0)
        close(losses.patch_discriminator(high, low), 40)
        close(losses.patch_discriminator(high, high), 20)
        close(losses.patch_generator(high), 0)
        close(losses.patch_generator(low), 40)
        both = np.concatenate([low, high])
        close(losses.patch_discriminator(both, both, [1, 0], [0, 1]), 0)
        close(losses.patch_generator(both, [1, 0]), 40)


class TestSelection:
    def test_the_surest_come_first(self):
        logits = [[0.0, 1.0], [9.0, 0.0], [0.0, 0.0], [0.0, 4.0], [5.0, 9.0]]
        np.testing.assert_array_equal(losses.select_confident(logits, 3), [1, 3, 4])

    def test_noise_by_hand(self):
        matrix = losses.noise_matrix(np.zeros((10, 9)), 0.9523)
        close(matrix, np.where(np.eye(10), 0.9523, 0.0053))
        free = np.log([[1.0, 3.0], [3.0, 1.0], [1.0, 1.0]])
        expected = [[0.6, 0.1, 0.3], [0.3, 0.6, 0.1], [0.2, 0.2, 0.6]]
        close(losses.noise_matrix(free, 0.6), expected)
        with pytest.raises(ValueError, match="classes - 1"):
            losses.noise_matrix(np.zeros((3, 3)), 0.6)

    def test_nll_by_hand(self):
        matrix = losses.noise_matrix(np.zeros((10, 9)), 0.9523)
        sure = 50 * np.eye(10)[:1]
        close(losses.noisy_nll(sure, [0], matrix), 0.0488752)
        close(losses.noisy_nll(sure, [3], matrix), 5.240048)
        close(losses.noisy_nll(np.tile(sure, (2, 1)), [0, 3], matrix, [1, 0]), 0.0488752)

    def test_the_matrix_is_read_from_true_to_named(self):
        matrix = np.array([[0.9, 0.1], [0.3, 0.7]])
        close(losses.noisy_nll([[50.0, 0.0]], [1], matrix), -math.log(0.1))


# On eight devices some shards hold two rows that count, some one, and two hold none.
WEIGHTS = np.array([1, 1, 0, 0, 1, 0, 0, 0, 1, 0.5, 2, 1, 0, 1, 1, 0], np.float32)


def losses_of(student, teacher, images, targets, weights, axis_name):
    """Every loss that a batch takes part in."""
    shared = {"weights": weights, "axis_name": axis_name}
    unit = student / jnp.linalg.norm(student, axis=-1, keepdims=True)
    cached = np.eye(3, CLASSES, dtype=np.float32)
    return {
        "class_prior": synthesis.class_prior(student, targets, **shared),
        "activation": synthesis.activation(student, **shared),
        "balance": synthesis.balance(student, **shared),
        "mean_entropy": synthesis.mean_entropy(student, **shared),
        "kl": synthesis.adversarial_kl(student, teacher, **shared),
        "decision": synthesis.decision_adversarial(student, teacher, **shared),
        "l1": synthesis.adversarial_l1(student, teacher, **shared),
        "js": synthesis.adversarial_js(student, teacher, **shared),
        "tv1": synthesis.total_variation_l1(images, **shared),
        "tv2": synthesis.total_variation_l2(images, **shared),
        "norm": synthesis.image_norm(images, **shared),
        "contrast": synthesis.instance_contrastive(unit, teacher, cached, cached, **shared),
        "critic": synthesis.patch_discriminator(student, teacher, weights, weights, axis_name),
        "patches": synthesis.patch_generator(student, **shared),
        "noisy": selection.noisy_nll(student, targets, np.full((4, 4), 0.25) + np.eye(4), **shared),
    }


def values_and_gradients(kernel, batch, axis_name=None):
    def objective(kernel):
        student = batch["inputs"] @ kernel
        images = student.reshape(-1, 2, 2, 1)
        arguments = batch["teacher"], images, batch["targets"], batch["weights"], axis_name
        found = losses_of(student, *arguments)
        return found, found

    gradients, values = jax.jacrev(objective, has_aux=True)(kernel)
    if axis_name is not None:
        gradients = jax.lax.pmean(gradients, axis_name)
    return values, gradients


def test_values_and_gradients_do_not_depend_on_the_number_of_devices():
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(6, CLASSES)).astype(np.float32)
    batch = {
        "inputs": rng.normal(size=(BATCH, 6)).astype(np.float32),
        "teacher": rng.normal(size=(BATCH, CLASSES)).astype(np.float32),
        "targets": np.arange(BATCH) % CLASSES,
        "weights": WEIGHTS,
    }
    values, gradients = jax.jit(values_and_gradients)(
        kernel, {name: x[WEIGHTS > 0] for name, x in batch.items()}
    )
    program = jax.pmap(
        partial(values_and_gradients, axis_name="data"), axis_name="data", in_axes=(None, 0)
    )
    # rows of no weight hold garbage
    batch["inputs"][WEIGHTS == 0], batch["teacher"][WEIGHTS == 0] = 1e2, -1e2
    shards = program(kernel, {k: x.reshape(8, -1, *x.shape[1:]) for k, x in batch.items()})
    for name, value in values.items():
        assert abs(value) > 1e-2, name
        close(shards[0][name], np.full(8, value), 1e-4)
        close(shards[1][name], np.tile(gradients[name], (8, 1, 1)), 1e-4)
