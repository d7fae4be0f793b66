"""Proximal policy optimisation: advantages, the clipped losses, the rate that follows the KL.

Forms are those of arXiv:2402.08996 as its released code has them (a fork of rsl_rl); what other
implementations do differently stands at each function. Policies are Gaussian with a deviation of
their own for each action, independent between actions.
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
    """Generalised advantage estimation (arXiv:1506.02438), time-outs bootstrapped.

    `delta_t = r_t + discount (1 - done_t) V_{t+1} - V_t` and
    `A_t = delta_t + discount decay (1 - done_t) A_{t+1}`. An episode that the clock ended would
    have gone on: its last reward gains `discount V_t`, the value before that step, because the
    state after it has been replaced by a new episode's. Brax leaves such steps out instead.

    Args:
        rewards: `[time, ...]`.
        values: `[time, ...]`, of the states before the steps.
        last_value: `[...]`, value of the state after the last step.
        done: `[time, ...]`, 1 where an episode ended with this step, by the clock or not.
        timeout: `[time, ...]`, 1 where the clock ended it; None for nowhere.
        discount: of the future, a step.
        decay: of longer estimates (lambda).

    Returns:
        Advantages, and the returns `A + V` that the critic should learn, both `[time, ...]`.
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
        std: `[actions]` or any shape that broadcasts.
    """
    actions, mean, std = (at_least_float32(x) for x in (actions, mean, std))
    each = -0.5 * ((actions - mean) / std) ** 2 - jnp.log(std) - 0.5 * jnp.log(2 * jnp.pi)
    return jnp.sum(each, axis=-1)


def gaussian_entropy(std: ArrayLike) -> Array:
    """Entropy in nats of `[..., actions]` deviations, summed over the last axis."""
    return jnp.sum(0.5 + 0.5 * jnp.log(2 * jnp.pi) + jnp.log(at_least_float32(std)), axis=-1)


def gaussian_kl(old_mean: ArrayLike, old_std: ArrayLike, mean: ArrayLike, std: ArrayLike) -> Array:
    """Divergence of the new policy from the old one, summed over the last axis.

    `sum log(std / old_std + 1e-5) + (old_std^2 + (old_mean - mean)^2) / (2 std^2) - 1/2`; the
    1e-5 is the released code's, so that equal policies give 1e-5 an action rather than 0.

    Args:
        old_mean: `[..., actions]`.
        old_std: `[actions]` or any shape that broadcasts.
        mean: `[..., actions]`.
        std: `[actions]` or any shape that broadcasts.
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
    """Policy loss `mean max(-A r, -A clip(r, 1 - clip, 1 + clip))`, `r` the ratio (PPO, eq. 7).

    Args:
        log_prob: `[...]`, of the actions taken, now.
        old_log_prob: `[...]`, of the same actions when they were taken.
        advantage: `[...]`, constant.
        clip: how far the ratio may move before its gradient ends.
        weights: see `corrkd_jax.losses.reduce`.
        axis_name: see `corrkd_jax.losses.reduce`.
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
    """Critic's loss `mean max((V - R)^2, (V_old + clip(V - V_old, +-clip) - R)^2)`.

    Without the factor 1/2 that Brax has.

    Args:
        value: `[...]`, now.
        old_value: `[...]`, during the rollout.
        returns: `[...]` of `advantages`.
        clip: how far a value may move before its gradient ends.
        weights: see `corrkd_jax.losses.reduce`.
        axis_name: see `corrkd_jax.losses.reduce`.
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
    """Learning rate after an update that moved the policy by `kl`.

    Over twice the target: down by 1.5, not below `lowest`; between 0 and half of it: up by 1.5,
    not above `highest`; else as it was.
    """
    rate, kl = at_least_float32(rate), at_least_float32(kl)
    slower = jnp.maximum(rate / 1.5, lowest)
    faster = jnp.minimum(rate * 1.5, highest)
    return jnp.where(kl > 2 * target, slower, jnp.where((kl > 0) & (kl < target / 2), faster, rate))
