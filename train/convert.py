"""`python -m train.convert FILE OUT.npz`: a feature pickle, cleaned, as an `.npz` of plain arrays.

The result loads without unpickling anything, and its arrays are mapped from disk, so a set larger
than memory can be fed from it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from corrkd_jax.data import msa
from corrkd_jax.errors import InputError
from train import cli
from train.progress import say


@dataclass(frozen=True)
class ConvertOptions:
    """How the file is read."""

    word_vectors: str = ""
    """Word vectors in GloVe's text format, for layouts that hold words instead of features."""
    max_frames: int = 50
    """Longest sequence taken from layouts of variable length (MAG-BERT)."""


def main(argv: Sequence[str]) -> None:
    """Convert one file."""
    names, rest = cli.two_names(
        argv, "which file, and where to? python -m train.convert FILE OUT.npz"
    )
    options = tyro.cli(
        ConvertOptions,
        args=rest,
        prog="python -m train.convert FILE OUT.npz",
        description=__doc__,
    )
    source, target = Path(names[0]), Path(names[1])
    if target.suffix != ".npz":
        raise InputError(f"{target}: give the output a name that ends in .npz")
    dataset = msa.read(source, options.word_vectors or None, options.max_frames)
    for note in dataset.notes:
        say(f"{source}: {note}")
    msa.write_npz(dataset, target)
    sizes = ", ".join(f"{name} {len(dataset.splits[name].ids)}" for name in dataset.splits)
    say(f"{target}: {target.stat().st_size / 1e6:.1f} MB, {sizes}")


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
