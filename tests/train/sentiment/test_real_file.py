"""Real CMU-MOSI features, where the machine has them; they are not part of the project."""

import dataclasses
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from configs.msa import PRESETS
from tests.train.sentiment.tiny import ROOT
from train.sentiment.inputs import load

FOLDER = Path(os.environ.get("CORRKD_SHARED_DATA") or ROOT.parent / "shared" / "data")
FILE = FOLDER / "mosi" / "mosi_context8.pkl"


@pytest.mark.skipif(not FILE.exists(), reason=f"no {FILE}; set CORRKD_SHARED_DATA")
def test_real_file():
    """1447 / 209 / 206 utterances; standardised by the frames that are there."""
    config = type(PRESETS["mosi"].data)(path=str(FILE))
    inputs = load(config, jnp.float32)
    assert {name: len(rows) for name, rows in inputs.sets.items()} == {
        "train": 1447,
        "valid": 209,
        "test": 206,
    }
    assert (inputs.task.mode, inputs.task.classes) == ("binary", 2)
    shapes = {name: x.shape[1:] for name, x in inputs.dataset.train.features.items()}
    assert shapes == {"text": (8, 100), "audio": (8, 73), "vision": (8, 100)}
    train = inputs.sets["train"].take()
    scores = inputs.dataset.train.scores
    np.testing.assert_array_equal(train["labels"][:, 0], scores > 0)
    np.testing.assert_array_equal(train["label_weight"][:, 0], scores != 0)
    assert np.abs(scores).max() <= 3
    assert (scores == 0).any()
    for name, x in train["inputs"].items():
        valid = train["valid"][name]
        assert 0 < valid.mean() < 1, "conversations begin with padding"
        assert not x[~valid].any()
        assert np.abs(x).max() <= config.clip
    free = load(dataclasses.replace(config, clip=1e9), jnp.float32).sets["train"].take()
    for name, x in free["inputs"].items():
        frames = x[free["valid"][name]].astype(np.float64)
        np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-3, err_msg=name)
        varies = frames.std(axis=0) > 0
        assert varies.mean() > 0.5, name  # a third of the visual features are constant
        np.testing.assert_allclose(frames.std(axis=0)[varies], 1, rtol=1e-3, err_msg=name)
        np.testing.assert_allclose(np.clip(x, -5, 5), train["inputs"][name], atol=1e-5)
    videos = {
        name: {i.split("$_$")[0] for i in rows.split.ids} for name, rows in inputs.sets.items()
    }
    assert [len(videos[name]) for name in ("train", "valid", "test")] == [62, 8, 8]
    assert not videos["train"] & videos["test"]
