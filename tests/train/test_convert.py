"""Weights of torch networks from the command line: told apart, exact, strict, whole or not."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.data import images, variables
from corrkd_jax.data.weights import read_weights
from corrkd_jax.errors import InputError
from corrkd_jax.models.backbones import LENET5, LeNet, lenet_table
from corrkd_jax.models.backbones.named import build
from corrkd_jax.models.torch_weights import to_torch
from train import convert
from train.images import pretrained

SMALL = "wrn10_1"


def weights(name, classes=3, side=32, channels=3):
    """Random variables of a network, and the same under torch's names."""
    network, table = build(name, classes, side)
    if name == "lenet5":
        network, table = LeNet(classes, LENET5), lenet_table(numbered=True)
    image = jnp.zeros((1, side, side, channels))
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)
    random = np.random.default_rng(0)
    # no variance is negative
    tree = jax.tree.map(lambda x: abs(random.normal(size=x.shape)).astype(x.dtype), shapes)
    state = to_torch(tree, table)
    counters = {
        f"{key.removesuffix('running_var')}num_batches_tracked": np.int64(5)
        for key in state
        if key.endswith("running_var")
    }
    return tree, {**state, **counters}


@pytest.fixture(scope="module")
def small():
    return weights(SMALL)


def save(path, state):
    np.savez(path, **state)
    return path


def run(*words):
    convert.main([str(word) for word in words])


def same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
def test_exact_values_and_notes(tmp_path, small, ending, capsys):
    tree, state = small
    source, target = save(tmp_path / "cifar.npz", state), tmp_path / f"teacher{ending}"
    run(source, target, "--arch", SMALL, "--classes", 3, "--trained-on", "cifar10")
    model = pretrained.load(target, classes=3)
    same(model.variables, tree)
    assert (model.network, model.classes, model.side, model.channels) == (SMALL, 3, 32, 3)
    assert model.normalization == images.NORMALIZATIONS["cifar10"]
    assert "wrn10_1, 3 classes" in capsys.readouterr().out
    # what was converted can be converted again
    run(target, tmp_path / "again.safetensors")
    same(pretrained.load(tmp_path / "again.safetensors").variables, tree)


def test_torch_file_and_its_logits(tmp_path):
    """From a training program's checkpoint to the same answers."""
    torch = pytest.importorskip("torch")
    from tests.models import torch_images

    twin = torch_images.randomised(torch_images.WideResNet(3, 10, 1)).eval()
    state = {f"module.{name}": x for name, x in twin.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 9}, tmp_path / "teacher.pth")
    run(tmp_path / "teacher.pth", tmp_path / "teacher.safetensors")
    model = pretrained.load(tmp_path / "teacher.safetensors")
    assert model.network == SMALL
    assert model.normalization is None
    pixels = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    logits, _ = jax.jit(build(SMALL, 3).network.apply)(model.variables, pixels)
    with torch.no_grad():
        expected, _ = twin(torch_images.channels_first(pixels))
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


