"""Whole runs of seconds, from settings to the report."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from tests.train.datafree import tiny_dfkd
from tests.train.datafree.tiny_dfkd import BATCH, CLASSES, SIDE, config
from train.datafree import pictures
from train.datafree import program as dfkd
from train.datafree.arms import ALONE, KDCI
from train.engine import cli

# whole runs of the program
pytestmark = pytest.mark.seconds(100)


@pytest.fixture(scope="module")
def loaded():
    return tiny_dfkd.loaded()


@pytest.mark.parametrize(
    ("host", "changes"),
    [("cmi", {}), ("dfnd", {"site": "penultimate", "feature": "penultimate", "every": 0})],
)
def test_kdci_on_a_host(host, changes, loaded, tmp_path, monkeypatch):
    """Beside the host alone: a dictionary that counts, both evaluations, every picture."""
    states = []
    save = dfkd.trained.save
    monkeypatch.setattr(dfkd, "load", lambda preset, config: loaded)
    monkeypatch.setattr(dfkd.trained, "save", lambda *x: (states.append(x[-1]), save(*x)))
    chosen = config(host, calls=1) if host == "dfnd" else config(host)
    kdci = dataclasses.replace(chosen.compensation, **changes)
    chosen = dataclasses.replace(chosen, compensation=kdci)
    results = dfkd.train("digits", chosen, cli.RunOptions(devices=1), tmp_path)
    assert results.names == (ALONE, KDCI)
    state = jax.tree.map(lambda x: x[0], states[0])
    np.testing.assert_array_equal(state.hyper.strength, [0, 1])
    np.testing.assert_allclose(state.dictionary.prior.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(state.histogram.sum(-1), 1, rtol=1e-5)
    width = 8 if changes else CLASSES  # of the teacher's features
    assert state.dictionary.confounders.shape == (2, 4, width)
    host_alone, compensated = state.variables["params"]["backbone"]["hidden0"]["kernel"]
    assert np.abs(compensated - host_alone).max() > 1e-5
    np.testing.assert_array_equal(results.right["keep"][:, 0], results.right["drop"][:, 0])
    rows, at = state.pool.rows[1], state.pictures[1]
    if host == "cmi":
        rows = rows.reshape(3, BATCH, SIDE, SIDE, 1)
        np.testing.assert_array_equal(at, rows)
    else:
        np.testing.assert_array_equal(at, rows[None])
    shown = np.asarray(Image.open(tmp_path / "figures" / "images.png"))
    numbers = range(1, len(at) + 1)
    np.testing.assert_array_equal(shown, pictures.by_epoch(at, numbers)[..., 0])
