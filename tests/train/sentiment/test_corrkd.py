"""CorrKD's stages without the engine: arms, objective, what learns and what does not."""

import pickle
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from configs.msa import LossConfig, MsaConfig, NetworkConfig, OptimizerConfig
from corrkd_jax import losses
from corrkd_jax.data import msa as files
from corrkd_jax.data import planted
from corrkd_jax.errors import InputError
from corrkd_jax.models.corrkd import Output
from corrkd_jax.models.statistics import StatisticsNetwork
from train.engine import optimizer
from train.engine.parallel import AXIS
from train.sentiment import corrkd
from train.sentiment.corrkd import TERMS, Hyper
from train.sentiment.task import Task, make_task, predicted_classes, scores, targets

CONFIG = MsaConfig(
    network=NetworkConfig(4, 1, 1, 0.0, 0.0, 0.0, 0.0, 0.0),
    losses=LossConfig(scd=0.5, cpd=2.0, rcd=3.0, statistics_hidden=4),
    optimizer=OptimizerConfig(learning_rate=0.01, batch_size=16, epochs=2),
)
LOSSES = CONFIG.losses
ROWS, FRAMES, SIZES = 16, 3, {"text": 3, "audio": 2, "vision": 2}


def random_batch(task: Task, rows: int = ROWS, seed: int = 0) -> dict:
    random = np.random.default_rng(seed)
    inputs = {
        m: random.normal(size=(rows, FRAMES, size)).astype(np.float32) for m, size in SIZES.items()
    }
    labels = random.integers(0, task.classes, (rows, len(task.names))).astype(np.int32)
    ones = np.ones(labels.shape, np.float32)
    return {
        "inputs": inputs,
        "valid": {m: np.ones((rows, FRAMES), bool) for m in SIZES},
        "ids": random.integers(0, 2**32, (rows, 2), dtype=np.uint32),
        "labels": labels,
        "label_weight": ones,
        "target": labels,
        "target_weight": ones,
        "row": np.ones(rows, np.float32),
    }


def random_output(task: Task, rows: int = ROWS, seed: int = 0) -> Output:
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, 12))
    logits = random.normal(size=(rows, len(task.names), task.classes))
    return Output(*(jnp.asarray(x, jnp.float32) for x in (features, logits)))


def random_statistics(task: Task) -> dict:
    """Scorers whose last layer is not zero, so that they tell rows apart."""
    random = np.random.default_rng(5)
    scorer = StatisticsNetwork(LOSSES.statistics_hidden)
    params = {
        "target": scorer.init(jax.random.key(0), jnp.zeros((1, 1)), jnp.zeros((1, 1)))["params"],
        "others": scorer.init(jax.random.key(1), *(jnp.zeros((1, task.classes - 1)),) * 2)[
            "params"
        ],
    }
    return jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape), jnp.float32), params)


FOUR = Task("classes", 4, ("sentiment",))
EMOTIONS = Task("classes", 2, ("neutral", "happy", "sad", "angry"))


@partial(jax.jit, static_argnums=(4, 6))
def terms_of(student, teacher, batch, statistics, task, margin=1.2, axis=None):
    return corrkd.distillation_terms(
        TERMS, student, teacher, batch, statistics, jnp.float32(margin), LOSSES, task.classes, axis
    )


def test_arms_of_a_plain_run():
    plain = Hyper(learning_rate=0.01, margin=1.2)
    full = plain._replace(scd=0.5, cpd=2.0, rcd=3.0)
    assert corrkd.arms(CONFIG) == {
        "MRM + CE": plain,
        "CorrKD": full,
    }


