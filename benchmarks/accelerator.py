"""`python -m benchmarks.accelerator`: what an accelerator makes of each program, in a few minutes.

Every part runs in a process of its own on whatever JAX finds, most telling first, each with a
time limit. After each, `accelerator.md` and `accelerator.json` are written anew, so that a
session which is cut off keeps what it has measured; `logs/` holds what a part said. A part that
failed, or that no time was left for, has its row with the reason. Ratios are of work a second: of
models trained with torch's step, of physics steps with the ant's.
"""

import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import tyro

from benchmarks.accelerator_parts import PARTS, Part
from corrkd_jax.atomic import write_atomically
from corrkd_jax.errors import InputError
from corrkd_jax.ranges import Positive
from train.engine import cli

MINUTES = 8.0
"""That the parts' own limits are meant for."""
LEAST = 20.0
"""Seconds that must be left for a part to be started."""
QUIET = 10.0
"""Seconds between two lines of progress."""
_WORKER = "--worker"


@dataclass(frozen=True)
class Options:
    """Parts that are measured, and the time for them."""

    minutes: Annotated[float, Positive] = MINUTES
    """Minutes in all. A part gets what those before it left, up to a limit of its own, which is
    longer where there are more than eight."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")] = "runs/accelerator"
    """Folder for the table, the JSON file and the logs."""
    parts: tuple[str, ...] = ()
    """Parts that are measured, by name (corrkd-16x6) or by program (corrkd); empty: all."""
    rounds: Annotated[int, Positive] = 5
    """Number of times that a part is measured, as long as its time lasts; the median is shown."""
    small: bool = False
    """Sizes so small that any machine can try the program; the numbers then mean nothing."""


def main(argv: Sequence[str]) -> None:
    """Measure all parts, one after the other, and print the table."""
    if argv[:1] == [_WORKER]:
        worker(argv[1], float(argv[2]), Options(**json.loads(argv[3])))
        return
    names = ", ".join(part.name for part in PARTS)
    text = f"{__doc__}\nParts: {names}."
    prog = "python -m benchmarks.accelerator"
    options = cli.parse_options(Options, argv, prog, text)
    parts = chosen(options.parts)
    folder = Path(options.out)
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
    # a part's process ends with this one, whoever ends it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    report = Report(folder, argv, options.small)
    end = time.monotonic() + 60 * options.minutes
    for part in parts:
        left = end - time.monotonic()
        if left < LEAST:
            row = {"reason": f"not started: {max(left, 0):.0f} s were left"}
        else:
            limit = part.limit_s * max(1, options.minutes / MINUTES)
            row = measure(part, min(left, limit), options, folder / "logs")
        report.add(part, row)
        _say(f"{part.name}: {report.said(part)}")
    print(report.text())
    print(f"\n{report.table}")
    if not any("seconds" in row for row in report.rows.values()):
        raise SystemExit(1)


def chosen(names: Sequence[str]) -> list[Part]:
    """Parts by name, or all of a program, in the order in which they run.

    Raises:
        InputError: no part is called so.
    """
    programs = list(dict.fromkeys(part.name.split("-")[0] for part in PARTS))
    known = {part.name for part in PARTS} | set(programs)
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"--parts {unknown[0]}: choose from {', '.join(programs)}, or single parts: "
            f"{', '.join(part.name for part in PARTS)}"
        )
    wanted = names or programs
    return [p for p in PARTS if p.name in wanted or p.name.split("-")[0] in wanted]


def measure(part: Part, limit: float, options: Options, logs: Path) -> dict[str, Any]:
    """One part in a process of its own.

    Args:
        part: which.
        limit: seconds after which it is stopped.
        options: of the whole.
        logs: folder for what it says on stderr.

    Returns:
        What it found by name, with `reason` if it did not come to its end, and `took_s`.
    """
    found: dict[str, Any] = {}
    log = logs / f"{part.name}.txt"
    start = time.monotonic()
    with log.open("w") as said:
        # a group of its own, for a part may start processes too
        process = subprocess.Popen(
            command(part, limit, options),
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
        )
        reader = threading.Thread(target=_read, args=(process.stdout, found), daemon=True)
        reader.start()
        try:
            _wait(process, part, start + limit, found)
        finally:
            if stopped := process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            reader.join(QUIET)
    row = dict(found)
    if stopped:
        doing = "measuring" if "compile_s" in row else "compiling"
        row["reason"] = f"stopped after {limit:.0f} s, {doing}"
    elif process.returncode:
        row.setdefault("reason", _last_line(log) or f"ended with {process.returncode}")
    return row | {"took_s": time.monotonic() - start}


def command(part: Part, limit: float, options: Options) -> list[str]:
    """How a part's process is started."""
    words = [_WORKER, part.name, str(limit), json.dumps(asdict(options))]
    return [sys.executable, "-m", "benchmarks.accelerator", *words]


def _wait(process: subprocess.Popen, part: Part, end: float, found: dict[str, Any]) -> None:
    """Until the process ends or its time is over; a line of progress now and then."""
    start = time.monotonic()
    while process.poll() is None and (left := end - time.monotonic()) > 0:
        try:
            process.wait(min(QUIET, left))
        except subprocess.TimeoutExpired:
            doing = "measuring" if "compile_s" in found else "compiling"
            _say(f"{part.name}: {doing}, {time.monotonic() - start:.0f} s, {left:.0f} s left to it")


