"""A finished run: the program that wrote it, its metadata, its models, one of them exported."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import jax
import numpy as np

from corrkd_jax.errors import InputError
from train.engine.stage import Tree
from train.engine.workdir import read_config

METADATA = "model.json"
"""File beside a run's arrays, with what is needed to read them."""

T = TypeVar("T")


class Seeded(Protocol):
    """A configuration that says which seeds a run has."""

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        ...

    @property
    def first_seed(self) -> int:
        """First seed; the others follow it."""
        ...


C = TypeVar("C", bound=Seeded)


@dataclass(frozen=True)
class Finished(Generic[C]):
    """A finished run, brought back without the data that it was trained on.

    Attributes:
        preset: that the run was made from.
        config: of the run.
        models: arm -> parameters with a leading axis of seeds, as `by_arm` gives them.
    """

    preset: str
    config: C
    models: Mapping[str, Tree]

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms."""
        return tuple(self.models)

    @property
    def seeds(self) -> range:
        """Seeds of the run."""
        return range(self.config.first_seed, self.config.first_seed + self.config.seeds)

    def seed(self, seed: int = 0) -> int:
        """The seed that a number stands for.

        Args:
            seed: one of `seeds`; 0: the first.

        Raises:
            InputError: the run has no such seed.
        """
        return self.seeds[seed_number(seed, self.config.first_seed, self.config.seeds)]

    def one(self, arm: str, seed: int = 0) -> Tree:
        """Parameters of one arm and seed, without leading axes.

        Args:
            arm: its name.
            seed: one of `seeds`; 0: the first.

        Raises:
            InputError: the run has no such arm or seed.
        """
        if arm not in self.models:
            raise InputError(f"--arm {arm}: the run has {'; '.join(self.models)}")
        number = seed_number(seed, self.config.first_seed, self.config.seeds)
        return jax.tree.map(lambda x: x[number], self.models[arm])


def by_arm(models: Tree, arms: Sequence[str]) -> dict[str, Tree]:
    """Parameters with leading axes of seeds and arms -> arm -> parameters of all seeds.

    NumPy arrays are not copied.
    """

    def of(number: int) -> Tree:
        return jax.tree.map(lambda x: x[:, number], models)

    return {name: of(number) for number, name in enumerate(arms)}


def zeros(shapes: Tree, *lanes: int) -> Tree:
    """Models of zeros, by which `load_model` is told what a run has saved.

    Args:
        shapes: of one model: its arrays, or what `jax.eval_shape` says of them.
        lanes: sizes of the leading axes: seeds, and arms where there are some.
    """
    return jax.tree.map(lambda x: np.zeros((*lanes, *x.shape), x.dtype), shapes)


def choose(
    rows: Mapping[str, T], names: Sequence[str], option: str = "--arms", *, title: str = ""
) -> dict[str, T]:
    """Some of what there is, by name, in the order of the names.

    Args:
        rows: what there is, by name.
        names: of those to take.
        option: by which they are named.
        title: what they are, for the message.

    Raises:
        InputError: a name is unknown or stands twice; says which names there are.
    """
    for number, name in enumerate(names):
        if name not in rows:
            what = f"no such {title}; " if title else ""
            raise InputError(f"{option} {name!r}: {what}choose from {', '.join(map(repr, rows))}")
        if name in names[:number]:
            raise InputError(f"{option} {name!r}: stands twice")
    return {name: rows[name] for name in names}


def metadata_as(make: Callable[[dict[str, Any]], T], folder: Path) -> T:
    """What is made of the metadata that a run wrote beside its arrays.

    Args:
        make: of the metadata.
        folder: of the run.

    Raises:
        InputError: the run is not finished, or the file is damaged.
    """
    path = folder / METADATA
    try:
        return make(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{folder}: not finished yet; continue it with --resume") from None
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged: {error!r}") from error


def program_of(folder: Path) -> str:
    """Name of the program that trained a run, as its `config.json` says; empty if it says none.

    Raises:
        InputError: the folder is not that of a run.
    """
    saved = read_config(folder)
    return str(saved.get("program", "")) if isinstance(saved, dict) else ""


def seed_number(seed: int, first: int, count: int) -> int:
    """Place of a seed among a run's; 0 stands for the first.

    Raises:
        InputError: the run does not have it.
    """
    number = seed - first if seed else 0
    if not 0 <= number < count:
        raise InputError(f"--seed {seed}: the run has seeds {first} to {first + count - 1}")
    return number
