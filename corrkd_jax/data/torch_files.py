"""Weights from files that torch wrote, with all that training programs leave beside them.

torch loads them, and is asked for weights alone. Where a file names other classes (the
`argparse.Namespace` of its settings, a NumPy number of its best accuracy), an empty stand-in takes
their place: nothing of these names is imported or called, and the weights beside them are read.
"""

import io
import mmap
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from corrkd_jax.data.file_kinds import TORCH, kind_of
from corrkd_jax.data.pickle_scan import scan_at
from corrkd_jax.errors import InputError, few, reason

RESAVE = "save its weights alone with torch.save(model.state_dict(), FILE)"
"""Advice in messages about a file that cannot be read."""

_PREFERRED = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
"""Names of a network's own weights; others, such as `model_ema`, are taken where they are alone."""

_LEVELS = 3
_OLD_PICKLES = 5
"""Pickles of torch's older form: a number, a version, the machine, the content, the tensors."""


class _StandIn:
    """Takes the place of a class that a file names; accepts anything and keeps nothing."""

    def __new__(cls, *arguments: object, **settings: object) -> "_StandIn":
        return super().__new__(cls)

    def __init__(self, *arguments: object, **settings: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass


def read_torch(path: Path, notes: list[str] | None = None) -> dict[str, np.ndarray]:
    """The network's weights from a file of torch's.

    The weights are the whole file where it holds nothing else. Else they are the one dictionary of
    tensors in it, at most three levels deep, or the one of several that is named as a network's
    own: `state_dict`, `model_state_dict`, `model`, `net`, `network`, `module` or `weights`, in this
    order. What else there was is noted.

    Args:
        path: a file of torch's, of either form.
        notes: receives what was taken and what was left.

    Returns:
        Torch name -> array; bfloat16 becomes float32.

    Raises:
        InputError: torch is absent, the file is damaged, pickles a whole module, or holds no
            weights or several sets of them.
    """
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path}: reading it needs torch; install it, or convert the file once to .safetensors"
        ) from None
    content, others = _load(path)
    sets = _sets(content, torch.Tensor)
    place = "" if "" in sets and len(sets[""]) == len(content) else _own(list(sets))
    named = place is not None and place.rpartition("/")[2] in _PREFERRED
    hidden = [name for name in _PREFERRED if isinstance(_at(content, name), _StandIn)]
    if place is None or (hidden and not named):
        modules = [name for name in others if name.startswith("torch.nn.") or ".models." in name]
        if hidden or (not sets and others):
            what = f"a whole module ({few(modules, 3)})" if modules else few(others, 3)
            where = f"{hidden[0]}: " if hidden else ""
            raise InputError(
                f"{path}: {where}pickles {what} and no weights; where you trust it, {RESAVE}"
            )
        raise InputError(
            f"{path}: must hold one dictionary of weights or name it state_dict (found: "
            f"{few(sets)}); {RESAVE}"
        )
    left = [x for x in sets if x != place]
    if notes is not None and (left or not (named or place == "")):
        rest = f", left {few(map(repr, left))}" if left else ""
        notes.append(f"weights: took {place or 'those at the top'!r}{rest}")
    try:
        return {
            name: (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy()
            for name, x in sets[place].items()
        }
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not dense arrays of numbers ({reason(error)})") from error


def _load(path: Path) -> tuple[Any, list[str]]:
    """Content of a file, and the names in it for which something stands in."""
    import torch

    others: list[str] = []
    kind = kind_of(path)
    try:
        if kind is None or kind.key != TORCH.key:
            _check_old(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True), others
        except pickle.UnpicklingError:
            others = sorted(_others(path))
            if not others:
                raise
        with torch.serialization.safe_globals([(_StandIn, name) for name in others]):
            return torch.load(path, map_location="cpu", weights_only=True), others
    except Exception as error:
        if others and isinstance(error, pickle.UnpicklingError):
            raise InputError(
                f"{path}: refused: pickles more than weights ({few(others, 3)}); where you trust "
                f"it, {RESAVE}"
            ) from error
        # damaged archives make torch raise nearly any exception
        raise InputError(f"{path}: not a whole file of torch ({reason(error)})") from error


def _check_old(path: Path) -> None:
    """Refuse a file of the older form whose pickles ask for more than the file holds.

    torch allocates what is announced, of strings and of tensors, before it reads.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, number = 0, 0
        for _ in range(_OLD_PICKLES):
            end = scan_at(data, at)[1]
            for opcode, argument, _ in pickletools.genops(data[at:end]):
                if isinstance(argument, int):
                    number = argument
                # the last number of what describes a tensor's memory is its size
                elif opcode.name == "BINPERSID" and number > len(data):
                    raise pickle.UnpicklingError(f"a tensor announces {number:,} numbers")
            at = end


def _others(path: Path) -> set[str]:
    """Names of classes and functions, none of them torch's way to store arrays, in a file."""
    kind = kind_of(path)
    with path.open("rb") as file:
        pickles, stream = _OLD_PICKLES, file
        if kind is not None and kind.key == TORCH.key:
            with zipfile.ZipFile(file) as archive:
                (name,) = [x for x in archive.namelist() if f"/{x}".endswith("/data.pkl")]
                pickles, stream = 1, io.BytesIO(archive.read(name))
        asked = {
            str(argument).replace(" ", ".")
            for _ in range(pickles)
            for opcode, argument, _ in pickletools.genops(stream)
            if opcode.name == "GLOBAL"
        }
    stored = ("torch.", "collections.OrderedDict")
    return {x for x in asked if x.startswith("torch.nn.") or not x.startswith(stored)}


def _at(content: object, name: str) -> object:
    return content.get(name) if isinstance(content, Mapping) else None


def _own(places: list[str]) -> str | None:
    """Place of the network's own weights among several; None where that is not clear."""
    if len(places) == 1:
        return places[0]
    for name in _PREFERRED:
        named = [place for place in places if place.rpartition("/")[2] == name]
        if named:
            return name if name in named else named[0] if len(named) == 1 else None
    return None


def _sets(value: object, tensor: type, place: str = "") -> dict[str, dict[str, Any]]:
    """Dictionaries of tensors by their place in a file; the one at the top has none."""
    if not isinstance(value, Mapping):
        return {}
    tensors = {k: x for k, x in value.items() if isinstance(k, str) and isinstance(x, tensor)}
    sets = {place: tensors} if any(x.ndim for x in tensors.values()) else {}
    if place.count("/") < _LEVELS - 1:
        for key, inner in value.items():
            # an optimizer numbers its tensors, and names none of the network's
            if isinstance(key, str) and not key.startswith("optim"):
                sets |= _sets(inner, tensor, f"{place}/{key}" if place else key)
    return sets
