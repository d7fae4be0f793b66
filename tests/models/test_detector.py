import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.models.detector import FaultDetector

JOINTS, FEATURES, TIME = 4, 11, 12


@pytest.fixture(scope="module")
def detector():
    model = FaultDetector(joints=JOINTS, hidden=6, kernel=5)
    window = jax.random.normal(jax.random.key(0), (3, 2, TIME, FEATURES))
    return model, window, model.init(jax.random.key(1), window)


def test_answers_for_every_joint_whatever_the_batch(detector):
    model, window, variables = detector
    logits = model.apply(variables, window)
    assert logits.shape == (3, 2, JOINTS, 3)
    np.testing.assert_allclose(model.apply(variables, window[1, 1]), logits[1, 1], atol=1e-6)


def test_steps_that_are_missing_count_as_the_zeros_before_the_first(detector):
    model, window, variables = detector
    longer = jnp.pad(window, [(0, 0), (0, 0), (3, 0), (0, 0)])
    np.testing.assert_allclose(
        model.apply(variables, longer), model.apply(variables, window), atol=1e-6
    )


def test_reads_every_step_and_feature(detector):
    model, window, variables = detector
    slope = jax.grad(lambda x: jnp.sum(model.apply(variables, x) ** 2))(window)
    assert jnp.all(slope != 0)


def test_joints_share_one_network(detector):
    """Without the biases and the robot's own part, swapping two joints swaps their answers."""
    model, window, variables = detector
    params = dict(variables["params"])
    for name in ("joint", "joint_steps"):
        params[name] = jnp.zeros_like(params[name])
    params["robot"] = jax.tree.map(jnp.zeros_like, params["robot"])
    order = np.array([1, 0, 3, 2])
    features = np.concatenate([np.arange(3), 3 + order, 7 + order])
    swapped = model.apply({"params": params}, window[..., features])
    logits = model.apply({"params": params}, window)
    np.testing.assert_allclose(swapped, logits[..., order, :], atol=1e-6)
    # and the biases are what tells them apart
    assert not np.allclose(
        model.apply(variables, window[..., features]),
        model.apply(variables, window)[..., order, :],
        atol=1e-3,
    )
