"""`python -m train.convert FILE OUT`: a file of others, checked once and written plainly.

Of two kinds, told by their names (from `.npz` to `.npz` by its members, unless an option of weights
is given):

* weights of an image classifier (`.pth`, `.pt`, `.bin`, `.tar`, which need torch, or `.npz`,
  `.safetensors`) become Flax variables, `.safetensors` or `.npz`. Every weight must find its place
  and every place its weight, else all that does not fit is listed and nothing is written. An OUT
  that ends in `.pth` or `.pt`, or `--to torch`, writes torch's names for `load_state_dict`;
* a feature pickle becomes an `.npz` of plain arrays, cleaned. The result loads without unpickling
  anything, and its arrays are mapped from disk, so a set larger than memory can be fed from it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import jax

from corrkd_jax.data import images, msa
from corrkd_jax.data.variables import check_ending
from corrkd_jax.data.weights import TORCH_ENDINGS, holds_weights
from corrkd_jax.errors import InputError
from corrkd_jax.ranges import NotNegative, Positive
from train.engine import cli
from train.engine.progress import say
from train.images import pretrained


@dataclass(frozen=True)
class ConvertOptions:
    """How the file is read."""

    arch: str = ""
    """Weights: of which network, such as wrn40_2; empty: told by their names and shapes."""
    classes: Annotated[int, NotNegative] = 0
    """Weights: the number of classes that they must have; 0: any."""
    trained_on: str = ""
    """Weights: data set whose usual normalisation the network was trained with, to be noted in
    the file; empty: whoever reads it takes that of the data at hand."""
    to: Literal["flax", "torch"] = "flax"
    """Weights: whose names the output has; .pth and .pt always have torch's."""
    word_vectors: str = ""
    """Features: word vectors in GloVe's text format, for layouts that hold words instead."""
    max_frames: Annotated[int, Positive] = 50
    """Features: longest sequence taken from layouts of variable length (MAG-BERT)."""
    context: bool = False
    """Features: of UR-FUNNY, with the sentences before the punchline."""
    fold: Annotated[int, NotNegative] = 0
    """Features: of MUStARD, a fold of split_indices.p; 0: the speaker-independent split."""


def main(argv: Sequence[str]) -> None:
    """Convert one file."""
    names, rest = cli.two_names(argv, "which file, and where to? python -m train.convert FILE OUT")
    options = cli.parse_options(
        ConvertOptions, rest, "python -m train.convert FILE OUT", __doc__ or ""
    )
    source, target = Path(names[0]), Path(names[1])
    told = options.arch or options.classes or options.trained_on or options.to == "torch"
    torch = source.suffix.lower() in (*TORCH_ENDINGS, ".bin", ".tar", ".safetensors")
    told = told or (source.suffix.lower() == ".npz" and holds_weights(source))
    if told or torch or target.suffix in (*TORCH_ENDINGS, ".safetensors"):
        _weights(source, target, options)
    else:
        _features(source, target, options)


def _weights(source: Path, target: Path, options: ConvertOptions) -> None:
    for_torch = options.to == "torch" or target.suffix in TORCH_ENDINGS
    if not for_torch:
        check_ending(target)
    if options.trained_on and options.trained_on not in images.NORMALIZATIONS:
        known = ", ".join(images.NORMALIZATIONS)
        raise InputError(f"--trained-on {options.trained_on}: no such data set; there are {known}")
    model = pretrained.load(source, options.arch, options.classes)
    if options.trained_on:
        normalization = images.NORMALIZATIONS[options.trained_on]
        if len(normalization.mean) != model.channels:
            raise InputError(
                f"--trained-on {options.trained_on}: has {len(normalization.mean)} channels, the "
                f"network {model.channels}"
            )
        model = replace(model, normalization=normalization)
    (pretrained.save_for_torch if for_torch else pretrained.save)(target, model)
    count = sum(x.size for x in jax.tree.leaves(model.variables["params"]))
    say(
        f"{target}: {model.network}, {model.classes} classes, {count:,} parameters; "
        f"{target.stat().st_size / 1e6:.1f} MB"
    )


def _features(source: Path, target: Path, options: ConvertOptions) -> None:
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


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
