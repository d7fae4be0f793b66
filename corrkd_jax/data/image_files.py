"""Image sets in folders of files: Tiny-ImageNet, ImageNet, and pools without labels."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from corrkd_jax.data.image_set import ImageSet, Index, place_of
from corrkd_jax.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg")

_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


@dataclass(frozen=True)
class Files:
    """Image files, decoded when they are read, so that a set may be larger than memory.

    Every image is scaled so that its shorter side is `resize` pixels, and its central square of
    `size` pixels is cut out. An image that is that square already keeps its pixels. Grey files are
    repeated over three channels. For one channel, colours become their luminance.

    Attributes:
        folder: folder that the paths are relative to.
        paths: paths of the files.
        size: side of the images in pixels.
        resize: shorter side before the cut in pixels, at least `size`.
        channels: 3 or 1.
    """

    folder: Path
    paths: tuple[str, ...]
    size: int
    resize: int
    channels: int = 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the decoded images, `(n, size, size, channels)`."""
        return len(self.paths), self.size, self.size, self.channels

    def __getitem__(self, index: Index) -> np.ndarray:
        wanted = np.arange(len(self.paths))[index]
        images = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        for into, i in zip(images, wanted.tolist(), strict=True):
            into[:] = self._decode(self.folder / self.paths[i])
        return images

    def _decode(self, path: Path) -> np.ndarray:
        try:
            with Image.open(path) as file:
                if file.mode not in _EIGHT_BITS:
                    raise InputError(f"{path}: pixels of mode {file.mode}; save it with 8 bits")
                image = file.convert("RGB" if self.channels == 3 else "L")
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; the set is not whole") from None
        except Exception as error:
            # damaged files make Pillow raise nearly any exception
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"{path}: not a whole image ({reason}); remove or replace it"
            ) from error
        if image.size != (self.size, self.size):
            factor = self.resize / min(image.size)
            sides = [max(self.resize, round(side * factor)) for side in image.size]
            image = image.resize(sides, Image.Resampling.BILINEAR)
            left, top = ((side - self.size) // 2 for side in sides)
            image = image.crop((left, top, left + self.size, top + self.size))
        return np.asarray(image).reshape(self.shape[1:])


def read_tiny_imagenet(root: str | Path, split: str) -> ImageSet:
    """Tiny-ImageNet, 64 x 64; classes are the sorted folders of `train`.

    Args:
        root: `tiny-imagenet-200`, or the folder that holds it.
        split: `train` or `test`, which is `val`: the published test images have no labels.

    Returns:
        Image set of 64 x 64 x 3.

    Raises:
        InputError: the tree is not whole, or `val_annotations.txt` names a file that is not there.
    """
    folder = place_of(root, "tiny-imagenet-200")
    ids = _class_folders(folder / "train")
    if split == "train":
        return _labelled(folder, "train", ids, _titles(folder, ids), 64, 64)
    path = folder / "val" / "val_annotations.txt"
    wanted = _annotations(path, ids, "\t")
    paths = tuple(f"val/images/{name}" for name in wanted)
    labels = np.fromiter(wanted.values(), np.int32, len(wanted))
    return ImageSet(Files(folder, paths, 64, 64), labels, _titles(folder, ids), f"{folder}: val")


def read_folders(
    root: str | Path, split: str, size: int = 224, resize: int = 256, labels: str | Path = ""
) -> ImageSet:
    """ImageNet, or any set with a folder for each class; classes are the sorted folders of `train`.

    Args:
        root: folder of `train/CLASS/FILE`, and of `val/CLASS/FILE` (or `test/CLASS/FILE`) or
            `val/FILE`.
        split: `train` or `test`.
        size: side of the images in pixels.
        resize: shorter side, in pixels, before the central square of `size` is cut out.
        labels: file for `val/FILE`, with lines of a file's name and its class, as in Kaggle's
            `LOC_val_solution.csv`. Numbers in the order of ILSVRC's own list do not serve, because
            they do not follow the sorted folders.

    Returns:
        Image set.

    Raises:
        InputError: the tree is not whole, or the list names a file that is not there.
    """
    folder = place_of(root)
    ids = _class_folders(folder / "train")
    titles = _titles(folder, ids)
    if split == "train":
        return _labelled(folder, "train", ids, titles, size, resize)
    part = "val" if (folder / "val").is_dir() else "test"
    if not labels:
        if others := sorted(set(_class_folders(folder / part)) - set(ids)):
            raise InputError(f"{folder / part / others[0]}: no such class in {folder / 'train'}")
        return _labelled(folder, part, ids, titles, size, resize)
    wanted = _annotations(Path(labels), ids, ", \t")
    files = {Path(name).stem: name for name in _files(folder / part)}
    if absent := [name for name in wanted if Path(name).stem not in files]:
        raise InputError(f"{labels}: {absent[0]}: no such file in {folder / part}")
    paths = tuple(f"{part}/{files[Path(name).stem]}" for name in wanted)
    numbers = np.fromiter(wanted.values(), np.int32, len(wanted))
    return ImageSet(Files(folder, paths, size, resize), numbers, titles, f"{folder}: {part}")


def read_unlabelled(root: str | Path, size: int, channels: int = 3) -> ImageSet:
    """All images of a folder and of those in it, without labels, in the order of their paths.

    Args:
        root: the folder.
        size: side, in pixels, that the images are scaled and cut to.
        channels: 3 or 1.

    Returns:
        Image set without labels.

    Raises:
        InputError: the folder holds no image.
    """
    folder = place_of(root)
    images = Files(folder, tuple(_files(folder)), size, size, channels)
    return ImageSet(images, None, (), str(folder))


def _labelled(
    folder: Path, part: str, ids: Sequence[str], titles: tuple[str, ...], size: int, resize: int
) -> ImageSet:
    paths, labels = [], []
    for label, name in enumerate(ids):
        found = _files(folder / part / name)
        paths += [f"{part}/{name}/{path}" for path in found]
        labels += [label] * len(found)
    images = Files(folder, tuple(paths), size, resize)
    return ImageSet(images, np.asarray(labels, np.int32), titles, f"{folder}: {part}")


def _class_folders(folder: Path) -> list[str]:
    names = sorted(x.name for x in folder.iterdir() if x.is_dir()) if folder.is_dir() else []
    if not names:
        raise InputError(f"{folder}: no folder a class; docs/data.md says what must lie there")
    return names


def _files(folder: Path) -> list[str]:
    found = []
    for inner, folders, names in os.walk(folder):
        folders.sort()
        found += [
            os.path.relpath(os.path.join(inner, name), folder)
            for name in names
            # macOS leaves ._NAME beside NAME
            if name.lower().endswith(ENDINGS) and not name.startswith(".")
        ]
    if not found:
        raise InputError(f"{folder}: holds no image ({', '.join(ENDINGS)}); check the path")
    return sorted(found)


def _titles(folder: Path, ids: Sequence[str]) -> tuple[str, ...]:
    """Words for WordNet's ids where `words.txt` has them."""
    words: dict[str, str] = {}
    if (folder / "words.txt").is_file():
        lines = _lines(folder / "words.txt")
        words = {name: rest.split(",")[0] for name, _, rest in (x.partition("\t") for x in lines)}
    return tuple(words.get(name, name) for name in ids)


def _annotations(path: Path, ids: Sequence[str], separators: str) -> Mapping[str, int]:
    """File -> label of a list; a line's first word is the file, its second the class."""
    numbers = {name: label for label, name in enumerate(ids)}
    found = {}
    for line, text in enumerate(_lines(path), 1):
        for separator in separators:
            text = text.replace(separator, " ")
        words = text.split()
        if not words or words[0] == "ImageId":
            continue
        if len(words) < 2 or words[1] not in numbers:
            raise InputError(
                f"{path}: line {line}: must be a file and a class that is a folder of train, got "
                f"{' '.join(words[:2])!r}"
            )
        found[words[0]] = numbers[words[1]]
    if not found:
        raise InputError(f"{path}: holds no line of a file and its class")
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; the set is not whole") from None
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
