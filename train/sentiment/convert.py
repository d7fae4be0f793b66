"""A feature pickle becomes an `.npz` of plain arrays, cleaned.

The result loads without unpickling anything, and its arrays are mapped from disk, so that a set
larger than memory can be fed from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from corrkd_jax.data import msa
from corrkd_jax.errors import InputError
from corrkd_jax.ranges import NotNegative, Positive
from train.engine import cli
from train.engine.progress import say


@dataclass(frozen=True)
class ConvertOptions:
    """The way in which the file is read."""

    word_vectors: str = ""
    """File of word vectors in GloVe's text format, for layouts that hold words instead."""
    max_frames: Annotated[int, Positive] = 50
    """Longest sequence that is taken from layouts of variable length (MAG-BERT)."""
    context: bool = False
    """UR-FUNNY: the sentences before the punchline begin each sequence."""
    fold: Annotated[int, NotNegative] = 0
    """MUStARD: number of a fold of split_indices.p; 0: the speaker-independent split."""


def convert(source: Path, target: Path, argv: Sequence[str]) -> None:
    """Convert one file of features.

    Args:
        source: file or folder to read.
        target: `.npz` to write.
        argv: options.

    Raises:
        InputError: the file cannot be read or written.
    """
    program = "python -m train.convert FILE OUT"
    options = cli.parse_options(ConvertOptions, argv, program, __doc__ or "")
    if target.suffix != ".npz":
        raise InputError(f"{target}: give the output a name that ends in .npz")
    dataset = msa.read(
        source,
        options.word_vectors or None,
        options.max_frames,
        context=options.context,
        fold=options.fold or None,
    )
    for note in dataset.notes:
        say(f"{source}: {note}")
    msa.write_npz(dataset, target)
    sizes = ", ".join(f"{name} {len(dataset.splits[name].ids)}" for name in dataset.splits)
    say(f"{target}: {target.stat().st_size / 1e6:.1f} MB, {sizes}")
