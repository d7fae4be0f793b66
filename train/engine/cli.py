"""The command line that every program shares: presets, dotted overrides, one-line errors."""

import ast
import inspect
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from corrkd_jax.errors import InputError
from corrkd_jax.ranges import NotNegative, Positive, Range
from train.engine import interrupt, names, terminal

COMMAND = "corrkd"
"""Installed command, which runs every program."""

Config = TypeVar("Config")


@dataclass(frozen=True)
class RunOptions:
    """The way in which a run is carried out.

    What is computed stays the same, but for the draws of dropout where devices share a batch:
    resume such a run on as many devices.
    """

    workdir: str = ""
    """Folder for everything that the run writes; empty: runs/PRESET."""
    resume: bool = False
    """Continuation of the run in the work directory, bit for bit, from its newest checkpoint.
    Without a work directory: of the one in runs/ that was begun last."""
    fused: bool = False
    """One call for the whole pipeline: no progress or checkpoints on the way."""
    save_every: Annotated[float, NotNegative] = 60.0
    """Seconds between checkpoints; stages always end with one."""
    devices: Annotated[int, NotNegative] = 0
    """Number of this machine's devices that are used; 0: all. On a CPU: cores that share the
    seeds."""
    split: Literal["auto", "seeds", "batch"] = "auto"
    """Sharing among several devices: each has seeds of its own, or a part of every batch."""
    lanes: Literal["auto", "vmap", "map"] = "auto"
    """Seeds and arms side by side (vmap), one after the other (map), or auto by device."""
    coordinator: str = ""
    """Address host:port of process 0 for several hosts; auto on Slurm, GKE and TPU pods."""
    processes: Annotated[int, Positive] = 1
    """Number of processes, with an explicit coordinator."""
    process_id: Annotated[int, NotNegative] = 0
    """Number of this process, with an explicit coordinator."""


def parse(
    argv: Sequence[str],
    program: str,
    description: str,
    presets: Mapping[str, Config],
    renamed: Mapping[str, str] | None = None,
) -> tuple[str, Config, RunOptions]:
    """Read `[PRESET] --field.name value ...`; the first preset is the default.

    Args:
        argv: arguments after the program's name.
        program: how the user calls it, for `--help`.
        description: first lines of `--help`.
        presets: name -> configuration to start from.
        renamed: dotted names of fields in earlier versions -> today's.

    Returns:
        Name of the preset, its configuration with the overrides, how to run it.

    Raises:
        InputError: no such preset, an option's earlier name, a number out of its field's range.
        SystemExit: `--help`, or an option that does not parse.
    """
    argv = list(argv)
    name = argv.pop(0) if argv and not argv[0].startswith("-") else next(iter(presets))
    if name not in presets:
        raise InputError(f"{name}: no such preset; choose from {', '.join(presets)}")
    start: Any = presets[name]
    _refuse_renamed(argv, renamed or {})
    unnamed = tyro.conf.arg(name="")  # options start at the fields, not at these two words

    def combine(config: Any, run: RunOptions) -> tuple[Any, RunOptions]:
        return config, run

    kinds: dict[str, Any] = {"config": type(start), "run": RunOptions}
    # the preset's type and values are known now alone
    combine.__annotations__ |= {name: Annotated[kind, unnamed] for name, kind in kinds.items()}
    combine.__defaults__ = (start, RunOptions())

    program, description = as_called(program), as_called(description)
    text = f"{description}\n\nUsage: {program} [{' | '.join(presets)}] [options]"
    config, run = tyro.cli(
        combine, args=argv, prog=f"{program} {name}", description=text, registry=_registry()
    )
    check_ranges(config)
    check_ranges(run)
    return name, config, run


def parse_options(
    kind: type[Config], argv: Sequence[str], program: str, description: str
) -> Config:
    """Read the options of a command that has no presets.

    Args:
        kind: dataclass of the options.
        argv: the options.
        program: how the user calls the command, for `--help`.
        description: first lines of `--help`.

    Raises:
        InputError: a number out of its field's range.
        SystemExit: `--help`, or an option that does not parse.
    """
    options = tyro.cli(
        kind,
        args=list(argv),
        prog=as_called(program),
        description=as_called(description),
        registry=_registry(),
    )
    check_ranges(options)
    return options


def _refuse_renamed(argv: Sequence[str], renamed: Mapping[str, str]) -> None:
    """Refuse an option by the name that it had, in one line that says today's name."""
    flags = {flag(old): flag(new) for old, new in renamed.items()}
    for word in argv:
        name = word.partition("=")[0].replace("_", "-")
        if name in flags:
            raise InputError(f"{name}: is called {flags[name]} now")


def flag(dotted: str) -> str:
    """Option of a field by its dotted name: `optimizer.clip_norm` -> `--optimizer.clip-norm`."""
    return "--" + dotted.replace("_", "-")


def check_ranges(config: Any, prefix: str = "") -> None:
    """Refuse a number that lies outside the range which stands beside its field.

    Args:
        config: dataclass, whose fields may be dataclasses.
        prefix: dotted name of the configuration within a larger one, with a dot at its end.

    Raises:
        InputError: names the option, its value and the range.
    """
    for name, value, limit in ranges(config, prefix):
        for number in value if isinstance(value, tuple | list) else (value,):
            if number is not None and not limit.admits(number):
                raise InputError(f"{flag(name)} {number}: {limit.complaint(number)}")


