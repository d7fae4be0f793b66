"""KDCI's compensation: the page's numbers, what leaves it unchanged, and a planted confounder."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from corrkd_jax.causal import backdoor_expectation, prototype_dictionary, random_dictionary
from corrkd_jax.losses import kd
from corrkd_jax.models.backbones import MLP
from corrkd_jax.models.compensated import Compensated, Compensation

KEY = jax.random.key(0)
IDENTITY = {
    "query": jnp.eye(2),
    "key": jnp.eye(2),
    "additive": jnp.array([[1.0], [-1.0]]),
    "prediction": jnp.eye(2),
    "confounder": jnp.eye(2),
}
PROTOTYPES, PRIOR = jnp.eye(2), jnp.array([0.8, 0.2])


def close(found, wanted, tolerance=1e-6):
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def by_hand(prediction, **options):
    head = Compensation(2, width=2, own_kernel=True, **options)
    return head.apply({"params": IDENTITY}, jnp.array([prediction]), PROTOTYPES, PRIOR)[0]


class TestByHand:
    """Section 9.1 of the method's page, number 10."""

    def test_additive(self):
        close(by_hand([0.0, 0.0]), [0.656806, 0.0357985])
        close(jax.nn.softmax(by_hand([0.0, 0.0])), [0.650448, 0.349552])

    def test_prior_times_its_size(self):
        head = Compensation(2, width=2, own_kernel=True)
        given = (jnp.zeros((1, 2)), PROTOTYPES, PRIOR)
        close(head.apply({"params": IDENTITY}, *given, strength=2.0)[0], [1.313612, 0.071597])

    def test_dot(self):
        attention = np.array([0.669762, 0.330238])
        close(by_hand([1.0, 0.0], weighting="dot"), [1.0, 0.0] + attention * [0.8, 0.2])

    def test_renormalized(self):
        weights = np.array([0.8210075, 0.1789925]) * [0.8, 0.2]
        close(by_hand([0.0, 0.0], renormalize=True), weights / weights.sum())


@pytest.fixture(scope="module")
def given():
    random = np.random.default_rng(0)
    prediction = jnp.asarray(random.normal(size=(5, 3)), jnp.float32)
    confounders = jnp.asarray(random.normal(size=(4, 3)), jnp.float32)
    return prediction, confounders, jnp.array([0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("weighting", ["additive", "dot"])
class TestInvariances:
    def head(self, given, weighting, **options):
        head = Compensation(3, weighting, width=6, **options)
        return head, head.init(KEY, *given)

    def test_order_of_prototypes(self, given, weighting):
        head, variables = self.head(given, weighting)
        prediction, confounders, prior = given
        order = np.array([2, 0, 3, 1])
        close(
            head.apply(variables, prediction, confounders[order], prior[order]),
            head.apply(variables, *given),
        )

    def test_starts_as_the_student_alone(self, given, weighting):
        head, variables = self.head(given, weighting, start="zero", own_kernel=True)
        np.testing.assert_array_equal(head.apply(variables, *given), given[0])

    def test_no_strength_and_no_dictionary_leave_the_student_alone(self, given, weighting):
        head, variables = self.head(given, weighting)
        prediction, confounders, prior = given
        alone = head.apply(variables, *given, strength=0.0)
        np.testing.assert_array_equal(alone, prediction)
        before = head.apply(variables, prediction, 0 * confounders, 0 * prior)
        np.testing.assert_array_equal(before, prediction)

    def test_empty_prototypes_are_as_if_deleted(self, given, weighting):
        head, variables = self.head(given, weighting)
        prediction, confounders, prior = given
        more = jnp.concatenate([confounders, 9 * jnp.ones((2, 3))])
        empty = jnp.concatenate([prior, jnp.zeros(2)])
        close(head.apply(variables, prediction, more, empty), head.apply(variables, *given))

    def test_linear_in_the_prior_and_not_in_its_split(self, given, weighting):
        head, variables = self.head(given, weighting)
        prediction, confounders, prior = given
        one, two = (head.apply(variables, prediction, confounders, c * prior) for c in (1, 2))
        close(two - prediction, 2 * (one - prediction))
        halves = [jnp.concatenate([x, x[:1]]) for x in (confounders, prior)]
        halves[1] = halves[1].at[jnp.array([0, 4])].set(prior[0] / 2)
        assert np.abs(head.apply(variables, prediction, *halves) - one).max() > 1e-3

    def test_gradients_are_those_of_finite_differences(self, given, weighting):
        head, variables = self.head(given, weighting, start="xavier", own_kernel=True)

        def loss(params, prediction, confounders, prior):
            answer = head.apply({"params": params}, prediction, confounders, prior)
            return jnp.sum(jnp.sin(answer))

        with jax.enable_x64(True):
            params, *rest = jax.tree.map(
                lambda x: jnp.asarray(np.asarray(x), jnp.float64), (variables["params"], *given)
            )
            slopes = jax.grad(loss, (0, 2, 3))(params, *rest)
            direction = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size).reshape(x.shape)), params)
            ends = [
                loss(jax.tree.map(lambda p, d, h=h: p + h * d, params, direction), *rest)
                for h in (1e-6, -1e-6)
            ]
            wanted = (ends[0] - ends[1]) / 2e-6
            found = optax.tree.vdot(slopes[0], direction)
            np.testing.assert_allclose(found, wanted, rtol=1e-5)
        assert not np.any(slopes[1])
        assert not np.any(slopes[2])
        unused = {"additive"} if weighting == "dot" else set()
        for name, slope in slopes[0].items():
            assert np.any(slope) == (name not in unused), name


