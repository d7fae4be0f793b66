"""Back-door expectation: closed forms, CCIM's formulas in NumPy, a planted confounder."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from corrkd_jax import causal

S = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
P = np.array([0.25, 0.75], np.float32)
QUERY = np.array([[1.0, 0.0]], np.float32)
LEVEL = np.zeros((2, 2), np.float32)
TILTED = np.array([[np.log(3.0), 0.0], [0.0, 0.0]], np.float32)


def close(found, wanted, tolerance=1e-6):
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("keys", "renormalize", "wanted"),
    [
        (LEVEL, False, [0.125, 0.375]),
        (LEVEL, True, [0.25, 0.75]),
        (TILTED, False, [0.1875, 0.1875]),
        (TILTED, True, [0.5, 0.5]),
    ],
)
def test_closed_form(keys, renormalize, wanted):
    found = causal.backdoor_expectation(QUERY, S, P, keys=keys, scale=1.0, renormalize=renormalize)
    close(found, [wanted])


def test_the_head_reads_feature_and_expectation():
    expectation = causal.backdoor_expectation(QUERY, S, P, keys=LEVEL)
    close(causal.intervene([[1.0, 2.0]], expectation, np.eye(2), np.eye(2)), [[1.125, 2.375]])
    without = causal.intervene([[1.0, 2.0]], expectation, 3 * np.eye(2), np.zeros((2, 2)))
    close(without, [[3.0, 6.0]])


def test_own_subject_is_the_stratum_in_training_and_the_prior_after_it():
    own = partial(causal.backdoor_expectation, QUERY, S, P, weighting="own_subject")
    close(own(strata=[1]), [[0.0, 1.0]])
    close(own(), [[0.25, 0.75]])


def test_additive_with_a_zero_vector_is_uniform():
    query = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    uniform = causal.backdoor_expectation(query, S, P, weighting="uniform")
    close(uniform, [[0.125, 0.375]] * 3)
    close(
        causal.backdoor_expectation(query, S, P, weighting="additive", vector=np.zeros(2)), uniform
    )


def ccim(query, keys, confounders, prior, vector=None, scale=None):
    """The two published forms, line by line in float64."""
    query, keys = np.float64(query), np.float64(keys)
    if vector is None:
        scores = query @ keys.T / scale
    else:
        scores = np.tanh(query[:, None] + keys[None]) @ np.float64(vector)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    return (weights[:, :, None] * confounders[None] * prior[None, :, None]).sum(1)


@pytest.fixture(scope="module")
def random():
    rng = np.random.default_rng(1)
    prior = rng.random(7)
    arrays = {
        "query": rng.normal(size=(5, 4)),
        "keys": rng.normal(size=(7, 4)),
        "confounders": rng.normal(size=(7, 3)),
        "prior": prior / prior.sum(),
        "vector": rng.normal(size=4),
    }
    return {name: x.astype(np.float32) for name, x in arrays.items()}


def expectation(random, **options):
    """Of the random arrays, with some of them replaced."""
    arrays = {**{k: random[k] for k in ("query", "keys", "confounders", "prior")}, **options}
    query, confounders, prior = (arrays.pop(k) for k in ("query", "confounders", "prior"))
    return causal.backdoor_expectation(query, confounders, prior, **arrays)


def test_parity_with_ccim(random):
    plain = {k: random[k] for k in ("query", "keys", "confounders", "prior")}
    close(expectation(random), ccim(**plain, scale=2.0), 1e-5)
    close(expectation(random, scale=3**0.5), ccim(**plain, scale=3**0.5), 1e-5)
    additive = expectation(random, weighting="additive", vector=random["vector"])
    close(additive, ccim(**plain, vector=random["vector"]), 1e-5)


@pytest.mark.parametrize("weighting", ["dot", "additive", "uniform"])
def test_the_order_of_strata_does_not_matter(random, weighting):
    order = np.random.default_rng(2).permutation(7)
    options = {"weighting": weighting, "vector": random["vector"]}
    moved = {k: random[k][order] for k in ("keys", "confounders", "prior")}
    close(expectation(random, **options, **moved), expectation(random, **options))


def split_last(random):
    """The last stratum as two copies with half its prior each."""
    half = random["prior"].copy()
    half[-1] /= 2
    again = {k: np.concatenate([random[k], random[k][-1:]]) for k in ("keys", "confounders")}
    return {**again, "prior": np.append(half, half[-1])}


def test_two_copies_of_a_stratum(random):
    copies = split_last(random)
    own = partial(expectation, random, weighting="own_subject")
    close(own(**copies), own())
    # the attention counts keys, not priors: the copies together weigh e^l / (Z + e^l)
    scores = np.exp(random["query"] @ random["keys"].T / 2.0)
    weights = scores / (scores.sum(1, keepdims=True) + scores[:, -1:])
    wanted = (weights * random["prior"]) @ random["confounders"]
    close(expectation(random, **copies), wanted, 1e-5)
    assert np.abs(wanted - expectation(random)).max() > 1e-3


def test_a_zero_query_attends_evenly(random):
    zero = np.zeros_like(random["query"])
    close(expectation(random, query=zero), expectation(random, query=zero, weighting="uniform"))


def test_gradients_spare_the_dictionary(random):
    def loss(query, keys, confounders, prior):
        found = causal.backdoor_expectation(query, confounders, prior, keys=keys)
        return jnp.sum(jnp.sin(found))

    order = ("query", "keys", "confounders", "prior")
    gradients = jax.grad(loss, argnums=(0, 1, 2, 3))(*(random[k] for k in order))
    query, keys, confounders, prior = gradients
    assert np.abs(query).max() > 0
    assert np.abs(keys).max() > 0
    assert not np.any(confounders)
    assert not np.any(prior)


def test_one_class_makes_the_inside_expectation_exact(random):
    logits = np.random.default_rng(3).normal(size=(5, 7, 4)).astype(np.float32)
    exact = causal.backdoor_probabilities(logits, random["prior"])
    geometric = causal.geometric_probabilities(logits, random["prior"])
    powers = np.prod(jax.nn.softmax(logits) ** random["prior"][:, None], axis=1)
    close(geometric, powers / powers.sum(1, keepdims=True))
    close(exact.sum(1), np.ones(5))
    assert np.abs(exact - geometric).max() > 1e-3  # the approximation is one
    same = np.broadcast_to(logits[:, :1], logits.shape)
    close(causal.backdoor_probabilities(same, random["prior"]), jax.nn.softmax(same[:, 0]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prior": np.ones(3)}, "do not fit"),
        ({"weighting": "cosine"}, "weighting must be"),
        ({"keys": np.ones((7, 5))}, "as wide as the query"),
        ({"weighting": "additive"}, "needs a vector"),
        ({"weighting": "own_subject", "strata": [0, 1]}, "strata must be 5 integers"),
        ({"weighting": "own_subject", "strata": np.zeros(5)}, "strata must be 5 integers"),
        ({"query": np.ones(4)}, "query must be"),
    ],
)
def test_refusals(random, change, words):
    with pytest.raises(ValueError, match=words):
        expectation(random, **change)


def test_dictionary_by_hand():
    features = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 5.0], [np.nan, 9.0]])
    confounders, prior = causal.subject_dictionary(features, [0, 0, 2, 1], 3, [1, 1, 1, 0])
    close(confounders, [[2.0, 3.0], [0.0, 0.0], [5.0, 5.0]])
    close(prior, [2 / 3, 0.0, 1 / 3])
    with pytest.raises(ValueError, match="do not fit"):
        causal.subject_dictionary(features, [0, 1], 3)


def test_dictionary_over_shards(random):
    rng = np.random.default_rng(4)
    features = rng.normal(size=(8, 6, 3)).astype(np.float32)
    subjects = rng.integers(0, 5, (8, 6))
    weights = (rng.random((8, 6)) < 0.7).astype(np.float32)
    flat = (features.reshape(48, 3), subjects.ravel())
    whole = causal.subject_dictionary(*flat, 5, weights.ravel())
    shards = jax.pmap(
        lambda x, s, w: causal.subject_dictionary(x, s, 5, w, axis_name="data"), axis_name="data"
    )(features, subjects, weights)
    for shard, expected in zip(shards, whole, strict=True):
        for one in shard:
            close(one, expected)


SUBJECTS, UTTERANCES, SIZE = 24, 50, 16


def planted(seed, bias):
    """24 subjects in four styles whose labels lean by `bias`, and 24 others whose labels do not."""
    rng = np.random.default_rng(seed)
    centres = np.zeros((4, SIZE))
    centres[:, 1:] = rng.normal(size=(4, SIZE - 1))
    centres *= 3 / np.linalg.norm(centres, axis=1, keepdims=True)

    def part(lean):
        cluster = np.arange(SUBJECTS) % 4
        style = centres[cluster] + 0.2 * rng.normal(size=(SUBJECTS, SIZE))
        prior = np.where(cluster % 2 == 0, 0.5 + lean, 0.5 - lean)
        subjects = np.repeat(np.arange(SUBJECTS), UTTERANCES)
        y = (rng.random(subjects.size) < prior[subjects]).astype(int)
        x = style[subjects] + rng.normal(size=(subjects.size, SIZE))
        x[:, 0] += 0.8 * (2 * y - 1)
        return x.astype(np.float32), y, subjects

    return part(bias), part(0.0), part(-bias)


@partial(jax.jit, static_argnames="weighting")
def predict(x, y, subjects, others, weighting):
    """Classes of `others` by a linear head on raw features; all arms have the same parameters."""
    confounders, prior = causal.subject_dictionary(x, subjects, SUBJECTS)

    def logits(params, x, strata):
        if weighting is None:
            expectation = jnp.zeros_like(x)
        else:
            expectation = causal.backdoor_expectation(
                x @ params["query"],
                confounders,
                prior,
                keys=confounders @ params["keys"],
                weighting=weighting,
                strata=strata,
            )
        hidden = causal.intervene(x, expectation, params["features"], params["confounders"])
        return hidden @ params["head"]

    names = ("query", "keys", "features", "confounders")
    keys = jax.random.split(jax.random.key(0), 5)
    init = jax.nn.initializers.glorot_normal()
    params = {n: init(k, (SIZE, 32)) for n, k in zip(names, keys[:4], strict=True)}
    params["head"] = init(keys[4], (32, 2))
    tx = optax.adamw(3e-3, weight_decay=1e-3)

    def step(carry, rows):
        params, state = carry

        def loss(params):
            own = logits(params, x[rows], subjects[rows])
            return optax.softmax_cross_entropy_with_integer_labels(own, y[rows]).mean()

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    epochs = jax.vmap(lambda key: jax.random.permutation(key, len(x)))
    order = epochs(jax.random.split(jax.random.key(1), 30)).reshape(-1, 60)
    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), order)
    return [logits(params, other, None).argmax(-1) for other in others]


def accuracies(seed, bias, weighting):
    """Accuracy on new subjects without the bias, and with it reversed."""
    (x, y, subjects), *tests = planted(seed, bias)
    found = predict(x, y, subjects, [x for x, _, _ in tests], weighting)
    return np.array([100 * np.mean(p == y) for p, (_, y, _) in zip(found, tests, strict=True)])


def test_planted_confounder_and_its_controls():
    seeds = range(5)
    vanilla, own, dot = (
        np.mean([accuracies(seed, 0.35, w) for seed in seeds], axis=0)
        for w in (None, "own_subject", "dot")
    )
    gain = own - vanilla
    # measured: +4.6 without the bias, +15.9 with it reversed
    assert gain[0] >= 3
    assert gain[1] >= 12
    # the letter of the paper is a memory, not an adjustment
    assert np.all(dot - vanilla <= 1.5)
    control = [accuracies(s, 0.0, "own_subject") - accuracies(s, 0.0, None) for s in seeds]
    assert np.all(np.abs(np.mean(control, axis=0)) <= 2)
