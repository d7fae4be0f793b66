"""Conversion of torch weights to Flax variables and back, by a table of layers.

A table says, layer by layer, where a torch module's weights lie in a Flax model and what kind of
layer it is. It is read in both directions. NumPy alone is needed; `state` is any mapping of names
to arrays, such as a torch `state_dict` turned into NumPy.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from corrkd_jax.errors import InputError, few

Arrays = dict[str, np.ndarray]
Change = Callable[[np.ndarray], np.ndarray]


class Kind(NamedTuple):
    """Names and layouts of the arrays of one layer on both sides.

    Both functions are given all arrays below the layer and index those that they convert. An array
    that they did not index belongs to another row. An absent one they skip, and it is reported.

    Attributes:
        to_flax: arrays by torch suffix (`weight`) -> arrays by Flax path (`params/kernel`).
        to_torch: the inverse.
        ignored: torch suffixes without a counterpart, dropped.
    """

    to_flax: Callable[[Arrays], Arrays]
    to_torch: Callable[[Arrays], Arrays]
    ignored: tuple[str, ...] = ()


class Layer(NamedTuple):
    """Row of a table.

    Attributes:
        source: torch name of the module, without its trailing dot; empty for the model itself.
        target: Flax path of the module below the collection, with slashes.
        kind: kind of layer.
        at: index on the leading axes of the Flax arrays, where like layers are stacked.
    """

    source: str
    target: str
    kind: Kind
    at: tuple[int, ...] = ()


def renamed(*names: tuple[str, str, Change | tuple[Change, Change] | None]) -> Kind:
    """Kind whose arrays are renamed and laid out anew, one by one.

    Args:
        names: torch suffix, Flax path with its collection, and the change of layout: None, a
            function that is its own inverse, or one for each direction, to Flax first.

    Returns:
        `Kind`.
    """
    rows = []
    for name, path, change in names:
        there, back = change if isinstance(change, tuple) else (change or _same,) * 2
        rows.append((name, path, there, back))

    def to_flax(arrays: Arrays) -> Arrays:
        return {path: there(arrays[name]) for name, path, there, _ in rows if name in arrays}

    def to_torch(arrays: Arrays) -> Arrays:
        return {name: back(arrays[path]) for name, path, _, back in rows if path in arrays}

    return Kind(to_flax, to_torch)


def parameter(path: str, change: Change | tuple[Change, Change] | None = None) -> Kind:
    """Kind of a bare parameter: the layer's `source` is its whole torch name.

    Args:
        path: Flax path with the collection, relative to the layer's target.
        change: change of layout, as in `renamed`.

    Returns:
        `Kind`.
    """
    return renamed(("", path, change))


def ignored(*names: str) -> Kind:
    """Kind of arrays that have no place in the Flax model, such as buffers of constants.

    Args:
        names: torch suffixes; an empty one is the layer's `source` itself.

    Returns:
        `Kind`.
    """
    return Kind(lambda _: {}, lambda _: {}, names)


def lstm(suffix: str = "l0") -> Kind:
    """Kind of one direction of one layer: `nn.LSTM` <-> `nn.OptimizedLSTMCell`.

    torch adds two biases, Flax has one: their sum. On the way back the second one is zero.

    Args:
        suffix: torch's name of layer and direction, such as `l0` or `l0_reverse`.

    Returns:
        `Kind`.
    """
    gates = "ifgo"
    inputs, hidden, *biases = (
        f"{name}_{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )

    def to_flax(arrays: Arrays) -> Arrays:
        found = {}
        for name, part in ((inputs, "i"), (hidden, "h")):
            if name in arrays:
                kernels = np.split(arrays[name].T, 4, axis=1)
                found |= {
                    f"params/{part}{g}/kernel": x for g, x in zip(gates, kernels, strict=True)
                }
        if all(name in arrays for name in biases):
            total = np.split(arrays[biases[0]] + arrays[biases[1]], 4)
            found |= {f"params/h{g}/bias": x for g, x in zip(gates, total, strict=True)}
        return found

    def to_torch(arrays: Arrays) -> Arrays:
        found = {}
        for name, part in ((inputs, "i{}/kernel"), (hidden, "h{}/kernel"), (biases[0], "h{}/bias")):
            paths = [f"params/{part.format(gate)}" for gate in gates]
            if all(path in arrays for path in paths):
                found[name] = np.concatenate([arrays[path].T for path in paths])
        if biases[0] in found:
            found[biases[1]] = np.zeros_like(found[biases[0]])
        return found

    return Kind(to_flax, to_torch)


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _transposed(x: np.ndarray) -> np.ndarray:
    return np.swapaxes(x, 0, 1)


def _mirrored(x: np.ndarray) -> np.ndarray:
    return np.flip(x, tuple(range(x.ndim - 2)))


linear = renamed(("weight", "params/kernel", _transposed), ("bias", "params/bias", None))
"""`nn.Linear` <-> `nn.Dense`."""

convolution = renamed(
    (
        "weight",
        "params/kernel",
        (lambda x: np.moveaxis(x, (0, 1), (-1, -2)), lambda x: np.moveaxis(x, (-1, -2), (0, 1))),
    ),
    ("bias", "params/bias", None),
)
"""`nn.Conv1d` / `nn.Conv2d` <-> `nn.Conv`: `[out, in, ...]` <-> `[..., in, out]`; grouped too."""

transposed_convolution = renamed(
    (
        "weight",
        "params/kernel",
        (
            lambda x: _mirrored(np.moveaxis(x, (0, 1), (-2, -1))),
            lambda x: np.moveaxis(_mirrored(x), (-2, -1), (0, 1)),
        ),
    ),
    ("bias", "params/bias", None),
)
"""`nn.ConvTranspose2d` (`[in, out, h, w]`) <-> `nn.ConvTranspose` with `transpose_kernel=False`.