def test_back_to_torch(tmp_path, small):
    """What was distilled here is loaded there, strictly, and answers the same."""
    torch = pytest.importorskip("torch")
    from tests.models import torch_images

    tree, _ = small
    model = pretrained.Pretrained(SMALL, 3, 32, 3, jax.tree.map(lambda x: 0.1 * x**2, tree))
    pretrained.save(tmp_path / "student.safetensors", model)
    run(tmp_path / "student.safetensors", tmp_path / "student.pth")
    twin = torch_images.WideResNet(3, 10, 1)
    twin.load_state_dict(torch.load(tmp_path / "student.pth", weights_only=True), strict=True)
    pixels = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    logits, _ = jax.jit(build(SMALL, 3).network.apply)(model.variables, pixels)
    with torch.no_grad():
        found, _ = twin.eval()(torch_images.channels_first(pixels))
    np.testing.assert_allclose(found.numpy(), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
def test_torch_names_without_torch(tmp_path, small, ending):
    tree, state = small
    source, target = save(tmp_path / "cifar.npz", state), tmp_path / f"names{ending}"
    run(source, target, "--to", "torch")
    found = read_weights(target)
    wanted = {k: x for k, x in state.items() if not k.endswith("num_batches_tracked")}
    assert found.keys() == wanted.keys()
    same(found, wanted)
    same(pretrained.load(target).variables, tree)


def test_weights_are_told_from_features_by_their_members(tmp_path, small):
    tree, state = small
    for source in (save(tmp_path / "w.npz", state), tmp_path / "own.npz"):
        run(source, tmp_path / "own.npz")
        same(pretrained.load(tmp_path / "own.npz").variables, tree)
    np.savez(tmp_path / "other.npz", **{"train/text": np.zeros(3)})
    with pytest.raises(InputError, match=r"other\.npz: .*train"):
        run(tmp_path / "other.npz", tmp_path / "out.npz")


@pytest.mark.parametrize(
    ("words", "shown", "hidden"),
    [
        (("teacher.pth", "teacher.npz"), "--trained-on", "--word-vectors"),
        (("mosi.pkl", "mosi.npz"), "--word-vectors", "--trained-on"),
        (("mosi.pkl", "mosi.npz", "--arch", SMALL), "--trained-on", "--word-vectors"),
    ],
)
def test_help_is_that_of_the_kind(words, shown, hidden, capsys):
    """By the names of the files, or by an option that one kind alone has; nothing is read."""
    with pytest.raises(SystemExit) as ended:
        run(*words, "--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert shown in text
    assert hidden not in text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("t.pth", "t.npz", "--classes", -1), "--classes -1: must not be negative"),
        (("m.pkl", "m.npz", "--max-frames", 0), "--max-frames 0: must be positive"),
        (("m.pkl", "m.npz", "--fold", -2), "--fold -2: must not be negative"),
        (("t.pth",), "which file, and where to? python -m train.convert FILE OUT"),
    ],
)
def test_what_is_refused_before_anything_is_read(words, complaint):
    with pytest.raises(InputError) as refused:
        run(*words)
    assert str(refused.value) == complaint


def test_torch_has_no_such_network(tmp_path):
    network = build("mlp4", 3, 8).network
    tree = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    model = pretrained.Pretrained("mlp4", 3, 8, 1, jax.tree.map(np.asarray, tree))
    pretrained.save(tmp_path / "student.npz", model)
    with pytest.raises(InputError, match=r"out\.pth: a mlp4 has no original in torch"):
        run(tmp_path / "student.npz", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize(
    ("name", "classes", "side", "channels"),
    [
        ("wrn40_2", 10, 32, 3),
        ("wrn16_1", 10, 32, 3),
        ("wrn22_4", 7, 32, 3),
        ("resnet18", 10, 32, 3),
        ("resnet34", 200, 32, 3),
        ("resnet50", 5, 224, 3),
        ("resnet18", 5, 224, 3),
        ("vgg11", 100, 32, 3),
        ("mobilenetv2", 5, 224, 3),
        ("lenet5", 10, 32, 1),
        ("lenet5_half", 10, 32, 1),
    ],
)
def test_networks_are_told_by_names_and_shapes(tmp_path, name, classes, side, channels):
    tree, state = weights(name, classes, side, channels)
    # shapes are all that is looked at
    hollow = {key: np.broadcast_to(np.float32(0), np.shape(x)) for key, x in state.items()}
    path = tmp_path / "weights.npz"
    np.savez_compressed(path, **hollow)
    model = pretrained.load(path)
    assert (model.network, model.classes, model.channels) == (name, classes, channels)
    assert jax.tree.structure(model.variables) == jax.tree.structure(tree)


def refused(tmp_path, source, *options):
    """The one line that is said; nothing is left behind."""
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError) as caught:
        run(source, tmp_path / "out.safetensors", *options)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    return str(caught.value)


def test_all_that_does_not_fit_is_listed(tmp_path, small):
    state = dict(small[1])
    del state["bn1.running_mean"], state["block2.layer.0.convShortcut.weight"]
    state["bn1.weight"] = state["bn1.weight"][:-1]
    state["extra.weight"] = np.zeros(3)
    message = refused(tmp_path, save(tmp_path / "w.npz", state), "--arch", SMALL)
    assert message.startswith(str(tmp_path / "w.npz"))
    listed = (
        "bn1.running_mean: missing",
        "block2.layer.0.convShortcut.weight: missing",
        "extra.weight: no place for it",
        "bn1.weight: shape (63,), the network has (64,)",
    )
    assert message.endswith(f"does not fit a {SMALL}: {'; '.join(listed)}")
    # without a name, against the nearest network; a counter is not a weight
    message = refused(tmp_path, tmp_path / "w.npz")
    assert f"does not fit a {SMALL} (the nearest network known here; --arch names" in message
    assert message.endswith("; ".join(listed))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        (SMALL, "block3.layer.0.bn2"),
        (SMALL, "fc"),
        (SMALL, "bn1"),
        ("wrn10_2", "block1.layer.0.convShortcut"),  # leaves the layers of a wrn10_1
        ("resnet34", "layer1.2.conv1"),
        ("lenet5_half", "conv1"),
    ],
)
def test_a_whole_layer_that_is_missing_or_too_many(tmp_path, name, layer):
    """The network is not named, and told by the rest; its names are those of the file."""
    channels = 1 if name.startswith("lenet") else 3
    network, table = build(name, 3)
    image = jnp.zeros((1, 32, 32, channels))
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)
    hollow = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    state = to_torch(hollow, table)
    gone = [key for key in state if key.startswith(f"{layer}.")]
    left = {key: x for key, x in state.items() if key not in gone}
    np.savez_compressed(tmp_path / "w.npz", **left, **{"more.weight": np.zeros(2)})
    message = refused(tmp_path, tmp_path / "w.npz")
    assert f"does not fit a {name} (the nearest" in message
    listed = message.split("names another): ")[1].split("; ")
    assert listed == [*(f"{key}: missing" for key in gone), "more.weight: no place for it"]