@pytest.mark.parametrize("site", ["logits", "penultimate"])
def test_around_a_student(site):
    """Shapes, the student's own answer, and gradients for all that is trained."""
    model = Compensated(MLP(3, (4,)), 3, site=site, width=5)
    images = jax.random.normal(KEY, (6, 2, 2, 1))
    given = (images, jax.random.normal(KEY, (7, 3)), jnp.full(7, 1 / 7))
    variables = model.init(KEY, *given)
    answer = model.apply(variables, *given)
    assert answer.logits.shape == answer.plain.shape == (6, 3)
    assert answer.features.shape == (6, 4)
    alone = model.apply(variables, *given, strength=0.0)
    np.testing.assert_array_equal(alone.logits, alone.plain)
    np.testing.assert_array_equal(alone.plain, answer.plain)
    assert np.abs(answer.logits - answer.plain).max() > 1e-4
    if site == "logits":
        logits, _ = MLP(3, (4,)).apply(
            {name: x["backbone"] for name, x in variables.items()}, images
        )
        np.testing.assert_array_equal(answer.plain, logits)


def test_refusals(given):
    for options in ({"start": "ones"}, {"weighting": "none"}):
        with pytest.raises(ValueError, match="must be one of"):
            Compensation(3, **options).init(KEY, *given)
    with pytest.raises(ValueError, match="as wide as the prediction, 3, not 2"):
        Compensation(2).init(KEY, *given)
    with pytest.raises(ValueError, match="site must be"):
        Compensated(MLP(3, (4,)), 3, site="features").init(KEY, jnp.ones((1, 2, 2, 1)), *given[1:])


CLASSES, STRATA, ROWS = 10, 8, 4000


def planted(seed):
    """Section 9.3: answers whose bias is their stratum's, of a skewed and of an even mixture."""
    random = np.random.default_rng(seed)
    centers = 2 * random.normal(size=(STRATA, CLASSES))
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(CLASSES, CLASSES)))[0]
    bias = centers @ (0.5 * np.eye(CLASSES) + 0.1 * rotation)
    shares = 0.6 ** np.arange(STRATA)

    def answers(shares):
        stratum = random.choice(STRATA, ROWS, p=shares / shares.sum())
        teacher = centers[stratum] + 0.5 * random.normal(size=(ROWS, CLASSES))
        return [jnp.asarray(x, jnp.float32) for x in (teacher - bias[stratum], teacher)]

    return *answers(shares), *answers(np.ones(STRATA))


