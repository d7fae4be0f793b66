"""Image sets in folders of files: Tiny-ImageNet, ImageNet, and pools without labels."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from corrkd_jax.data.file_kinds import check_kind, check_text
from corrkd_jax.data.image_set import ImageSet, Index, absent, entries, place_of
from corrkd_jax.errors import InputError, reason

ENDINGS = (".png", ".jpg", ".jpeg")

_LONGEST = 64
"""Largest ratio of an image's sides; scaling a longer one would take gigabytes."""

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
                if max(file.size) > _LONGEST * min(file.size):
                    sides = " x ".join(map(str, file.size))
                    raise InputError(f"{path}: {sides} pixels are too narrow; remove it")
                image = file.convert("RGB" if self.channels == 3 else "L")
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; the set is not whole") from None
        except Exception as error:
            check_kind(path, "an image", "picture")
            # damaged files make Pillow raise nearly any exception
            raise InputError(
                f"{path}: not a whole image ({reason(error)}); remove or replace it"
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
    ids = _class_folders(folder, "train")
    if split == "train":
        return _labelled(folder, "train", ids, _titles(folder, ids), 64, 64)
    path = folder / "val" / "val_annotations.txt"
    wanted = _annotations(path, ids, "\t")
    paths = tuple(f"val/images/{name}" for name in wanted)
    labels = np.fromiter(wanted.values(), np.int32, len(wanted))
    return ImageSet(Files(folder, paths, 64, 64), labels, _titles(folder, ids), f"{folder}: val")


def read_folders(
    root: str | Path, split: str, size: int = 224, resize: int = 0, labels: str | Path = ""
) -> ImageSet:
    """ImageNet, or any set with a folder for each class; classes are the sorted folders of `train`.

    A folder whose name begins with a dot is no class.

    Args:
        root: folder of `train/CLASS/FILE`, and of `val/CLASS/FILE` (or `test/CLASS/FILE`) or
            `val/FILE`.
        split: `train` or `test`.
        size: side of the images in pixels.
        resize: shorter side, in pixels, before the central square of `size` is cut out; 0: 8/7 of
            `size`, 256 for 224.
        labels: file for `val/FILE`, with lines of a file's name and its class, as in Kaggle's
            `LOC_val_solution.csv`. Numbers in the order of ILSVRC's own list do not serve, because
            they do not follow the sorted folders.

    Returns:
        Image set.

    Raises:
        InputError: the tree is not whole, or the list names a file that is not there.
    """
    folder, resize = place_of(root), resize or round(size * 8 / 7)
    ids = _class_folders(folder, "train")
    titles = _titles(folder, ids)
    if split == "train":
        return _labelled(folder, "train", ids, titles, size, resize)
    part = next((name for name in ("val", "test") if (folder / name).is_dir()), "")
    if not part:
        raise absent(folder, "folder val or test")
    if not labels:
        if others := sorted(set(_class_folders(folder, part)) - set(ids)):
            raise InputError(f"{folder / part / others[0]}: no such class in {folder / 'train'}")
        return _labelled(folder, part, ids, titles, size, resize)
    wanted = _annotations(Path(labels), ids, ", \t")
    listing = _files(folder, part)
    files = {Path(name).stem: name for name in listing.paths}
    if missing := [name for name in wanted if Path(name).stem not in files]:
        raise InputError(f"{labels}: {missing[0]}: no such file in {folder / part}")
    paths = tuple(files[Path(name).stem] for name in wanted)
    numbers = np.fromiter(wanted.values(), np.int32, len(wanted))
    images = Files(folder, paths, size, resize)
    return ImageSet(images, numbers, titles, f"{folder}: {part}", notes=_notes([listing]))


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
    listing = _files(folder)
    images = Files(folder, listing.paths, size, size, channels)
    return ImageSet(images, None, (), str(folder), notes=_notes([listing]))


def _labelled(
    folder: Path, part: str, ids: Sequence[str], titles: tuple[str, ...], size: int, resize: int
) -> ImageSet:
    listings = [_files(folder, f"{part}/{name}") for name in ids]
    paths = [path for one in listings for path in one.paths]
    labels = np.repeat(np.arange(len(ids), dtype=np.int32), [len(one.paths) for one in listings])
    images = Files(folder, tuple(paths), size, resize)
    return ImageSet(images, labels, titles, f"{folder}: {part}", notes=_notes(listings))


def _class_folders(folder: Path, part: str) -> list[str]:
    if not (folder / part).is_dir():
        raise absent(folder, f"folder {part}")
    inner = [x.name for x in entries(folder / part) if x.is_dir()]
    names = [name for name in inner if not _is_hidden(name)]
    if not names:
        raise absent(folder / part, "folder a class")
    return names


def _is_hidden(name: str) -> bool:
    """Whether a name is that of an editor's or a system's own file or folder."""
    return name.startswith(".") or name == "__MACOSX"


class _Listing(NamedTuple):
    """Image files of a folder and of those in it, and what else is there.

    Attributes:
        paths: images, relative to the folder, sorted.
        skipped: other files and hidden folders.
    """

    paths: tuple[str, ...]
    skipped: tuple[str, ...]


def _files(folder: Path, part: str = "") -> _Listing:
    """The images of `folder/part`."""
    paths, skipped = [], []
    entries(folder / part)  # os.walk is silent about a folder that is not there
    for inner, folders, names in os.walk(folder / part):
        hidden = [name for name in folders if _is_hidden(name)]
        folders[:] = sorted(set(folders) - set(hidden))
        for name in names:
            # macOS leaves ._NAME beside NAME
            image = name.lower().endswith(ENDINGS) and not _is_hidden(name)
            path = os.path.relpath(os.path.join(inner, name), folder)
            (paths if image else skipped).append(path)
        skipped += [os.path.relpath(os.path.join(inner, name), folder) for name in hidden]
    if not paths:
        raise absent(folder / part, f"image ({', '.join(ENDINGS)})")
    return _Listing(tuple(sorted(paths)), tuple(sorted(skipped)))


def _notes(listings: Iterable[_Listing]) -> tuple[str, ...]:
    """How many files of some folders were skipped, with an example; nothing where none was."""
    # Tiny-ImageNet has a list of boxes in every class
    skipped = [x for one in listings for x in one.skipped if not x.endswith("_boxes.txt")]
    if not skipped:
        return ()
    example = next((x for x in skipped if not _is_hidden(Path(x).name)), skipped[0])
    return (f"{len(skipped)} skipped, hidden or not {', '.join(ENDINGS)}, such as {example}",)


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
    check_text(path, "a list as text")
    try:
        return path.read_text("utf8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; the set is not whole") from None
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
