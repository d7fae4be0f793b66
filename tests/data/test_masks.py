"""Missingness: what a mask depends on, how often it drops, and what it never does."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrkd_jax.data import masks

KEY = jax.random.key(7)
MANY = 20_000
LENGTHS = {"text": 7, "audio": 11, "vision": 13}
# So long that dropping frames all but never takes a whole modality: what is left tells the subset.
LONG = {"text": 64, "audio": 70, "vision": 80}

# Compiled once for each shape; key, ratio and subset are traced.
frame_masks = jax.jit(masks.frame_masks)
subset_masks = jax.jit(masks.subset_masks)
training_masks = jax.jit(masks.training_masks)


def sample_ids(n, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, (n, 2), dtype=np.uint32)


def all_valid(n, lengths=LENGTHS):
    return {name: np.ones((n, time), bool) for name, time in lengths.items()}


def ragged(n, seed=0):
    """Unaligned samples, each modality with a length of its own, one frame at least."""
    rng = np.random.default_rng(seed)
    return {
        name: np.arange(time) < rng.integers(1, time + 1, (n, 1)) for name, time in LENGTHS.items()
    }


def within_three_sigma(hits, trials, probability):
    sigma = np.sqrt(trials * probability * (1 - probability))
    return abs(hits - trials * probability) < 3 * sigma


def kept_modalities(keep):
    return np.stack([np.asarray(keep[name]).any(axis=1) for name in masks.MODALITIES], axis=1)


@pytest.fixture(scope="module")
def trained():
    """Training masks of many long samples, all frames real."""
    keep = training_masks(KEY, sample_ids(MANY), all_valid(MANY, LONG))
    return {name: np.asarray(mask) for name, mask in keep.items()}


class TestSubsets:
    def test_order(self):
        assert masks.SUBSET_NAMES == ("l", "a", "v", "la", "lv", "av", "lav")
        assert masks.SUBSETS[0] == (True, False, False)
        assert masks.SUBSETS[4] == (True, False, True)
        assert masks.SUBSETS[-1] == (True, True, True)

    # Compiled, a dictionary arrives sorted by name: the flags must follow the names.
    @pytest.mark.parametrize("function", [masks.subset_masks, subset_masks], ids=["plain", "jit"])
    @pytest.mark.parametrize("subset", masks.SUBSETS, ids=masks.SUBSET_NAMES)
    def test_flags_belong_to_names(self, function, subset):
        valid = ragged(5)
        keep = function(valid, np.array(subset))
        for kept, name in zip(subset, ("text", "audio", "vision"), strict=True):
            np.testing.assert_array_equal(keep[name], valid[name] & kept)

    def test_one_subset_a_sample(self):
        keep = subset_masks(all_valid(7), np.array(masks.SUBSETS))
        np.testing.assert_array_equal(kept_modalities(keep), masks.SUBSETS)


class TestSameSampleSameMask:
    @settings(max_examples=15, deadline=None)
    @given(st.permutations(range(6)), st.integers(0, 2**32 - 1))
    def test_whatever_the_order_of_the_batch(self, order, seed):
        order, ids, valid = np.array(order), sample_ids(6, seed), ragged(6, seed)
        shuffled = {name: mask[order] for name, mask in valid.items()}
        for law in (training_masks, lambda *args: frame_masks(*args, 0.5)):
            keep, again = law(KEY, ids, valid), law(KEY, ids[order], shuffled)
            for name in valid:
                np.testing.assert_array_equal(again[name], keep[name][order])

    def test_whatever_the_size_of_the_batch(self):
        ids, valid = sample_ids(6), ragged(6)
        keep = training_masks(KEY, ids, valid)
        for i in range(6):
            alone = training_masks(
                KEY, ids[i : i + 1], {name: mask[i : i + 1] for name, mask in valid.items()}
            )
            for name in valid:
                np.testing.assert_array_equal(alone[name][0], keep[name][i])

    def test_whatever_the_length_of_the_padding(self):
        ids, valid = sample_ids(64), ragged(64)
        longer = {name: np.pad(mask, ((0, 0), (0, 5))) for name, mask in valid.items()}
        keep, again = training_masks(KEY, ids, valid), training_masks(KEY, ids, longer)
        for name, time in LENGTHS.items():
            np.testing.assert_array_equal(again[name][:, :time], keep[name])

    def test_whatever_the_order_of_the_modalities(self):
        ids, valid = sample_ids(6), ragged(6)
        backwards = dict(reversed(valid.items()))
        for law in (masks.training_masks, training_masks):
            keep, again = law(KEY, ids, valid), law(KEY, ids, backwards)
            for name in valid:
                np.testing.assert_array_equal(again[name], keep[name])

    def test_compiled_or_not(self):
        ids, valid = sample_ids(6), ragged(6)
        keep, again = masks.training_masks(KEY, ids, valid), training_masks(KEY, ids, valid)
        for name in valid:
            np.testing.assert_array_equal(again[name], keep[name])

    def test_both_words_of_the_id_and_the_key_count(self):
        valid = all_valid(1)
        bits = {
            tuple(np.asarray(frame_masks(key, np.array([words], np.uint32), valid, 0.5)["text"][0]))
            for key in jax.random.split(KEY, 4)
            for words in ([1, 1], [1, 2], [2, 1])
        }
        assert len(bits) > 9


class TestFrameMasks:
    @pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
    def test_drop_rate(self, ratio):
        keep = frame_masks(KEY, sample_ids(MANY), all_valid(MANY), ratio)
        for mask in keep.values():
            assert within_three_sigma(np.sum(~np.asarray(mask)), mask.size, ratio)

    def test_no_and_all(self):
        ids, valid = sample_ids(50), ragged(50)
        for name, mask in frame_masks(KEY, ids, valid, 0.0).items():
            np.testing.assert_array_equal(mask, valid[name])
        assert not any(mask.any() for mask in frame_masks(KEY, ids, valid, 1.0).values())

    def test_what_stays_at_a_ratio_stays_at_every_smaller_one(self):
        ids, valid = sample_ids(50), ragged(50)
        curve = [frame_masks(KEY, ids, valid, ratio) for ratio in np.linspace(0, 1, 11)]
        for smaller, larger in pairwise(curve):
            for name in valid:
                assert (smaller[name] >= larger[name]).all()

    def test_padding_is_never_kept(self):
        valid = ragged(200)
        for name, mask in frame_masks(KEY, sample_ids(200), valid, 0.3).items():
            assert not (np.asarray(mask) & ~valid[name]).any()

    def test_ratio_is_traced(self):
        before = frame_masks._cache_size()
        valid = all_valid(3)
        for ratio in np.linspace(0, 1, 5, dtype=np.float32):
            frame_masks(KEY, sample_ids(3), valid, ratio)
        assert frame_masks._cache_size() <= before + 1

    def test_modalities_frames_and_keys_are_independent(self):
        valid = all_valid(MANY, dict.fromkeys(LENGTHS, 4))
        ids = sample_ids(MANY)
        keys = jax.random.split(KEY)
        keep = [frame_masks(key, ids, valid, 0.5) for key in keys]
        columns = [np.asarray(k[name], float) for k in keep for name in LENGTHS]
        columns = np.concatenate(columns, axis=1)
        correlation = np.corrcoef(columns.T)
        assert correlation.shape == (24, 24)
        off_diagonal = correlation[~np.eye(24, dtype=bool)]
        # 276 of them: the largest is expected at three standard errors
        assert np.abs(off_diagonal).max() < 4.5 / np.sqrt(MANY)


class TestTrainingMasks:
    @pytest.mark.parametrize("subset", masks.SUBSETS, ids=masks.SUBSET_NAMES)
    def test_every_pattern_is_equally_frequent(self, trained, subset):
        hits = (kept_modalities(trained) == subset).all(axis=1).sum()
        assert within_three_sigma(hits, MANY, 1 / 7)

    def test_how_many_samples_keep_all_frames_of_their_subset(self, trained):
        whole = np.stack([trained[name].all(axis=1) for name in masks.MODALITIES], axis=1)
        hits = (whole == kept_modalities(trained)).all(axis=1).sum()
        # one half, and of the other half the tenth whose ratio is 0
        assert within_three_sigma(hits, MANY, 0.55)

    def test_share_of_dropped_frames(self, trained):
        # Each modality is in 4 of 7 subsets; ratios average 0.45 in half of the samples.
        expected = 4 / 7 * (1 - 0.45 / 2)
        for name in masks.MODALITIES:
            assert abs(trained[name].mean() - expected) < 0.015

    def test_never_an_empty_sample(self, trained):
        assert kept_modalities(trained).any(axis=1).all()

    @pytest.mark.parametrize("lengths", [(1, 1, 1), (7, 11, 13)])
    def test_never_an_empty_sample_however_short(self, lengths):
        lengths = dict(zip(masks.MODALITIES, lengths, strict=True))
        rng = np.random.default_rng(0)
        valid = {
            name: np.arange(time) < rng.integers(1, min(time, 2) + 1, (MANY, 1))
            for name, time in lengths.items()
        }
        keep = training_masks(KEY, sample_ids(MANY), valid)
        assert kept_modalities(keep).any(axis=1).all()
        for name in valid:
            assert not (np.asarray(keep[name]) & ~valid[name]).any()

    def test_never_an_empty_sample_where_a_modality_has_no_frames(self):
        valid = all_valid(500)
        valid["audio"][:] = False
        valid["vision"][:250] = False
        keep = training_masks(KEY, sample_ids(500), valid)
        assert kept_modalities(keep).any(axis=1).all()
        assert not keep["audio"].any()

    def test_rows_of_padding_stay_empty(self):
        valid = ragged(8)
        for mask in valid.values():
            mask[5:] = False
        keep = training_masks(KEY, sample_ids(8), valid)
        np.testing.assert_array_equal(kept_modalities(keep).any(axis=1), np.arange(8) < 5)

    @pytest.mark.parametrize("subset", masks.SUBSETS, ids=masks.SUBSET_NAMES)
    def test_frames_drop_alike_in_every_subset(self, trained, subset):
        samples = (kept_modalities(trained) == subset).all(axis=1)
        for name, kept in zip(masks.MODALITIES, subset, strict=True):
            if kept:
                first = trained[name][samples, 0]
                assert within_three_sigma(first.sum(), first.size, 1 - 0.45 / 2)

    def test_another_key_is_another_epoch(self, trained):
        other = training_masks(jax.random.key(8), sample_ids(MANY), all_valid(MANY, LONG))
        for name in trained:
            correlation = np.corrcoef(trained[name][:, 0], np.asarray(other[name][:, 0]))[0, 1]
            assert abs(correlation) < 4 / np.sqrt(MANY)


class TestDrop:
    @pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
    def test_nothing_passes(self, garbage):
        keep = {"text": np.array([[True, False, True]])}
        frames = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
        frames[0, 1] = garbage
        dropped = masks.drop({"text": frames}, keep)["text"]
        np.testing.assert_array_equal(dropped, [[[0, 1], [0, 0], [4, 5]]])
        gradient = jax.grad(lambda x: jnp.sum(masks.drop({"text": x}, keep)["text"] ** 2))(frames)
        np.testing.assert_array_equal(gradient[0, 1], 0)

    def test_type_stays(self):
        frames = {"audio": np.ones((1, 2, 3), np.float16)}
        assert masks.drop(frames, {"audio": np.ones((1, 2), bool)})["audio"].dtype == jnp.float16
