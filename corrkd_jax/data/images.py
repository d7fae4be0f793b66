"""Sets of images by name: every published layout as one `ImageSet`.

The readers lie in `image_batches` (files of arrays), `image_files` (folders of files) and `digits`.
`docs/data.md` says where to get a set and which files belong where.
"""

from dataclasses import replace
from pathlib import Path

from corrkd_jax.data.digits import read_digits, read_patches
from corrkd_jax.data.image_batches import (
    read_cifar10,
    read_cifar100,
    read_small_imagenet,
    read_svhn,
)
from corrkd_jax.data.image_files import read_folders, read_tiny_imagenet, read_unlabelled
from corrkd_jax.data.image_set import ImageSet, Normalization, place_of
from corrkd_jax.errors import InputError

__all__ = [
    "NAMES",
    "NORMALIZATIONS",
    "ImageSet",
    "Normalization",
    "read",
    "read_patches",
    "read_pool",
]

_HALF = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_PHOTOGRAPHS = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

NORMALIZATIONS = {
    "digits": Normalization((0.0,), (1.0,)),
    "mnist": Normalization((0.1307,), (0.3081,)),
    "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "svhn": _HALF,
    "tiny_imagenet": _HALF,
    "imagenet32": _HALF,
    "imagenet": _PHOTOGRAPHS,
    "folders": _PHOTOGRAPHS,
}
"""Normalisations of the published teachers of a data set (zju-vipa/CMI, torchvision)."""

NAMES = (
    *("digits", "cifar10", "cifar100", "svhn", "tiny_imagenet", "imagenet", "imagenet32"),
    "folders",
)
"""Names of the labelled sets; `folders` is any set with a folder for each class."""

SIDES = {"imagenet": 224, "folders": 64}
"""Side of the images, in pixels, of the sets of which another may be asked for."""

_BATCHES = {
    "cifar10": ("cifar-10-batches-py", "data_batch_*"),
    "cifar100": ("cifar-100-python", "train"),
    "imagenet32": ("", "train_data_batch_*"),
}
"""Sets that may be a pool: the folder and the files by which their training part is known."""


def read(
    name: str,
    root: str | Path,
    split: str,
    *,
    seed: int = 0,
    labels: str | Path = "",
    size: int = 0,
) -> ImageSet:
    """Labelled set of images.

    Args:
        name: one of `NAMES`.
        root: folder of its files; digits need none.
        split: `train` or `test`; published accuracies are those of the second.
        seed: seed of the split of digits.
        labels: labels of ImageNet's validation files where they lie in one folder, see
            `read_folders`.
        size: side of the images in pixels, of the sets in `SIDES`; 0: as there. A file of another
            size is scaled until its shorter side is 8/7 of it, and its centre is cut out.

    Returns:
        Image set.

    Raises:
        InputError: no such set, one that has a size of its own, or its files cannot be used.
        ValueError: another split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    if name not in NAMES:
        raise InputError(f"{name}: no such set of images; there are {', '.join(NAMES)}")
    if size and name not in SIDES:
        raise InputError(f"size {size}: {name} has its own; only {', '.join(SIDES)} are scaled")
    if name in SIDES:
        return read_folders(root, split, size or SIDES[name], labels=labels)
    if name == "digits":
        return read_digits(seed)[split == "test"]
    readers = {
        "cifar10": read_cifar10,
        "cifar100": read_cifar100,
        "svhn": read_svhn,
        "tiny_imagenet": read_tiny_imagenet,
        "imagenet32": read_small_imagenet,
    }
    return readers[name](root, split)


def read_pool(root: str | Path, size: int, channels: int = 3) -> ImageSet:
    """Images without labels: the training part of a set in batches, or any files of images.

    Args:
        root: folder of batches as CIFAR-10, CIFAR-100 and ImageNet at 32 or 64 pixels have them,
            recognised by their names; else of files of images, see `image_files.read_unlabelled`.
        size: side of the images in pixels; files are scaled and cut to it, batches must have it.
        channels: 3 or 1; batches have 3.

    Returns:
        Image set without labels.

    Raises:
        InputError: batches of two sets or of another size, or as the readers say.
    """
    folders = {name: place_of(root, inner) for name, (inner, _) in _BATCHES.items()}
    found = [
        name
        for name, (_, pattern) in _BATCHES.items()
        if any(path.is_file() for path in folders[name].glob(pattern))
    ]
    if not found:
        return read_unlabelled(root, size, channels)
    if len(found) > 1:
        raise InputError(f"{root}: holds batches of {' and '.join(found)}; name one's own folder")
    pool = read(found[0], root, "train")
    if pool.images.shape[1:] != (size, size, channels):
        raise InputError(
            f"{pool.source}: images are {pool.images.shape[1:]}, not {(size, size, channels)}; "
            "batches are not scaled, a folder of image files is"
        )
    return replace(pool, labels=None, classes=())
