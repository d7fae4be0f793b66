"""Images with their labels: the result of every reader of image data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np

from corrkd_jax.data.file_kinds import MATLAB, PICKLE, check_kind
from corrkd_jax.errors import InputError, few

Index = np.ndarray | slice
"""Rows of an image set: integer numbers, a mask, or a slice."""

_SIGNS = {
    "data_batch_1.bin": "CIFAR-10's binary version; download the python version",
    "cifar-10-batches-bin": "CIFAR-10's binary version; download the python version",
    "data_batch_1.mat": "CIFAR-10's MATLAB version; download the python version",
    "cifar-10-batches-mat": "CIFAR-10's MATLAB version; download the python version",
    "fine_label_names.txt": "CIFAR-100's binary version; download the python version",
    "cifar-100-binary": "CIFAR-100's binary version; download the python version",
    "cifar-100-matlab": "CIFAR-100's MATLAB version; download the python version",
    "data_batch_1": "CIFAR-10; name the set cifar10",
    "cifar-10-batches-py": "CIFAR-10; name the set cifar10",
    "meta": "CIFAR-100; name the set cifar100",
    "cifar-100-python": "CIFAR-100; name the set cifar100",
    "train_data_batch_1": "ImageNet at 32 or 64 pixels; name the set imagenet32",
    "train_32x32.mat": "SVHN; name the set svhn",
    "tiny-imagenet-200": "Tiny-ImageNet; name the set tiny_imagenet",
}
"""Files and folders by which a version or a set that was not asked for is known."""

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")


class Images(Protocol):
    """Source of rows of pixels: an array, a memory map, or files decoded on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all images, `(n, height, width, channels)`."""
        ...

    def __getitem__(self, index: Index) -> np.ndarray:
        """Some rows, `[k, height, width, channels]` uint8."""
        ...


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, in memory or on disk.

    Attributes:
        images: `[n, height, width, channels]` uint8, or a lazy source of such rows.
        labels: `[n]` int32 in `[0, len(classes))`, or None for a pool without labels.
        classes: names of the classes, in the order of the labels; empty without labels.
        source: file or folder, for messages.
        white: value of a pixel that means 1.0; digits have 16.
        notes: what a user should know of the reading, such as files that were skipped.
    """

    images: np.ndarray | Images
    labels: np.ndarray | None
    classes: tuple[str, ...]
    source: str
    white: int = 255
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def nbytes(self) -> int:
        """Number of bytes of the pixels on a device."""
        return int(np.prod(self.images.shape, dtype=np.int64))

    def take(self, index: Index = slice(None)) -> dict[str, np.ndarray]:
        """Some rows as arrays, all of them by default.

        Args:
            index: rows to take.

        Returns:
            `images` `[k, height, width, channels]` uint8; `labels` `[k]` int32, -1 where there are
            none; `row` `[k]` float32 ones, the weights of real rows.
        """
        images = np.asarray(self.images[index])
        unknown = self.labels is None
        return {
            "images": images,
            "labels": np.full(len(images), -1, np.int32) if unknown else self.labels[index],
            "row": np.ones(len(images), np.float32),
        }

    def first(self) -> Self:
        """Set of the first image alone, copied.

        Returns:
            An image set of one row, in memory.
        """
        labels = None if self.labels is None else self.labels[:1].copy()
        return replace(self, images=np.array(self.images[:1]), labels=labels)


class Normalization(NamedTuple):
    """Normalisation that a network was trained with: `(x - mean) / std` of x in [0, 1], by channel.

    Attributes:
        mean: mean of each channel.
        std: standard deviation of each channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def place_of(root: str | Path, name: str = "") -> Path:
    """Folder of a data set: `root/name`, or `root` where that is the folder itself.

    Args:
        root: folder that the user gives.
        name: name that the published folder has; empty if it has none.

    Returns:
        The folder.

    Raises:
        InputError: there is no such folder.
    """
    root = Path(root)
    if name and (root / name).is_dir():
        return root / name
    if root.is_file():
        check_kind(root, "a folder", PICKLE.key, MATLAB.key)
        raise InputError(f"{root}: is a file; name the folder of the data set")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; docs/data.md says what must lie there")
    return root


def entries(folder: Path) -> list[Path]:
    """What lies in a folder.

    Args:
        folder: the folder.

    Returns:
        Its files and folders, sorted by name.

    Raises:
        InputError: there is no such folder, or it may not be read.
    """
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        raise InputError(f"{folder}: no such folder; the set is not whole") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror or error}") from error


def absent(folder: Path, wanted: str, name: str = "") -> InputError:
    """Error for a folder that lacks what a reader needs, which says what lies there instead.

    Args:
        folder: an existing folder.
        wanted: what is not there, in words.
        name: of the data set, whose own files are no sign of another.

    Returns:
        The exception, to be raised.
    """
    names = sorted(x.name for x in entries(folder) if not x.name.startswith("."))
    for file in names:
        if file in _SIGNS and not (name and _SIGNS[file].endswith(f" {name}")):
            return InputError(f"{folder}: no {wanted}; {file} is of {_SIGNS[file]}")
        if file.lower().endswith(_ARCHIVES):
            unpack = "unzip" if file.lower().endswith(".zip") else "tar -xf"
            return InputError(f"{folder}: no {wanted}; unpack the archive there: {unpack} {file}")
    there = f"there are {few(names)}" if names else "the folder is empty"
    return InputError(f"{folder}: no {wanted}; {there}; docs/data.md says what must lie there")


def check_labels(
    labels: Sequence | np.ndarray, n: int, classes: int, where: str, first: int = 0
) -> np.ndarray:
    """Labels as integers from 0, after checks.

    Args:
        labels: numbers, one an image.
        n: number of images.
        classes: number of classes.
        where: file and field, for messages.
        first: label of the first class in the file.

    Returns:
        `[n]` int32.

    Raises:
        InputError: other than n whole numbers, or one out of range.
    """
    try:
        array = np.asarray(labels)
    except ValueError:
        array = np.asarray("")
    if array.dtype.kind not in "iuf" or not array.ndim:
        raise InputError(f"{where}: is no list of numbers, one an image; check the file")
    array = array.reshape(-1)
    if len(array) != n:
        raise InputError(f"{where}: {len(array)} labels for {n} images; the file is not whole")
    bad = np.flatnonzero(~np.isin(array, np.arange(first, first + classes)))
    if len(bad):
        raise InputError(
            f"{where}: {len(bad)} labels out of range, such as {array[bad[0]]} of image {bad[0]}; "
            f"{classes} classes have the labels {first} to {first + classes - 1}"
        )
    return array.astype(np.int32) - first
