"""Clusters and principal components: by hand, by symmetry, and beside scikit-learn."""

from functools import partial

import jax
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from corrkd_jax.causal.dictionary import kmeans, pca

KEY = jax.random.key(0)


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def cluster():
    return jax.jit(kmeans, static_argnums=(2, 3))


@pytest.fixture(scope="module")
def cloud():
    return np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32) + 5


def inertia(points, centers, assignment):
    """The sum of squared distances, and that the assignment is to the nearest."""
    distances = np.square(np.float64(points)[:, None] - np.float64(centers)[None]).sum(-1)
    np.testing.assert_array_equal(assignment, distances.argmin(1))
    return distances.min(1).sum()


class TestKMeans:
    @pytest.mark.parametrize("seed", range(3))
    def test_by_hand(self, cluster, seed):
        points = np.array([[0.0], [10.0], [1.0], [11.0]])
        centers, assignment = cluster(jax.random.key(seed), points, 2, 5)
        close(np.sort(centers[:, 0]), [0.5, 10.5])
        close(centers[assignment, 0], [0.5, 10.5, 0.5, 10.5])

    def test_four_groups_from_any_seed(self):
        rng = np.random.default_rng(0)
        corners = 4.0 * np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        sizes = (400, 300, 200, 100)
        points = np.repeat(corners, sizes, axis=0) + 0.1 * rng.normal(size=(1000, 2))
        keys = jax.random.split(KEY, 5)
        many = jax.jit(jax.vmap(partial(kmeans, points=points, count=4, steps=20)))
        for centers, assignment in zip(*many(keys), strict=True):
            order = np.lexsort(np.round(np.asarray(centers) / 4).T[::-1])
            close(centers[order], corners, 0.05)
            shares = np.bincount(assignment, minlength=4)[order] / 1000
            close(shares, np.array(sizes) / 1000, 0.01)

    def test_the_start_is_spread_out(self):
        # three of four groups are rare: a start drawn evenly would miss some of them
        points = np.repeat(1e3 * np.eye(4), (97, 1, 1, 1), axis=0)
        points += np.random.default_rng(0).normal(size=points.shape)
        starts = jax.jit(jax.vmap(partial(kmeans, points=points, count=4, steps=0)))
        centers, _ = starts(jax.random.split(KEY, 20))
        groups = np.sort(np.argmax(centers, axis=-1), axis=1)
        np.testing.assert_array_equal(groups, np.tile(np.arange(4), (20, 1)))

    def test_ends_where_scikit_learn_ends_from_the_same_start(self, cluster, cloud):
        found = cluster(KEY, cloud, 5, 50, start=cloud[:5])
        oracle = KMeans(5, init=cloud[:5], n_init=1, max_iter=50, tol=0).fit(cloud)
        assert inertia(cloud, *found) == pytest.approx(oracle.inertia_, rel=1e-4)
        close(found[0], oracle.cluster_centers_, 1e-3)

    def test_the_best_of_three_starts_is_as_good_as_scikit_learns(self, cloud):
        three = jax.jit(jax.vmap(partial(kmeans, points=cloud, count=5, steps=50)))
        ours = min(
            inertia(cloud, *run) for run in zip(*three(jax.random.split(KEY, 3)), strict=True)
        )
        assert ours <= 1.05 * KMeans(5, n_init=10, random_state=0).fit(cloud).inertia_

    def test_weights_are_repetitions_and_padding_is_not_there(self, cluster, cloud):
        weights = np.random.default_rng(1).integers(0, 3, len(cloud))
        padded = np.where(weights[:, None] > 0, cloud, np.nan)
        centers, assignment = cluster(KEY, padded, 4, 5, weights, cloud[:4])
        expected, _ = cluster(KEY, np.repeat(cloud, weights, axis=0), 4, 5, None, cloud[:4])
        close(centers, expected, 1e-4)
        inertia(cloud[weights > 0], centers, assignment[weights > 0])
        centers, _ = cluster(KEY, padded, 4, 5, weights)
        assert np.isfinite(centers).all()

    def test_more_clusters_than_places(self, cluster):
        centers, assignment = cluster(KEY, np.full((4, 2), 3.0), 3, 5)
        close(centers, np.full((3, 2), 3.0))
        assert len(set(np.asarray(assignment).tolist())) == 1
        # padding is no place
        padded = np.array([[np.nan, np.nan], [3.0, 3.0]])
        centers, _ = cluster(KEY, padded, 3, 5, np.array([0.0, 1.0]))
        close(centers, np.full((3, 2), 3.0))

    def test_a_cluster_without_points_keeps_its_center(self, cluster):
        start = np.array([[0.0], [100.0]])
        centers, _ = cluster(KEY, np.array([[-1.0], [2.0]]), 2, 5, None, start)
        close(centers, [[0.5], [100.0]])

    def test_refusals(self):
        with pytest.raises(ValueError, match="do not fit"):
            kmeans(KEY, np.ones((3, 2)), 2, 1, np.ones(2))
        with pytest.raises(ValueError, match="start must be"):
            kmeans(KEY, np.ones((3, 2)), 2, 1, start=np.ones((3, 2)))


class TestPCA:
    def test_by_hand(self):
        found = pca(np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]), 2)
        close(found.mean, [2, 3])
        close(found.axes[0], np.full(2, 0.5**0.5))
        close(found.share, [1, 0])

    def test_equals_scikit_learns(self, cloud):
        points = cloud * [3.0, 1.0, 0.3] @ np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
        found, oracle = pca(points, 2), PCA(2).fit(points)
        close(found.share, oracle.explained_variance_ratio_, 1e-4)
        close(found.axes, oracle.components_, 1e-3)
        close((points - found.mean) @ found.axes.T, oracle.transform(points), 1e-2)

    def test_weights_are_repetitions_and_padding_is_not_there(self, cloud):
        weights = np.random.default_rng(1).integers(0, 3, len(cloud))
        padded = np.where(weights[:, None] > 0, cloud * [3.0, 2.0, 1.0], np.nan)
        repeated = np.repeat(cloud * [3.0, 2.0, 1.0], weights, axis=0)
        for found, expected in zip(pca(padded, 3, weights), pca(repeated, 3), strict=True):
            close(found, expected, 1e-3)

    def test_equal_points_have_no_variance(self):
        found = pca(np.full((4, 2), 3.0), 1)
        assert np.isfinite(found.axes).all()
        close(found.share, [0])

    def test_refusals(self):
        with pytest.raises(ValueError, match="between 1 and 2"):
            pca(np.ones((3, 2)), 3)
