"""Policy for several tasks: a shared front and a head for each task, as stacked arrays."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

# uniform within one over the root of the inputs' number, which is torch's law
_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class MultiTaskPolicy(nn.Module):
    """Gaussian actor and critic of arXiv:2402.08996, for groups of observations.

    Each is `Dense(front) ELU` for all tasks and `Dense ELU Dense ELU Dense` for one, with weights
    of its own. Heads lie stacked along a leading axis and are gathered by number. A group may thus
    have any head, traced, and gradients reach the head that was used. One head for every group is a
    single network. The standard deviation of the actions is one free vector, used as it is.

    Attributes:
        actions: number of actions.
        heads: number of tasks.
        front: width of the shared layer.
        hidden: widths of a head's layers.
        std: standard deviation at the start.
        least_std: lower bound of the standard deviation, which nothing else keeps positive.
    """

    actions: int = 8
    heads: int = 3
    front: int = 128
    hidden: tuple[int, ...] = (64, 32)
    std: float = 1.0
    least_std: float = 0.02

    def setup(self) -> None:
        """Build the actor, the critic and the deviation of the actions."""
        self.actor = Tower(self.front, (*self.hidden, self.actions), self.heads)
        self.critic = Tower(self.front, (*self.hidden, 1), self.heads)
        self.deviation = self.param(
            "std", nn.initializers.constant(self.std), (self.actions,), jnp.float32
        )

    def act(self, observations: Array, heads: Array) -> tuple[Array, Array]:
        """Distribution of the actions.

        Args:
            observations: `[groups, batch, features]`.
            heads: integers, `[groups]`, the head of each group, or `[groups, batch]`, of each row:
                every row then goes through all heads, and one result is used.

        Returns:
            Mean `[groups, batch, actions]` and standard deviation `[actions]`.
        """
        mean = self._through(self.actor, observations, heads)
        return mean, jnp.maximum(self.deviation, self.least_std)

    def value(self, observations: Array, heads: Array) -> Array:
        """Values of observations.

        Args:
            observations: see `act`.
            heads: see `act`.

        Returns:
            `[groups, batch]`.
        """
        return self._through(self.critic, observations, heads)[..., 0]

    def every(self, observations: Array) -> Array:
        """Mean actions of every head.

        Args:
            observations: `[batch, features]`.

        Returns:
            `[heads, batch, actions]`.
        """
        return self._all(self.actor, observations)

    def __call__(self, observations: Array, heads: Array) -> tuple[Array, Array, Array]:
        """Distribution of the actions, and values.

        Args:
            observations: see `act`.
            heads: see `act`.

        Returns:
            Mean `[groups, batch, actions]`, standard deviation `[actions]` and values `[groups,
            batch]`.
        """
        return *self.act(observations, heads), self.value(observations, heads)

    def _through(self, tower: "Tower", observations: Array, heads: Array) -> Array:
        if heads.ndim == 1:
            return tower(observations, heads)
        every = self._all(tower, observations.reshape(-1, observations.shape[-1]))
        own = jnp.take_along_axis(every, heads.reshape(1, -1, 1), axis=0)[0]
        return own.reshape(*heads.shape, -1)

    def _all(self, tower: "Tower", observations: Array) -> Array:
        shared = jnp.broadcast_to(observations, (self.heads, *observations.shape))
        return tower(shared, jnp.arange(self.heads))


class Tower(nn.Module):
    """Shared layer and a stack of heads.

    Attributes:
        front: width of the shared layer.
        features: widths of a head's layers, the last one linear.
        heads: number of heads.
    """

    front: int
    features: Sequence[int]
    heads: int

    @nn.compact
    def __call__(self, x: Array, heads: Array) -> Array:
        """Result of each group's head.

        Args:
            x: `[groups, batch, in]`.
            heads: `[groups]` integers, the head of each group.

        Returns:
            `[groups, batch, features[-1]]`.
        """
        shared = nn.Dense(
            self.front, kernel_init=_kernel_init, bias_init=uniform_bias(x.shape[-1]), name="front"
        )
        x = nn.elu(shared(x))
        for number, width in enumerate(self.features):
            x = StackedDense(width, self.heads, name=f"head_{number}")(x, heads)
            if number < len(self.features) - 1:
                x = nn.elu(x)
        return x


class StackedDense(nn.Module):
    """Linear layers of one shape, stacked; each group goes through one of them.

    Attributes:
        features: width of the result.
        stack: number of layers.
    """

    features: int
    stack: int

    @nn.compact
    def __call__(self, x: Array, which: Array) -> Array:
        """Result of each group's layer.

        Args:
            x: `[groups, batch, in]`.
            which: `[groups]` integers, the layer of each group.

        Returns:
            `[groups, batch, features]`.
        """
        inputs = x.shape[-1]
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", batch_axis=0)
        kernel = self.param("kernel", init, (self.stack, inputs, self.features))
        bias = self.param("bias", uniform_bias(inputs), (self.stack, self.features))
        kernel, bias = (jnp.take(parameter, which, axis=0) for parameter in (kernel, bias))
        return jnp.einsum("gbi,gio->gbo", x, kernel) + bias[:, None]


def uniform_bias(inputs: int) -> nn.initializers.Initializer:
    """Initialiser of biases as torch has it: uniform, bounded by one over the root of `inputs`.

    Args:
        inputs: number of inputs of the layer.

    Returns:
        A Flax initialiser.
    """
    bound = inputs**-0.5

    def init(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
