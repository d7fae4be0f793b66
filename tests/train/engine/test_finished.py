"""Finished runs: arms by name, seeds by number."""

import json
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.errors import InputError
from train.engine.finished import (
    METADATA,
    Finished,
    by_arm,
    choose,
    metadata_as,
    program_of,
    zeros,
)
from train.engine.workdir import CONFIG


@dataclass(frozen=True)
class Config:
    seeds: int = 2
    first_seed: int = 7


def finished():
    stacked = {"w": np.arange(2 * 3 * 4).reshape(2, 3, 4)}
    return Finished("preset", Config(), by_arm(stacked, ["a", "b", "c"]))


def test_one_model_of_a_run():
    run = finished()
    assert run.arms == ("a", "b", "c")
    assert list(run.seeds) == [7, 8]
    np.testing.assert_array_equal(run.one("b")["w"], [4, 5, 6, 7])
    np.testing.assert_array_equal(run.one("c", 8)["w"], [20, 21, 22, 23])
    assert [run.seed(seed) for seed in (0, 7, 8)] == [7, 7, 8]
    with pytest.raises(InputError, match="--seed 9: the run has seeds 7 to 8"):
        run.seed(9)


def test_by_arm_copies_nothing():
    stacked = {"w": np.zeros((2, 3, 4))}
    assert np.shares_memory(by_arm(stacked, ["a", "b", "c"])["b"]["w"], stacked["w"])


def test_zeros_have_a_models_shapes_and_types_behind_the_lanes():
    shapes = jax.eval_shape(lambda: {"w": jnp.ones((4, 2)), "count": jnp.int32(1)})
    models = zeros(shapes, 3, 5)
    assert {name: (x.shape, x.dtype.name) for name, x in models.items()} == {
        "w": ((3, 5, 4, 2), "float32"),
        "count": ((3, 5), "int32"),
    }
    assert not any(x.any() for x in models.values())


@pytest.mark.parametrize(
    ("arm", "seed", "message"),
    [
        ("d", 0, "--arm d: the run has a; b; c"),
        ("a", 9, "--seed 9: the run has seeds 7 to 8"),
        ("a", 6, "--seed 6: the run has seeds 7 to 8"),
    ],
)
def test_what_a_run_does_not_have_is_refused(arm, seed, message):
    with pytest.raises(InputError, match=message):
        finished().one(arm, seed)


def test_rows_are_chosen_by_name_and_in_that_order():
    rows = {"one": 1, "two": 2, "three": 3}
    assert choose(rows, ["three", "one"]) == {"three": 3, "one": 1}
    assert list(choose(rows, ["three", "one"])) == ["three", "one"]
    with pytest.raises(InputError, match=r"--arms 'four': choose from 'one', 'two', 'three'"):
        choose(rows, ["one", "four"])
    with pytest.raises(InputError, match=r"--rows 'one': stands twice"):
        choose(rows, ["one", "one"], "--rows")


def test_metadata_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="not finished yet"):
        metadata_as(dict, tmp_path)
    for text in ("{", "[]", '{"a": 1}'):
        (tmp_path / "model.json").write_text(text)
        with pytest.raises(InputError, match=r"model\.json: damaged"):
            metadata_as(lambda saved: saved["task"], tmp_path)


def test_the_program_of_a_run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"program": "msa"}))
    assert program_of(tmp_path) == "msa"
    (tmp_path / "config.json").write_text("[]")
    assert program_of(tmp_path) == ""


@pytest.mark.parametrize("name", [CONFIG, METADATA])
def test_json_that_is_nested_without_end_is_one_line(tmp_path, name):
    (tmp_path / name).write_text("[" * 100_000)
    read = program_of if name == CONFIG else partial(metadata_as, dict)
    with pytest.raises(InputError, match=name):
        read(tmp_path)