def test_a_long_list_is_counted_and_not_printed(tmp_path, small):
    state = dict(small[1]) | {f"extra{i}.weight": np.zeros(2) for i in range(500)}
    del state["bn1.bias"]
    message = refused(tmp_path, save(tmp_path / "w.npz", state), "--arch", SMALL)
    assert "bn1.bias: missing; extra0.weight: no place for it" in message
    assert message.endswith("extra4.weight: no place for it and 495 more")
    assert len(message) < 500


def test_a_variance_below_zero(tmp_path, small):
    state = small[1] | {"bn1.running_var": np.full(64, -0.5, np.float32)}
    message = refused(tmp_path, save(tmp_path / "w.npz", state))
    assert "batch_stats/norm/var: holds a negative variance, -0.5" in message
    # a file of its own as well
    tree = jax.tree.map(np.array, small[0])
    tree["batch_stats"]["norm"]["var"][3] = -1e-3
    pretrained.save(tmp_path / "own.npz", pretrained.Pretrained(SMALL, 3, 32, 3, tree))
    assert "batch_stats/norm/var: holds a negative" in refused(tmp_path, tmp_path / "own.npz")


def test_weights_of_a_quantised_network(tmp_path, small):
    state = small[1] | {"fc.weight": np.ones((3, 64), np.int8)}
    message = refused(tmp_path, save(tmp_path / "w.npz", state))
    assert "fc.weight: holds int8 numbers" in message


def test_wrappers_from_the_command_line(tmp_path, small, capsys):
    """Settings, a NumPy number and Lightning's prefix; a second set of weights is told."""
    torch = pytest.importorskip("torch")
    state = {f"model.{name}": torch.tensor(x) for name, x in small[1].items()}
    other = {name: x + 1 for name, x in state.items()}
    content = {"args": argparse.Namespace(lr=1), "best": np.float64(1), "model_ema": other}
    torch.save({**content, "model": state}, tmp_path / "teacher.ckpt")
    run(tmp_path / "teacher.ckpt", tmp_path / "teacher.npz")
    same(pretrained.load(tmp_path / "teacher.npz").variables, small[0])
    assert "teacher.ckpt: weights: took 'model', left 'model_ema'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"side": 10**9}, "side 1000000000: is not possible"),
        ({"classes": -1}, "classes -1: is not possible"),
        ({"network": "wrn999994_1"}, "wrn999994_1: no such network"),
        ({"normalization": [1]}, "its notes are not those of train.convert"),
        ({"classes": float("inf")}, "its notes are not those of train.convert"),
    ],
)
def test_notes_that_cannot_be(tmp_path, small, change, part):
    notes = {"network": SMALL, "classes": 3, "side": 32, "channels": 3, "normalization": None}
    variables.write_variables(tmp_path / "own.npz", small[0], notes | change)
    assert part in refused(tmp_path, tmp_path / "own.npz")


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"__notes__": np.frombuffer(b"no JSON", np.uint8)}, "__notes__: is no JSON"),
        ({"__notes__": np.frombuffer(b"[" * 10**5, np.uint8)}, "__notes__: is no JSON"),
        ({"__notes__": np.frombuffer(b"[1]", np.uint8)}, "__notes__: is no JSON object"),
        (
            {"__notes__": np.frombuffer(b"{}", np.uint8), "a": np.ones(1), "a/b": np.ones(1)},
            "a/b: lies below an array",
        ),
        (
            {"__notes__": np.frombuffer(b"{}", np.uint8), "a/b": np.ones(1), "a": np.ones(1)},
            "a: lies above an array",
        ),
    ],
)
def test_notes_that_are_none(tmp_path, arrays, part):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(InputError, match=part):
        variables.read_variables(tmp_path / "own.npz")


