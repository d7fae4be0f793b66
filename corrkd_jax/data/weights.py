"""Weights from files: torch names to NumPy arrays, without running code that a file asks for."""

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from corrkd_jax.atomic import write_atomically
from corrkd_jax.errors import InputError

TORCH_ENDINGS = (".pth", ".pt")
"""Endings of files that torch itself writes."""

RESAVE = "save its weights alone with torch.save(model.state_dict(), FILE)"
"""Advice in messages about a file that cannot be read."""


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Weights of a torch module from a file.

    A file of torch's may hold the `state_dict` itself or, as training programs leave it, inside a
    dictionary beside the epoch and the optimizer. The prefix `module.`, which torch's
    `DataParallel` puts before every name, is removed.

    Args:
        path: `.npz`, `.safetensors`, or `.pth`, `.pt`, `.bin` or `.tar` of torch, which must then
            be installed; a file of torch's that pickles more than weights is refused unread.

    Returns:
        Torch name -> array; bfloat16 becomes float32.

    Raises:
        InputError: the file is missing, damaged, of another kind, or holds no weights.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], Mapping[str, np.ndarray]]] = {
        ".npz": _read_npz,
        ".safetensors": _read_safetensors,
        **dict.fromkeys((".pth", ".pt", ".bin", ".tar"), _read_torch),
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: weights must be a file named {', '.join(readers)}")
    if not path.is_file():
        raise InputError(f"{path}: {'is no file' if path.exists() else 'no such file'}")
    weights = {name: np.asarray(x) for name, x in readers[path.suffix.lower()](path).items()}
    if not weights:
        raise InputError(f"{path}: holds no weights; {RESAVE}")
    # bfloat16 is of kind V, as are all numbers that are not NumPy's own
    weights = {k: x.astype(np.float32) if x.dtype.kind == "V" else x for k, x in weights.items()}
    if bad := [name for name, x in weights.items() if x.dtype.kind not in "biuf"]:
        raise InputError(f"{path}: {bad[0]}: is not an array of numbers")
    if all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): x for name, x in weights.items()}
    return weights


def holds_weights(path: str | Path) -> bool:
    """Whether an `.npz` has members named as torch's weights are, or as `params` of variables.

    Args:
        path: the file.

    Returns:
        False for a file that cannot be opened as well.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False  # whoever reads it says what is wrong with it
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


def _read_npz(path: Path) -> Mapping[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a whole .npz of plain arrays ({_line(error)})") from error


def _read_safetensors(path: Path) -> Mapping[str, np.ndarray]:
    import ml_dtypes  # noqa: F401  NumPy knows bfloat16 from it
    import safetensors
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a whole .safetensors ({_line(error)})") from error


def _read_torch(path: Path) -> Mapping[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path}: reading it needs torch; install it, or convert the file once to .safetensors"
        ) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: refused: pickles more than weights, such as a whole module, or is damaged; "
            f"where you trust it, {RESAVE}"
        ) from error
    except Exception as error:
        # damaged archives make torch raise nearly any exception
        raise InputError(f"{path}: not a whole file of torch ({_line(error)})") from error

    def tensors(value: object) -> bool:
        return (
            isinstance(value, Mapping)
            and len(value) > 0
            and all(isinstance(k, str) and isinstance(x, torch.Tensor) for k, x in value.items())
        )

    if not tensors(loaded):
        inside = {k: x for k, x in loaded.items() if tensors(x)} if isinstance(loaded, dict) else {}
        if "state_dict" not in inside and len(inside) != 1:
            found = ", ".join(map(str, inside)) or "none"
            raise InputError(
                f"{path}: must hold one dictionary of weights or name it state_dict (found: "
                f"{found}); {RESAVE}"
            )
        loaded = inside.get("state_dict", next(iter(inside.values())))
    try:
        return {
            name: (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy()
            for name, x in loaded.items()
        }
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not dense arrays of numbers ({_line(error)})") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
