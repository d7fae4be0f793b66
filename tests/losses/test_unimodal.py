"""Labels of single modalities: by hand, MMSA's trainer over three epochs, padding, sharding."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from corrkd_jax.losses.unimodal import (
    class_centers,
    init_tables,
    multitask_l1,
    relative_distance,
    shifted_labels,
    update_tables,
)
from tests.losses.mmsa import load_trainer

WIDTHS = {"fusion": 5, "text": 3, "audio": 2, "vision": 4}
SAMPLES, BATCH = 12, 4

update = jax.jit(update_tables, static_argnames=("limit", "exclude_zero"))
loss = jax.jit(multitask_l1)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def scores():
    values = np.random.default_rng(0).uniform(-3, 3, SAMPLES).astype(np.float32)
    values[3] = 0
    return values


def features(seed, batch=BATCH):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(batch, w)).astype(np.float32) for name, w in WIDTHS.items()}


@pytest.fixture(scope="module")
def seen():
    """Tables after an epoch in which every sample was seen."""
    return update(init_tables(scores(), WIDTHS), np.arange(SAMPLES), features(1, SAMPLES), 1)


def assert_tables_close(tables, expected, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), tables, expected)


class TestMultitaskL1:
    def test_by_hand(self):
        predictions = {"fusion": np.array([1.0, -1]), "text": np.array([[0.0], [3]])}
        labels = {"fusion": np.array([2.0, -1]), "text": np.array([2.0, 1])}
        # fusion is off by 1 and 0; text's first label is the multimodal one, its second is 2 off
        expected = (1 + 0) / 2 + (0 + np.tanh(2) * 2) / 2
        np.testing.assert_allclose(loss(predictions, labels), expected, rtol=1e-6)

    def test_a_modality_with_the_multimodal_label_has_no_gradient(self):
        labels = dict.fromkeys(WIDTHS, scores())
        predictions = dict.fromkeys(WIDTHS, scores() + 1)
        gradients = jax.grad(multitask_l1)(predictions, labels)
        np.testing.assert_allclose(gradients.pop("fusion"), 1 / SAMPLES, rtol=1e-6)
        assert all(not gradient.any() for gradient in gradients.values())

    def test_gradient_equals_finite_differences_and_labels_are_constants(self, x64):
        rng = np.random.default_rng(0)
        predictions, labels = ({m: rng.normal(size=6) for m in WIDTHS} for _ in range(2))
        check_grads(lambda p: loss(p, labels), (predictions,), order=1, modes=["rev"])
        gradients = jax.grad(multitask_l1, argnums=1)(predictions, labels)
        assert all(not gradient.any() for gradient in gradients.values())

    @pytest.mark.parametrize("garbage", [1e30, np.nan])
    def test_padding_counts_for_nothing(self, garbage):
        rng = np.random.default_rng(0)
        predictions, labels = ({m: rng.normal(size=6) for m in WIDTHS} for _ in range(2))
        weights = np.array([1, 0, 2, 0.5, 0, 1])
        counted = {m: x[weights > 0] for m, x in predictions.items()}
        expected = loss(
            counted, {m: x[weights > 0] for m, x in labels.items()}, weights=weights[weights > 0]
        )
        for values in (*predictions.values(), *labels.values()):
            values[weights == 0] = garbage
        value, gradients = jax.value_and_grad(loss)(predictions, labels, weights=weights)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        for gradient in gradients.values():
            np.testing.assert_array_equal(gradient[weights == 0], 0)
        assert loss(predictions, labels, weights=np.zeros(6)) == 0

    def test_refuses_other_names_and_classes(self):
        ones = dict.fromkeys(WIDTHS, np.ones(2))
        with pytest.raises(ValueError, match="differ"):
            multitask_l1({"fusion": np.ones(2)}, ones)
        with pytest.raises(ValueError, match=r"\(2, 3\) for 2 rows"):
            multitask_l1(ones | {"text": np.ones((2, 3))}, ones)


class TestClassCenters:
    labels = np.array([-1.0, 0, 2, 0.5, -3])
    features = np.array([[1.0], [10], [2], [4], [3]])

    @pytest.mark.parametrize(("exclude_zero", "positive"), [(True, 3), (False, 16 / 3)])
    def test_by_hand(self, exclude_zero, positive):
        centers = class_centers(self.features, self.labels, exclude_zero)
        np.testing.assert_allclose(centers.centers, [[2], [positive]], rtol=1e-6)

    def test_relative_distance_by_hand(self):
        centers = class_centers(self.features, self.labels)
        # 2 from the negative and 1 from the positive centre; the other way round; on a centre
        delta = relative_distance(np.array([[4.0], [1], [2]]), centers)
        np.testing.assert_allclose(delta, [1, -0.5, -1], rtol=1e-6)

    def test_a_missing_class_has_no_distance(self):
        centers = class_centers(self.features, np.abs(self.labels))
        assert np.isfinite(centers.centers).all()
        assert np.isnan(relative_distance(self.features, centers)).all()


def test_shifted_labels_by_hand():
    # half of the ratio times y and of y plus the difference; the last is limited
    new = shifted_labels(np.array([2.0, 2, 2]), np.array([1.0, 3, 30]), np.array([2.0, 3, 3]), 3)
    np.testing.assert_allclose(new, [(1 + 2 - 1) / 2, 2, 3], rtol=1e-6)


class TestUpdateTables:
    @pytest.mark.parametrize("exclude_zero", [True, False])
    def test_equals_mmsas_trainer_over_three_epochs(self, exclude_zero):
        torch = pytest.importorskip("torch")
        trainer = load_trainer("multiTask.SELF_MM")
        names = {"fusion": "fusion", "text": "text", "audio": "audio", "vision": "video"}
        oracle = trainer.SELF_MM(
            SimpleNamespace(
                train_mode="regression",
                dataset_name="mosi",
                device="cpu",
                train_samples=SAMPLES,
                H=3.0,
                excludeZero=exclude_zero,
                **{f"post_{names[name]}_dim": width for name, width in WIDTHS.items()},
            )
        )
        oracle.init_labels(torch.arange(SAMPLES), torch.tensor(scores()))
        tables = init_tables(scores(), WIDTHS)
        rng = np.random.default_rng(7)
        moved = 0
        for epoch in (1, 2, 3):
            for step, rows in enumerate(rng.permutation(SAMPLES).reshape(-1, BATCH)):
                # features that follow the label, as those of a trained model do
                batch = {
                    name: x + scores()[rows, None]
                    for name, x in features(10 * epoch + step).items()
                }
                predictions = {name: x[:, 0] for name, x in batch.items()}
                indexes = torch.tensor(rows)
                expected = sum(
                    oracle.weighted_loss(
                        torch.tensor(predictions[name]),
                        oracle.label_map[name][indexes],
                        indexes=indexes,
                        mode=name,
                    )
                    for name in WIDTHS
                )
                labels = {name: y[rows] for name, y in tables.labels.items()}
                np.testing.assert_allclose(loss(predictions, labels), expected.item(), rtol=1e-5)

                theirs = [torch.tensor(batch[name]) for name in WIDTHS]
                if epoch > 1:
                    oracle.update_labels(*theirs, epoch, indexes, None)
                oracle.update_features(*theirs, indexes)
                oracle.update_centers()
                tables = update(tables, rows, batch, epoch, exclude_zero=exclude_zero)
                for name in WIDTHS:
                    theirs = oracle.label_map[name].numpy()
                    np.testing.assert_allclose(tables.labels[name], theirs, atol=1e-5)
                    theirs = oracle.feature_map[name].numpy()
                    np.testing.assert_array_equal(tables.features[name], theirs)
            moved = np.abs(tables.labels["text"] - scores()).max()
            assert (moved > 0.1) == (epoch > 1)

    def test_the_true_labels_and_other_rows_stay(self, seen):
        rows = np.array([7, 2, 9, 0])
        after = update(seen, rows, features(2), 2)
        np.testing.assert_array_equal(after.labels["fusion"], scores())
        others = np.setdiff1d(np.arange(SAMPLES), rows)
        for before, now in zip(jax.tree.leaves(seen), jax.tree.leaves(after), strict=True):
            np.testing.assert_array_equal(now[others], before[others])
        assert (after.labels["text"] != seen.labels["text"]).sum() == len(rows)

    def test_padding_rows_are_not_written(self, seen):
        rows, batch = np.array([7, 2, 9, 0]), features(2)
        expected = update(seen, rows[:2], {name: x[:2] for name, x in batch.items()}, 2)
        for x in batch.values():
            x[2:] = np.nan
        after = update(seen, rows, batch, 2, weights=np.array([1, 0.5, 0, 0]))
        assert_tables_close(after, expected, rtol=1e-6)
        # padding is often a repetition of a row that counts
        rows[2:] = rows[:2]
        after = update(seen, rows, batch, 2, weights=np.array([True, True, False, False]))
        assert_tables_close(after, expected, rtol=1e-6)

    def test_limit(self, seen):
        far = {name: 10 * x for name, x in seen.features.items()}
        for epoch in range(2, 40):
            seen = update(seen, np.arange(SAMPLES), far, epoch, limit=1.0)
        assert 0.9 < max(np.abs(y).max() for m, y in seen.labels.items() if m != "fusion") < 1.01

    @pytest.mark.parametrize("sign", [1, -1])
    def test_labels_stay_where_a_class_has_no_samples(self, sign):
        tables = init_tables(sign * np.abs(scores()), WIDTHS)
        for epoch in (1, 2):
            after = update(tables, np.arange(SAMPLES), features(epoch, SAMPLES), epoch)
            assert_tables_close(after.labels, tables.labels)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))

    @pytest.mark.parametrize("shards", [2, 4])
    def test_shards_keep_the_tables_of_the_whole(self, seen, shards):
        rows, batch = np.array([7, 2, 9, 0]), features(2)
        weights = np.array([1, 1, 0, 1])
        expected = update(seen, rows, batch, 2, weights=weights)
        split = jax.tree.map(lambda x: x.reshape(shards, -1, *x.shape[1:]), (rows, batch, weights))
        program = jax.pmap(
            lambda rows, batch, weights: update_tables(
                seen, rows, batch, 2, weights=weights, axis_name="data"
            ),
            axis_name="data",
            devices=jax.devices("cpu")[:shards],
        )
        after = program(*split)
        for shard in range(shards):
            assert_tables_close(
                jax.tree.map(lambda x, i=shard: x[i], after), expected, rtol=1e-5, atol=1e-6
            )

    def test_lives_in_a_scan_under_vmap(self):
        """Two seeds, two epochs of three steps, the epoch a traced number."""
        order = np.random.default_rng(3).permutation(SAMPLES).reshape(-1, BATCH)
        steps = {
            "rows": np.tile(order, (2, 1)),
            "epoch": np.repeat([1, 2], len(order)),
            "features": jax.tree.map(
                lambda *x: np.stack(x), *(features(i) for i in range(2 * len(order)))
            ),
        }

        def step(tables, now):
            return update_tables(tables, now["rows"], now["features"], now["epoch"]), None

        @jax.jit
        @partial(jax.vmap, in_axes=(0, None))
        def train(scale, steps):
            scaled = steps | {"features": jax.tree.map(lambda x: scale * x, steps["features"])}
            return jax.lax.scan(step, init_tables(scores(), WIDTHS), scaled)[0]

        together = train(jnp.array([1.0, 2.0]), steps)
        tables = init_tables(scores(), WIDTHS)
        for i in range(2 * len(order)):
            now = jax.tree.map(lambda x, i=i: x[i], steps)
            tables = update(tables, now["rows"], now["features"], now["epoch"])
        assert_tables_close(jax.tree.map(lambda x: x[0], together), tables, rtol=1e-4, atol=1e-5)
        # relative distances, and with them the labels, do not know the scale of the features
        assert_tables_close(
            together.labels, jax.tree.map(lambda x: jnp.stack([x, x]), tables.labels), atol=1e-4
        )


def test_tables_need_the_fusion():
    with pytest.raises(ValueError, match="fusion"):
        init_tables(scores(), {"text": 3})
