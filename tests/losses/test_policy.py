"""Advantages, clipped losses and the adaptive rate: closed forms, brax and rsl_rl."""

import sys
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax.training.agents.ppo import losses as brax_losses
from brax.training.distribution import NormalDistribution
from brax.training.types import Transition

from corrkd_jax.losses import policy

TIME, WORLDS, ACTIONS = 12, 5, 8


@pytest.fixture(scope="module")
def tensors():
    random = np.random.default_rng(0)

    def draw(*shape, scale=1.0):
        return (scale * random.standard_normal(shape)).astype(np.float32)

    # policies that an update has moved, ratios on both sides of the clip
    old_mean, old_std = draw(TIME, WORLDS, ACTIONS, scale=0.3), np.exp(draw(ACTIONS, scale=0.2))
    return SimpleNamespace(
        rewards=draw(TIME, WORLDS),
        values=draw(TIME, WORLDS),
        last=draw(WORLDS),
        done=(random.random((TIME, WORLDS)) < 0.2).astype(np.float32),
        timeout=(random.random((TIME, WORLDS)) < 0.5).astype(np.float32),
        actions=old_mean + old_std * draw(TIME, WORLDS, ACTIONS),
        mean=old_mean + draw(TIME, WORLDS, ACTIONS, scale=0.1),
        old_mean=old_mean,
        std=old_std * np.exp(draw(ACTIONS, scale=0.05)),
        old_std=old_std,
        advantage=draw(TIME, WORLDS),
        value=draw(TIME, WORLDS),
    )


class TestAdvantages:
    def test_page_values(self):
        """Three steps of reward 1, no values: 1, 1 + .9405, 1 + .9405 * 1.9405."""
        zeros = np.zeros(3)
        found, returns = policy.advantages(np.ones(3), zeros, 0.0, zeros)
        np.testing.assert_allclose(found, [1 + 0.9405 * 1.9405, 1.9405, 1], rtol=1e-6)
        np.testing.assert_allclose(returns, found)
        found, _ = policy.advantages(np.ones(3), zeros, 0.0, np.array([0, 1, 0]))
        np.testing.assert_allclose(found, [1.9405, 1, 1], rtol=1e-6)

    def test_timeout_gains_the_value_before_it(self):
        values = np.array([0.0, 3.0, 0.0], np.float32)
        ended = np.array([0.0, 1.0, 0.0])
        plain, _ = policy.advantages(np.ones(3), values, 0.0, ended)
        clock, _ = policy.advantages(np.ones(3), values, 0.0, ended, ended)
        np.testing.assert_allclose(clock[1] - plain[1], 0.99 * 3, rtol=1e-6)
        assert clock[2] == plain[2]

    def test_brax(self, tensors):
        """Without time-outs, where the two differ by design."""
        t = tensors
        found, returns = policy.advantages(t.rewards, t.values, t.last, t.done)
        theirs, _ = brax_losses.compute_gae(
            jnp.zeros_like(t.done), t.done, t.rewards, t.values, t.last, 0.95, 0.99
        )
        # its advantages are of another kind, one step bootstrapped from these targets
        np.testing.assert_allclose(returns, theirs, atol=1e-6)
        np.testing.assert_allclose(found, theirs - t.values, atol=1e-6)


def test_brax_losses(tensors):
    """brax's own loss of Gaussian policies, of one control step of many robots.

    In one step the two kinds of advantages are the same.
    """
    t = tensors
    normal = NormalDistribution(ACTIONS)
    std, old_std = (jnp.broadcast_to(x, t.mean.shape) for x in (t.std, t.old_std))
    old_log_prob = policy.gaussian_log_prob(t.actions, t.old_mean, t.old_std)
    one = {  # every step a robot of its own: [robots, 1, ...]
        "observation": jnp.zeros(t.rewards.shape),
        "next_observation": jnp.ones(t.rewards.shape),
        "reward": t.rewards,
        "discount": 1 - t.done,
        "extras": {
            "state_extras": {"truncation": jnp.zeros_like(t.done)},
            "policy_extras": {
                "raw_action": t.actions,
                "log_prob": old_log_prob,
                "value": t.values,
                "distribution_params": (t.old_mean, old_std),
            },
        },
    }
    one = jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, 1, *x.shape[2:]), one)
    mean, std, value = (jnp.asarray(x).reshape(1, -1, *x.shape[2:]) for x in (t.mean, std, t.value))
    last = jnp.asarray(t.advantage).reshape(-1)
    network = SimpleNamespace(
        parametric_action_distribution=normal,
        policy_network=SimpleNamespace(apply=lambda *_: (mean, std)),
        value_network=SimpleNamespace(apply=lambda _, __, seen: last if seen.all() else value),
    )
    _, theirs = brax_losses.compute_ppo_loss(
        SimpleNamespace(policy=None, value=None),
        None,
        Transition(**one, action=None),
        jax.random.PRNGKey(0),
        network,
        entropy_cost=1.0,
        discounting=0.99,
        gae_lambda=0.95,
        clipping_epsilon=0.2,
        normalize_advantage=False,
        vf_coefficient=2.0,
        clipping_epsilon_value=0.2,
    )
    reward, done = t.rewards.reshape(1, -1), t.done.reshape(1, -1)
    advantage, returns = policy.advantages(reward, value, last, done)
    actions = t.actions.reshape(mean.shape)
    log_prob = policy.gaussian_log_prob(actions, mean, t.std)
    found = {
        "policy_loss": policy.clipped_surrogate(log_prob, old_log_prob.reshape(1, -1), advantage),
        "v_loss": policy.clipped_value_loss(value, t.values.reshape(1, -1), returns),
        "entropy_loss": -policy.gaussian_entropy(t.std),
        "kl_mean": policy.gaussian_kl(
            t.old_mean.reshape(mean.shape), t.old_std, mean, t.std
        ).mean(),
    }
    for name, own in found.items():
        assert own == pytest.approx(float(theirs[name]), abs=1e-6, rel=1e-6), name