def test_arms_of_the_ablation():
    plain = Hyper(learning_rate=0.01, margin=1.2)
    full = plain._replace(scd=0.5, cpd=2.0, rcd=3.0)
    wanted = {
        "MRM + CE": plain,
        "MRM + CE + KL": plain._replace(kl=1.0),
        "MRM + CE + DKD": plain._replace(dkd=1.0),
        "CorrKD": full,
        "CorrKD w/o SCD": full._replace(scd=0.0),
        "CorrKD w/o CPD": full._replace(cpd=0.0),
        "CorrKD w/o RCD": full._replace(rcd=0.0),
        "CorrKD, KL for RCD": full._replace(rcd=0.0, kl=1.0),
        "CorrKD, shuffled teacher": full._replace(shuffle=1.0),
    }
    found = corrkd.arms(replace(CONFIG, ablate=True))
    assert list(found.items()) == list(wanted.items())
    some = corrkd.arms(replace(CONFIG, arms=("CorrKD w/o CPD", "MRM + CE")))
    assert list(some.items()) == [(name, wanted[name]) for name in ("CorrKD w/o CPD", "MRM + CE")]
    with pytest.raises(InputError, match="--arms 'CorrKD w/o'"):
        corrkd.arms(replace(CONFIG, arms=("CorrKD w/o",)))


def test_sweep_is_every_combination():
    found = corrkd.arms(replace(CONFIG, sweep=("margin=0.8,1.6", "learning_rate=1e-3,2e-3,4e-3")))
    assert len(found) == 2 + 6
    full = Hyper(0.01, 1.2, 0.5, 2.0, 3.0)
    assert dict(list(found.items())[2:]) == {
        f"CorrKD, margin={margin:g}, learning_rate={rate:g}": full._replace(
            margin=margin, learning_rate=rate
        )
        for margin in (0.8, 1.6)
        for rate in (1e-3, 2e-3, 4e-3)
    }


@partial(jax.jit, static_argnums=0)
def forward(task, params, inputs, valid):
    network = corrkd.build_network(CONFIG.network, task)
    return network.apply({"params": params}, inputs, valid)


@pytest.fixture(scope="module")
def stages():
    return corrkd.build_stages(replace(CONFIG, ablate=True), FOUR, {"train": 4}, None)


@pytest.fixture(scope="module")
def prepared(stages):
    """A teacher, a student of its own seed, and a batch as the student's step sees it."""
    batch = jax.tree.map(jnp.asarray, random_batch(FOUR))
    teacher, student = stages
    selected = teacher.select(jax.jit(teacher.init)(jax.random.key(0), batch, None, {}))
    hyper = Hyper(*(jnp.float32(x) for x in (0.01, 1.2, 0.5, 2.0, 3.0, 0.0, 0.0, 0.0)))
    context = {"teacher": selected}
    state = jax.jit(student.init)(jax.random.key(1), batch, hyper, context)
    # as after some steps: scorers that start at zero would hide the pairing
    state = state._replace(params={**state.params, "statistics": random_statistics(FOUR)})
    return state, jax.jit(student.prepare)(batch, jax.random.key(2), context), context


@pytest.fixture(scope="module")
def step(stages):
    return jax.jit(stages[1].step)


def test_hyper_of_the_stage_has_a_row_an_arm(stages):
    assert all(leaf.shape == (9,) and leaf.dtype == np.float32 for leaf in stages[1].hyper)
    np.testing.assert_array_equal(stages[1].hyper.shuffle, [0] * 8 + [1])
    assert stages[0].hyper is None


def test_student_starts_on_its_own_or_as_the_teacher(prepared):
    state, batch, context = prepared
    assert not jax.tree.all(
        jax.tree.map(jnp.array_equal, state.params["network"], context["teacher"])
    )
    as_teacher = corrkd.build_stages(
        replace(CONFIG, student_start="teacher"), FOUR, {"train": 4}, None
    )[1]
    started = jax.jit(as_teacher.init)(jax.random.key(1), batch, state.hyper, context)
    jax.tree.map(np.testing.assert_array_equal, started.params["network"], context["teacher"])


