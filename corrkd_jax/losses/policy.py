"""Proximal policy optimisation: advantages, clipped losses and the adaptive learning rate.

The forms are those of arXiv:2402.08996 as its released code has them (a fork of rsl_rl). Each
docstring says what other implementations do differently. Policies are Gaussian with a standard
deviation for each action, independent between actions.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from corrkd_jax.losses.reduction import at_least_float32, reduce


def advantages(
    rewards: ArrayLike,
    values: ArrayLike,
    last_value: ArrayLike,
    done: ArrayLike,
    timeout: ArrayLike | None = None,
    discount: float = 0.99,
    decay: float = 0.95,
) -> tuple[Array, Array]:
    """Generalised advantage estimation (arXiv:1506.02438), with a bootstrap at time-outs.

    `delta_t = r_t + discount (1 - done_t) V_{t+1} - V_t` and `A_t = delta_t + discount decay (1 -
    done_t) A_{t+1}`. An episode that a time-out ended would have gone on, so its last reward gains
    `discount V_t`. That is the value before the step, because the state after it is already the
    first one of a new episode. Brax leaves such steps out instead.

    Args:
        rewards: `[time, ...]`.
        values: `[time, ...]`, value of the state before each step.
        last_value: `[...]`, value of the state after the last step.
        done: `[time, ...]`, 1 where an episode ended with this step, by a time-out or not.
        timeout: `[time, ...]`, 1 where a time-out ended it; None for nowhere.
        discount: discount factor of a step, gamma.
        decay: decay of longer estimates, lambda.

    Returns:
        Advantages, and the returns `A + V` that the critic learns, both `[time, ...]`, float32 at
        least.
    """
    rewards, values = at_least_float32(rewards), at_least_float32(values)
    if timeout is not None:
        rewards = rewards + discount * values * timeout
    on = 1 - jnp.asarray(done, values.dtype)
    after = jnp.concatenate([values[1:], jnp.asarray(last_value, values.dtype)[None]])
    deltas = rewards + discount * on * after - values

    def back(later: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, on = now
        advantage = delta + discount * decay * on * later
        return advantage, advantage

    _, found = jax.lax.scan(back, jnp.zeros_like(deltas[0]), (deltas, on), reverse=True)
    return found, found + values


def gaussian_log_prob(actions: ArrayLike, mean: ArrayLike, std: ArrayLike) -> Array:
    """Log-density of actions, summed over the last axis.

    Args:
        actions: `[..., actions]`.
        mean: `[..., actions]`.
        std: standard deviations, `[actions]` or any shape that broadcasts.

    Returns:
        `[...]`, float32 at least, in nats.
    """
    actions, mean, std = (at_least_float32(x) for x in (actions, mean, std))
    each = -0.5 * ((actions - mean) / std) ** 2 - jnp.log(std) - 0.5 * jnp.log(2 * jnp.pi)
    return jnp.sum(each, axis=-1)


def gaussian_entropy(std: ArrayLike) -> Array:
    """Entropy of a Gaussian, summed over the last axis.

    Args:
        std: standard deviations, `[..., actions]`.

    Returns:
        `[...]`, float32 at least, in nats.
    """
    return jnp.sum(0.5 + 0.5 * jnp.log(2 * jnp.pi) + jnp.log(at_least_float32(std)), axis=-1)


def gaussian_kl(old_mean: ArrayLike, old_std: ArrayLike, mean: ArrayLike, std: ArrayLike) -> Array:
    """KL divergence of the new policy from the old one, summed over the last axis.

    `sum log(std / old_std + 1e-5) + (old_std^2 + (old_mean - mean)^2) / (2 std^2) - 1/2`. The 1e-5
    is the released code's; equal policies give 1e-5 an action rather than 0.

    Args:
        old_mean: `[..., actions]`.
        old_std: `[actions]` or any shape that broadcasts.
        mean: `[..., actions]`.
        std: `[actions]` or any shape that broadcasts.

    Returns:
        `[...]`, float32 at least, in nats.
    """
    old_mean, old_std, mean, std = (at_least_float32(x) for x in (old_mean, old_std, mean, std))
    spread = (old_std**2 + (old_mean - mean) ** 2) / (2 * std**2)
    return jnp.sum(jnp.log(std / old_std + 1e-5) + spread - 0.5, axis=-1)


def clipped_surrogate(
    log_prob: ArrayLike,
    old_log_prob: ArrayLike,
    advantage: ArrayLike,
    clip: float = 0.2,
    weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> Array:
    """PPO's policy loss, `mean max(-A r, -A clip(r, 1 - clip, 1 + clip))` with the ratio r.

    Args:
        log_prob: `[...]`, log-density of the actions taken, under the policy that learns.
        old_log_prob: `[...]`, log-density when they were taken.
        advantage: `[...]`, A; constant.
        clip: distance of the ratio from one at which its gradient ends.
        weights: see `corrkd_jax.losses.reduce`.
        axis_name: see `corrkd_jax.losses.reduce`.

    Returns:
        Scalar, float32 at least.

    References:
        Schulman et al., arXiv:1707.06347, eq. 7.
    """
    ratio = jnp.exp(at_least_float32(log_prob) - at_least_float32(old_log_prob))
    advantage = at_least_float32(advantage)
    worse = jnp.maximum(-advantage * ratio, -advantage * jnp.clip(ratio, 1 - clip, 1 + clip))
    return reduce(worse, weights, axis_name=axis_name)


def clipped_value_loss(
    value: ArrayLike,
    old_value: ArrayLike,
    returns: ArrayLike,
    clip: float = 0.2,
    weights: ArrayLike | None = None,
    axis_name: str | None = None,
) -> Array:
    """Critic's loss, `mean max((V - R)^2, (V_old + clip(V - V_old, +-clip) - R)^2)`.

    It has no factor 1/2, which Brax's has.

    Args:
        value: `[...]`, V, of the critic that learns.
        old_value: `[...]`, V_old, during the rollout.
        returns: `[...]`, R, of `advantages`.
        clip: distance of a value from its old one at which its gradient ends.
        weights: see `corrkd_jax.losses.reduce`.
        axis_name: see `corrkd_jax.losses.reduce`.

    Returns:
        Scalar, float32 at least.
    """
    value, old_value, returns = (at_least_float32(x) for x in (value, old_value, returns))
    near = old_value + jnp.clip(value - old_value, -clip, clip)
    worse = jnp.maximum((value - returns) ** 2, (near - returns) ** 2)
    return reduce(worse, weights, axis_name=axis_name)


def adapt_rate(
    rate: ArrayLike,
    kl: ArrayLike,
    target: float = 0.01,
    lowest: float = 1e-5,
    highest: float = 1e-2,
) -> Array:
    """Learning rate after an update that moved the policy by a KL divergence.

    A divergence above twice the target divides the rate by 1.5. One between 0 and half the target
    multiplies it by 1.5. Any other leaves it as it is.

    Args:
        rate: learning rate, a scalar.
        kl: mean KL divergence of the update, in nats.
        target: KL divergence aimed at, in nats.
        lowest: lower bound of a rate that falls.
        highest: upper bound of a rate that rises.

    Returns:
        Learning rate, float32 at least.
    """
    rate, kl = at_least_float32(rate), at_least_float32(kl)
    slower = jnp.maximum(rate / 1.5, lowest)
    faster = jnp.minimum(rate * 1.5, highest)
    return jnp.where(kl > 2 * target, slower, jnp.where((kl > 0) & (kl < target / 2), faster, rate))
