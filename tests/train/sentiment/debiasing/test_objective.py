"""Terms that MISA and MMIM add to the task's loss."""

import jax
import numpy as np

from configs.debias import DebiasOptimizerConfig
from corrkd_jax import losses
from corrkd_jax.models.fusion import Fused
from tests.train.sentiment.debiasing.stages import TASK, started
from train.sentiment.debiasing.objective import Objective


def test_misa_adds_its_terms_by_preset():
    """MMSA's weights: MOSI's, and three times, 8/3 times and once those for MOSEI."""
    random = np.random.default_rng(0)
    names = ("projected", "private", "shared", "reconstructed")
    fused = Fused(None, {name: random.normal(size=(4, 3, 8)) for name in names})
    rows = {"labels": np.array([[0], [1], [1], [0]]), "label_weight": np.ones((4, 1))}
    rows["row"] = np.ones(4)
    found = {
        preset: Objective("misa", preset, TASK, None).terms(np.zeros((4, 2)), fused, rows, None, 0)
        for preset in ("mosi", "mosei")
    }
    np.testing.assert_allclose(found["mosi"]["task"], np.log(2), rtol=1e-6)
    for name, times in (("difference", 3), ("similarity", 8 / 3), ("reconstruction", 1)):
        assert found["mosi"][name] > 0
        np.testing.assert_allclose(found["mosei"][name], times * found["mosi"][name], rtol=1e-4)


def test_mmim_counts_entropy_from_an_epochs_third_batch_on():
    """With the batch before in its memory; MMSA's weights of its terms."""
    steps = 4
    stage, state, batch = started("mmim", DebiasOptimizerConfig(batch_size=4), steps=steps)
    state = stage.refresh(state, {"train": batch}, jax.random.key(0), {}, 0)
    step = jax.jit(stage.step)
    entropies, before = [], None
    for number in range(2 * steps):
        rolled = jax.tree.map(lambda x, n=number: np.roll(x, n, 0), batch)
        previous = state
        state, found = step(state, rolled, jax.random.key(number))
        entropies.append(float(found["entropy"]))
        if number == 2:
            before = previous.tables
            outputs, fused = stage.model.apply(
                previous.variables,
                rolled["inputs"],
                rolled["valid"],
                train=True,
                rngs={"dropout": jax.random.key(number)},
            )
            assert outputs.shape == (4, 2)
            expected = -0.1 * sum(
                losses.class_entropy(
                    fused.parts[f"projected_{name}"],
                    np.array([-1, 1, 1, -1])[np.arange(4) - 2],
                    before.projected[name],
                    np.array([-1, 1, 1, -1])[np.arange(4) - 1],
                )
                for name in ("vision", "audio")
            )
    assert entropies[0] == entropies[1] == entropies[4] == entropies[5] == 0
    assert all(entropies[number] for number in (2, 3, 6, 7))
    np.testing.assert_allclose(entropies[2], expected, rtol=1e-4)
    parts = ("task", "contrast", "likelihood", "entropy")
    np.testing.assert_allclose(found["total"], sum(found[name] for name in parts), rtol=1e-5)
