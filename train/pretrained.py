"""Trained image classifiers from files: torch's weights, or those of `python -m train.convert`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from corrkd_jax.data.image_set import Normalization
from corrkd_jax.data.variables import split_notes, write_variables
from corrkd_jax.data.weights import read_weights, write_weights
from corrkd_jax.errors import InputError
from corrkd_jax.models.backbones import lenet_table, named
from corrkd_jax.models.torch_weights import Layer, to_flax, to_torch

_SIDES = {"cifar": 32, "imagenet": 224}


@dataclass(frozen=True)
class Pretrained:
    """A classifier with its weights.

    Attributes:
        network: its name, as `corrkd_jax.models.backbones.named.build` takes it.
        classes: number of classes.
        side: of the images that it was made for; it decides on a ResNet's stem.
        channels: of the images.
        variables: `params` and, with batch norms, `batch_stats`; NumPy arrays.
        normalization: what it was trained to see, or None where the file does not say.
    """

    network: str
    classes: int
    side: int
    channels: int
    variables: Any
    normalization: Normalization | None = None


def load(path: str | Path, network: str = "", classes: int = 0) -> Pretrained:
    """A classifier from a file.

    Args:
        path: `.pth` and the like, which need torch, or `.npz` or `.safetensors`, of torch's names
            or written by `save`.
        network: such as `wrn40_2`. Empty: as the weights' names and shapes say.
        classes: that it must have; 0: any number.

    Raises:
        InputError: the file cannot be read, is of another network, or has other classes; weights
            that are missing, in excess or of another shape are all listed.
    """
    arrays = read_weights(path)
    own = split_notes(arrays)
    found = _from_torch(path, arrays, network) if own is None else _from_notes(path, *own, network)
    if classes not in (0, found.classes):
        raise InputError(f"{path}: has {found.classes} classes, the data have {classes}")
    leaves = jax.tree_util.tree_leaves_with_path(found.variables)
    if bad := [place for place, x in leaves if not np.isfinite(x).all()]:
        raise InputError(f"{path}: {_slashed(bad[0])}: holds values that are not finite")
    return found


def save(path: str | Path, model: Pretrained) -> None:
    """Write a classifier as `.safetensors` or `.npz`, whole or not at all."""
    notes = {
        "network": model.network,
        "classes": model.classes,
        "side": model.side,
        "channels": model.channels,
        "normalization": model.normalization and model.normalization._asdict(),
    }
    write_variables(path, model.variables, notes)


def save_for_torch(path: str | Path, model: Pretrained) -> None:
    """Write a classifier under torch's names, `.pth`, `.safetensors` or `.npz`.

    Raises:
        InputError: torch has no such network, or the file cannot be written.
    """
    table = _table(model.network, model.side, {})
    if not table:
        raise InputError(f"{path}: a {model.network} has no original in torch")
    write_weights(path, to_torch(model.variables, table))


def _from_notes(
    path: str | Path, variables: Any, notes: Mapping[str, Any], network: str
) -> Pretrained:
    try:
        normalization = notes["normalization"]
        if normalization is not None:
            normalization = Normalization(**{k: tuple(x) for k, x in normalization.items()})
        found = Pretrained(
            str(notes["network"]),
            int(notes["classes"]),
            int(notes["side"]),
            int(notes["channels"]),
            variables,
            normalization,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its notes are not those of train.convert ({error})") from error
    told = found.normalization
    if told is not None and any(len(x) != found.channels for x in told):
        raise InputError(
            f"{path}: normalisation is of {len(told.mean)} and {len(told.std)} channels, the "
            f"network takes {found.channels}; convert it again"
        )
    if network and network != found.network:
        raise InputError(f"{path}: is a {found.network}, not a {network}")
    wanted = {_slashed(place): x.shape for place, x in _leaves(_shapes(found))}
    there = {_slashed(place): x.shape for place, x in _leaves(variables)}
    if wrong := sorted(dict(wanted.items() ^ there.items())):
        raise InputError(f"{path}: does not fit a {found.network}: {', '.join(wrong)}")
    return found


def _from_torch(path: str | Path, state: Mapping[str, np.ndarray], network: str) -> Pretrained:
    side = _SIDES["imagenet" if any("downsample" in name for name in state) else "cifar"]
    names = [network] if network else list(_fitting(state, side))
    if not names:
        raise InputError(
            f"{path}: weights of no network that is known here; say which one it should be, to "
            "see what does not fit"
        )
    problem = None
    for name in names:
        table = _table(name, side, state)
        if not table:
            raise InputError(f"{path}: a {name} has no original in torch")
        first = next((state[k].shape[1] for k in _weights(table) if _ndim(state, k) == 4), 3)
        last = next((len(state[k]) for k in _weights(table, "linear") if k in state), 1)
        model = Pretrained(name, last, side, int(first), None)
        try:
            variables = to_flax(state, table, _shapes(model), str(path))
            return Pretrained(name, last, side, int(first), variables)
        except InputError as error:
            problem = problem or error
    raise problem


def _fitting(state: Mapping[str, np.ndarray], side: int) -> Iterator[str]:
    """Networks whose layers have the names of these weights; their shapes may differ."""
    layers = {name.rpartition(".")[0] for name in state}
    names = list(named.NAMES)
    first = state.get("block1.layer.0.conv1.weight")
    if first is not None:
        blocks = sum(name.startswith("block1.layer.") and ".conv1." in name for name in state)
        names.append(f"wrn{6 * blocks + 4}_{max(1, len(first) // 16)}")
    for name in dict.fromkeys(names):
        if {layer.source for layer in _table(name, side, state)} == layers:
            yield name


def _table(name: str, side: int, state: Mapping[str, np.ndarray]) -> Sequence[Layer]:
    """Where torch's weights lie; empty for a network that torch does not have."""
    if name.startswith("lenet"):
        return lenet_table(numbered="features.0.weight" in state)
    return named.build(name, 1, side).table or ()


def _weights(table: Sequence[Layer], ending: str = "") -> list[str]:
    return [f"{layer.source}.weight" for layer in table if layer.target.endswith(ending)]


def _ndim(state: Mapping[str, np.ndarray], name: str) -> int:
    return state[name].ndim if name in state else 0


def _shapes(model: Pretrained) -> Any:
    """Variables of a classifier as shapes."""
    network = named.build(model.network, model.classes, model.side).network
    image = jnp.zeros((1, model.side, model.side, model.channels))
    return jax.eval_shape(network.init, jax.random.key(0), image)


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _slashed(place: Any) -> str:
    return jax.tree_util.keystr(place, simple=True, separator="/")
