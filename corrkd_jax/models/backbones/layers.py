"""Layers that image networks share: torch's padding, and a batch norm that reports its inputs."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from corrkd_jax.losses.reduction import at_least_float32
from corrkd_jax.models.backbones.convolution import conv_general_dilated, conv_of_doubled
from corrkd_jax.models.torch_weights import Layer, batch_norm, convolution

BN_INPUTS = "bn_inputs"
"""Collection of the batch statistics of every batch norm's input, a tree like `batch_stats`."""

INSTANCE_MEANS = "instance_means"
"""Collection of the spatial means of every batch norm's input, `mean` `[batch, channels]` each."""

fan_out_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Initialiser of He et al., arXiv:1502.01852, of the torch originals of all networks but LeNet."""


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with torch's rules.

    Batch statistics normalise with the biased variance, while the running variance, like torch's
    and unlike Flax's, accumulates the unbiased one.

    Losses on the statistics of a network's inputs need no second pass. Apply the network with
    `mutable=["bn_inputs"]`, in training or not, and every layer adds `mean` and `var` (biased) of
    its input, `[channels]`, under its path, so that the collection has the tree of `batch_stats`.
    `"instance_means"` likewise adds the spatial mean of each image. Without these nothing is
    computed.

    Attributes:
        axis_name: named axis or axes over which the batch is sharded: statistics are the whole
            batch's, as on one device.
        epsilon: epsilon added to the variance.
        affine: learn a scale and a bias.
        momentum: share of the running statistics that a step keeps; torch's default of 0.1 is the
            share that it replaces.
        dtype: dtype of the result; statistics are float32 at least.
    """

    axis_name: str | Sequence[str] | None = None
    epsilon: float = 1e-5
    affine: bool = True
    momentum: float = 0.9
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Normalised input.

        Args:
            x: `[batch, ..., channels]`, any float dtype.
            train: normalise with the batch's statistics and update the running ones; else normalise
                with the running ones.

        Returns:
            Array of the shape of `x`, of the attribute `dtype`.
        """
        channels = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        x = at_least_float32(x)
        mean, var = running_mean.value, running_var.value
        if not self.is_initializing():
            if self.is_mutable_collection(INSTANCE_MEANS):
                self._tell(INSTANCE_MEANS, "mean", jnp.mean(x, axis=tuple(range(1, x.ndim - 1))))
            asked = self.is_mutable_collection(BN_INPUTS)
            if asked or train:
                batch_mean, batch_var, count = moments(x, self.axis_name)
            if asked:
                self._tell(BN_INPUTS, "mean", batch_mean)
                self._tell(BN_INPUTS, "var", batch_var)
            if train:
                mean, var = batch_mean, batch_var
                kept, unbiased = self.momentum, count / jnp.maximum(count - 1, 1)
                running_mean.value = kept * running_mean.value + (1 - kept) * mean
                running_var.value = kept * running_var.value + (1 - kept) * unbiased * var
        factor, offset = lax.rsqrt(var + self.epsilon), jnp.zeros_like(mean)
        if self.affine:
            factor *= self.param("scale", nn.initializers.ones, channels)
            offset = self.param("bias", nn.initializers.zeros, channels)
        # the gradient of the mean goes by way of `offset`: two sums over the gradient of the
        # result serve all there is to learn, where of (x - mean) * factor they would be four
        centre = lax.stop_gradient(mean)
        return ((x - centre) * factor + (offset - (mean - centre) * factor)).astype(self.dtype)

    def _tell(self, collection: str, name: str, value: Array) -> None:
        self.sow(collection, name, value, reduce_fn=lambda _, new: new, init_fn=lambda: None)


def moments(
    x: Array, axis_name: str | Sequence[str] | None = None
) -> tuple[Array, Array, Array | float]:
    """Mean, biased variance and number of values over all axes but the last and over shards.

    They take two passes: the difference of the mean square and the squared mean loses all digits
    where the mean is large beside the deviation.

    Args:
        x: `[..., channels]`.
        axis_name: named axis or axes over which the batch is sharded.

    Returns:
        Mean `[channels]`, variance `[channels]` and the number of values of a channel.
    """
    axes = tuple(range(x.ndim - 1))
    count = float(x.size // x.shape[-1])
    mean = jnp.mean(x, axes)
    if axis_name is not None:
        mean = lax.pmean(mean, axis_name)
        count = lax.psum(count, axis_name)
    # deviations sum to zero, so that their gradient by way of the mean would be a sum for nothing;
    # with the square, which is zero, derivatives of every order are the variance's
    centre = lax.stop_gradient(mean)
    var = jnp.mean(jnp.square(x - centre), axes) - jnp.square(mean - centre)
    if axis_name is not None:
        var = lax.pmean(var, axis_name)
    return mean, var, count


def conv(
    features: int,
    kernel: int,
    stride: int = 1,
    *,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = False,
    doubled: bool = False,
    dtype: jnp.dtype = jnp.float32,
    name: str | None = None,
) -> nn.Conv:
    """Square convolution that pads as torch does: the same on all sides, whatever the stride.

    Flax's "SAME" pads even sizes at stride 2 below and to the right only, which shifts every
    activation of a converted network.

    Args:
        features: number of channels of the result.
        kernel: side of the window in pixels.
        stride: stride of the window.
        padding: zeros on each side; None: half the window.
        groups: number of groups of channels that do not see each other.
        bias: add a bias.
        doubled: upsample by two first, to the nearest neighbour.
        dtype: compute type.
        name: name of the module.

    Returns:
        A Flax module.
    """
    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        kernel // 2 if padding is None else padding,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=fan_out_normal,
        dtype=dtype,
        conv_general_dilated=conv_of_doubled if doubled else conv_general_dilated,
        name=name,
    )


class ConvNorm(nn.Module):
    """Convolution by `conv`, then `BatchNorm`.

    Attributes:
        features: see `conv`.
        kernel: see `conv`.
        stride: see `conv`.
        padding: see `conv`.
        groups: see `conv`.
        bias: see `conv`.
        doubled: see `conv`.
        axis_name: see `BatchNorm`.
        epsilon: see `BatchNorm`.
        dtype: compute type.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: int | None = None
    groups: int = 1
    bias: bool = False
    doubled: bool = False
    axis_name: str | Sequence[str] | None = None
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Convolution of `[batch, height, width, channels]`, batch normalisation, no activation.

        Args:
            x: `[batch, height, width, channels]`.
            train: see `BatchNorm`.

        Returns:
            `[batch, out_height, out_width, features]` of the attribute `dtype`.
        """
        x = conv(
            self.features,
            self.kernel,
            self.stride,
            padding=self.padding,
            groups=self.groups,
            bias=self.bias,
            doubled=self.doubled,
            dtype=self.dtype,
            name="conv",
        )(x)
        return BatchNorm(self.axis_name, self.epsilon, dtype=self.dtype, name="norm")(x, train)


def conv_norm(source_conv: str, source_norm: str, target: str) -> list[Layer]:
    """Rows of a table for one `ConvNorm`.

    Args:
        source_conv: torch name of the convolution.
        source_norm: torch name of the batch norm.
        target: Flax path of the `ConvNorm`.

    Returns:
        Two rows.
    """
    return [
        Layer(source_conv, f"{target}/conv", convolution),
        Layer(source_norm, f"{target}/norm", batch_norm),
    ]


class Head(nn.Module):
    """Global mean, then a linear layer, both float32: `[batch, h, w, c]` -> logits, features.

    Attributes:
        classes: number of classes.
    """

    classes: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Logits and the features that they are linear in.

        Args:
            x: `[batch, height, width, channels]`.

        Returns:
            Logits `[batch, classes]` and features `[batch, channels]`, float32 at least.
        """
        features = jnp.mean(at_least_float32(x), axis=(1, 2))
        return nn.Dense(self.classes, name="linear")(features), features
