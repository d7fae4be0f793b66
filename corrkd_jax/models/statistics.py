"""Statistics networks of mutual-information estimators."""

import flax.linen as nn
from jax import Array


class StatisticsNetwork(nn.Module):
    """Score of every pair of rows of two arrays: an MLP on the two rows side by side.

    The paper (arXiv:2404.16456) gives no architecture. The choice here is two hidden ReLU layers
    and a last layer that starts at zero, so that the estimate starts at `-2 log 2` for all inputs.
    The first layer of a concatenation is a sum of two layers, so that pairs are formed after it.

    Attributes:
        hidden: width of both hidden layers.
    """

    hidden: int = 64

    @nn.compact
    def __call__(self, a: Array, b: Array) -> Array:
        """Scores of all pairs.

        Args:
            a: `[n, p]`.
            b: `[m, q]`.

        Returns:
            `[n, m]`, float32 at least.
        """
        left = nn.Dense(self.hidden, name="left")(a)
        right = nn.Dense(self.hidden, use_bias=False, name="right")(b)
        x = nn.relu(left[:, None] + right[None])
        x = nn.relu(nn.Dense(self.hidden, name="hidden")(x))
        return nn.Dense(1, kernel_init=nn.initializers.zeros, name="score")(x)[..., 0]
