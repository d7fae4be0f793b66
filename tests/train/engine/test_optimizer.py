"""Directions and schedules beside torch's."""

import jax.numpy as jnp
import numpy as np
import pytest

from train.engine import optimizer


@pytest.mark.parametrize("clip", [np.inf, 0.5])
def test_momentum_is_torchs_sgd(clip):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    start = random.normal(size=4).astype(np.float32)
    gradients = random.normal(size=(5, 4)).astype(np.float32)
    theirs = torch.nn.Parameter(torch.tensor(start))
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.8, weight_decay=0.05)
    tx = optimizer.sgd(0.05, clip, 0.8)
    params = {"w": jnp.asarray(start)}
    state = tx.init(params)
    for gradient in gradients:
        theirs.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([theirs], clip)
        sgd.step()
        direction, state = tx.update({"w": jnp.asarray(gradient)}, state, params)
        params = optimizer.descend(params, direction, jnp.float32(0.1))
    np.testing.assert_allclose(params["w"], theirs.detach(), rtol=1e-5)


def test_schedules():
    steps = jnp.arange(10)
    np.testing.assert_allclose(
        optimizer.schedule("steps", steps, 10), [1] * 4 + [0.1] * 4 + [0.01] * 2, rtol=1e-6
    )
    assert optimizer.schedule("constant", steps, 10) == 1
    half = optimizer.schedule("cosine", jnp.array([0, 5, 10]), 10)
    np.testing.assert_allclose(half, [1, 0.5, 0], atol=1e-6)
    with pytest.raises(ValueError, match="schedule is"):
        optimizer.schedule("linear", steps, 10)


def test_the_cosine_ends_where_torchs_does():
    torch = pytest.importorskip("torch")
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=10, eta_min=0.01)
    for step in range(11):
        own = 0.2 * optimizer.schedule("cosine", jnp.float32(step), 10, 0.01 / 0.2)
        np.testing.assert_allclose(own, theirs.get_last_lr()[0], rtol=1e-5)
        sgd.step()
        theirs.step()


def test_parts_learn_at_multiples_of_the_rate():
    torch = pytest.importorskip("torch")
    names = (("audio", "w"), ("base", "audio"), ("other", "w"))
    theirs = {name: torch.nn.Parameter(torch.tensor([1.0, -2.0])) for name in names}
    sgd = torch.optim.SGD(
        [{"params": [p], "lr": 0.5 if "audio" in name else 0.1} for name, p in theirs.items()],
        weight_decay=0.1,
    )
    params = {top: {inner: jnp.array([1.0, -2.0])} for top, inner in names}
    direction = {top: {inner: jnp.array([0.3, 0.4])} for top, inner in names}
    for parameter in theirs.values():
        parameter.grad = torch.tensor([0.3, 0.4])
    sgd.step()
    found = optimizer.descend(params, direction, jnp.float32(0.1), 0.1, {"audio": 5.0})
    for (top, inner), expected in theirs.items():
        np.testing.assert_allclose(found[top][inner], expected.detach(), rtol=1e-6)