class TestGaussian:
    def test_log_prob_and_entropy(self, tensors):
        from scipy.stats import norm

        t = tensors
        expected = norm.logpdf(t.actions, t.mean, t.std).sum(-1)
        np.testing.assert_allclose(
            policy.gaussian_log_prob(t.actions, t.mean, t.std), expected, rtol=1e-5
        )
        np.testing.assert_allclose(
            policy.gaussian_entropy(t.std), norm.entropy(0, t.std).sum(), rtol=1e-6
        )

    def test_kl_of_equals_is_the_epsilon(self, tensors):
        found = policy.gaussian_kl(tensors.mean, tensors.std, tensors.mean, tensors.std)
        np.testing.assert_allclose(found, ACTIONS * 1e-5, atol=3e-6)

    def test_kl_in_one_dimension(self):
        """From N(0, 1) to N(1, 2): log 2 + (1 + 1) / 8 - 1/2."""
        found = policy.gaussian_kl(
            *(np.array([x], np.float32) for x in (0.0, 1.0, 1.0, 2.0)),
        )
        np.testing.assert_allclose(found, np.log(2) + 0.25 - 0.5, atol=1e-5)


class TestClippedLosses:
    def test_surrogate_stops_where_it_pays(self):
        """Beyond the clip a good action gains nothing more; a bad one goes on losing."""
        gradient = jax.grad(lambda x, a: policy.clipped_surrogate(x, 0.0, a), argnums=0)
        assert gradient(jnp.log(1.5), 1.0) == 0
        assert gradient(jnp.log(1.1), 1.0) == pytest.approx(-1.1)
        assert gradient(jnp.log(1.5), -1.0) == pytest.approx(1.5)

    def test_value_loss(self):
        """Moved by 1 towards the target, allowed 0.2: the loss of the clipped value counts."""
        assert policy.clipped_value_loss(1.0, 0.0, 2.0) == pytest.approx(1.8**2)
        assert policy.clipped_value_loss(-1.0, 0.0, 2.0) == pytest.approx(9.0)

    def test_weights_drop_rows(self):
        found = policy.clipped_surrogate(
            np.zeros(2), np.zeros(2), np.array([3.0, 99.0]), weights=np.array([1.0, 0.0])
        )
        assert found == pytest.approx(-3.0)


