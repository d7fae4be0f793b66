"""The convolution with a backward pass of its own: XLA's values and gradients, in loops as well."""

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from jax import lax

from corrkd_jax.models.backbones import convolution
from corrkd_jax.models.backbones.convolution import conv_general_dilated, conv_of_doubled

ORDER = ("NHWC", "HWIO", "NHWC")
CASES = [
    (8, 8, 3, 1, 1),
    (8, 6, 3, 2, 1),
    (8, 7, 1, 2, 0),
    (6, 9, 1, (2, 3), 0),
    (5, 6, 1, 2, 1),
    (9, 8, 4, 2, 1),
    (11, 11, 7, 2, 3),
    (5, 5, 5, 1, 0),
    # padding of a window of two as `conv_of_doubled` has it, and more of it than a window
    (6, 5, 2, 1, ((1, 0), (0, 1))),
    (4, 6, 2, 1, ((3, 0), (0, 2))),
]


@pytest.mark.parametrize("channels", [2, 16, 64])
@pytest.mark.parametrize(("height", "width", "window", "stride", "padding"), CASES)
def test_equals_xla(height, width, window, stride, padding, channels):
    random = np.random.default_rng(0)
    images = jnp.asarray(random.normal(size=(3, height, width, channels)), jnp.float32)
    kernel = random.normal(size=(window, window, channels, 17)) / window
    kernel = jnp.asarray(kernel, jnp.float32)
    sides = padding if isinstance(padding, tuple) else [(padding, padding)] * 2
    strides = stride if isinstance(stride, tuple) else (stride, stride)

    def loss(function, images, kernel):
        made = function(images, kernel, strides, sides, dimension_numbers=ORDER)
        return jnp.sum(jnp.sin(made))

    for found, wanted in zip(
        jax.value_and_grad(lambda *x: loss(conv_general_dilated, *x), (0, 1))(images, kernel),
        jax.value_and_grad(lambda *x: loss(lax.conv_general_dilated, *x), (0, 1))(images, kernel),
        strict=True,
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, wanted
        )


def test_gradients_in_a_loop_have_the_order_of_axes_that_eigen_takes():
    """What makes them fast: no convolution of the compiled loop has another order."""
    images, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 3))

    def orders(function):
        def step(_, kernel):
            def loss(kernel, images):
                return jnp.sum(
                    function(images, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=ORDER) ** 2
                )

            of_kernel, of_images = jax.grad(loss, (0, 1))(kernel, images)
            return kernel - 1e-3 * of_kernel + jnp.sum(of_images)

        text = jax.jit(lambda k: lax.fori_loop(0, 3, step, k)).lower(kernel).compile().as_text()
        return {part.split(",")[0].split()[0] for part in text.split("dim_labels=")[1:]}

    assert orders(conv_general_dilated) == {"b01f_01io->b01f"}
    # XLA brings others into that order inside loops as well: then the detour can go
    assert orders(lax.conv_general_dilated) != {"b01f_01io->b01f"}


def test_eigen_convolves_images_of_many_channels():
    """Forward and backward; XLA's own choice there is YNNPACK, at half the rate."""
    images, kernel = jnp.ones((2, 8, 8, 32)), jnp.ones((3, 3, 32, 32))

    def made(function):
        def both(images, kernel, cotangent):
            value, pull = jax.vjp(
                lambda *x: function(*x, (1, 1), [(1, 1)] * 2, dimension_numbers=ORDER),
                images,
                kernel,
            )
            return value, pull(cotangent)

        return jax.jit(both).lower(images, kernel, images).compile().as_text()

    assert "ynn" not in made(conv_general_dilated)
    if jaxlib.__version__.startswith("0.10"):
        # once it is not, the detour can go
        assert "ynn" in made(lax.conv_general_dilated)


def test_other_convolutions_are_xlas_own(monkeypatch):
    monkeypatch.setattr(convolution, "_convolution", None)
    images, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))
    options = {"dimension_numbers": ORDER, "feature_group_count": 2}
    assert conv_general_dilated(images, kernel, (1, 1), [(1, 1)] * 2, **options).shape[-1] == 2
    with pytest.raises(TypeError):
        conv_general_dilated(
            images, jnp.ones((3, 3, 2, 2)), (1, 1), [(1, 1)] * 2, dimension_numbers=ORDER
        )


@pytest.mark.parametrize(("height", "width"), [(4, 4), (1, 3), (5, 2)])
def test_of_doubled_equals_upsampling_first(height, width):
    random = np.random.default_rng(0)
    images = jnp.asarray(random.normal(size=(2, height, width, 3)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(3, 3, 3, 5)), jnp.float32)
    weights = jnp.asarray(random.normal(size=(2, 2 * height, 2 * width, 5)), jnp.float32)
    settings = ((1, 1), [(1, 1)] * 2)

    def quick(images, kernel):
        return conv_of_doubled(images, kernel, *settings, dimension_numbers=ORDER)

    def plain(images, kernel):
        images = jnp.repeat(jnp.repeat(images, 2, axis=1), 2, axis=2)
        return lax.conv_general_dilated(images, kernel, *settings, dimension_numbers=ORDER)

    def gradients(function):
        def loss(*x):
            return jnp.sum(weights * jnp.sin(function(*x)))

        return jax.grad(loss, (0, 1))(images, kernel)

    np.testing.assert_allclose(quick(images, kernel), plain(images, kernel), atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), *map(gradients, (quick, plain))
    )


def test_of_doubled_refuses_other_windows():
    images = jnp.ones((1, 4, 4, 2))
    for kernel, stride, side in ((5, 1, 1), (3, 2, 1), (3, 1, 0)):
        with pytest.raises(ValueError, match="3 x 3, stride 1 and padding 1"):
            conv_of_doubled(
                images,
                jnp.ones((kernel, kernel, 2, 2)),
                (stride, stride),
                [(side, side)] * 2,
                dimension_numbers=ORDER,
            )
