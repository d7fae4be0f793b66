"""Trained image classifiers from files: torch's weights, or those of `python -m train.convert`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from corrkd_jax.data.image_set import Normalization
from corrkd_jax.data.variables import split_notes, write_variables
from corrkd_jax.data.weights import read_weights, write_weights
from corrkd_jax.errors import InputError, few, reason
from corrkd_jax.models.backbones import lenet_table, named
from corrkd_jax.models.torch_weights import Layer, convolution, to_flax, to_torch
from train.engine.progress import say

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


def load(
    path: str | Path, network: str = "", classes: int = 0, option: str = "--arch"
) -> Pretrained:
    """A classifier from a file.

    Args:
        path: `.pth` and the like, which need torch, or `.npz` or `.safetensors`, of torch's names
            or written by `save`.
        network: such as `wrn40_2`. Empty: as the weights' names and shapes say.
        classes: that it must have; 0: any number.
        option: of the command line that names the network, for messages.

    Raises:
        InputError: the file cannot be read, is of another network, or has other classes; weights
            that are missing, in excess or of another shape are counted and the first ones named;
            one is no float or not finite; a variance is negative.
    """
    chosen: list[str] = []
    arrays = read_weights(path, chosen)
    for note in chosen:
        say(f"{path}: {note}")
    with_notes = split_notes(arrays, path)
    if with_notes is None:
        _check_floats(path, arrays)
        model = _from_torch(path, arrays, network, classes, option)
    else:
        model = _from_notes(path, *with_notes, network)
    if classes not in (0, model.classes):
        raise InputError(f"{path}: has {model.classes} classes, the data have {classes}")
    leaves = {_slashed(place): x for place, x in _leaves(model.variables)}
    _check_floats(path, leaves)
    for name, array in leaves.items():
        if not np.isfinite(array).all():
            raise InputError(f"{path}: {name}: holds values that are not finite")
        if name.startswith("batch_stats/") and name.endswith("/var") and array.min() < 0:
            raise InputError(
                f"{path}: {name}: holds a negative variance, {array.min():g}; the file is damaged "
                "or of another network"
            )
    return model


def _check_floats(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse integers, of which only counters without axes are no weights."""
    for name, array in arrays.items():
        if array.ndim and array.dtype.kind != "f":
            raise InputError(
                f"{path}: {name}: holds {array.dtype} numbers, as a quantised network does; save "
                "its weights as floats"
            )


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
            normalization = Normalization(
                **{k: tuple(map(float, x)) for k, x in normalization.items()}
            )
        model = Pretrained(
            str(notes["network"]),
            int(notes["classes"]),
            int(notes["side"]),
            int(notes["channels"]),
            variables,
            normalization,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path}: its notes are not those of train.convert ({reason(error)})"
        ) from error
    sizes = {"classes": model.classes, "side": model.side, "channels": model.channels}
    if wrong := [name for name, size in sizes.items() if not 0 < size < 2**20]:
        raise InputError(f"{path}: {wrong[0]} {sizes[wrong[0]]}: is not possible; convert it again")
    noted = model.normalization
    if noted is not None and any(len(x) != model.channels for x in noted):
        raise InputError(
            f"{path}: normalisation is of {len(noted.mean)} and {len(noted.std)} channels, the "
            f"network takes {model.channels}; convert it again"
        )
    if noted is not None and not (np.isfinite(noted).all() and min(noted.std) > 0):
        raise InputError(
            f"{path}: normalisation of mean {noted.mean} and std {noted.std}: must be finite, and "
            "std positive; convert it again"
        )
    if network and network != model.network:
        raise InputError(f"{path}: is a {model.network}, not a {network}")
    expected = {_slashed(place): x.shape for place, x in _leaves(_shapes(model))}
    given = {_slashed(place): x.shape for place, x in _leaves(variables)}
    if any(wrong := _wrong(given, expected)):
        raise InputError(f"{path}: does not fit a {model.network}: {_named(wrong)}")
    return model