class TestAdaptRate:
    @pytest.mark.parametrize(
        ("rate", "kl", "expected"),
        [
            (1e-3, 0.03, 1e-3 / 1.5),
            (1e-3, 0.004, 1.5e-3),
            (1e-3, 0.01, 1e-3),
            (1e-3, 0.0, 1e-3),
            (1.2e-5, 1.0, 1e-5),
            (9e-3, 1e-4, 1e-2),
        ],
    )
    def test_page_values(self, rate, kl, expected):
        assert policy.adapt_rate(rate, kl) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def rsl():
    """rsl_rl's PPO; loggers and containers that it imports may be absent, and are not used."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with pytest.MonkeyPatch.context() as patch:
        for name, member in (
            ("tensordict", "TensorDict"),
            ("torch.utils.tensorboard", "SummaryWriter"),
            ("git", "Repo"),
        ):
            stub = ModuleType(name)
            setattr(stub, member, dict)
            patch.setitem(sys.modules, name, stub)
        try:
            from rsl_rl.algorithms.ppo import PPO
        except ImportError as error:
            pytest.skip(f"no rsl_rl (pip install --no-deps rsl-rl-lib==5.5.1): {error}")
    return torch, PPO


def test_rsl_returns(rsl, tensors):
    torch, ppo = rsl
    t = tensors
    storage = SimpleNamespace(
        num_transitions_per_env=TIME,
        values=torch.tensor(t.values),
        rewards=torch.tensor(t.rewards),
        dones=torch.tensor(t.done),
        returns=torch.zeros(TIME, WORLDS),
    )

    class Critic:
        def __call__(self, observations):
            return torch.tensor(t.last)

        def get_hidden_state(self):
            return None

        def reset(self, hidden_state):
            pass

    ppo.compute_returns(
        SimpleNamespace(
            storage=storage,
            critic=Critic(),
            gamma=0.99,
            lam=0.95,
            normalize_advantage_per_mini_batch=False,
        ),
        None,
    )
    found, returns = policy.advantages(t.rewards, t.values, t.last, t.done)
    np.testing.assert_allclose(returns, storage.returns, atol=1e-6)
    found = (found - found.mean()) / (found.std(ddof=1) + 1e-8)
    np.testing.assert_allclose(found, storage.advantages, atol=1e-6)


def test_rsl_timeouts(rsl, tensors):
    """What a reward gains where the clock ended the episode."""
    torch, ppo = rsl
    t = tensors
    ended = np.maximum(t.done, t.timeout)
    gained = []
    for rewards, values, done, timeout in zip(t.rewards, t.values, ended, t.timeout, strict=True):
        transition = SimpleNamespace(values=torch.tensor(values)[:, None], clear=lambda: None)
        state = SimpleNamespace(
            transition=transition,
            rnd=None,
            gamma=0.99,
            device="cpu",
            storage=SimpleNamespace(add_transition=lambda seen: gained.append(seen.rewards)),
            actor=SimpleNamespace(reset=lambda done: None),
            critic=SimpleNamespace(reset=lambda done: None),
        )
        clock = {"time_outs": torch.tensor(timeout)}
        ppo.process_env_step(state, None, torch.tensor(rewards), torch.tensor(done), clock)
    expected, _ = policy.advantages(np.stack(gained), t.values, t.last, ended)
    found, _ = policy.advantages(t.rewards, t.values, t.last, ended, t.timeout)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_rsl_update(rsl, tensors):
    """Losses, divergence and learning rate of one update of one minibatch."""
    torch, ppo = rsl
    t = tensors
    mean = torch.nn.Parameter(torch.tensor(t.mean))
    std = torch.nn.Parameter(torch.tensor(t.std))
    value = torch.nn.Parameter(torch.tensor(t.value))
    old_log_prob = policy.gaussian_log_prob(t.actions, t.old_mean, t.old_std)
    normal = torch.distributions.Normal

    class Actor:
        is_recurrent = False
        output_distribution_params = (mean, std)
        output_entropy = normal(mean, std).entropy().sum(-1)

        def __call__(self, *_, **__):
            pass

        def get_output_log_prob(self, actions):
            return normal(mean, std).log_prob(actions).sum(-1)

        def get_kl_divergence(self, old, new):
            return torch.distributions.kl_divergence(normal(*old), normal(*new)).sum(-1)

        def parameters(self):
            return [mean, std]

        update_normalization = __call__

    class Critic(Actor):
        def __call__(self, *_, **__):
            return value

        def parameters(self):
            return [value]

    batch = SimpleNamespace(
        observations=SimpleNamespace(batch_size=[TIME]),
        masks=None,
        hidden_states=(None, None),
        actions=torch.tensor(t.actions),
        old_actions_log_prob=torch.tensor(np.asarray(old_log_prob)),
        old_distribution_params=(torch.tensor(t.old_mean), torch.tensor(t.old_std)),
        advantages=torch.tensor(t.advantage),
        values=torch.tensor(t.values),
        returns=torch.tensor(t.rewards),
    )
    state = SimpleNamespace(
        actor=Actor(),
        critic=Critic(),
        rnd=None,
        symmetry=None,
        storage=SimpleNamespace(
            mini_batch_generator=lambda *_: iter([batch]),
            observations=torch.zeros(1, 1),
            clear=lambda: None,
        ),
        num_mini_batches=1,
        num_learning_epochs=1,
        normalize_advantage_per_mini_batch=False,
        device="cpu",
        use_mixed_precision=False,
        desired_kl=0.01,
        schedule="adaptive",
        is_multi_gpu=False,
        gpu_global_rank=0,
        learning_rate=1e-3,
        clip_param=0.2,
        use_clipped_value_loss=True,
        value_loss_coef=1.0,
        entropy_coef=0.01,
        max_grad_norm=1.0,
        optimizer=torch.optim.Adam([mean, std, value], 1e-3),
    )
    kl = policy.gaussian_kl(t.old_mean, t.old_std, t.mean, t.std).mean()
    old = torch.tensor(t.old_mean), torch.tensor(t.old_std)
    expected = Actor().get_kl_divergence(old, (mean, std)).mean().item()
    # ours has the released code's 1e-5 beside each ratio of deviations
    epsilon = (1e-5 * t.old_std / t.std).sum()
    assert kl - epsilon == pytest.approx(expected, abs=1e-6, rel=1e-6)
    theirs = ppo.update(state)
    log_prob = policy.gaussian_log_prob(t.actions, t.mean, t.std)
    assert policy.clipped_surrogate(log_prob, old_log_prob, t.advantage) == pytest.approx(
        theirs["surrogate"], rel=1e-6
    )
    assert policy.clipped_value_loss(t.value, t.values, t.rewards) == pytest.approx(
        theirs["value"], rel=1e-6
    )
    assert policy.gaussian_entropy(t.std) == pytest.approx(theirs["entropy"], rel=1e-6)
    assert policy.adapt_rate(1e-3, kl) == pytest.approx(state.learning_rate, rel=1e-6)
