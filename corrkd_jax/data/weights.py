"""Weights from files: torch names to NumPy arrays, without running code that a file asks for."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from corrkd_jax.atomic import write_atomically
from corrkd_jax.data.arrays import DEFLATE_RATIO, read_arrays
from corrkd_jax.data.file_kinds import NPZ, OLD_TORCH, SAFETENSORS, TORCH, check_kind, zip_members
from corrkd_jax.data.torch_files import read_torch
from corrkd_jax.errors import InputError, reason

TORCH_ENDINGS = (".pth", ".pt")
"""Endings of files that torch itself writes."""

READ_ENDINGS = (".npz", ".safetensors", *TORCH_ENDINGS, ".bin", ".tar", ".ckpt")
"""Endings of files that may hold weights; what a file is, its content says."""

_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.")
"""What torch and training programs put before every name when they wrap a network."""


def read_weights(path: str | Path, notes: list[str] | None = None) -> dict[str, np.ndarray]:
    """Weights of a torch module from a file, whose kind is told by its content.

    A file of torch's may hold the `state_dict` itself or, as training programs leave it, inside a
    dictionary beside the epoch, the optimizer and the settings; see `torch_files.read_torch`. A
    prefix that a wrapper puts before every name (`module.` of `DataParallel`, `_orig_mod.` of
    `torch.compile`, `model.` of Lightning, and the like) is removed.

    Args:
        path: `.npz`, `.safetensors`, or `.pth`, `.pt`, `.bin`, `.tar`, `.ckpt` of torch, which must
            then be installed.
        notes: receives what was chosen where a file holds more than weights.

    Returns:
        Torch name -> array; bfloat16 becomes float32.

    Raises:
        InputError: the file is missing, damaged, of another kind, holds no weights, several sets of
            them, or more of them than its size explains.
    """
    path = Path(path)
    if path.suffix.lower() not in READ_ENDINGS:
        raise InputError(f"{path}: weights must be a file named {', '.join(READ_ENDINGS)}")
    readers: dict[str, Callable[[Path], Mapping[str, np.ndarray]]] = {
        NPZ.key: read_arrays,
        SAFETENSORS.key: _read_safetensors,
        TORCH.key: lambda path: read_torch(path, notes),
        OLD_TORCH.key: lambda path: read_torch(path, notes),
    }
    # bytes that tell nothing are given to the reader that the name asks for, which refuses them
    kind = check_kind(path, "a file of weights", *readers) or {
        ".npz": NPZ.key,
        ".safetensors": SAFETENSORS.key,
    }.get(path.suffix.lower(), TORCH.key)
    weights = {name: np.asarray(x) for name, x in readers[kind](path).items()}
    if not weights:
        raise InputError(f"{path}: holds no weights; save them with torch.save or numpy.savez")
    most = DEFLATE_RATIO * path.stat().st_size
    for name, array in weights.items():
        foreign = array.dtype.type.__module__ == "ml_dtypes"  # bfloat16 and smaller
        if not foreign and array.dtype.kind not in "biuf":
            raise InputError(f"{path}: {name}: is not an array of numbers")
        if array.nbytes > most:
            raise InputError(f"{path}: {name}: shape {array.shape} exceeds what the file can hold")
        if foreign:
            weights[name] = array.astype(np.float32)
    return _unwrapped(weights)


def _unwrapped(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights without the prefixes that all their names share, one inside another."""
    for prefix in _PREFIXES * 2:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): x for name, x in weights.items()}
    return weights


def holds_weights(path: str | Path) -> bool:
    """Whether an `.npz` has members named as torch's weights are, or as `params` of variables.

    Args:
        path: the file.

    Returns:
        False for a file that cannot be opened as well.
    """
    names = zip_members(path) or []  # whoever reads a damaged one says what is wrong with it
    return any(name.endswith(".weight.npy") or name.startswith("params/") for name in names)


def write_weights(path: str | Path, weights: Mapping[str, np.ndarray]) -> None:
    """Write arrays by torch name atomically, for `module.load_state_dict`.

    Args:
        path: `.npz`, `.safetensors`, or `.pth` or `.pt`, for which torch must be installed.
        weights: torch name -> array.

    Raises:
        InputError: another ending, torch is absent, or the file cannot be written.
    """
    path = Path(path)
    arrays = {name: np.ascontiguousarray(x) for name, x in weights.items()}
    if path.suffix == ".npz":
        write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))
    elif path.suffix == ".safetensors":
        import safetensors.numpy

        blob = safetensors.numpy.save(arrays)
        write_atomically(path, lambda file: file.write(blob))
    elif path.suffix in TORCH_ENDINGS:
        try:
            import torch
        except ImportError:
            raise InputError(
                f"{path}: writing it needs torch; install it, or choose .safetensors"
            ) from None
        tensors = {name: torch.from_numpy(x.copy()) for name, x in arrays.items()}
        write_atomically(path, lambda file: torch.save(tensors, file))
    else:
        known = ", ".join((".safetensors", ".npz", *TORCH_ENDINGS))
        raise InputError(f"{path}: give the output a name that ends in one of {known}")


def _read_safetensors(path: Path) -> Mapping[str, np.ndarray]:
    import ml_dtypes  # noqa: F401  NumPy knows bfloat16 from it
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:
        # a header that is no description of arrays makes safetensors raise nearly any exception
        raise InputError(f"{path}: not a whole .safetensors ({reason(error)})") from error