def _from_torch(
    path: str | Path, state: Mapping[str, np.ndarray], network: str, classes: int, option: str
) -> Pretrained:
    side = _SIDES["imagenet" if any("downsample" in name for name in state) else "cifar"]
    names = [network] if network else _near(state, side)
    if not names:
        raise InputError(
            f"{path}: weights of no network that is known here; name the one that it should be "
            f"with {option}, to see what does not fit: {', '.join(named.NAMES)}"
        )
    misfits = []
    for name in names:
        table = _table(name, side, state)
        if not table:
            raise InputError(f"{path}: a {name} has no original in torch")
        stem = next(f"{layer.source}.weight" for layer in table if layer.kind is convolution)
        head = next(layer.source for layer in table if layer.target.endswith("linear"))
        channels = state[stem].shape[1] if stem in state and state[stem].ndim == 4 else 3
        ends = [state[k] for k in (f"{head}.weight", f"{head}.bias") if k in state]
        last = next((len(x) for x in ends if x.ndim), classes)
        # a size of 0 is shown as one that does not fit
        model = Pretrained(name, last or 1, side, int(channels) or 1, None)
        shapes = _shapes(model)
        if not any(wrong := _wrong_in_torch(state, table, shapes)):
            return replace(model, variables=to_flax(state, table, shapes, str(path)))
        misfits.append((name, wrong))
    name, wrong = min(misfits, key=lambda pair: sum(map(len, pair[1])))
    assumed = "" if network else f" (the nearest network known here; {option} names another)"
    raise InputError(f"{path}: does not fit a {name}{assumed}: {_named(wrong)}")


def _near(state: Mapping[str, np.ndarray], side: int) -> list[str]:
    """Networks of whose layers at least half are there by name, the likeliest first."""
    layers = {name.rpartition(".")[0] for name in state}
    names = list(named.NAMES)
    blocks = [
        (int(group), int(number), len(weight))
        for name, weight in state.items()
        for group, number in re.findall(r"^block(\d)\.layer\.(\d{1,3})\.conv1\.weight$", name)
        if weight.ndim == 4
    ]
    if blocks:
        group, _, width = blocks[0]
        depth = 6 * (1 + max(number for _, number, _ in blocks)) + 4
        names.append(f"wrn{depth}_{max(1, width // (8 << group))}")
    shared = {}
    for name in names:
        known = {layer.source for layer in _table(name, side, state)}
        if 2 * len(known & layers) >= len(known):
            shared[name] = len(known & layers) / len(known | layers)
    return sorted(shared, key=lambda name: -shared[name])


def _table(name: str, side: int, state: Mapping[str, np.ndarray]) -> Sequence[Layer]:
    """Where torch's weights lie; empty for a network that torch does not have."""
    if name.startswith("lenet"):
        return lenet_table(numbered="features.0.weight" in state)
    return named.build(name, 1, side).table or ()


def _wrong_in_torch(
    state: Mapping[str, np.ndarray], table: Sequence[Layer], shapes: Any
) -> list[list[str]]:
    """`_wrong` by torch's names, whose shapes are those of the variables laid out for torch."""
    hollow = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    expected = {name: x.shape for name, x in to_torch(hollow, table).items()}
    ignored = {f"{layer.source}.{name}" for layer in table for name in layer.kind.ignored}
    return _wrong({k: x.shape for k, x in state.items() if k not in ignored}, expected)


def _wrong(
    given: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> list[list[str]]:
    """The arrays that are missing, in excess and of another shape, from names to shapes."""
    return [
        [f"{name}: missing" for name in expected if name not in given],
        [f"{name}: no place for it" for name in given if name not in expected],
        [
            f"{name}: shape {given[name]}, the network has {shape}"
            for name, shape in expected.items()
            if given.get(name, shape) != shape
        ],
    ]


def _named(wrong: Sequence[Sequence[str]]) -> str:
    """The first of each kind of misfit, and how many more there are."""
    return "; ".join(few(kind, 5, "; ") for kind in wrong if kind)


def _shapes(model: Pretrained) -> Any:
    """Variables of a classifier as shapes."""
    network = named.build(model.network, model.classes, model.side).network
    # a shape alone: sizes come from a file
    image = jax.ShapeDtypeStruct((1, model.side, model.side, model.channels), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), image)


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _slashed(place: Any) -> str:
    return jax.tree_util.keystr(place, simple=True, separator="/")
