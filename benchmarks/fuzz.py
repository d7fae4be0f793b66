"""`python -m benchmarks.fuzz [--reader NAME]`: readers given damaged files.

Small whole files are damaged at random: bits, numbers, slices, and the members of archives and the
headers of weights, whose checksums and lengths are then mended, so that the damage lies deeper. A
reader must read the file or refuse it with one line. What is counted against it: another exception,
a message of several lines, more than 5 s, more than 64 MiB beyond a hundred times the file, and a
result that breaks the reader's promises. Such inputs are kept in the folder of `--out`; that which
ends the process is left in the folder for temporary files.
"""

import faulthandler
import io
import random
import struct
import sys
import time
import traceback
import tracemalloc
import warnings
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from corrkd_jax.errors import InputError
from corrkd_jax.ranges import NotNegative, Positive
from train.engine import cli
from train.engine.progress import say
from train.engine.tables import line, rule
from train.engine.workdir import make_folder

SLOW = 5.0
"""Seconds that an input may take."""
MEMORY = 64 * 2**20
"""Bytes that an input may take beyond a hundred times its size."""
HUNG = 300
"""Seconds of a hundred inputs after which the process gives up, and says where it hangs."""

_NUMBERS = (0, 1, -1, 127, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**62)
_TEXTS = (b"-1", b"nan", b"1e999", b"99999999999999999999", b"\n", b"\0", b"[", b"{", b'"', b"\xff")


@dataclass(frozen=True)
class Options:
    """The readers, and how much is tried."""

    inputs: Annotated[int, Positive] = 10_000
    """Number of damaged inputs for each reader."""
    reader: tuple[str, ...] = ()
    """Readers to try, by name; empty: all."""
    seed: Annotated[int, NotNegative] = 0
    """Seed of the damage."""
    out: str = "runs/fuzz"
    """Folder for the inputs that a reader failed on."""


@dataclass
class Outcome:
    """What became of a reader's inputs.

    Attributes:
        read: inputs that were read.
        refused: inputs that were refused with one line.
        failures: kind of failure -> number of inputs.
        examples: kind of failure -> the first such input, and what was said.
        seconds: in all.
        peak: most bytes that Python and NumPy held for one input.
    """

    read: int = 0
    refused: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    seconds: float = 0.0
    peak: int = 0

    def fail(self, kind: str, data: bytes, said: str) -> None:
        """Count a failure; the first of a kind is kept."""
        self.failures[kind] += 1
        self.examples.setdefault(kind, (data, said))


def damage(data: bytes, rng: random.Random) -> bytes:
    """Some bytes with one to four changes; inside an archive or a header as often as not."""
    if rng.random() < 0.5:
        if data.startswith(b"PK\x03\x04"):
            return _in_member(data, rng)
        if data[8:9] == b"{" and len(data) > 16:
            return _in_header(data, rng)
    return _changed(data, rng)


