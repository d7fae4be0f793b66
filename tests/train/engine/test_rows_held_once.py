"""Rows that lie on the device are not held by the host as well, by no program that trains on any.

A set is a few arrays; that the largest of them, or what it is a view of, is gone is seen by weak
references.
"""

import gc
import pickle
import weakref
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.msa import PRESETS
from corrkd_jax.data import planted
from corrkd_jax.data.image_set import ImageSet
from tests.train.engine import toy
from tests.train.sentiment import tiny
from train.datafree import program as dfkd
from train.datafree.inputs import Loaded
from train.datafree.inputs import release as release_images
from train.engine import loop, parallel
from train.engine.stage import vectorized
from train.images.pretrained import Pretrained
from train.sentiment import inputs
from train.sentiment import program as msa


def root(x):
    """The array that holds the memory of another."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def watched(arrays):
    return {name: weakref.ref(root(x)) for name, x in arrays.items()}


def alive(refs):
    gc.collect()
    return {name for name, ref in refs.items() if ref() is not None}


def arrays_of(sets):
    """The largest array of every set that a program reads."""
    if isinstance(sets, Loaded):
        return {n: x.images for n, x in sets._asdict().items() if isinstance(x, ImageSet)}
    return {name: rows.split.features["text"] for name, rows in sets.sets.items()}


class Placed(Exception):
    """The program has come to where it would train."""


@pytest.mark.parametrize(
    ("argv", "module", "kept"),
    [
        (("corrkd",), msa, {"test"}),
        (
            ("--model", "pooled", "--debias", "mcis"),
            inputs,
            {"valid", "valid_biased", "test", "test_iid", "test_reversed"},
        ),
        (
            ("--model", "pooled", "--debias", "suci"),
            inputs,
            {"valid", "test", "test_seen", "test_reversed"},
        ),
        (("--host", "dafl"), dfkd, {"test"}),
        (("--host", "mosaic"), dfkd, {"test"}),
    ],
    ids=["corrkd", "mcis", "suci", "dafl", "mosaic"],
)
def test_programs_let_go_of_the_rows_that_they_place(tmp_path, monkeypatch, argv, module, kept):
    """When training begins the host has nothing but what is judged at its end."""
    main = dfkd if module is dfkd else msa
    if argv == ("corrkd",):
        argv = tiny.arguments(tiny.files(tmp_path), tmp_path / "run")
    else:
        argv = [*argv, "--workdir", str(tmp_path / "run"), "--devices", "1"]
    read, load = {}, module.load

    def noted(*arguments):
        found = load(*arguments)
        read.update(watched(arrays_of(found)))
        return found

    def place(pipeline, data, *_, **__):
        copies = {
            name: max(jax.tree.leaves(rows), key=lambda x: x.nbytes)
            for name, rows in data.items()
            if name != "steps"
        }
        found["placed"] = watched(copies)
        del copies
        parallel.hand_over(data, parallel.Layout("batch", 1))
        found["read"], found["placed"] = alive(read), alive(found["placed"])
        raise Placed

    found = {}
    monkeypatch.setattr(module, "load", noted)
    monkeypatch.setattr(loop, "run", place)
    with pytest.raises(Placed):
        main.main(argv)
    assert len(read) > len(kept)
    assert found["read"] == kept
    # images are placed as they were read, and those of the test set are judged by themselves
    assert found["placed"] == ({"valid"} if module is dfkd else set())


def test_the_loop_hands_its_data_over(tmp_path, monkeypatch):
    """While it trains nothing of what it was given is left on the host."""
    replicate = parallel.replicate
    # on a CPU an array may become the device's own without being copied
    monkeypatch.setattr(
        parallel,
        "replicate",
        lambda tree, *layout: replicate(jax.tree.map(np.array, tree), *layout),
    )
    data, seen = toy.data(), []
    refs = watched({f"{s} {n}": x for s, rows in data.items() for n, x in rows.items()})

    class Looks(toy.Workdir):
        def log(self, rows):
            seen.append(alive(refs))
            super().log(rows)

    assert alive(refs) == set(refs)
    workdir = toy.claimed(tmp_path, Looks)
    pipe = toy.pipeline(parallel.Layout("batch", 1), vectorized, epochs=(1, 1))
    loop.run(pipe, data, (5,), ("plain", "soft"), workdir)
    workdir.close()
    assert not data
    assert len(seen) == 2
    assert not any(seen)


def test_what_is_left_of_a_file(tmp_path):
    """Shapes and the scaler stay, one row of each split but test."""
    content = planted.generate(3, train=64, valid=32, test=40, teacher_train=64, frames=4)[0]
    content["test_ood"] = content["valid"]
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(content))
    whole = inputs.load(replace(PRESETS["planted"].data, path=str(path)), jnp.float32)
    assert len(whole.sets["test_ood"]) == 32
    rows = watched(arrays_of(whole))
    kept = inputs.release(whole)
    shapes = {m: x.shape[1:] for m, x in whole.dataset.train.features.items()}
    del whole
    assert alive(rows) == {"test"}
    assert {m: x.shape[1:] for m, x in kept.dataset.train.features.items()} == shapes
    assert {name: len(own) for name, own in kept.sets.items()} == {
        **dict.fromkeys(("train", "valid", "test_ood"), 1),
        "test": 40,
    }
    for name, split in kept.dataset.splits.items():
        assert split is kept.sets[name].split
    for x in kept.dataset.train.features.values():
        # a view would hold on to all rows
        assert root(x).nbytes == x.nbytes
    assert kept.sets["train"].scaler is not None


def test_what_is_left_of_images():
    """One image of training and pool, none of the teacher's weights."""

    def some(count):
        labels = np.arange(count, dtype=np.int32)
        return ImageSet(np.zeros((count, 8, 8, 1), np.uint8), labels, ("a",), "some")

    teacher = Pretrained("mlp8", 10, 8, 1, {"params": np.zeros(3)})
    loaded = Loaded(some(5), some(6), some(7), teacher)
    kept = release_images(loaded)
    assert [len(x) for x in kept[:3]] == [1, 6, 1]
    assert kept.teacher == replace(teacher, variables={})
    for x in (kept.train.images, kept.train.labels, kept.pool.images):
        assert root(x).nbytes == x.nbytes
    assert release_images(Loaded(None, some(6), None, None))[::2] == (None, None)