def test_optimizer_holds_moments_of_what_learns_and_nothing_else(prepared):
    state, _, _ = prepared
    assert set(state.params) == {"network", "statistics"}
    learning = sum(x.size for x in jax.tree.leaves(state.params))
    moments = [x for x in jax.tree.leaves(state.optimizer) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert sum(x.size for x in moments) == 2 * learning


def test_prepare_masks_the_student_and_shows_the_teacher_everything(stages, prepared):
    _, batch, context = prepared
    whole = forward(FOUR, context["teacher"], batch["inputs"], batch["valid"])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), batch["teacher"], whole)
    missing = 0
    for name, x in batch["masked"].items():
        gone = ~np.asarray(x).any(axis=-1)
        missing += gone.sum()
        np.testing.assert_array_equal(x[~gone], batch["inputs"][name][~gone])
    assert 0 < missing < 3 * ROWS * FRAMES
    kept = [np.asarray(x).any(axis=(1, 2)) for x in batch["masked"].values()]
    assert np.any(kept, axis=0).all(), "something is left of every row"


def test_total_is_the_task_and_the_weighted_terms(prepared, step):
    state, batch, _ = prepared
    _, metrics = step(state, batch, jax.random.key(3))
    out = forward(FOUR, state.params["network"], batch["masked"], batch["valid"])
    of_task = (out.logits[:, 0], batch["teacher"].logits[:, 0])
    labels = batch["labels"][:, 0]
    scorers = [
        partial(StatisticsNetwork(4).apply, {"params": state.params["statistics"][part]})
        for part in ("target", "others")
    ]
    log_p = jax.nn.log_softmax(of_task[0])
    wanted = {
        "task": -np.mean(log_p[np.arange(ROWS), labels]),
        "scd": losses.sample_contrastive(out.features, batch["teacher"].features, 1.2),
        "cpd": losses.category_prototype(out.features, batch["teacher"].features, labels, 4),
        "rcd": losses.response_consistency(*of_task, labels, *scorers),
        "kl": losses.kd(*of_task, 1.0),
        "dkd": losses.decoupled_kd(*of_task, labels, 1.0, 8.0, 4.0),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
        assert abs(float(value)) > 1e-3, name
    total = wanted["task"] + 0.5 * wanted["scd"] + 2 * wanted["cpd"] + 3 * wanted["rcd"]
    np.testing.assert_allclose(metrics["total"], total, rtol=1e-4)
    kl = state._replace(hyper=state.hyper._replace(kl=jnp.float32(7), rcd=jnp.float32(0)))
    _, metrics = step(kl, batch, jax.random.key(3))
    total += 7 * wanted["kl"] - 3 * wanted["rcd"]
    np.testing.assert_allclose(metrics["total"], total, rtol=1e-4)


def test_a_step_is_adam_s(prepared, step):
    """The first step of Adam moves every parameter that has a gradient by the rate."""
    state, batch, _ = prepared
    after, _ = step(state, batch, jax.random.key(3))
    assert int(after.step) == 1
    before, moved = (ravel_pytree(s.params)[0] for s in (state, after))
    change = np.abs(moved - before)
    assert change.max() <= 0.01 * 1.001
    assert np.median(change) > 0.0099
    idle = state._replace(hyper=state.hyper._replace(learning_rate=jnp.float32(0)))
    after, _ = step(idle, batch, jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_only_terms_that_an_arm_weighs_are_computed(prepared):
    state, batch, _ = prepared
    lone = corrkd.build_stages(replace(CONFIG, arms=("MRM + CE",)), FOUR, {"train": 4}, None)[1]
    plain = state._replace(hyper=Hyper(jnp.float32(0.01), jnp.float32(1.2)))
    after, metrics = jax.jit(lone.step)(plain, batch, jax.random.key(3))
    assert set(metrics) == {"task", "total", "gradient_norm"}
    assert float(metrics["task"]) == float(metrics["total"])
    jax.tree.map(
        np.testing.assert_array_equal, after.params["statistics"], state.params["statistics"]
    )


def test_teacher_gets_no_gradient_and_the_student_does():
    student, teacher = random_output(FOUR, seed=1), random_output(FOUR, seed=2)
    batch, statistics = random_batch(FOUR), random_statistics(FOUR)

    def total(student, teacher):
        return sum(terms_of(student, teacher, batch, statistics, FOUR).values())

    of_student, of_teacher = jax.jit(jax.grad(total, argnums=(0, 1)))(student, teacher)
    assert all(not np.asarray(x).any() for x in of_teacher)
    assert all(np.asarray(x).any(axis=tuple(range(1, x.ndim))).all() for x in of_student)


def test_four_tasks_sum_their_cross_entropies_and_average_their_terms():
    student, teacher = random_output(EMOTIONS, seed=1), random_output(EMOTIONS, seed=2)
    batch, statistics = random_batch(EMOTIONS), random_statistics(EMOTIONS)
    batch["label_weight"] = np.random.default_rng(3).integers(0, 2, (ROWS, 4)).astype(np.float32)
    found = terms_of(student, teacher, batch, statistics, EMOTIONS)
    scorers = [
        partial(StatisticsNetwork(4).apply, {"params": statistics[part]})
        for part in ("target", "others")
    ]
    each = {"cpd": [], "rcd": [], "kl": [], "dkd": []}
    for t in range(4):
        logits = (student.logits[:, t], teacher.logits[:, t])
        labels, weights = batch["labels"][:, t], batch["label_weight"][:, t]
        features = (student.features, teacher.features)
        each["cpd"].append(losses.category_prototype(*features, labels, 2, weights=weights))
        each["rcd"].append(losses.response_consistency(*logits, labels, *scorers, weights=weights))
        each["kl"].append(losses.kd(*logits, 1.0, weights))
        each["dkd"].append(losses.decoupled_kd(*logits, labels, 1.0, 8.0, 4.0, weights))
    for name, values in each.items():
        np.testing.assert_allclose(found[name], np.mean(values), rtol=1e-5, err_msg=name)
        assert np.ptp(values) > 1e-3, name


def test_four_tasks_in_a_step():
    """`task` is the sum over emotions of means over the rows that have the label."""
    stage = corrkd.build_stages(CONFIG, EMOTIONS, {"train": 4}, None)[0]
    batch = jax.tree.map(jnp.asarray, random_batch(EMOTIONS))
    batch["label_weight"] = batch["label_weight"].at[:9, 2].set(0)
    batch["row"] = batch["row"].at[-3:].set(0)
    state = jax.jit(stage.init)(jax.random.key(0), batch, None, {})
    _, metrics = jax.jit(stage.step)(state, batch, jax.random.key(1))
    logits = forward(EMOTIONS, stage.select(state), batch["inputs"], batch["valid"]).logits
    log_p = np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits)), np.asarray(batch["labels"])[..., None], axis=-1
    )[:13, :, 0]
    wanted = -sum(log_p[9 if t == 2 else 0 :, t].mean() for t in range(4))
    np.testing.assert_allclose(metrics["task"], wanted, rtol=1e-4)


