"""Stacked heads: counts, torch's layers, the released slice-and-concatenate form, isolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.models.policies import MultiTaskPolicy

HEADS = jnp.array([0, 0, 1, 2])
BATCH = 5


@pytest.fixture(scope="module")
def policy():
    return MultiTaskPolicy()


@pytest.fixture(scope="module")
def observations():
    return jax.random.normal(jax.random.key(1), (4, BATCH, 30))


@pytest.fixture(scope="module")
def params(policy, observations):
    return policy.init(jax.random.key(0), observations, HEADS)["params"]


def size(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def test_parameter_counts(params):
    """70,851 as published: actor, critic, one deviation an action."""
    assert size(params["actor"]) == 35_768
    assert size(params["critic"]) == 35_075
    assert size(params) == 70_851
    one = MultiTaskPolicy(heads=1)
    alone = jax.eval_shape(one.init, jax.random.key(0), jnp.zeros((1, 1, 30)), jnp.zeros(1, int))
    assert size(alone["params"]["actor"]) == 14_568


def test_starts_as_torch_does(params):
    """Uniform within one over the root of the inputs' number, biases too."""
    for tower in (params["actor"], params["critic"]):
        for layer in tower.values():
            bound = layer["kernel"].shape[-2] ** -0.5
            for x in layer.values():
                assert 0.8 * bound < np.abs(x).max() <= bound
            np.testing.assert_allclose(layer["kernel"].std(), bound / 3**0.5, rtol=0.1)
    assert (params["std"] == 1).all()


def sequential(torch, tower, head):
    """A front and one head as torch layers."""
    layers = [tower["front"]]
    layers += [{k: x[head] for k, x in tower[f"head_{n}"].items()} for n in range(3)]
    modules = []
    for layer in layers:
        kernel = torch.tensor(np.asarray(layer["kernel"]))
        linear = torch.nn.Linear(*kernel.shape)
        linear.weight.data, linear.bias.data = kernel.T, torch.tensor(np.asarray(layer["bias"]))
        modules += [linear, torch.nn.ELU()]
    return torch.nn.Sequential(*modules[:-1])


def test_slice_and_concatenate(policy, params, observations):
    """Values and gradients of the released form: a torch network a task, rows cut by group."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    mean, _, value = policy.apply({"params": params}, observations, HEADS)
    for name, found in (("actor", mean), ("critic", value[..., None])):
        networks = [sequential(torch, params[name], head) for head in range(3)]
        for network in networks[1:]:
            network[0] = networks[0][0]  # the front is shared
        rows = torch.tensor(np.asarray(observations)).reshape(4 * BATCH, 30)
        parts = [rows[: 2 * BATCH], rows[2 * BATCH : 3 * BATCH], rows[3 * BATCH :]]
        outputs = torch.cat([network(x) for network, x in zip(networks, parts, strict=True)])
        np.testing.assert_allclose(
            found.reshape(4 * BATCH, -1), outputs.detach(), atol=1e-6, err_msg=name
        )
        (outputs**2).mean().backward()

        def loss(params, name=name):
            mean, _, value = policy.apply({"params": params}, observations, HEADS)
            return jnp.mean((mean if name == "actor" else value) ** 2)

        gradient = jax.grad(loss)(params)[name]
        np.testing.assert_allclose(
            gradient["front"]["kernel"], networks[0][0].weight.grad.T, atol=1e-6
        )
        for head, network in enumerate(networks):
            for number in range(3):
                np.testing.assert_allclose(
                    gradient[f"head_{number}"]["kernel"][head],
                    network[2 + 2 * number].weight.grad.T,
                    atol=1e-6,
                )


def test_gradients_stay_in_their_head(policy, params, observations):
    """A loss on the robots without power alone."""

    def loss(params):
        mean, _, value = policy.apply({"params": params}, observations, HEADS)
        return jnp.sum(mean[2] ** 2) + jnp.sum(value[2] ** 2)

    gradient = jax.grad(loss)(params)
    for tower in ("actor", "critic"):
        assert np.abs(gradient[tower]["front"]["kernel"]).max() > 0
        for number in range(3):
            each = np.abs(gradient[tower][f"head_{number}"]["kernel"]).max(axis=(1, 2))
            assert each[1] > 0
            assert each[0] == each[2] == 0


def test_every_head(policy, params, observations):
    """All heads at once are the heads one by one, a traced number or not."""
    variables = {"params": params}
    every = policy.apply(variables, observations[0], method="every")

    @jax.jit
    def alone(head):
        return policy.apply(variables, observations[:1], head[None], method="act")[0][0]

    for head in range(3):
        np.testing.assert_allclose(every[head], alone(jnp.array(head)), atol=1e-6)


def test_deviation_has_a_floor(policy, params, observations):
    """The free vector may turn negative; what is used may not."""
    worn = {"params": {**params, "std": -params["std"]}}
    _, std = policy.apply(worn, observations, HEADS, method="act")
    np.testing.assert_allclose(std, policy.least_std)
