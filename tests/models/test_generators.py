"""Generators and the critic of patches against torch twins, and their published sizes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.models.generators import (
    LARGE,
    DeepGenerator,
    Generator,
    PatchCritic,
    ProjectionHead,
    TransposedGenerator,
    deep_generator_table,
    generator_table,
    patch_critic_table,
    transposed_generator_table,
)
from corrkd_jax.models.torch_weights import to_flax, to_torch

NARROW = (6, 5, 4)
DAFL = {"normalized": True, "bias": True, "epsilon": 0.8}

# a network, its twin's name and arguments, its table, and the shape of what it is given
CASES = {
    "small": (Generator(16, widths=NARROW), ("Generator", 7, 16, NARROW), generator_table(NARROW)),
    "dafl": (
        Generator(16, widths=NARROW, **DAFL),
        ("Generator", 7, 16, NARROW, True, True, 0.8),
        generator_table(NARROW),
    ),
    "transposed": (
        TransposedGenerator(32, width=2),
        ("TransposedGenerator", 7, 32, 2),
        transposed_generator_table(2),
    ),
    "deep": (DeepGenerator(width=3), ("DeepGenerator", 7, 3), deep_generator_table()),
    "critic": (PatchCritic(4), ("PatchCritic", 4), patch_critic_table()),
}
INPUTS = {"deep": (3, 2, 2, 7), "critic": (3, 16, 16, 3)}


def both(network, variables, x):
    return network.apply(variables, x), network.apply(variables, x, True, mutable=["batch_stats"])


@pytest.mark.parametrize("name", CASES)
def test_equals_its_twin(name):
    torch = pytest.importorskip("torch")
    from tests.models import torch_images

    network, (twin, *arguments), table = CASES[name]
    twin = torch_images.randomised(getattr(torch_images, twin)(*arguments))
    x = np.random.default_rng(0).normal(size=INPUTS.get(name, (3, 7))).astype(np.float32)
    like = jax.eval_shape(network.init, jax.random.key(0), x)
    state = torch_images.arrays(twin)
    variables = to_flax(state, table, like, "twin")
    given = torch_images.channels_first(x)
    with torch.no_grad():
        expected = [np.asarray(twin.train(train)(given)) for train in (False, True)]
    if name != "critic":
        expected = [np.moveaxis(images, 1, -1) for images in expected]
    evaluated, (trained, updated) = jax.jit(partial(both, network))(variables, x)
    np.testing.assert_allclose(evaluated, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trained, expected[1], rtol=1e-3, atol=1e-4)
    after = to_flax(torch_images.arrays(twin), table, like, "twin")["batch_stats"]
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), updated["batch_stats"], after
    )
    back = to_torch(variables, table)
    for key, array in back.items():
        np.testing.assert_array_equal(array, state[key])
    dropped = {key.rpartition(".")[0] for key in state.keys() - back.keys()}
    assert all(part == "l1.0" or f"{part}.num_batches_tracked" in state for part in dropped)


@pytest.mark.parametrize(
    ("network", "given", "count", "shape"),
    [
        (Generator(), (1, 256), 2_328_899, (1, 32, 32, 3)),
        (Generator(widths=LARGE), (1, 512), 8_776_259, (1, 32, 32, 3)),
        (Generator(widths=LARGE), (1, 256), 4_581_955, (1, 32, 32, 3)),
        (Generator(widths=LARGE), (1, 100), 2_026_051, (1, 32, 32, 3)),
        (Generator(size=8, channels=1, widths=(32, 32, 64)), (1, 32), None, (1, 8, 8, 1)),
        (TransposedGenerator(), (1, 100), None, (1, 64, 64, 3)),
        (DeepGenerator(), (1, 14, 14, 256), None, (1, 224, 224, 3)),
        (PatchCritic(), (1, 32, 32, 3), 531_328, (1, 8, 8)),
    ],
)
def test_published_sizes(network, given, count, shape):
    out, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), jnp.zeros(given))
    assert out.shape == shape
    if count is not None:
        assert sum(x.size for x in jax.tree.leaves(variables["params"])) == count


def test_sizes_that_do_not_divide_are_refused():
    for network in (Generator(30), TransposedGenerator(40)):
        with pytest.raises(ValueError, match="multiple of"):
            jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 4)))


def test_projected_rows_have_length_one():
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    rows, _ = ProjectionHead(4).init_with_output(jax.random.key(0), x)
    assert rows.shape == (3, 4)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
