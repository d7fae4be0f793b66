"""Image sets in a few files of arrays: CIFAR, ImageNet at 32 or 64 pixels, SVHN."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corrkd_jax.data import unpickle
from corrkd_jax.data.image_set import ImageSet, Index, absent, check_labels, place_of
from corrkd_jax.data.matlab import read_matlab
from corrkd_jax.errors import InputError, few

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Planes:
    """Images in the layout of CIFAR's files, converted to NHWC when they are read.

    Attributes:
        rows: `[n, 3 side^2]` uint8: all of red row by row, then green, then blue.
    """

    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the images in NHWC, `(n, height, width, channels)`."""
        side = math.isqrt(self.rows.shape[1] // 3)
        return len(self.rows), side, side, 3

    def __getitem__(self, index: Index) -> np.ndarray:
        planes = self.rows[index].reshape(-1, 3, *self.shape[1:3])
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


def read_cifar10(root: str | Path, split: str) -> ImageSet:
    """CIFAR-10, python version.

    Args:
        root: `cifar-10-batches-py`, or the folder that holds it.
        split: `train` (`data_batch_1` to `data_batch_5`) or `test` (`test_batch`).

    Returns:
        Image set of 32 x 32 x 3.

    Raises:
        InputError: a file is missing, damaged, of another set, or has labels beyond 0 to 9.
    """
    folder = place_of(root, "cifar-10-batches-py")
    if not (folder / "batches.meta").is_file():
        raise absent(folder, "batches.meta of CIFAR-10's python version", "cifar10")
    names = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}[split]
    classes = _names(folder / "batches.meta", "label_names")
    parts = [_read_batch(folder / name, "labels", len(classes)) for name in names]
    return _image_set(parts, classes, f"{folder}: {split}")


def read_cifar100(root: str | Path, split: str) -> ImageSet:
    """CIFAR-100, python version, with its fine labels.

    Args:
        root: `cifar-100-python`, or the folder that holds it.
        split: `train` or `test`.

    Returns:
        Image set of 32 x 32 x 3.

    Raises:
        InputError: as `read_cifar10`, with 100 classes.
    """
    folder = place_of(root, "cifar-100-python")
    if not (folder / "meta").is_file():
        raise absent(folder, "meta of CIFAR-100's python version", "cifar100")
    classes = _names(folder / "meta", "fine_label_names")
    part = _read_batch(folder / split, "fine_labels", len(classes))
    return _image_set([part], classes, f"{folder}: {split}")


def read_small_imagenet(root: str | Path, split: str) -> ImageSet:
    """ImageNet scaled down to 32 x 32 or 64 x 64, python version.

    Args:
        root: folder of `train_data_batch_1` and so on, and `val_data`.
        split: `train`, all batches that are there, or `test` (`val_data`).

    Returns:
        Image set; classes are numbers from 0.

    Raises:
        InputError: no batch is there, or one is damaged or has labels beyond 1 to 1000.
    """
    folder = place_of(root)
    paths = [folder / "val_data"]
    if split == "train":
        found = folder.glob("train_data_batch_*")
        paths = sorted(found, key=lambda path: (len(path.name), path.name))
    if not paths or not paths[0].is_file():
        wanted = "train_data_batch_1" if split == "train" else "val_data"
        raise absent(folder, f"{wanted} of the python version", "imagenet32")
    parts = [_read_batch(path, "labels", IMAGENET_CLASSES, first=1) for path in paths]
    return _image_set(parts, tuple(map(str, range(IMAGENET_CLASSES))), f"{folder}: {split}")


def read_svhn(root: str | Path, split: str) -> ImageSet:
    """SVHN, cropped digits; the file's label 10 is the digit 0.

    Args:
        root: folder of `train_32x32.mat`, `test_32x32.mat` and, if wanted, `extra_32x32.mat`.
        split: `train`, `test` or `extra`.

    Returns:
        Image set of 32 x 32 x 3.

    Raises:
        InputError: the file is missing, is not of MATLAB's version 5, or lacks images or labels.
    """
    path = place_of(root) / f"{split}_32x32.mat"
    if not path.is_file():
        raise absent(path.parent, f"{path.name} of SVHN's format 2 (cropped digits)", "svhn")
    content = read_matlab(path, ("X", "y"))
    if missing := {"X", "y"} - content.keys():
        raise InputError(f"{path}: {min(missing)}: no such variable; SVHN's cropped digits have it")
    images = content["X"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2] != 3:
        raise InputError(
            f"{path}: X: is {images.dtype} {images.shape}; must be uint8 [height, width, 3, n]"
        )
    where = f"{path}: y"
    labels = check_labels(content["y"], images.shape[3], 10, where, first=1)
    images = np.ascontiguousarray(np.moveaxis(images, -1, 0))
    return ImageSet(images, (labels + 1) % 10, tuple(map(str, range(10))), str(path))


def _names(path: Path, key: str) -> tuple[str, ...]:
    names = _fields(path).get(key)
    if not isinstance(names, list) or not names:
        raise InputError(f"{path}: {key}: no list of class names; is this the data set you named?")
    return tuple(x.decode("latin1") if isinstance(x, bytes) else str(x) for x in names)


def _read_batch(
    path: Path, key: str, classes: int, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows `[n, 3 side^2]` uint8 and labels `[n]` from 0 of one file."""
    fields = _fields(path)
    for name in ("data", key):
        if name not in fields:
            raise InputError(
                f"{path}: no key {name!r} (found: {few(sorted(fields))}); is this the data set you "
                "named?"
            )
    rows = fields["data"]
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2:
        raise InputError(f"{path}: data: must be uint8 [n, 3 side^2]; check the file")
    side = math.isqrt(rows.shape[1] // 3)
    if not len(rows) or not side or rows.shape[1] != 3 * side**2:
        raise InputError(
            f"{path}: data: shape {rows.shape}; a row must hold three square planes, such as 3072 "
            "values"
        )
    return rows, check_labels(fields[key], len(rows), classes, f"{path}: {key}", first)


def _fields(path: Path) -> dict[str, Any]:
    """The dictionary of a file; its keys are bytes or, where it was pickled again, strings."""
    content = unpickle.load(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no dictionary; is this the data set you named?")
    return {k.decode("latin1") if isinstance(k, bytes) else str(k): x for k, x in content.items()}


def _image_set(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], classes: tuple[str, ...], source: str
) -> ImageSet:
    rows, labels = zip(*parts, strict=True)
    if len({x.shape[1] for x in rows}) > 1:
        raise InputError(f"{source}: data: files of images of different sizes; keep those of one")
    return ImageSet(Planes(np.concatenate(rows)), np.concatenate(labels), classes, source)
