"""Weights from every kind of file, and what is said of files that hold none."""

import argparse
import collections
import datetime
import os
import pathlib
import sys
import types

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


WRAPPERS = {
    "settings": lambda state: {
        "state_dict": state,
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("x"), at=datetime.date(2020, 1, 1)),
    },
    "numbers of NumPy's": lambda state: {
        "model": state,
        "best_acc": np.float64(93.1),
        "history": {"loss": np.arange(3.0), "epochs": [np.int64(3)]},
    },
    "beside numbers": lambda state: {**state, "epoch": 3, "acc": np.float32(0.5), "note": "x"},
    "a counter that is a tensor": lambda state: {"net": state, "epoch": state["conv.weight"].sum()},
    "an optimizer": lambda state: {
        "network": state,
        "optimizer": {"state": {0: dict(state)}, "param_groups": [{"lr": 0.1}]},
        "optim_ema": dict(state),
    },
    "a counter of words": lambda state: {"a": {"b": state}, "words": collections.Counter("ab")},
    "teacher in a teacher": lambda state: {"teacher": {"state_dict": state, "epoch": 4}},
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", WRAPPERS)
def test_what_training_programs_leave_beside_the_weights(tmp_path, torch, state, name, old):
    path, notes = tmp_path / "teacher.pth", []
    form = {"_use_new_zipfile_serialization": not old}
    torch.save(WRAPPERS[name](state), path, **form)
    assert_weights(read_weights(path, notes))
    assert notes == (["weights: took 'a/b'"] if name == "a counter of words" else [])


def test_the_own_weights_of_several_are_taken_and_the_others_named(tmp_path, torch, state):
    other = {name: x + 1 for name, x in state.items()}
    for content, left in (
        ({"model_ema": other, "model": state}, "took 'model', left 'model_ema'"),
        ({"state_dict_ema": other, "state_dict": state}, "'state_dict', left 'state_dict_ema'"),
        ({"ema": {"model": other}, "model": state}, "took 'model', left 'ema/model'"),
    ):
        notes = []
        torch.save(content, tmp_path / "teacher.pth")
        assert_weights(read_weights(tmp_path / "teacher.pth", notes))
        assert len(notes) == 1
        assert left in notes[0]
    both = {"teacher": {"state_dict": state}, "student": {"state_dict": other}}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(InputError, match="found: teacher/state_dict, student/state_dict"):
        read_weights(tmp_path / "both.pth")


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "net.", "module.model.", "model._orig_mod."]
)
def test_prefixes_of_wrappers_are_removed(tmp_path, prefix):
    np.savez(tmp_path / "a.npz", **{f"{prefix}{name}": x for name, x in WEIGHTS.items()})
    assert_weights(read_weights(tmp_path / "a.npz"))


class _Runs:
    def __reduce__(self):
        return os.mkdir, ("run",)


@pytest.mark.parametrize("old", [False, True])
def test_a_stand_in_runs_and_imports_nothing(tmp_path, torch, state, monkeypatch, old):
    monkeypatch.chdir(tmp_path)
    form = {"_use_new_zipfile_serialization": not old}
    torch.save({"state_dict": state, "hook": _Runs()}, "teacher.pth", **form)
    with pytest.raises(InputError, match=r"teacher\.pth: refused: .*posix\.mkdir"):
        read_weights("teacher.pth")
    assert not os.path.exists("run")
    (tmp_path / "trap.py").write_text("open('sentinel', 'w')\nclass Settings: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    trap = types.ModuleType("trap")
    trap.Settings = type("Settings", (), {"__module__": "trap"})
    with monkeypatch.context() as here:
        here.setitem(sys.modules, "trap", trap)
        torch.save({"state_dict": state, "args": trap.Settings()}, "teacher.pth", **form)
    assert_weights(read_weights("teacher.pth"))
    assert not os.path.exists("sentinel")


def test_weights_in_a_class_of_the_programs_own_are_not_replaced_by_others(tmp_path, torch, state):
    """The own weights cannot be seen; their running mean must not be taken for them."""
    hidden = argparse.Namespace(**{name.replace(".", "_"): x for name, x in state.items()})
    for others in ({"ema": state}, {"loss": torch.ones(9)}):
        torch.save({"state_dict": hidden, **others}, tmp_path / "teacher.pth")
        with pytest.raises(InputError, match=r"state_dict: pickles argparse\.Namespace and no wei"):
            read_weights(tmp_path / "teacher.pth")
    torch.save({"model": hidden, "state_dict": state}, tmp_path / "teacher.pth")
    assert_weights(read_weights(tmp_path / "teacher.pth"))


def test_a_name_that_is_not_there_is_named(tmp_path, torch):
    torch.save({"a": argparse.Namespace(x=1), "b": 2}, tmp_path / "args.pth")
    with pytest.raises(InputError, match=r"pickles argparse\.Namespace and no weights"):
        read_weights(tmp_path / "args.pth")
    many = {f"net{i}": {"w.weight": torch.ones(2)} for i in range(300)}
    torch.save(many, tmp_path / "many.pth")
    with pytest.raises(InputError, match=r"net7 and 292 more\)") as caught:
        read_weights(tmp_path / "many.pth")
    assert len(str(caught.value)) < 400


def test_more_than_the_file_can_hold(tmp_path, torch):
    """A tensor without strides shows one number as a million."""
    torch.save({"a": torch.ones(1).expand(10**6, 10**4)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a: shape \(1000000, 10000\) exceeds"):
        read_weights(tmp_path / "a.pth")


def test_numbers_that_npz_cannot_name(tmp_path):
    """NumPy writes bfloat16 as two bytes of nothing."""
    import ml_dtypes

    np.savez(tmp_path / "a.npz", a=np.ones(2, ml_dtypes.bfloat16))
    with pytest.raises(InputError, match=r"a\.npz: .*a\.npy: .*neither numbers nor strings"):
        read_weights(tmp_path / "a.npz")


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
