"""LSTM over the valid frames of a sequence."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

# uniform within one over the root of the state's size, which is torch's law
_init = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")


class LSTM(nn.Module):
    """Layer of an LSTM in one direction; padding leaves the state as it is, wherever it stands.

    The cell lies under `cell`, as `corrkd_jax.models.torch_weights.lstm` lays it out.

    Attributes:
        features: size of the state.
        reverse: read from the last frame to the first.
    """

    features: int
    reverse: bool = False

    @nn.compact
    def __call__(self, x: Array, valid: Array) -> tuple[Array, Array]:
        """State after the last valid frame, and after every frame.

        Args:
            x: `[batch, time, in]`; padding may hold anything.
            valid: `[batch, time]` bool, False on padding.

        Returns:
            `[batch, features]`, zeros for a row without a valid frame, and `[batch, time,
            features]` in the order of `x`.
        """
        # what padding holds meets zero gradients, which turn it into NaN if it is not finite
        x = jnp.where(valid[..., None], x, 0)

        def step(
            cell: nn.OptimizedLSTMCell, carry: tuple[Array, Array], frame: tuple[Array, Array]
        ) -> tuple[tuple[Array, Array], Array]:
            x, real = frame
            after, _ = cell(carry, x)
            carry = jax.tree.map(lambda new, old: jnp.where(real[:, None], new, old), after, carry)
            return carry, carry[1]

        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
            reverse=self.reverse,
        )
        zeros = jnp.zeros((x.shape[0], self.features), x.dtype)
        cell = nn.OptimizedLSTMCell(
            self.features, kernel_init=_init, recurrent_kernel_init=_init, name="cell"
        )
        (_, last), states = scan(cell, (zeros, zeros), (x, valid))
        return last, states