def test_weights_that_are_near_no_network(tmp_path, small):
    few = {name: x for name, x in small[1].items() if name.startswith("block1.")}
    message = refused(tmp_path, save(tmp_path / "w.npz", few))
    assert "of no network" in message
    assert "--arch" in message
    assert "wrn40_2, resnet18" in message


def test_wrong_shapes_of_right_names_are_listed_without_a_name(tmp_path, small):
    state = small[1] | {"bn1.weight": np.zeros(63)}
    message = refused(tmp_path, save(tmp_path / "w.npz", state))
    assert "bn1.weight: shape (63,), the network has (64,)" in message


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--classes", 10), "has 3 classes, the data have 10"),
        (("--arch", "wrn16_1"), "block1.layer.1.conv1.weight: missing"),
        (("--arch", "alexnet"), "alexnet: no such network"),
        (("--arch", "mlp16"), "has no original in torch"),
        (("--trained-on", "digits"), "has 1 channels, the network 3"),
        (("--trained-on", "faces"), "no such data set; there are digits"),
    ],
)
def test_what_was_asked_for_must_be_there(tmp_path, small, options, part):
    assert part in refused(tmp_path, save(tmp_path / "w.npz", small[1]), *options)


def test_bad_files(tmp_path, small):
    state = small[1] | {"bn1.running_var": np.full(64, np.nan)}
    path = save(tmp_path / "w.npz", state)
    assert "batch_stats/norm/var: holds values that are not finite" in refused(tmp_path, path)
    path.write_bytes(path.read_bytes()[:-100])
    assert "not a whole .npz" in refused(tmp_path, path)
    with pytest.raises(InputError, match=r"out\.bin: give the output a name that ends in"):
        run(path, tmp_path / "out.bin", "--arch", SMALL)
    # a file of its own whose variables are another network's
    tree = small[0]
    notes = {"network": "wrn16_1", "classes": 3, "side": 32, "channels": 3, "normalization": None}
    variables.write_variables(tmp_path / "own.npz", tree, notes)
    message = refused(tmp_path, tmp_path / "own.npz")
    assert "does not fit a wrn16_1: " in message
    assert "batch_stats/group1_block1/norm1/mean: missing" in message
    assert message.endswith("missing and 25 more")
    grey = {"mean": [0.5], "std": [0.5]}
    notes = {**notes, "network": SMALL, "normalization": grey}
    variables.write_variables(tmp_path / "own.npz", tree, notes)
    assert "of 1 and 1 channels, the network takes 3" in refused(tmp_path, tmp_path / "own.npz")
    for std in (0.0, -0.2, float("nan"), float("inf")):
        bad = {"mean": [0.5, 0.5, 0.5], "std": [0.2, std, 0.2]}
        variables.write_variables(tmp_path / "own.npz", tree, {**notes, "normalization": bad})
        message = refused(tmp_path, tmp_path / "own.npz")
        assert f"std (0.2, {std}, 0.2): must be finite, and std positive" in message
    variables.write_variables(tmp_path / "own.npz", tree, {"network": SMALL})
    assert "its notes are not those of train.convert" in refused(tmp_path, tmp_path / "own.npz")
    model = pretrained.Pretrained(SMALL, 3, 32, 3, tree)
    pretrained.save(tmp_path / "own.npz", model)
    assert "is a wrn10_1, not a wrn16_2" in refused(
        tmp_path, tmp_path / "own.npz", "--arch", "wrn16_2"
    )


def test_an_older_file_stays_where_writing_fails(tmp_path, small, monkeypatch):
    target = tmp_path / "out.safetensors"
    run(save(tmp_path / "w.npz", small[1]), target)
    before = target.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match=r"out\.safetensors: cannot be written: No space left"):
        run(tmp_path / "w.npz", target)
    assert target.read_bytes() == before
    assert sorted(x.name for x in tmp_path.iterdir()) == ["out.safetensors", "w.npz"]


def test_other_programs_files_have_no_notes(tmp_path, small):
    with pytest.raises(InputError, match=r"no file of python -m train\.convert"):
        variables.read_variables(save(tmp_path / "w.npz", small[1]))
