"""Weights from every kind of file, and what is said of files that hold none."""

import numpy as np
import pytest
import safetensors.numpy

from corrkd_jax.data.weights import read_weights
from corrkd_jax.errors import InputError

WEIGHTS = {
    "conv.weight": np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2),
    "bn.num_batches_tracked": np.int64(7),
}
DAMAGED = b"PK\x03\x04 and nothing more"


def assert_weights(found):
    assert list(found) == list(WEIGHTS)
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def state(torch):
    return {name: torch.tensor(x) for name, x in WEIGHTS.items()}


def test_npz(tmp_path):
    np.savez(tmp_path / "teacher.npz", **WEIGHTS)
    assert_weights(read_weights(tmp_path / "teacher.npz"))


def test_safetensors(tmp_path):
    path = tmp_path / "teacher.safetensors"
    safetensors.numpy.save_file({name: np.asarray(x) for name, x in WEIGHTS.items()}, path)
    found = read_weights(path)
    assert_weights({name: found[name] for name in WEIGHTS})


def test_torch_state(tmp_path, torch, state):
    torch.save(state, tmp_path / "teacher.pth")
    assert_weights(read_weights(tmp_path / "teacher.pth"))


def test_torch_checkpoint_of_a_training_program(tmp_path, torch, state):
    parallel = {f"module.{name}": x for name, x in state.items()}
    checkpoint = {"epoch": 3, "arch": "wrn40_2", "state_dict": parallel, "ema": state}
    torch.save(checkpoint, tmp_path / "teacher.pth")
    assert_weights(read_weights(tmp_path / "teacher.pth"))
    torch.save({"epoch": 3, "net": state}, tmp_path / "teacher.pt")
    assert_weights(read_weights(tmp_path / "teacher.pt"))


def test_a_prefix_of_some_names_stays(tmp_path):
    np.savez(tmp_path / "a.npz", **{"module.a": np.ones(1), "b": np.ones(1)})
    assert list(read_weights(tmp_path / "a.npz")) == ["module.a", "b"]


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_bfloat16_comes_as_float32(tmp_path, torch, suffix):
    save = torch.save if suffix == "pth" else pytest.importorskip("safetensors.torch").save_file
    save({"a": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}, tmp_path / f"a.{suffix}")
    found = read_weights(tmp_path / f"a.{suffix}")["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [1.5, -2.0])


def test_a_pickled_module_is_refused_unread(tmp_path, torch):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "teacher")
    (tmp_path / "teacher").rename(tmp_path / "teacher.pth")
    with pytest.raises(InputError, match=r"whole module \(torch\.nn\.modules\.linear\.Linear\)"):
        read_weights(tmp_path / "teacher.pth")


def test_two_candidates_are_no_choice(tmp_path, torch, state):
    torch.save({"student": state, "generator": state}, tmp_path / "both.pth")
    with pytest.raises(InputError, match="found: student, generator"):
        read_weights(tmp_path / "both.pth")


def test_sparse_tensors_are_refused(tmp_path, torch):
    torch.save({"a": torch.eye(2).to_sparse()}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="not dense arrays"):
        read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pth"])
@pytest.mark.parametrize("content", [b"", DAMAGED])
def test_damaged_files(tmp_path, suffix, content):
    if suffix == "pth":
        pytest.importorskip("torch")
    path = tmp_path / f"teacher.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^[^\n]*teacher[^\n]*$"):
        read_weights(path)


def test_files_that_hold_something_else(tmp_path):
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    np.savez(tmp_path / "strings.npz", a=np.array(["x"]))
    np.savez(tmp_path / "nothing.npz")
    for name, words in (
        ("objects.npz", "not a whole"),
        ("strings.npz", "a: is not an array of numbers"),
        ("nothing.npz", "an empty zip archive, not a file of weights"),
        ("absent.npz", "no such file"),
        ("teacher.onnx", r"must be a file named \.npz"),
    ):
        with pytest.raises(InputError, match=words):
            read_weights(tmp_path / name)
