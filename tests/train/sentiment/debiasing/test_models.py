"""Base models from options, and on files of one or two modalities."""

import jax
import jax.numpy as jnp
import pytest

from configs.debias import DebiasConfig
from train.sentiment.debiasing.models import MODELS, build_model, network_options
from train.sentiment.task import Task


def test_network_options_take_the_attributes_type():
    options = ["hidden=(8, 4)", "text_width=3", "bounded=True"]
    found = network_options(options, MODELS["pooled"], "pooled")
    assert found == {"hidden": (8, 4), "text_width": 3, "bounded": True}


@pytest.mark.parametrize("model", sorted(MODELS))
def test_models_take_one_zero_in_place_of_sound_and_picture(model):
    """Shapes alone, which cost no compilation."""
    config = DebiasConfig(model=model, small=True)
    module = build_model(config, Task("score", 1, ("sentiment",)))
    shapes = {"text": (7, 6), "audio": (1, 1), "vision": (1, 1)}
    inputs = {m: jnp.zeros((4, *shape)) for m, shape in shapes.items()}
    valid = {m: jnp.ones((4, time), bool) for m, (time, _) in shapes.items()}
    outputs, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), inputs, valid)
    assert jax.tree.leaves(outputs)[0].shape[0] == 4