def _changed(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        # most lengths and names stand at the beginning
        at = rng.randrange(max(1, min(len(out), 200) if rng.random() < 0.3 else len(out)))
        width = rng.choice((1, 2, 4, 8))
        number = rng.choice(_NUMBERS) % 2 ** (8 * width)
        match rng.randrange(8):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                out[at : at + 1] = bytes(x ^ (1 << rng.randrange(8)) for x in out[at : at + 1])
            case 2:
                out[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
            case 3:
                del out[at : at + rng.choice((1, 2, 8, 100))]
            case 4:
                out[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
            case 5:
                out[at:at] = out[at : at + rng.choice((1, 8, 100))]
            case 6:
                out[at : at + rng.choice((0, 1, 2))] = rng.choice(_TEXTS)
            case _:
                del out[rng.randrange(len(out) + 1) if rng.random() < 0.3 else len(out) :]
    return bytes(out)


def _in_member(data: bytes, rng: random.Random) -> bytes:
    """A zip archive one of whose members, or of their names, is damaged; its checksums hold."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(x, archive.read(x)) for x in archive.infolist()]
    chosen, out = rng.randrange(len(members)), io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, (member, content) in enumerate(members):
            name = member.filename
            if number == chosen and rng.random() < 0.2:
                name = _changed(name.encode(), rng).decode("latin1") or "x"
            elif number == chosen:
                content = _changed(content, rng)
            archive.writestr(zipfile.ZipInfo(name), content, member.compress_type)
    return out.getvalue()


def _in_header(data: bytes, rng: random.Random) -> bytes:
    """A `.safetensors` whose description is damaged; its length holds."""
    size = int.from_bytes(data[:8], "little")
    header = _changed(data[8 : 8 + size], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def fuzz(name: str, inputs: int, seed: int) -> Outcome:
    """What one reader makes of damaged files.

    Args:
        name: of the reader.
        inputs: number of damaged inputs.
        seed: of the damage.

    Returns:
        What became of them.

    Raises:
        AssertionError: the reader does not read the whole files, so that nothing is shown.
    """
    from benchmarks.fuzz_readers import READERS

    reader, rng, outcome = READERS[name], random.Random(f"{name} {seed}"), Outcome()
    start = time.perf_counter()
    with TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = reader.write(Path(place))
        whole = {path: path.read_bytes() for path in paths}
        assert reader.check(reader.read(paths[0])) == ""
        tracemalloc.start()
        try:
            for number in range(inputs):
                if number % 100 == 0:
                    faulthandler.dump_traceback_later(HUNG, exit=True, file=sys.__stderr__)
                path = rng.choice(paths)
                data = damage(whole[path], rng)
                path.write_bytes(data)
                _try(reader, paths[0], data, outcome)
                path.write_bytes(whole[path])
        finally:
            tracemalloc.stop()
            faulthandler.cancel_dump_traceback_later()
    outcome.seconds = time.perf_counter() - start
    return outcome


def _try(reader, path: Path, data: bytes, outcome: Outcome) -> None:
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    start = time.perf_counter()
    try:
        if wrong := reader.check(reader.read(path)):
            outcome.fail("broken promise", data, wrong)
        else:
            outcome.read += 1
    except InputError as error:
        if len(str(error).splitlines()) == 1:
            outcome.refused += 1
        else:
            outcome.fail("several lines", data, str(error))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        outcome.fail(f"{type(error).__name__} at {where}", data, traceback.format_exc())
    if time.perf_counter() - start > SLOW:
        outcome.fail("slow", data, f"{time.perf_counter() - start:.1f} s")
    taken = tracemalloc.get_traced_memory()[1] - before
    outcome.peak = max(outcome.peak, taken)
    if taken > MEMORY + 100 * len(data):
        outcome.fail("memory", data, f"{taken:,} bytes for {len(data):,}")


def main(argv: Sequence[str]) -> None:
    """Try readers, keep what they failed on, print a table."""
    from benchmarks.fuzz_readers import READERS

    options = cli.parse_options(Options, argv, "python -m benchmarks.fuzz", __doc__ or "")
    if unknown := set(options.reader) - set(READERS):
        raise InputError(f"--reader {min(unknown)}: choose from {', '.join(READERS)}")
    head = ["reader", "read", "refused", "failures", "ms an input", "most MiB"]
    say("\n".join([line(head[0], head[1:]), rule(len(head))]))
    failed = 0
    for name in options.reader or READERS:
        outcome = fuzz(name, options.inputs, options.seed)
        failed += outcome.failures.total()
        for kind, (data, said) in outcome.examples.items():
            stem = "".join(x if x.isalnum() else "-" for x in f"{name} {kind}")
            path = Path(options.out) / f"{stem}-{options.seed}"
            make_folder(path.parent)
            path.with_suffix(".bin").write_bytes(data)
            path.with_suffix(".txt").write_text(said)
        # a row as soon as it is known: all readers take half an hour
        cells = [
            f"{outcome.read:,}",
            f"{outcome.refused:,}",
            ", ".join(f"{kind} ({n})" for kind, n in outcome.failures.items()) or "none",
            f"{1e3 * outcome.seconds / options.inputs:.1f}",
            f"{outcome.peak / 2**20:.1f}",
        ]
        say(line(name, cells))
    if failed:
        raise InputError(f"{failed} inputs failed; the first of each kind is in {options.out}")


if __name__ == "__main__":
    faulthandler.enable()  # a reader in C may end the process
    cli.guard(main, sys.argv[1:])
