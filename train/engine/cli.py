"""The command line that every program shares: presets, dotted overrides, one-line errors."""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import tyro

from corrkd_jax.errors import InputError

Config = TypeVar("Config")


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out. What is computed stays the same, but for the draws of dropout
    where devices share a batch: resume such a run on as many devices."""

    workdir: str = ""
    """Folder for everything the run writes; empty: runs/PRESET."""
    resume: bool = False
    """Continue the run in the work directory, bit for bit, from its newest checkpoint."""
    fused: bool = False
    """One call for the whole pipeline: no progress or checkpoints on the way."""
    save_every: float = 60.0
    """Seconds between checkpoints; stages always end with one."""
    devices: int = 0
    """How many of this machine's devices to use; 0: all."""
    split: Literal["auto", "seeds", "batch"] = "auto"
    """What several devices share: seeds, batch, or auto."""
    lanes: Literal["auto", "vmap", "map"] = "auto"
    """Seeds and arms side by side (vmap), one after the other (map), or auto by device."""
    coordinator: str = ""
    """host:port of process 0 for several hosts; auto on Slurm, GKE and TPU pods."""
    processes: int = 1
    """Number of processes, with an explicit coordinator."""
    process_id: int = 0
    """Number of this process, with an explicit coordinator."""


def parse(
    argv: Sequence[str],
    program: str,
    description: str,
    presets: Mapping[str, Config],
) -> tuple[str, Config, RunOptions]:
    """Read `[PRESET] --field.name value ...`; the first preset is the default.

    Args:
        argv: arguments after the program's name.
        program: how the user calls it, for `--help`.
        description: first lines of `--help`.
        presets: name -> configuration to start from.

    Returns:
        Name of the preset, its configuration with the overrides, how to run it.

    Raises:
        InputError: no such preset.
        SystemExit: `--help`, or an option that does not parse.
    """
    argv = list(argv)
    name = argv.pop(0) if argv and not argv[0].startswith("-") else next(iter(presets))
    if name not in presets:
        raise InputError(f"{name}: no such preset; choose from {', '.join(presets)}")
    start = presets[name]
    unnamed = tyro.conf.arg(name="")  # options start at the fields, not at these two words

    def combine(
        config: Annotated[type(start), unnamed] = start,
        run: Annotated[RunOptions, unnamed] = RunOptions(),
    ) -> tuple[Any, RunOptions]:
        return config, run

    text = f"{description}\n\nUsage: {program} [{' | '.join(presets)}] [options]"
    config, run = tyro.cli(combine, args=argv, prog=f"{program} {name}", description=text)
    return name, config, run


def two_names(argv: Sequence[str], question: str) -> tuple[list[str], list[str]]:
    """The two names that a command starts with, and its options.

    Args:
        argv: arguments after the program's name.
        question: what to ask for if a name is missing, with the usage.

    Raises:
        InputError: fewer than two names, and no call for help.
    """
    names = [argument for argument in argv[:2] if not argument.startswith("-")]
    if len(names) < 2 and "-h" not in argv and "--help" not in argv:
        raise InputError(question)
    return names, list(argv[len(names) :])


def require_positive(settings: Mapping[str, float]) -> None:
    """Refuse a setting that is not above zero; raises an InputError that names the option."""
    for name, value in settings.items():
        if not value > 0:
            raise InputError(f"{name} {value}: must be positive")


def require_not_negative(settings: Mapping[str, float]) -> None:
    """Refuse a setting below zero; raises an InputError that names the option."""
    for name, value in settings.items():
        if value < 0:
            raise InputError(f"{name} {value}: must not be negative")


def require_shares(settings: Mapping[str, float]) -> None:
    """Refuse a setting outside [0, 1), such as a dropout rate; raises an InputError."""
    for name, value in settings.items():
        if not 0 <= value < 1:
            raise InputError(f"{name} {value}: must be at least 0 and below 1")


def require_seeds(first: int, count: int) -> None:
    """Refuse seeds that do not fit into 32 bits; raises an InputError that names the option."""
    if not 0 <= first <= 2**31 - count:
        raise InputError(f"--first-seed {first}: seeds must lie between 0 and {2**31 - 1}")


def guard(main: Callable[[Sequence[str]], None], argv: Sequence[str]) -> None:
    """Run a program; bad input prints one line and exits with 2, an interrupt with 130."""
    # these warn about their own internals and upkeep; nothing there is the user's to mend
    warnings.filterwarnings("ignore", module=r"(orbax|flax|tensorboardX|brax)\..*")
    try:
        main(argv)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted; continue with --resume", file=sys.stderr)
        raise SystemExit(130) from None
