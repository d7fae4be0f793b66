"""`python -m benchmarks.kills`: a run that is killed and continued has the bits of one that is not.

A tiny run of each program is begun, ended by SIGKILL at random moments, and continued each time
with --resume, until it comes to its end. Metrics, results and models are then compared, bit for
bit, with those of a run that nothing stopped. Four of five moments lie after the first epoch that
a process trains, one before, where it compiles. The table says between which files the kills fell.
"""

import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import jax

from corrkd_jax.atomic import write_pickle
from corrkd_jax.data import planted, planted_subjects
from corrkd_jax.errors import InputError
from corrkd_jax.ranges import NotNegative, Positive
from train import programs
from train.engine import cli, tables

Main = Callable[[Sequence[str]], None]

TINY = {
    "msa": "mosi --data.path DATA/planted.pkl --data.teacher-path DATA/planted_teacher.pkl "
    "--data.labels classes --network.features 8 --network.layers 1 --network.heads 2 "
    "--optimizer.batch-size 16 --optimizer.epochs 8 --optimizer.teacher-epochs 3 --seeds 1 "
    "--arms CorrKD",
    "debias": "mosi --data.path DATA/planted_subjects.pkl --data.labels classes --model pooled "
    "--debias suci --small --optimizer.epochs 10 --optimizer.batch-size 64 --seeds 2",
    "dfkd": "digits --host fast --seeds 1 --no-ablate --teacher-training.epochs 1 "
    "--optimizer.epochs 3 --optimizer.steps 8 --synthesis.steps 2 --compensation.first 1",
    "quadruped": "surrogate --num-envs 16 --seeds 1 --evaluation-robots 8 --network.front 8 "
    "--network.hidden 8 --ppo.rollout-length 4 --ppo.iterations 6 --ppo.report-every 1 "
    "--ppo.epochs 2 --detector.updates 4 --detector.report-every 1 --detector.hidden 8 "
    "--detector.tune-iterations 2 --arms ours",
}
"""Program -> a run of seconds; DATA stands for a folder of small planted files."""
METRICS = "metrics.jsonl"
COMPARED = (METRICS, "results.json", "model.json", "evaluation.json")
"""Files that are the same, byte by byte."""
PHASES = ("begun", "training", "model saved", "results written")
"""What a killed process had come to, by the files in its folder."""
_EARLY = 0.2
"""Share of the kills before a process trains."""


@dataclass(frozen=True)
class Options:
    """The programs, and how often each is killed."""

    kills: Annotated[int, Positive] = 50
    """Number of kills of each program."""
    program: tuple[str, ...] = ()
    """Names of programs; empty: all."""
    seed: Annotated[int, NotNegative] = 0
    """Seed of the moments."""
    keep: str = ""
    """Folder in which the runs stay; empty: none does."""


@dataclass
class Outcome:
    """What became of a program's runs.

    Attributes:
        compiling: seconds until the first epoch of a run that nothing stops, compiled before.
        training: seconds from then to its end.
        phases: kills by what the process had come to, one of `PHASES`.
        runs: that were killed at least once, and compared.
        differences: what was not the same: run and file.
    """

    compiling: float = 0.0
    training: float = 0.0
    phases: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """Number of kills."""
        return sum(self.phases.values())


def main(argv: Sequence[str]) -> None:
    """Kill every program, print a table; exits with 1 if a run is not the same."""
    options = cli.parse_options(Options, argv, "python -m benchmarks.kills", __doc__ or "")
    names = options.program or tuple(programs.PROGRAMS)
    for name in names:
        if name not in TINY:
            raise InputError(f"--program {name}: choose from {', '.join(TINY)}")
    rows, differences = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.keep or temporary)
        words = arguments(folder / "data")
        for name in names:
            moments = random.Random(f"{options.seed} {name}")
            run = programs.find(name).main
            outcome = trial(run, words[name], folder / name, options.kills, moments)
            differences += [f"{name}: {each}" for each in outcome.differences]
            rows.append(row(name, outcome))
            print(tables.table(HEAD, rows[-1:]), flush=True)
    if len(rows) > 1:
        print("\n" + tables.table(HEAD, rows))
    if differences:
        print("\n".join(["", "not the same:", *differences]))
        raise SystemExit(1)


HEAD = ["program", "kills", *PHASES, "runs compared", "s until it trains", "s then", "the same"]


def row(name: str, outcome: Outcome) -> list[str]:
    """A program's row of the table."""
    return [
        name,
        str(outcome.kills),
        *(str(outcome.phases[phase]) for phase in PHASES),
        str(outcome.runs),
        f"{outcome.compiling:.1f}",
        f"{outcome.training:.1f}",
        "no" if outcome.differences else "yes",
    ]


def arguments(data: Path) -> dict[str, list[str]]:
    """Command lines by program, without their folder; writes the files that they read."""
    contents = planted.generate(3, train=64, valid=32, test=40, teacher_train=64, frames=4)
    for name, content in zip(("planted.pkl", "planted_teacher.pkl"), contents, strict=True):
        write_pickle(data, name, content)
    planted_subjects.write(data, seed=3)
    return {
        name: [*words.replace("DATA", str(data)).split(), "--devices", "1", "--save-every", "0"]
        for name, words in TINY.items()
    }


