"""What the tests read from README and docs: pages, their code, their links, their commands."""

import contextlib
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

from corrkd_jax.errors import InputError
from train.engine import parallel, workdir

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROGRAMS = ("msa", "debias", "dfkd", "quadruped")
"""What a `config.json` may name as its program."""

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r'^```\w+ title="([^"\n]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(
    r"(?:python -m (?=(?:train|benchmarks)\.\w)|(?:^|`)(?=corrkd [a-z-]))([^`\n]*)"
)
_STANDS_FOR = {"MODEL": "mult", "METHOD": "mcis", "HOST": "fast", "FIRST": "1", "LAST": "2"}


def named(page: Path) -> str:
    """A page as the tests' ids show it."""
    return page.relative_to(ROOT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language; `""` for those that name none."""
    return [code for tongue, code in _FENCE.findall(text) if tongue == language]


def files(text: str) -> dict[str, str]:
    """The files that a page writes out, by path: its blocks that have one as their title."""
    return dict(_FILE.findall(text))


def modules(text: str) -> set[str]:
    """Names of the modules that a page writes out, packages among them."""
    paths = [Path(path).with_suffix("") for path in files(text)]
    return {".".join(p.parent.parts if p.name == "__init__" else p.parts) for p in paths}


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def slugs(text: str) -> set[str]:
    """The anchors of a page's headings, as hosts of repositories make them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    plain = [re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def commands(text: str) -> list[str]:
    """Every `python -m train...`, `python -m benchmarks...` or `corrkd ...`, without its comment.

    Optional words lose their brackets, and names that stand for a choice become one. What stands
    in the files of a page is code.
    """
    found = []
    for line in _FILE.sub("", text).splitlines():
        for command in _COMMAND.findall(line):
            command = re.split(r"\s#|\s{3,}|\s&&", command)[0]
            words = re.sub(r"[][]|\.\.\.$", "", command).rstrip(" .,;:").split(" ")
            found.append(" ".join(_STANDS_FOR.get(word, word) for word in words))
    return list(dict.fromkeys(found))


class Understood(Exception):
    """A program has read its command line and checked it."""


@contextlib.contextmanager
def _stop_when_understood() -> Iterator[None]:
    """Let programs read and check their command lines, and do nothing after that."""
    read, join, claim = tyro.cli, parallel.connect, workdir.Workdir.__init__

    def read_only(options: Any, *args: Any, **kwargs: Any) -> Any:
        result = read(options, *args, **kwargs)
        if isinstance(options, type):  # options alone; a config is checked before it runs
            raise Understood
        return result

    def stop(*args: Any, **kwargs: Any) -> None:
        raise Understood

    tyro.cli, parallel.connect, workdir.Workdir.__init__ = read_only, stop, stop
    try:
        yield
    finally:
        tyro.cli, parallel.connect, workdir.Workdir.__init__ = read, join, claim


def understand(command: str, folder: Path) -> None:
    """Give a command to its program as far as it takes to read and check it.

    Args:
        command: as `commands` gives it.
        folder: empty; takes runs that are folders with a `config.json` alone, for commands that
            are about a run, which may be of any program.

    Raises:
        SystemExit, InputError: the program refuses it; of several programs the last.
    """
    module, *argv = shlex.split(command)
    for name in PROGRAMS:
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps({"program": name}))
    run = {"train.evaluate": 0, "train.export": 0}.get(module)
    if module == "corrkd":
        module, run = "train.command", 1 if argv[0] in ("evaluate", "export") else None
    if module == "train.quadruped" and argv[:1] in (["export"], ["render"]):
        run = 1
    refused: BaseException | None = None
    for name in PROGRAMS if run is not None else PROGRAMS[:1]:
        words = list(argv)
        if run is not None and run < len(words):
            words[run] = str(folder / name)
        try:
            with _stop_when_understood():
                importlib.import_module(module).main(words)
        except Understood:
            return
        except (SystemExit, InputError) as error:
            if isinstance(error, SystemExit) and not error.code:
                return  # --help
            refused = error
    raise refused or AssertionError(f"{command}: ran")
