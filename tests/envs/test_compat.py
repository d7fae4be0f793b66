"""Brax's own trainers on this JAX: a few updates each, on Brax's smallest environment."""

from functools import partial
from itertools import pairwise

import brax.envs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax.training.agents.ppo import train as ppo
from brax.training.agents.ppo.networks import make_ppo_networks
from brax.training.agents.sac import train as sac
from brax.training.agents.sac.networks import make_sac_networks

from envs import brax_trainers, compat

SHORT = {"episode_length": 8, "num_eval_envs": 2, "seed": 1, "max_devices_per_host": 2}
PPO = {
    **SHORT,
    "network_factory": partial(
        make_ppo_networks, policy_hidden_layer_sizes=(8,), value_hidden_layer_sizes=(8,)
    ),
    "num_timesteps": 64,
    "num_envs": 4,
    "unroll_length": 4,
    "batch_size": 4,
    "num_minibatches": 2,
    "num_updates_per_batch": 2,
    "normalize_observations": True,
}
SAC = {
    **SHORT,
    "network_factory": partial(make_sac_networks, hidden_layer_sizes=(8,)),
    "num_timesteps": 32,
    "num_envs": 4,
    "batch_size": 8,
    "min_replay_size": 8,
    "max_replay_size": 64,
}


def difference(one, other):
    """Largest of any parameter."""
    gaps = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), one, other)
    return max(jax.tree.leaves(gaps))


def test_ppo_moves_its_policy():
    """By two epochs, with an evaluation before and after each, on two devices."""
    seen = []

    def look(step, _, params):
        seen.append((step, jax.tree.map(np.asarray, params[1])))

    with brax_trainers():
        _, _, metrics = ppo.train(
            brax.envs.get_environment("fast"),
            **PPO,
            num_evals=3,
            policy_params_fn=look,
        )
    assert np.isfinite(metrics["eval/episode_reward"])
    steps, params = zip(*seen, strict=True)
    assert steps[0] == 0
    assert steps[-1] >= PPO["num_timesteps"]
    for before, after in pairwise(params):
        assert 0 < difference(before, after) < 1


def test_sac_runs():
    """A prefilled replay buffer, some updates and an evaluation, on two devices."""
    with brax_trainers():
        _, params, metrics = sac.train(brax.envs.get_environment("fast"), **SAC)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    assert np.isfinite(metrics["eval/episode_reward"])


def test_jax_is_left_as_it_was(monkeypatch):
    before = hasattr(jax, "device_put_replicated")
    with brax_trainers():
        # inside itself, and where the body fails
        with pytest.raises(ZeroDivisionError), brax_trainers():
            1 / 0  # noqa: B018
        assert callable(jax.device_put_replicated)
    assert hasattr(jax, "device_put_replicated") == before
    # where JAX has it, that is the one that is called
    monkeypatch.setattr(jax, "device_put_replicated", "its own", raising=False)
    with brax_trainers():
        assert jax.device_put_replicated == "its own"


def test_every_device_has_its_row():
    devices = jax.local_devices()[2:5]
    tree = {"a": jnp.arange(6.0).reshape(2, 3), "b": 7}
    copies = compat.replicate(tree, devices)
    np.testing.assert_array_equal(copies["a"], np.tile(tree["a"], (3, 1, 1)))
    np.testing.assert_array_equal(copies["b"], [7, 7, 7])
    assert [shard.device for shard in copies["a"].addressable_shards] == devices
    assert {shard.data.shape for shard in copies["a"].addressable_shards} == {(1, 2, 3)}
    with pytest.raises(ValueError, match="devices: name at least one"):
        compat.replicate(tree, [])
