"""What every finished run has: facts beside its arrays, the program that wrote it, seeds."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jax import Array

from corrkd_jax.errors import InputError
from train.engine.workdir import read_config

FACTS = "model.json"
T = TypeVar("T")


def facts_as(make: Callable[[dict[str, Any]], T], folder: Path) -> T:
    """What is made of the facts that a run wrote beside its arrays.

    Args:
        make: of the facts.
        folder: of the run.

    Raises:
        InputError: the run is not finished, or the file is damaged.
    """
    path = folder / FACTS
    try:
        return make(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{folder}: not finished yet; continue it with --resume") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged: {error!r}") from error


def program_of(folder: Path) -> str:
    """What trained a run, as its `config.json` says.

    Raises:
        InputError: the folder is not that of a run.
    """
    saved = read_config(folder)
    return str(saved.get("program", "")) if isinstance(saved, dict) else ""


@dataclass(frozen=True)
class Exportable:
    """One trained model, ready to be written as a function of raw input.

    Attributes:
        function: of the arguments in their order.
        arguments: name, which `train.export` knows, -> shape, or modality -> shape, without the
            batch.
        output: shape of the result, without the batch.
        meaning: of the result.
        facts: for `metadata.json`.
    """

    function: Callable[..., Array]
    arguments: dict[str, Any]
    output: list[int]
    meaning: str
    facts: dict[str, Any]


def seed_number(seed: int, first: int, count: int) -> int:
    """Place of a seed among a run's; 0 stands for the first.

    Raises:
        InputError: the run does not have it.
    """
    number = seed - first if seed else 0
    if not 0 <= number < count:
        raise InputError(f"--seed {seed}: the run has seeds {first} to {first + count - 1}")
    return number
