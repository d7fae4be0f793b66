"""Pictures of substitution data: what the images look like, and how their classes are shared."""

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from corrkd_jax.errors import InputError
from train.engine.report import write_picture
from train.engine.workdir import make_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN_SIDE = 32
_BARS = 20
_MARGIN, _GAP = 36, 4


def in_order(rows: np.ndarray, written: int) -> np.ndarray:
    """Rows of a `ring.Ring`, `[places, ...]`, the oldest first and no empty place."""
    places = len(rows)
    if written <= places:
        return rows[:written]
    return np.roll(rows, -(written % places), axis=0)


def grid(images: np.ndarray, columns: int = 16) -> np.ndarray:
    """Images side by side, line by line, a white pixel apart; small ones enlarged.

    Args:
        images: `[n, height, width, channels]` uint8, of 1 or 3 channels.
        columns: images a line.

    Returns:
        `[height, width, channels]` uint8.

    Raises:
        ValueError: no images.
    """
    if not len(images):
        raise ValueError("there are no images to show")
    factor = max(1, _SHOWN_SIDE // images.shape[1])
    images = np.asarray(images).repeat(factor, axis=1).repeat(factor, axis=2)
    count, height, width, channels = images.shape
    columns = min(columns, count)
    lines = math.ceil(count / columns)
    cells = np.full((lines * columns, height + 1, width + 1, channels), 255, np.uint8)
    cells[:count, :height, :width] = images
    cells = cells.reshape(lines, columns, height + 1, width + 1, channels).swapaxes(1, 2)
    return cells.reshape(lines * (height + 1), columns * (width + 1), channels)[:-1, :-1]


def by_epoch(images: np.ndarray, epochs: Sequence[int]) -> np.ndarray:
    """A grid for each epoch, the oldest at the top, with its number beside it.

    Args:
        images: `[epochs, n, height, width, channels]` uint8, of 1 or 3 channels.
        epochs: their numbers.

    Returns:
        `[height, width, channels]` uint8.
    """
    panels = []
    for number, batch in zip(epochs, images, strict=True):
        panel = grid(batch)
        height, _, channels = panel.shape
        margin = Image.new("L", (_MARGIN, height + _GAP), 255)
        at = _MARGIN - _GAP, height // 2
        ImageDraw.Draw(margin).text(at, str(number), 0, ImageFont.load_default(), anchor="rm")
        beside = np.repeat(np.asarray(margin)[..., None], channels, axis=-1)
        below = np.pad(panel, ((0, _GAP), (0, 0), (0, 0)), constant_values=255)
        panels.append(np.concatenate([beside, below], axis=1))
    return np.concatenate(panels)[:-_GAP]


def png(image: np.ndarray) -> bytes:
    """One image `[height, width, 1 or 3]` uint8 as PNG."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def dump(folder: Path, images: np.ndarray) -> None:
    """Write every image as a PNG of its own, numbered, all of them or none.

    `corrkd_jax.data.images.read_pool` reads the folder.

    Args:
        folder: made if it does not exist.
        images: `[n, height, width, 1 or 3]` uint8.

    Raises:
        InputError: the folder has images already, or the disk refuses.
    """
    make_folder(folder)
    if any(folder.glob("*.png")):
        raise InputError(f"{folder}: holds images already; name another folder")
    with contextlib.ExitStack() as undo:
        for number, image in enumerate(images):
            path = folder / f"{number:06d}.png"
            write_picture(path, png(image))
            undo.callback(path.unlink, missing_ok=True)
        undo.pop_all()


def class_histogram(shares: Mapping[str, np.ndarray], title: str = "") -> "Figure":
    """Draw which classes substitution data hold, against all alike.

    Up to twenty classes are bars, the mean over seeds with the least and largest as a line; more
    are curves, the classes of each row of the table in falling order.

    Args:
        shares: row of the table -> `[seeds, classes]`, shares of the teacher's classes.
        title: of the figure.
    """
    classes = next(iter(shares.values())).shape[-1]
    figure, axes = _axes("images, % by the teacher", title)
    if classes > _BARS:
        for name, values in shares.items():
            mean = 100 * values.mean(0)
            axes.plot(np.arange(1, classes + 1), np.sort(mean)[::-1], label=name)
        axes.set_xlabel("class, most frequent first")
    else:
        _bars(axes, shares)
    axes.axhline(100 / classes, color="black", linestyle="--", linewidth=1, label="all alike")
    return _with_legend(figure)


def class_accuracy(accuracy: Mapping[str, np.ndarray], title: str = "") -> "Figure":
    """Draw how often students are right, class by class.

    Up to twenty classes are bars, as in `class_histogram`; more are dots, the classes of all rows
    of the table in the falling order of the first.

    Args:
        accuracy: row of the table -> `[seeds, classes]`.
        title: of the figure.
    """
    first = next(iter(accuracy.values())).mean(0)
    figure, axes = _axes("accuracy, %", title)
    if len(first) > _BARS:
        order = np.argsort(-first, kind="stable")
        for name, values in accuracy.items():
            at = np.arange(1, len(first) + 1)
            axes.plot(at, 100 * values.mean(0)[order], ".", markersize=3, label=name)
        axes.set_xlabel(f"class, best of {next(iter(accuracy))} first")
    else:
        _bars(axes, accuracy)
    axes.set_ylim(0, 100)
    return _with_legend(figure)


def _axes(label: str, title: str) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_ylabel(label)
    axes.set_title(title)
    return figure, axes


def _bars(axes: "Axes", values: Mapping[str, np.ndarray]) -> None:
    """Shares `[seeds, classes]` of each row in per cent, class by class beside each other."""
    width = 0.8 / len(values)
    for number, (name, shares) in enumerate(values.items()):
        percent = 100 * shares
        mean = percent.mean(0)
        at = np.arange(len(mean)) + (number - (len(values) - 1) / 2) * width
        spread = np.abs([percent.min(0), percent.max(0)] - mean)
        axes.bar(at, mean, width, yerr=spread, label=name, error_kw={"linewidth": 0.8})
    axes.set_xticks(range(len(mean)))
    axes.set_xlabel("class")


def _with_legend(figure: "Figure") -> "Figure":
    # beside the axes, where it hides no bar
    figure.legend(fontsize="small", loc="outside right upper")
    return figure