def test_rows_of_padding_change_nothing():
    """Twelve rows, and the same twelve among four of nonsense with `row` 0."""
    student, teacher = (random_output(FOUR, 12, seed) for seed in (1, 2))
    batch, statistics = random_batch(FOUR, 12), random_statistics(FOUR)
    wanted = terms_of(student, teacher, batch, statistics, FOUR)
    position = np.array([0, 1, 3, 4, 5, 6, 8, 9, 10, 12, 13, 15])

    def spread(x, filler):
        x = np.asarray(x)
        padded = np.full((ROWS, *x.shape[1:]), filler, x.dtype)
        padded[position] = x
        return padded

    padded = {
        "labels": spread(batch["labels"], 99),
        "label_weight": spread(batch["label_weight"], 1),
        "row": spread(batch["row"], 0),
    }
    outputs = [Output(*(spread(x, np.nan) for x in out)) for out in (student, teacher)]
    found = terms_of(*outputs, padded, statistics, FOUR)
    assert set(found) == set(TERMS)
    for name in TERMS:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, err_msg=name)


def test_a_row_without_label_counts_in_the_contrastive_term_alone():
    """A score of zero in mode `binary`."""
    binary = Task("binary", 2, ("sentiment",))
    student, teacher = random_output(binary, seed=1), random_output(binary, seed=2)
    batch, statistics = random_batch(binary), random_statistics(binary)
    batch["label_weight"][5] = 0
    changed = teacher._replace(
        features=teacher.features.at[5].add(1.0), logits=teacher.logits.at[5].add(jnp.array([0, 3]))
    )
    one, other = (terms_of(student, t, batch, statistics, binary) for t in (teacher, changed))
    assert float(one["scd"]) != float(other["scd"])
    for name in TERMS[1:]:
        assert float(one[name]) == float(other[name]), name