def trial(
    run: Main, argv: Sequence[str], folder: Path, kills: int, moments: random.Random
) -> Outcome:
    """Kill runs of a program at random moments, and compare each in the end.

    Processes are forked from this one, which has all libraries and must never have asked JAX for a
    device: their time is the run's own, and so are the moments.

    Args:
        run: the program.
        argv: of a run, without its folder.
        folder: for everything; new.
        kills: how many.
        moments: draws them.

    Raises:
        InputError: a run fails that nobody killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    importlib.import_module("tensorboardX")  # which a run imports late
    # compiled once
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    outcome, whole = Outcome(), folder / "whole"
    for each in (folder / "first", whole):
        begun = time.monotonic()
        process = start(run, resumed(argv, each), each)
        require_success(wait(process, grows(each / METRICS)), each)
        trains = time.monotonic()
        require_success(wait(process), each)
        outcome.compiling, outcome.training = trains - begun, time.monotonic() - trains
    outcome.differences += compared(folder / "first", whole)
    while outcome.kills < kills:
        killed = folder / f"killed-{outcome.runs + 1}"
        for phase in killings(run, argv, killed, moments, outcome):
            outcome.phases[phase] += 1
            if outcome.kills == kills:
                require_success(wait(start(run, resumed(argv, killed), killed)), killed)
                break
        outcome.differences += compared(killed, whole)
        outcome.runs += 1
        same = "not the same" if outcome.differences else "the same"
        print(f"{folder.name}: {outcome.kills} kills, {outcome.runs} runs: {same}", flush=True)
    return outcome


def killings(
    run: Main, argv: Sequence[str], folder: Path, moments: random.Random, whole: Outcome
) -> Iterator[str]:
    """Kill one run again and again, until it ends before it is killed; what each had come to."""
    while True:
        process = start(run, resumed(argv, folder), folder)
        if moments.random() < _EARLY:
            status = wait(process, after(moments.uniform(0, whole.compiling)))
        else:
            status = wait(process, grows(folder / METRICS))
            if status is None:
                status = wait(process, after(moments.uniform(0, whole.training)))
        if status is None:
            os.kill(process, signal.SIGKILL)
            status = wait(process)
        if status != -signal.SIGKILL:
            require_success(status, folder)
            return
        yield phase_of(folder)


def resumed(argv: Sequence[str], folder: Path) -> list[str]:
    """The command line that begins a run, or continues it where it was begun."""
    begun = (folder / "config.json").exists()
    return [*argv, "--workdir", str(folder), *(["--resume"] if begun else [])]


def phase_of(folder: Path) -> str:
    """What a run has come to, by its files."""
    if (folder / "results.json").exists():
        return PHASES[3]
    if (folder / "model").exists():
        return PHASES[2]
    return PHASES[1] if (folder / METRICS).exists() else PHASES[0]


def start(run: Main, argv: Sequence[str], folder: Path) -> int:
    """Fork a process that runs a program; what it says is appended to a file beside the folder."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stderr = sys.__stderr__  # this process may have led its own elsewhere
        cli.guard(run, argv)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(process: int, until: Callable[[], bool] = lambda: False) -> int | None:
    """Exit status of a process once it has ended; None if something else comes true before."""
    while not until():
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have gone by."""
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() >= deadline


def grows(path: Path) -> Callable[[], bool]:
    """Whether a file has grown since it was looked at last; it may shrink, or not be there."""
    sizes = [sys.maxsize]

    def grown() -> bool:
        sizes.append(path.stat().st_size if path.exists() else 0)
        return sizes[-1] > sizes.pop(0)

    return grown


def require_success(status: int | None, folder: Path) -> None:
    """Refuse the exit status of a run that failed by itself."""
    if status:
        log = folder.with_suffix(".log")
        last = (log.read_text(encoding="utf-8").splitlines() or [""])[-1]
        raise InputError(f"{log}: a run ended with {status}: {last}")


def compared(folder: Path, whole: Path) -> list[str]:
    """Files in which two runs differ, or that a kill left behind."""
    # in a process of its own: it reads models by JAX
    reads, writes = os.pipe()
    process = os.fork()
    if not process:
        found = ["comparison failed"]
        try:
            found = [*differences(folder, whole), *litter(folder)]
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os.write(writes, json.dumps(found[:20]).encode())
            os._exit(0)
    os.close(writes)
    with open(reads, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(process, 0)
    return [f"{folder.name}/{name}" for name in json.loads(answer)]


def differences(folder: Path, whole: Path) -> Iterator[str]:
    """Files in which two runs differ."""
    for name in COMPARED:
        files = {path.relative_to(whole) for path in whole.rglob(name)}
        for file in sorted(files | {path.relative_to(folder) for path in folder.rglob(name)}):
            if _bytes(folder / file) != _bytes(whole / file):
                yield str(file)
    for model in sorted(whole.rglob("model")):
        place = model.relative_to(whole)
        found, wanted = _arrays(folder / place), _arrays(model)
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                yield f"{place}/{name}"


def litter(folder: Path) -> list[str]:
    """What a killed save left unfinished, and nobody removed."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if ".orbax-checkpoint-tmp" in path.name or path.name in (".model.new", ".model.old")
    ]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _arrays(folder: Path) -> Mapping[str, tuple[str, bytes]]:
    """Arrays of a saved model by name: their types, and their bits."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        return {
            name: (f"{x.dtype} {x.shape}", x.tobytes())
            for name, x in checkpointer.restore(folder.absolute()).items()
        }


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