@partial(jax.jit, static_argnums=(7,))
def trained_kl(key, student, teacher, confounders, prior, even_student, even_teacher, fixed):
    """KL to the teacher on the even mixture after training the compensation on the skewed one."""
    head = Compensation(CLASSES, width=32, own_kernel=True)
    weights = jax.random.dirichlet(jax.random.fold_in(key, 1), jnp.ones(STRATA))

    def answer(params, prediction):
        if not fixed:
            return head.apply({"params": params}, prediction, confounders, prior)
        # attention gives way to one draw of weights, the same for every sample
        expected = (weights * prior) @ confounders
        return prediction @ params["prediction"] + expected @ params["confounder"]

    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (256,), 0, ROWS)
        slope = jax.grad(lambda p: kd(answer(p, student[rows]), teacher[rows]))(params)
        change, state = tx.update(slope, state)
        return (optax.apply_updates(params, change), state), None

    tx = optax.adam(1e-2)
    params = head.init(key, student[:1], confounders, prior)["params"]
    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(key, 500))
    return kd(answer(params, even_student), even_teacher)


def test_planted_confounder():
    """A frozen student, biased by stratum: attention over the dictionary takes the bias away.

    A random dictionary does as well, since its keys and W_z are learned: nothing is asked of it.
    """
    build = jax.jit(partial(prototype_dictionary, count=STRATA, components=CLASSES, variance=1.0))
    for seed in range(5):
        student, teacher, *even = planted(seed)
        key = jax.random.key(seed)
        confounders, prior = build(key, teacher)
        arms = {"KDCI": (confounders, False), "fixed weights": (confounders, True)}
        found = {
            name: float(trained_kl(key, student, teacher, z, prior, *even, fixed))
            for name, (z, fixed) in arms.items()
        }
        none = float(kd(*even))
        # at most 0.15 of it when this was set; the page asks for half
        assert found["KDCI"] <= none / 4, (seed, none, found)
        assert found["KDCI"] < found["fixed weights"] < none


def test_prototypes_of_a_dictionary():
    """Means of the features as they were, shares, places kept from a warm start, empty places."""
    random = np.random.default_rng(0)
    centers = 4 * np.eye(3)
    sizes = (60, 30, 10)
    points = np.repeat(centers, sizes, axis=0) + 0.1 * random.normal(size=(100, 3))
    points = np.concatenate([points, np.full((5, 3), np.nan)]).astype(np.float32)
    weights = np.r_[np.ones(100), np.zeros(5)]
    prototypes, prior = prototype_dictionary(KEY, points, 3, 2, weights, variance=1.0)
    order = np.argsort(-prior)
    close(prior[order], np.array(sizes) / 100)
    rows = np.split(points[:100], np.cumsum(sizes)[:2])
    close(prototypes[order], [part.mean(0) for part in rows], 1e-4)
    start = jnp.asarray(np.vstack([centers[[2, 0, 1]], [[50.0, 50, 50]]]), jnp.float32)
    warm, prior = prototype_dictionary(KEY, points, 4, 3, weights, start, variance=1.0)
    close(prior, [0.1, 0.6, 0.3, 0.0])
    close(warm[:3], np.stack([part.mean(0) for part in rows])[[2, 0, 1]], 1e-4)
    close(warm[3], start[3])
    # with a share of the variance that the first component alone has, the others are left out
    line = np.outer(np.arange(20.0) // 10 * 9, [1, 0]) + random.normal(size=(20, 2)) * [0, 0.5]
    found, share = prototype_dictionary(KEY, line, 2, 2, variance=0.9)
    close(np.sort(share), [0.5, 0.5])
    close(np.sort(found[:, 0]), [0.0, 9.0], 1e-4)


def test_a_random_dictionary_has_the_spread_of_the_one_it_replaces():
    confounders = np.random.default_rng(0).normal(3, [1, 5], size=(400, 2)).astype(np.float32)
    noise = random_dictionary(KEY, confounders)
    close(noise.mean(0), confounders.mean(0), 0.5)
    close(noise.std(0), confounders.std(0), 0.3)
    assert np.abs(np.corrcoef(noise[:, 0], confounders[:, 0])[0, 1]) < 0.2


def test_an_absent_stratum_takes_no_attention():
    query, confounders = jnp.ones((1, 2)), jnp.array([[1.0, 0], [0, 1], [3, 3]])
    present = jnp.array([True, True, False])
    prior = jnp.array([0.5, 0.5, 0.0])
    for weighting in ("dot", "uniform"):
        ask = partial(backdoor_expectation, query, weighting=weighting)
        wanted = ask(confounders[:2], prior[:2])
        close(ask(confounders, prior, present=present), wanted)
        assert np.abs(ask(confounders, prior) - wanted).max() > 0.05