@pytest.mark.parametrize("shards", [1, 4])
def test_control_hands_every_row_the_next_one_s_teacher(prepared, step, shards):
    """Next in the whole batch, also across the border of two shards."""
    state, batch, _ = prepared
    sharded = corrkd.build_stages(replace(CONFIG, ablate=True), FOUR, {"train": 4}, AXIS)[1]
    shuffled = state._replace(hyper=state.hyper._replace(shuffle=jnp.float32(1)))
    rolled = {**batch, "teacher": jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), batch["teacher"])}
    key = jax.random.key(3)

    @jax.jit
    def on_shards(batch):
        cut = jax.tree.map(lambda x: x.reshape(shards, -1, *x.shape[1:]), batch)
        found = jax.vmap(sharded.step, (None, 0, None), axis_name=AXIS)(shuffled, cut, key)
        return jax.tree.map(lambda x: x[0], found)

    found = step(shuffled, batch, key) if shards == 1 else on_shards(batch)
    wanted, straight = step(state, rolled, key), step(state, batch, key)
    jax.tree.map(  # moments rather than parameters: Adam divides by gradients that may be zero
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        (found[0].optimizer, found[1]),
        (wanted[0].optimizer, wanted[1]),
    )
    for name in TERMS:
        assert abs(float(found[1][name] - straight[1][name])) > 1e-4, name


def test_evaluation_counts_rows_and_subsets(stages, prepared):
    state, batch, _ = prepared
    batch = {**batch, "row": batch["row"].at[-5:].set(0)}
    student = stages[1]
    counts = jax.jit(student.evaluate)(state, batch)
    assert counts.shape == (7, 1, 4, 4)
    np.testing.assert_allclose(counts.sum(axis=(-1, -2)), ROWS - 5)
    np.testing.assert_array_equal(
        counts[0, 0].sum(axis=1), np.bincount(batch["labels"][:-5, 0], minlength=4)
    )
    metrics = student.summarize(counts)
    subsets = [metrics[f"f1_{name}"] for name in ("l", "a", "v", "la", "lv", "av", "lav")]
    np.testing.assert_allclose(metrics["score"], np.mean(subsets), rtol=1e-6)
    of_teacher = stages[0].summarize(jax.jit(stages[0].evaluate)(state, batch))
    assert set(of_teacher) == {"score", "f1_lav"}
    np.testing.assert_allclose(of_teacher["f1_lav"], metrics["f1_lav"], rtol=1e-6)


def test_each_group_is_clipped_by_its_own_norm():
    params = {"network": {"a": jnp.ones(3), "b": jnp.ones(2)}, "statistics": {"c": jnp.ones(4)}}
    tx = optimizer.adam(1.0, ("network", "statistics"))
    huge = {
        "network": {"a": 1e3 * jnp.ones(3), "b": jnp.zeros(2)},
        "statistics": {"c": jnp.ones(4)},
    }
    _, state = tx.update(huge, tx.init(params), params)
    moments = [np.asarray(x) for x in jax.tree.leaves(state) if np.ndim(x) == 1]
    first = sorted(float(np.linalg.norm(m)) for m in moments if np.linalg.norm(m) > 0.05)
    np.testing.assert_allclose(first, [0.1, 0.1], rtol=1e-4)  # (1 - b1) times the norm 1