def ranges(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Range]]:
    """Dotted name, value and range of every field that has one; arguments of `check_ranges`."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value, limit = getattr(config, field.name), _range_of(hints[field.name])
        if limit is not None:
            yield f"{prefix}{field.name}", value, limit
        elif is_dataclass(value):
            yield from ranges(value, f"{prefix}{field.name}.")


def _range_of(hint: Any) -> Range | None:
    if get_origin(hint) is not Annotated:
        return None
    return next((extra for extra in get_args(hint)[1:] if isinstance(extra, Range)), None)


@cache
def _registry() -> ConstructorRegistry:
    """Rules of tyro, and one that shows a field's range beside its default."""
    registry = ConstructorRegistry()

    @registry.struct_rule
    def with_ranges(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not is_dataclass(info.type):
            return None
        hints: dict[str, Any] = get_type_hints(info.type, include_extras=True)
        docs = field_docs(info.type)
        specs = []
        for field in fields(info.type):
            default: Any = field.default
            hint: Any = hints[field.name]
            if isinstance(info.default, info.type):
                default = getattr(info.default, field.name)
            elif field.default_factory is not MISSING:
                default = field.default_factory()
            if (limit := _range_of(hint)) is not None:
                shown = tyro.conf.arg(help_behavior_hint=_hint(limit))
                hint = cast(Any, Annotated[hint, shown])
            specs.append(StructFieldSpec(field.name, hint, default, docs.get(field.name)))
        return StructConstructorSpec(info.type, tuple(specs))

    return registry


def _hint(limit: Range) -> Callable[[str], str]:
    return lambda default: f"({limit}; default: {default})"


@cache
def field_docs(kind: type) -> dict[str, str]:
    """What the source of a dataclass says below each of its fields, in one line each."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not is_dataclass(base):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                docs[node.target.id] = " ".join(str(after.value.value).split())
    return docs


def leading(
    argv: Sequence[str], count: int, question: str, usage: str
) -> tuple[list[str], list[str]]:
    """The names that a command starts with, and its options.

    Args:
        argv: arguments after the program's name.
        count: how many names there are.
        question: what to ask for if one is missing, with the usage.
        usage: what `--help` says before there are names.

    Raises:
        InputError: fewer names, and no call for help.
        SystemExit: fewer names, and a call for help.
    """
    names, rest = [], list(argv)
    while rest and len(names) < count and not rest[0].startswith("-"):
        names.append(rest.pop(0))
    if len(names) == count:
        return names, rest
    if "-h" in rest or "--help" in rest:
        print(as_called(usage))
        raise SystemExit(0)
    raise InputError(question)


def require_seeds(first: int, count: int) -> None:
    """Refuse seeds that do not fit into 32 bits; raises an InputError that names the option."""
    if not 0 <= first <= 2**31 - count:
        raise InputError(f"--first-seed {first}: seeds must lie between 0 and {2**31 - 1}")


def guard(main: Callable[[Sequence[str]], None], argv: Sequence[str]) -> None:
    """Run a program; what it cannot use is one line and exit status 2, an interrupt 130."""
    terminal.prepare()

    def farewell() -> str:
        folder = interrupt.run_under_way()
        if folder is None:
            return "interrupted"
        return f"interrupted; this continues it:\n{continuation(argv, str(folder))}"

    with terminal.without_alarms(), interrupt.Interrupts(farewell) as interrupts:
        try:
            names.require_ours()
            main(argv)
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) or interrupt.asked():
                print(farewell(), file=sys.stderr)
                interrupts.said = True
                raise SystemExit(interrupt.CODE) from None
            refusal = refusal_of(error)
            if not refusal:
                raise
        else:
            return
        print(f"error: {refusal}", file=sys.stderr)
        raise SystemExit(2) from None


def refusal_of(error: Exception) -> str:
    """What a user can do about an error, in one line; empty if it is a fault of the program's."""
    if isinstance(error, InputError):
        return as_called(str(error))
    full = str(error).partition("RESOURCE_EXHAUSTED: ")[2]  # so XLA begins what a device lacks
    if isinstance(error, MemoryError) or full:
        what = f" ({full.splitlines()[0][:200]})" if full else ""
        return (
            f"the memory is used up{what}; lower the batch size or the number of seeds or arms, or "
            "give less data"
        )
    if "jax" not in sys.modules:
        return ""
    from train.engine import parallel

    return parallel.missing_device()


def called() -> str:
    """How the user called this process: `python -m train.msa`, or `corrkd` as installed."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name}" if spec else Path(sys.argv[0]).name


def as_called(text: str) -> str:
    """A text that names programs by their modules, as the user calls them."""
    if called().split()[-1] != COMMAND:
        return text
    return re.sub(r"python -m train\.(?=\w)", f"{called()} ", text)


def continuation(argv: Sequence[str], folder: str) -> str:
    """The whole command that continues a run, for a shell.

    Args:
        argv: arguments with which it was begun or continued.
        folder: of the run.
    """
    words, rest = [], iter(argv)
    for word in rest:
        name, equals, _ = word.partition("=")
        if name == "--workdir" and not equals:
            next(rest, None)
        if name not in ("--workdir", "--resume", "--no-resume"):
            words.append(word)
    return f"{called()} {shlex.join([*words, '--workdir', folder, '--resume'])}"
