"""Weights of an image classifier become Flax variables, `.safetensors` or `.npz`.

FILE is `.pth`, `.pt`, `.bin`, `.tar` or `.ckpt`, which need torch, or `.npz` or `.safetensors`.
Every weight must find its place and every place its weight, else what does not fit is counted and
named, and nothing is written. An OUT that ends in `.pth` or `.pt`, or `--to torch`, writes torch's
names for `load_state_dict`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import jax

from corrkd_jax.data import images
from corrkd_jax.data.variables import check_ending
from corrkd_jax.data.weights import READ_ENDINGS, TORCH_ENDINGS, holds_weights
from corrkd_jax.errors import InputError
from corrkd_jax.ranges import NotNegative
from train.engine import cli
from train.engine.progress import say
from train.images import pretrained


@dataclass(frozen=True)
class ConvertOptions:
    """The network, and the names that its weights get."""

    arch: str = ""
    """Network, such as wrn40_2; empty: told by the weights' names and shapes."""
    classes: Annotated[int, NotNegative] = 0
    """Number of classes that the weights must have; 0: any."""
    trained_on: str = ""
    """Data set whose usual normalisation the network was trained with, to be noted in the file;
    empty: whoever reads the file takes that of the data at hand."""
    to: Literal["flax", "torch"] = "flax"
    """Library whose names the weights get; .pth and .pt always have torch's."""


def takes(source: Path, target: Path, argv: Sequence[str]) -> bool:
    """Whether a file is converted as weights.

    By the names of both files, by an option that only weights have, and from `.npz` to `.npz` by
    the members.
    """
    given = {word.partition("=")[0].replace("_", "-") for word in argv}
    endings = (*TORCH_ENDINGS, ".safetensors")
    return (
        source.suffix.lower() in set(READ_ENDINGS) - {".npz"}
        or target.suffix in endings
        or any(cli.flag(field.name) in given for field in fields(ConvertOptions))
        or (source.suffix.lower() == ".npz" and holds_weights(source))
    )


def convert(source: Path, target: Path, argv: Sequence[str]) -> None:
    """Convert one file of weights.

    Args:
        source: file to read.
        target: file to write.
        argv: options.

    Raises:
        InputError: the weights do not fit, an option or a file's ending is unknown.
    """
    program = "python -m train.convert FILE OUT"
    options = cli.parse_options(ConvertOptions, argv, program, __doc__ or "")
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
