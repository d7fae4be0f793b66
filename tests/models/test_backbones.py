"""Image networks against torch twins with the same random weights, and their published sizes."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.errors import InputError
from corrkd_jax.losses.synthesis import bn_statistics
from corrkd_jax.models.backbones import (
    BN_INPUTS,
    INSTANCE_MEANS,
    LENET5,
    LENET5_HALF,
    VGG,
    LeNet,
    MobileNetV2,
    ResNet,
    WideResNet,
    lenet_table,
    mobilenet_table,
    resnet_table,
    vgg_table,
    wide_resnet_table,
)
from corrkd_jax.models.backbones.layers import BatchNorm, moments
from corrkd_jax.models.backbones.mobilenet import rounded
from corrkd_jax.models.torch_weights import to_flax, to_torch

# the networks of the largest size, beside torch's
pytestmark = pytest.mark.seconds(60)

NARROW = ((4,), (6,), (6, 8), (8, 8), (8, 10))


class Case(NamedTuple):
    """A network, the name and arguments of its twin, its table, and what it sees."""

    network: object
    twin: tuple
    table: list
    images: tuple = (2, 16, 16, 3)


CASES = {
    "resnet18": Case(ResNet(5, width=4), ("ResNet", 5, 18, "cifar", 4), resnet_table(18)),
    "resnet34 imagenet": Case(
        ResNet(5, 34, "imagenet", 4),
        ("ResNet", 5, 34, "imagenet", 4),
        resnet_table(34, "imagenet"),
        (2, 64, 64, 3),
    ),
    "resnet50": Case(ResNet(5, 50, width=2), ("ResNet", 5, 50, "cifar", 2), resnet_table(50)),
    "wrn-16-1": Case(WideResNet(5, 16, 1), ("WideResNet", 5, 16, 1), wide_resnet_table(16, 1)),
    "wrn-10-2": Case(WideResNet(5, 10, 2), ("WideResNet", 5, 10, 2), wide_resnet_table(10, 2)),
    "vgg at 32": Case(VGG(5, NARROW), ("VGG", 5, NARROW), vgg_table(NARROW), (2, 32, 32, 3)),
    "vgg at 64": Case(VGG(5, NARROW), ("VGG", 5, NARROW), vgg_table(NARROW), (2, 64, 64, 3)),
    "mobilenet": Case(MobileNetV2(5, 0.25), ("MobileNetV2", 5), mobilenet_table(), (2, 64, 64, 3)),
    "lenet": Case(LeNet(widths=LENET5), ("LeNet", LENET5, False), lenet_table(), (2, 32, 32, 1)),
    "half lenet": Case(
        LeNet(widths=LENET5_HALF), ("LeNet", LENET5_HALF, True), lenet_table(True), (2, 32, 32, 1)
    ),
}


def close(found, expected, tolerance=1e-4):
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), found, expected
    )


def torch_results(twin, images):
    """What the twin gives in evaluation and in training, and what its batch norms were fed."""
    import torch

    fed, hooks = {}, []
    for name, module in twin.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            hooks.append(
                module.register_forward_hook(
                    lambda _, inputs, __, name=name: fed.__setitem__(name, inputs[0])
                )
            )
    with torch.no_grad():
        evaluated = [x.numpy() for x in twin.eval()(images)]
        statistics = {
            name: {
                "mean": x.mean((0, 2, 3)).numpy(),
                "var": x.var((0, 2, 3), unbiased=False).numpy(),
                "instances": x.mean((2, 3)).numpy(),
            }
            for name, x in fed.items()
        }
        for hook in hooks:
            hook.remove()
        trained = [x.numpy() for x in twin.train()(images)]
    return evaluated, statistics, trained


def both(network, variables, images):
    collections = [BN_INPUTS, INSTANCE_MEANS]
    evaluated = network.apply(variables, images, mutable=collections)
    trained = network.apply(variables, images, train=True, mutable=["batch_stats"])
    return evaluated, trained


@pytest.fixture(scope="module", params=CASES)
def compared(request):
    pytest.importorskip("torch")
    from tests.models import torch_images

    case = CASES[request.param]
    name, *arguments = case.twin
    twin = torch_images.randomised(getattr(torch_images, name)(*arguments))
    images = np.random.default_rng(0).normal(size=case.images).astype(np.float32)
    like = jax.eval_shape(case.network.init, jax.random.key(0), images)
    state = torch_images.arrays(twin)
    variables = to_flax(state, case.table, like, "twin")
    expected = torch_results(twin, torch_images.channels_first(images))
    found = jax.jit(partial(both, case.network))(variables, images)
    return case, state, like, variables, found, expected, torch_images.arrays(twin)


class TestAgainstTorch:
    def test_logits_and_features(self, compared):
        _, _, _, _, (((logits, features), _), _), (expected, _, _), _ = compared
        assert np.abs(expected[0]).max() > 0.1
        close(logits, expected[0])
        close(features, expected[1])

    def test_statistics_that_batch_norms_are_fed(self, compared):
        case, state, like, _, ((_, told), _), (_, fed, _), _ = compared
        if not fed:
            assert told == {}
            return
        # the table carries the twin's statistics to where the network should tell its own
        for name, x in fed.items():
            state = {**state, f"{name}.running_mean": x["mean"], f"{name}.running_var": x["var"]}
        expected = to_flax(state, case.table, like, "statistics")["batch_stats"]
        assert jax.tree.structure(told[BN_INPUTS]) == jax.tree.structure(expected)
        close(told[BN_INPUTS], expected)
        for image in range(2):
            for name, x in fed.items():
                state = {**state, f"{name}.running_mean": x["instances"][image]}
            expected = to_flax(state, case.table, like, "instances")["batch_stats"]
            expected = {
                path: x for path, x in jax.tree.leaves_with_path(expected) if path[-1].key == "mean"
            }
            means = dict(jax.tree.leaves_with_path(told[INSTANCE_MEANS]))
            assert means.keys() == expected.keys()
            for path, x in means.items():
                close(x[image], expected[path])

    def test_a_step_of_training(self, compared):
        case, _, like, _, (_, ((logits, _), updated)), (_, _, expected), after = compared
        close(logits, expected[0], 1e-3)
        if "batch_stats" in like:
            # with torch's unbiased variance
            close(updated["batch_stats"], to_flax(after, case.table, like, "after")["batch_stats"])

    def test_there_and_back(self, compared):
        case, state, _, variables, *_ = compared
        back = to_torch(variables, case.table)
        kept = {name: x for name, x in state.items() if "num_batches" not in name}
        assert back.keys() == kept.keys()
        for name, x in kept.items():
            np.testing.assert_array_equal(back[name], x)

    def test_a_strange_weight_is_named(self, compared):
        case, state, like, *_ = compared
        with pytest.raises(InputError, match=r"twin: .*extra\.weight: no place for it"):
            to_flax({**state, "extra.weight": np.ones(1)}, case.table, like, "twin")


def sizes(network, images):
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(images))
    count = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    return count, sum(x.size for x in jax.tree.leaves(shapes.get("batch_stats", {}))) // 2


# parameters with 10 and with 100 classes, channels of all batch norms together
CIFAR = {
    "wrn-16-1": (partial(WideResNet, depth=16, widen=1), 175_066, 180_916, 464),
    "wrn-16-2": (partial(WideResNet, depth=16, widen=2), 691_674, 703_284, 912),
    "wrn-40-1": (partial(WideResNet, depth=40, widen=1), 563_930, 569_780, 1_360),
    "wrn-40-2": (partial(WideResNet, depth=40, widen=2), 2_243_546, 2_255_156, 2_704),
    "resnet18": (partial(ResNet, depth=18), 11_173_962, 11_220_132, 4_800),
    "resnet34": (partial(ResNet, depth=34), 21_282_122, 21_328_292, 8_512),
    "vgg11": (VGG, 9_231_114, 9_277_284, 2_752),
}


@pytest.mark.parametrize("name", CIFAR)
def test_published_sizes_on_cifar(name):
    make, ten, hundred, channels = CIFAR[name]
    assert sizes(make(10), (1, 32, 32, 3)) == (ten, channels)
    assert sizes(make(100), (1, 32, 32, 3)) == (hundred, channels)


@pytest.mark.parametrize(
    ("network", "count", "images"),
    [
        (ResNet(1000, 18, "imagenet"), 11_689_512, (1, 64, 64, 3)),
        (ResNet(1000, 34, "imagenet"), 21_797_672, (1, 64, 64, 3)),
        (ResNet(1000, 50, "imagenet"), 25_557_032, (1, 64, 64, 3)),
        (MobileNetV2(), 3_504_872, (1, 32, 32, 3)),
        (LeNet(), 61_706, (1, 32, 32, 1)),
        (LeNet(widths=LENET5_HALF), 15_738, (1, 32, 32, 1)),
    ],
)
def test_published_sizes_elsewhere(network, count, images):
    assert sizes(network, images)[0] == count


def test_channels_of_a_narrower_mobilenet():
    # 8 is within a tenth of neither 10 nor 11, and 32 is of 35
    assert [rounded(x) for x in (0.1, 8, 10, 11, 12, 35, 36)] == [8, 8, 16, 16, 16, 32, 40]


def test_features_of_the_classifiers():
    def width(network, images=(1, 32, 32, 3)):
        shapes = jax.eval_shape(network.init_with_output, jax.random.key(0), jnp.zeros(images))
        return shapes[0][1].shape[-1]

    assert [width(WideResNet(10, *x)) for x in ((40, 2), (16, 1))] == [128, 64]
    assert [width(ResNet(10, depth)) for depth in (18, 34, 50)] == [512, 512, 2048]
    assert width(VGG(10)) == 512
    assert width(MobileNetV2()) == 1280
    assert width(LeNet(), (1, 32, 32, 1)) == 120


@pytest.mark.parametrize(
    ("network", "images", "words"),
    [
        (ResNet(10, 20), (1, 32, 32, 3), "depth must be one of"),
        (ResNet(10, stem="tiny"), (1, 32, 32, 3), "stem must be one of"),
        (WideResNet(10, 27), (1, 32, 32, 3), "6 n"),
        (LeNet(), (1, 28, 28, 1), "32, 32"),
    ],
)
def test_refusals(network, images, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(images))


class TestBatchNorm:
    def test_tells_nothing_unasked(self):
        x = jnp.ones((2, 3))
        norm = BatchNorm()
        variables = norm.init(jax.random.key(0), x, False)
        assert sorted(variables) == ["batch_stats", "params"]
        assert norm.apply(variables, x, False).shape == x.shape
        _, updated = norm.apply(variables, x, True, mutable=["batch_stats"])
        assert sorted(updated) == ["batch_stats"]

    def test_moments_of_values_far_from_zero(self):
        x = 1e4 + np.array([[-1.0], [1.0]], np.float32)
        mean, var, count = moments(jnp.asarray(x))
        close((mean, var), (np.array([1e4]), np.array([1.0])))
        assert count == 2

    def test_second_derivatives_of_the_variance(self):
        def var(x):
            return moments(x[:, None])[1][0]

        bend = jax.hessian(var)(jnp.array([3.0, -1.0, 4.0, 1.5]))
        close(bend, 2 / 4 * (np.eye(4) - 1 / 4))

    def test_half_precision_keeps_statistics_in_float32(self):
        x = jnp.ones((2, 4, 3), jnp.bfloat16)
        norm = BatchNorm(dtype=jnp.bfloat16)
        variables = norm.init(jax.random.key(0), x, False)
        y, told = norm.apply(variables, x, True, mutable=["batch_stats", BN_INPUTS])
        assert y.dtype == jnp.bfloat16
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(told))

    @pytest.mark.parametrize("shards", [1, 4])
    def test_learns_as_torchs_does(self, shards):
        torch = pytest.importorskip("torch")
        rng = np.random.default_rng(0)
        x = (5 + rng.normal(size=(8, 3, 2, 4))).astype(np.float32)
        pull = rng.normal(size=x.shape).astype(np.float32)
        scale, bias, of_mean, of_var = rng.normal(size=(4, 4)).astype(np.float32)
        norm = BatchNorm(axis_name="data")
        stats = {"mean": jnp.zeros(4), "var": jnp.ones(4)}

        def loss(x, params, pull):
            variables = {"params": params, "batch_stats": stats}
            y, told = norm.apply(variables, x, True, mutable=["batch_stats", BN_INPUTS])
            told = told[BN_INPUTS]
            return jnp.sum(y * pull) + (told["mean"] @ of_mean + told["var"] @ of_var) / shards

        learn = jax.vmap(jax.grad(loss, (0, 1)), in_axes=(0, None, 0), axis_name="data")
        split = [v.reshape(shards, -1, *v.shape[1:]) for v in (x, pull)]
        of_x, of_params = learn(split[0], {"scale": scale, "bias": bias}, split[1])

        theirs = torch.nn.BatchNorm2d(4).double()
        theirs.load_state_dict({"weight": torch.tensor(scale), "bias": torch.tensor(bias)}, False)
        given = torch.tensor(x).double().permute(0, 3, 1, 2).requires_grad_()
        var, mean = torch.var_mean(given, (0, 2, 3), unbiased=False)
        total = (theirs(given) * torch.tensor(pull).permute(0, 3, 1, 2)).sum()
        for value, weights in ((mean, of_mean), (var, of_var)):
            total = total + value @ torch.tensor(weights).double()
        total.backward()
        close(of_x.reshape(x.shape), given.grad.permute(0, 2, 3, 1).numpy(), 1e-4)
        close(of_params["scale"].sum(0), theirs.weight.grad.numpy(), 1e-4)
        close(of_params["bias"].sum(0), theirs.bias.grad.numpy(), 1e-4)


def synthesis(network, variables, scale, images):
    """Statistics' loss of generated images, its gradient, and a step of training on the images."""

    def loss(scale):
        _, told = network.apply(variables, jnp.tanh(images * scale), mutable=[BN_INPUTS])
        return bn_statistics(variables["batch_stats"], told[BN_INPUTS]), told

    (value, told), gradient = jax.value_and_grad(loss, has_aux=True)(scale)
    if network.axis_name is not None:
        gradient = jax.lax.pmean(gradient, network.axis_name)
    (logits, _), updated = network.apply(variables, images, True, mutable=["batch_stats"])
    return (value, gradient, told, updated), logits


def test_eight_devices_are_one():
    rng = np.random.default_rng(0)
    network = VGG(3, ((4,), (4,), (4,), (4,), (4,)))
    images = rng.normal(size=(16, 8, 8, 3)).astype(np.float32)
    scale = np.array([0.5, 1.0, 1.5], np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), images)
    alone, logits = jax.jit(partial(synthesis, network))(variables, scale, images)
    assert alone[0] > 1
    assert np.abs(alone[1]).min() > 1e-3
    shards, by_shard = jax.pmap(
        partial(synthesis, network.copy(axis_name="data")),
        axis_name="data",
        in_axes=(None, None, 0),
    )(variables, scale, images.reshape(8, 2, 8, 8, 3))
    close(by_shard.reshape(16, 3), logits, 5e-4)
    close(shards, jax.tree.map(lambda x: np.tile(x, (8, *[1] * x.ndim)), alone), 5e-4)
