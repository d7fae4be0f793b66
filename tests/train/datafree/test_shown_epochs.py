"""Images of some epochs, kept for the report while the run goes on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.datafree import tiny_dfkd
from tests.train.datafree.tiny_dfkd import BATCH, KEY, config, owner_of
from train.datafree import program as dfkd
from train.datafree.arms import Hyper
from train.datafree.distilling import Distilling
from train.datafree.hosts.host import latents


@pytest.fixture(scope="module")
def loaded():
    return tiny_dfkd.loaded()


def test_a_generators_pictures_and_dictionary(loaded):
    """MosaicKD's generator after each epoch, on the same latents; its dictionary, once."""
    chosen = config("mosaic")
    kdci = dataclasses.replace(chosen.compensation, first=1, every=0, feature="softmax")
    owner = owner_of(dataclasses.replace(chosen, compensation=kdci), loaded)
    teacher = {"teacher": loaded.teacher.variables}
    start = owner.init(KEY, {}, Hyper(strength=1.0), teacher)
    data = jax.tree.map(jnp.asarray, dfkd.sets(owner.config, loaded))
    refresh = jax.jit(lambda state, epoch: owner.refresh(state, data, KEY, teacher, epoch))
    state, expected = start, []
    for epoch in range(4):
        before = state
        state = refresh(state, jnp.int32(epoch))
        assert (state.dictionary.prior.sum() > 0) == (epoch >= 1)
        if epoch == 0:
            np.testing.assert_array_equal(state.pictures, 0)
        if epoch > 1:
            np.testing.assert_array_equal(
                state.dictionary.confounders, before.dictionary.confounders
            )
        made = owner.host.draw(state.host, latents(jax.random.key(0), BATCH, owner.networks))
        expected.append(owner.networks.to_bytes(made))
        # as if the generator had learned
        generator = jax.tree.map(lambda x: 1.5 * x, state.host.generator)
        state = state._replace(host=state.host._replace(generator=generator))
    assert owner.shown_epochs.tolist() == [1, 2, 3]
    found = state.pictures.astype(jnp.int32)
    np.testing.assert_allclose(found, np.stack(expected[1:]).astype(int), atol=1)
    assert np.abs(found[0] - found[2]).max() > 10
    # the softmax of what is clustered: a mean of distributions
    np.testing.assert_allclose(state.dictionary.confounders.sum(-1), 1, rtol=1e-4)
    np.testing.assert_allclose(state.histogram.sum(), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("epochs", "calls", "shown"),
    [(1, 0, [1]), (5, 3, [1, 2, 3]), (39, 0, list(range(1, 40, 2))), (220, 0, None)],
)
def test_the_epochs_that_are_shown(loaded, epochs, calls, shown):
    """At most twenty, evenly apart, the first and the last among them; few have several lines."""
    chosen = config("deepinv", calls=calls, batch_size=256)
    learning = dataclasses.replace(chosen.optimizer, epochs=epochs)
    owner = owner_of(dataclasses.replace(chosen, optimizer=learning), loaded)
    found = owner.shown_epochs.tolist()
    if shown is None:
        assert (len(found), found[0], found[-1]) == (20, 1, epochs)
        assert set(np.diff(found)) == {11, 12}
    else:
        assert found == shown
    assert owner.picture_shape[:2] == (len(found), 16 * max(10 // len(found), 1))


def test_large_images_are_shown_smaller(loaded):
    """From the first to the last of an epoch's, side 128 averaged to 64; other epochs are not."""
    owner = owner_of(config("deepinv", batch_size=64), loaded)
    owner = dataclasses.replace(owner, networks=dataclasses.replace(owner.networks, side=128))
    assert owner.picture_shape == (3, 48, 64, 64, 1)
    state = Distilling(*(None,) * len(Distilling._fields))
    state = state._replace(pictures=jnp.zeros(owner.picture_shape, jnp.uint8))
    images = np.arange(64, dtype=np.uint8)[:, None, None, None] * np.ones((128, 128, 1), np.uint8)
    for epoch in (2, 4):
        state = owner._pictured(state, jnp.asarray(images), jnp.int32(epoch))
    first, second, third = np.asarray(state.pictures)
    assert not first.any()
    assert not third.any()
    np.testing.assert_array_equal(second, second[:, :1, :1] * np.ones((64, 64, 1), np.uint8))
    assert (second[0, 0, 0, 0], second[-1, 0, 0, 0]) == (0, 63)
    assert (np.diff(second[:, 0, 0, 0].astype(int)) > 0).all()