def _read(lines: IO[str], found: dict[str, Any]) -> None:
    """What a worker reports, a JSON object a line; libraries may print beside it."""
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            told = json.loads(line)
            found.update(told if isinstance(told, dict) else {})


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return next((line[:300] for line in reversed(lines) if line), "")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def worker(name: str, limit: float, options: Options) -> None:
    """The side of a part: reports what it knows as soon as it knows it, a JSON object a line."""
    start, out = time.monotonic(), sys.stdout
    part = next(part for part in PARTS if part.name == name)

    def tell(**found: Any) -> None:
        print(json.dumps(found), file=out, flush=True)

    with contextlib.redirect_stdout(sys.stderr):
        try:
            job = part.build(options.small)
            tell(**job.variant.facts, **_versions())
            times: list[float] = []
            while len(times) < options.rounds:
                before = time.monotonic()
                times.append(job.variant.run())
                tell(seconds=times, work=job.work)
                now = time.monotonic()
                if now - start + 2 * (now - before) > limit:
                    break
            tell(**job.notes(statistics.median(times)))
        except Exception as error:
            # the last lines of its trace say less
            tell(reason=f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")
            raise


def _versions() -> dict[str, str]:
    return {
        f"{name}_version": sys.modules[name].__version__
        for name in ("jax", "torch")
        if name in sys.modules
    }


class Report:
    """The table and the JSON file, both written anew with every row."""

    def __init__(self, folder: Path, argv: Sequence[str], small: bool = False):
        """Begin an empty table.

        Args:
            folder: folder of the results, which exists.
            argv: arguments of the command.
            small: whether the parts are of small sizes.
        """
        self.table, self._json = folder / "accelerator.md", folder / "accelerator.json"
        self.rows: dict[str, dict[str, Any]] = {}
        self._small = "; **small sizes: the numbers mean nothing**" if small else ""
        self._facts = {
            "command": " ".join(["python -m benchmarks.accelerator", *argv]),
            "started": time.strftime("%Y-%m-%d %H:%M"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}",
            "python": platform.python_version(),
        }

    def add(self, part: Part, row: dict[str, Any]) -> None:
        """Take a part's row, and write both files."""
        self.rows[part.name] = row
        content = {**self._facts, "parts": self.rows}
        write_atomically(
            self._json, lambda file: file.write(json.dumps(content, indent=1).encode())
        )
        write_atomically(self.table, lambda file: file.write((self.text() + "\n").encode()))

    def said(self, part: Part) -> str:
        """A part's measurement in words, or why there is none."""
        row = self.rows[part.name]
        if "seconds" not in row:
            return row.get("reason", "nothing measured")
        return part.says(statistics.median(row["seconds"]), row["work"])

    def text(self) -> str:
        """Facts, and a row a part."""
        head = (
            "part",
            "measured",
            "fastest to slowest",
            "against",
            "goal",
            "compile s",
            "in all s",
            "",
        )
        lines = [
            f"`{self._facts['command']}`",
            "",
            f"{self._device()}; {self._facts['started']}; {self._facts['machine']}; "
            f"python {self._facts['python']}{self._cache()}{self._small}",
            "",
            f"| {' | '.join(head)} |",
            "|---" * len(head) + "|",
        ]
        for part in PARTS:
            if part.name in self.rows:
                lines.append(f"| {' | '.join(self._cells(part))} |")
        return "\n".join(lines)

    def _cells(self, part: Part) -> list[str]:
        row = self.rows[part.name]
        spread = "-"
        if times := row.get("seconds"):
            ends = (part.says(x, row["work"]) for x in (min(times), max(times)))
            spread = " to ".join(text.split(" ")[0] for text in ends)
        notes = [row[key] for key in ("note", "reason") if key in row and "seconds" in row]
        return [
            f"{part.title} (`{part.name}`)",
            self.said(part),
            spread,
            self._against(part),
            part.goal or "-",
            f"{row['compile_s']:.0f}" if "compile_s" in row else "-",
            f"{row['took_s']:.0f}" if "took_s" in row else "-",
            "; ".join(notes).replace("|", "/"),
        ]

    def _against(self, part: Part) -> str:
        own, ratios = self.rows[part.name], []
        for name in part.against:
            other = self.rows.get(name, {})
            if "seconds" in own and "seconds" in other:
                rates = [x["work"] / statistics.median(x["seconds"]) for x in (own, other)]
                title = next(p.title for p in PARTS if p.name == name)
                ratios.append(f"{rates[0] / rates[1]:.2f} x {title}")
        return "; ".join(ratios) or "-"

    def _device(self) -> str:
        found = [
            ", ".join(
                [row["device"]]
                + [f"{x} {row[f'{x}_version']}" for x in ("jax", "torch") if f"{x}_version" in row]
            )
            for row in self.rows.values()
            if "device" in row
        ]
        return "; ".join(dict.fromkeys(found)) or "no device answered"

    def _cache(self) -> str:
        folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
        return f"; compiled programs may come from {folder}" if folder else ""


if __name__ == "__main__":
    cli.guard(main, sys.argv[1:])