torch's is the gradient of a convolution, so the window is mirrored.
"""

query_key_value = renamed(
    ("in_proj_weight", "params/kernel", _transposed), ("in_proj_bias", "params/bias", None)
)
"""The joint projection of `nn.MultiheadAttention` <-> that of `models.transformer`."""

layer_norm = renamed(("weight", "params/scale", None), ("bias", "params/bias", None))
"""`nn.LayerNorm` on both sides (torch's epsilon is 1e-5, Flax's 1e-6)."""

batch_norm = renamed(
    ("weight", "params/scale", None),
    ("bias", "params/bias", None),
    ("running_mean", "batch_stats/mean", None),
    ("running_var", "batch_stats/var", None),
)._replace(ignored=("num_batches_tracked",))
"""`nn.BatchNorm*` on both sides."""

embedding = renamed(("weight", "params/embedding", None))
"""`nn.Embedding` <-> `nn.Embed`."""


def to_flax(state: Mapping[str, Any], table: Sequence[Layer], like: Any, source: str) -> Any:
    """Flax variables from torch weights, strictly.

    Args:
        state: torch names -> arrays.
        table: the model's layers; rows may share a `source`, as directions of an LSTM do.
        like: variables of the Flax model, or their shapes and dtypes from `jax.eval_shape`.
        source: name of the weights in messages, such as the file.

    Returns:
        A tree like `like`, NumPy arrays.

    Raises:
        InputError: weights without a place, places without a weight, shapes that differ; the first
            ones are named and all are counted.
        ValueError: the table fills a place twice.
    """
    wanted = dict(_leaves(like))
    found = {path: np.empty(x.shape, x.dtype) for path, x in wanted.items()}
    missing = {path: np.ones(_stack(path, x.shape, table), bool) for path, x in wanted.items()}
    used, problems = set(), []
    for layer in table:
        below = ((name, _below(name, layer.source, ".")) for name in state)
        arrays = _Noted({inner: state[name] for name, inner in below if inner is not None})
        try:
            converted = layer.kind.to_flax(arrays)
        except (KeyError, ValueError, IndexError) as error:
            problems.append(f"{layer.source}: cannot be converted ({error})")
            converted = {}
        used |= {_joined(".", layer.source, name) for name in (*arrays.read, *layer.kind.ignored)}
        for inner, array in converted.items():
            collection, _, rest = inner.partition("/")
            path = _joined("/", collection, layer.target, rest)
            place = path + (str(list(layer.at)) if layer.at else "")
            try:
                into = found[path][layer.at]
            except (KeyError, IndexError):
                problems.append(f"{place}: not in the model")
                continue
            if not np.all(missing[path][layer.at]):
                raise ValueError(f"the table fills {place} twice")
            missing[path][layer.at] = False
            if into.shape != array.shape:
                problems.append(f"{place}: shape {array.shape}, the model has {into.shape}")
            else:
                found[path][layer.at] = array
    problems += [f"{name}: no place for it" for name in state if name not in used]
    for path, absent in missing.items():
        for at in np.argwhere(absent).tolist():
            problems.append(f"{path}{at or ''}: missing")
    if problems:
        raise InputError(f"{source}: does not fit the model: {few(problems, 8, '; ')}")
    return _tree(found)


def to_torch(variables: Any, table: Sequence[Layer]) -> Arrays:
    """Torch weights from Flax variables, the inverse of `to_flax`, without ignored arrays.

    Args:
        variables: tree of the Flax model's variables.
        table: the model's layers.

    Returns:
        Torch names -> arrays.

    Raises:
        ValueError: no row of the table takes a variable; the first such variables are named.
    """
    flat = {path: np.asarray(x) for path, x in _leaves(variables)}
    state, used = {}, set()
    for layer in table:
        arrays, origin = _Noted(), {}
        for path, array in flat.items():
            collection, _, rest = path.partition("/")
            inner = _below(rest, layer.target, "/")
            if inner is not None:
                origin[_joined("/", collection, inner)] = path
                arrays[_joined("/", collection, inner)] = array[layer.at]
        for name, array in layer.kind.to_torch(arrays).items():
            state[_joined(".", layer.source, name)] = array
        used |= {origin[inner] for inner in arrays.read}
    if lost := [path for path in flat if path not in used]:
        raise ValueError(f"the table has no row for {few(lost)}")
    return state


class _Noted(dict):
    """Arrays by name, turned into NumPy when they are indexed, and the names that were."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        array = np.asarray(super().__getitem__(name))
        self.read.add(name)
        return array


def _below(name: str, parent: str, separator: str) -> str | None:
    """Rest of `name` after `parent`: all of it for no parent, None if it lies elsewhere."""
    if not parent:
        return name
    if name == parent:
        return ""
    return name.removeprefix(parent + separator) if name.startswith(parent + separator) else None


def _joined(separator: str, *names: str) -> str:
    return separator.join(filter(None, names))


def _stack(path: str, shape: tuple[int, ...], table: Sequence[Layer]) -> tuple[int, ...]:
    """The leading axes of an array on which its table stacks layers."""
    rest = path.partition("/")[2]
    depths = [len(x.at) for x in table if _below(rest, x.target, "/") is not None]
    return shape[: max(depths, default=0)]


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for key, value in tree.items():
        yield from _leaves(value, _joined("/", path, str(key)))


def _tree(flat: Mapping[str, Any]) -> Any:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    return tree
