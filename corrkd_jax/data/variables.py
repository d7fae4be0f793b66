"""Variables of a network in a file: arrays by path, and notes on what they belong to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from corrkd_jax.atomic import write_atomically
from corrkd_jax.data.weights import read_weights
from corrkd_jax.errors import InputError

ENDINGS = (".safetensors", ".npz")
"""Endings of the files that can be written."""

_NOTES = "__notes__"


def write_variables(path: str | Path, variables: Any, notes: Mapping[str, Any]) -> None:
    """Write a tree of arrays atomically.

    Args:
        path: `.safetensors` or `.npz`.
        variables: nested mappings of arrays; a leaf is named by its path, such as
            `params/stem/kernel`.
        notes: values that JSON can hold.

    Raises:
        InputError: another ending, or the file cannot be written.
    """
    path = Path(path)
    check_ending(path)
    # an array of bytes, for which both kinds of file have a place
    text = np.frombuffer(json.dumps(dict(notes)).encode(), np.uint8)
    arrays = {**dict(_leaves(variables)), _NOTES: text}
    if path.suffix == ".npz":
        write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))
        return
    import safetensors.numpy

    blob = safetensors.numpy.save({k: np.ascontiguousarray(x) for k, x in arrays.items()})
    write_atomically(path, lambda file: file.write(blob))


def check_ending(path: Path) -> None:
    """Refuse a file name whose ending is not one of `ENDINGS`.

    Args:
        path: the file.

    Raises:
        InputError: another ending.
    """
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: give the output a name that ends in {' or '.join(ENDINGS)}")


def split_notes(
    arrays: Mapping[str, np.ndarray], source: str | Path
) -> tuple[Any, dict[str, Any]] | None:
    """Tree and notes of a file's arrays.

    Args:
        arrays: path -> array, as read.
        source: the file, for messages.

    Returns:
        The tree and the notes, or None where `write_variables` did not write the file.

    Raises:
        InputError: the notes are no JSON object, or a name is both an array and the path to others.
    """
    if _NOTES not in arrays:
        return None
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise InputError(f"{source}: {name}: lies below an array; convert it again")
        if last in node:
            raise InputError(f"{source}: {name}: lies above an array; convert it again")
        node[last] = array
    del tree[_NOTES]
    try:
        notes = json.loads(arrays[_NOTES].tobytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: {_NOTES}: is no JSON; convert the file again") from error
    if not isinstance(notes, dict):
        raise InputError(f"{source}: {_NOTES}: is no JSON object; convert the file again")
    return tree, notes


def read_variables(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """Tree and notes of a file of `write_variables`.

    Args:
        path: the file.

    Returns:
        The tree of arrays, and the notes.

    Raises:
        InputError: the file is missing, damaged, or was written by another program.
    """
    found = split_notes(read_weights(path), path)
    if found is None:
        raise InputError(f"{path}: no file of python -m train.convert; convert it first")
    return found


def _leaves(tree: Any, path: str = "") -> list[tuple[str, np.ndarray]]:
    if not isinstance(tree, Mapping):
        return [(path, np.asarray(tree))]
    return [
        leaf
        for name, inner in tree.items()
        for leaf in _leaves(inner, f"{path}/{name}" if path else str(name))
    ]
