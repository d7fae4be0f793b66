"""Real images that need no download: those that scikit-learn ships.

They are handwritten digits (test part of UCI's "Optical Recognition of Handwritten Digits"), and
two photographs (CC BY 2.0). Cut into patches, the photographs are a pool of another domain.
"""

import numpy as np

from corrkd_jax.data.image_set import ImageSet

SIZE = 8
"""Side of a digit and of a patch, in pixels."""

_SOURCE = "scikit-learn's digits"


def read_digits(seed: int) -> tuple[ImageSet, ImageSet]:
    """Handwritten digits, 1,797 of 8 x 8 x 1, of values 0 to 16, split class by class.

    Args:
        seed: seed of the split, two thirds for training and one third for testing.

    Returns:
        Training and test set.
    """
    from sklearn import datasets

    found = datasets.load_digits()
    images = found.images.astype(np.uint8)[..., None]
    labels = found.target.astype(np.int32)
    classes = tuple(map(str, found.target_names))
    random = np.random.RandomState(seed)
    parts: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for label in range(len(classes)):
        rows = random.permutation(np.flatnonzero(labels == label))
        cut = round(2 * len(rows) / 3)
        parts[0].append(rows[:cut])
        parts[1].append(rows[cut:])
    train, test = (np.concatenate(part) for part in parts)
    return tuple(
        ImageSet(images[rows], labels[rows], classes, f"{_SOURCE}: {name}", int(found.data.max()))
        for name, rows in (("train", train), ("test", test))
    )


def read_patches() -> ImageSet:
    """Grey patches, 8,480 of 8 x 8 x 1, of two photographs, without labels: a pool for digits.

    Returns:
        Image set without labels.
    """
    from sklearn import datasets

    patches = []
    for photograph in datasets.load_sample_images().images:
        # luminance of ITU-R BT.601, as Pillow's "L"
        grey = np.rint(photograph @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
        rows, columns = (side // SIZE for side in grey.shape)
        tiles = grey[: rows * SIZE, : columns * SIZE].reshape(rows, SIZE, columns, SIZE)
        patches.append(tiles.swapaxes(1, 2).reshape(-1, SIZE, SIZE, 1))
    return ImageSet(np.concatenate(patches), None, (), "scikit-learn's photographs")