def test_schedule():
    assert float(optimizer.schedule("constant", jnp.int32(7), 10)) == 1
    cosine = [float(optimizer.schedule("cosine", jnp.int32(i), 10)) for i in (0, 5, 10)]
    np.testing.assert_allclose(cosine, [1, 0.5, 0], atol=1e-6)
    with pytest.raises(ValueError, match="step"):
        optimizer.schedule("step", jnp.int32(0), 10)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("protocol") / "small.npz"
    content, _ = planted.generate(0, train=40, valid=9, test=9, teacher_train=4, frames=2)
    for split in content.values():
        split["regression_labels"] = split["regression_labels"].copy()
        split["regression_labels"][:3] = (-0.4, 0.0, 2.6)
    path = path.with_suffix(".pkl")
    path.write_bytes(pickle.dumps(content))
    return files.read(path)


@pytest.mark.parametrize(("mode", "classes"), [("binary", 2), ("ternary", 3), ("seven", 7)])
def test_tasks_of_scores(dataset, mode, classes):
    task = make_task(dataset, mode)
    assert (task.classes, task.metric_classes, task.has_scores) == (classes, 2, True)
    assert task.names == ("sentiment",)
    truth, weights = targets(dataset.test, task, "file")
    np.testing.assert_array_equal(truth[:3, 0], [0, 0, 1])
    np.testing.assert_array_equal(weights[:3, 0], [1, 0, 1])
    labels, label_weights, _ = files.labels(dataset.test, mode, "file")
    assert (
        labels[:3, 0].tolist()
        == {"binary": [0, 0, 1], "ternary": [0, 1, 2], "seven": [3, 3, 6]}[mode]
    )
    assert label_weights[:3, 0].tolist() == ([1, 0, 1] if mode == "binary" else [1, 1, 1])


def test_task_of_classes(dataset):
    task = make_task(dataset, "classes")
    assert (task.classes, task.metric_classes, task.has_scores) == (4, 4, False)
    truth, weights = targets(dataset.test, task, "file")
    np.testing.assert_array_equal(truth, dataset.test.classes)
    assert weights.all()


def log(*probabilities):
    return jnp.log(jnp.array(probabilities))


def test_binary_predictions():
    logits = jnp.stack([log(0.7, 0.3), log(0.2, 0.8)])
    np.testing.assert_array_equal(predicted_classes(logits, "binary"), [0, 1])
    np.testing.assert_allclose(scores(logits, "binary"), [-0.4, 0.6], atol=1e-6)


def test_ternary_predictions_leave_neutral_out():
    logits = jnp.stack([log(0.05, 0.9, 0.05001), log(0.3, 0.6, 0.1), log(0.1, 0.2, 0.7)])
    np.testing.assert_array_equal(predicted_classes(logits, "ternary"), [1, 0, 1])
    np.testing.assert_allclose(scores(logits, "ternary"), [0, -0.2, 0.6], atol=1e-4)


def test_seven_level_predictions_are_expected_scores():
    """The likeliest level may be negative and the expected score positive."""
    logits = jnp.stack(
        [log(1e-9, 1e-9, 0.4, 1e-9, 0.3, 1e-9, 0.3), log(*[1e-9] * 2, 1, *[1e-9] * 4)]
    )
    np.testing.assert_allclose(scores(logits, "seven"), [0.8, -1], atol=1e-5)
    np.testing.assert_array_equal(predicted_classes(logits, "seven"), [1, 0])


def test_class_predictions():
    logits = jnp.stack([log(0.1, 0.2, 0.4, 0.3), log(0.9, 0.05, 0.03, 0.02)])
    np.testing.assert_array_equal(predicted_classes(logits[:, None], "classes"), [[2], [0]])
