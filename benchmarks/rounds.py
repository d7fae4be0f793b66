"""Timing of variants in turn, each in its own process: a ratio then compares neighbours in time.

A benchmark is a module with a command line `python -m MODULE`. Started as `python -m MODULE
--worker NAME OPTIONS` it is one variant, which reports when it is warm and then times steps on
request.
"""

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Variant:
    """One of the things that a benchmark compares, compiled and warm.

    Attributes:
        run: one round; gives seconds a step.
        facts: `compile_s` and `device`, and `planned_mb` where it is known.
        text: the compiled program, where there is one.
    """

    run: Callable[[], float]
    facts: dict[str, Any]
    text: Callable[[], str] | None = None


@dataclass(frozen=True)
class Measured:
    """Measurement of one variant.

    Attributes:
        times: seconds a step, one a round.
        compile_s: seconds until the first step.
        peak_mb: largest memory held, of the device where it counts its own.
        device: name of the device.
        planned_mb: memory that the compiler plans to hold on a device at once; 0 where none is
            known.
    """

    times: tuple[float, ...]
    compile_s: float
    peak_mb: float
    device: str
    planned_mb: float = 0.0

    @property
    def median(self) -> float:
        """Median of the rounds, seconds a step."""
        return statistics.median(self.times)


def measure(
    module: str, names: Sequence[str], options: dict[str, Any], rounds: int
) -> dict[str, Measured]:
    """Measurement of every variant, `rounds` times, one after the other within a round.

    Args:
        module: name of the benchmark's module.
        names: names of the variants.
        options: settings that the workers receive, as JSON.
        rounds: number of rounds.

    Returns:
        Variant -> measurement.

    Raises:
        SystemExit: a worker stopped.
    """
    workers, facts = {}, {}
    for name in names:
        # none beside another, so that `compile_s` is its own
        workers[name] = process = _start(module, name, options)
        facts[name] = json.loads(_ask(process, ""))  # compiled and warm
        print(f"{name}: ready after {facts[name]['compile_s']:.1f} s", file=sys.stderr)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name, process in workers.items():
            times[name].append(float(_ask(process, "go\n")))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    found = {}
    for name, process in workers.items():
        peak = float(_ask(process, "memory\n"))
        process.stdin.close()
        process.wait()
        found[name] = Measured(tuple(times[name]), peak_mb=peak, **facts[name])
    return found


def ratio(baseline: Measured, own: Measured, models: int = 1) -> str:
    """Speed against a baseline, for each model: median of the rounds, least and largest.

    Args:
        baseline: measurement to compare with.
        own: measurement of the variant.
        models: number of models that the variant trains at once.

    Returns:
        Text such as `2.10 (2.05-2.13)`.
    """
    pairs = [models * a / b for a, b in zip(baseline.times, own.times, strict=True)]
    return f"{statistics.median(pairs):.2f} ({min(pairs):.2f}-{max(pairs):.2f})"


def serve(variant: Variant, peak_mb: Callable[[], float]) -> None:
    """Worker's side of `measure`: report that it is warm, then run each time that it is asked to.

    Args:
        variant: what is measured.
        peak_mb: returns the peak memory of this process.
    """
    print(json.dumps(variant.facts), flush=True)
    for line in sys.stdin:
        print(peak_mb() if line == "memory\n" else variant.run(), flush=True)


def random_variables(init: Callable[..., Any], *arguments: Any) -> Any:
    """Variables as a network's `init` would give them, without compiling it.

    Kernels are normal with variance 2 / fan-in; scales, biases and statistics are 1: which
    numbers they are costs nothing.
    """
    import jax
    import numpy as np

    rng = np.random.default_rng(0)

    def fill(x: Any) -> Any:
        if len(x.shape) < 2:
            return np.ones(x.shape, x.dtype)
        return rng.normal(0, (2 / np.prod(x.shape[:-1])) ** 0.5, x.shape).astype(x.dtype)

    return jax.tree.map(fill, jax.eval_shape(init, *arguments))


def torch_peak_mb() -> float:
    """Peak memory of the GPU where there is one, else of the process.

    Returns:
        Megabytes.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return _process_mb()


def jax_peak_mb() -> float:
    """Peak memory of the device where it counts its own, else of the process.

    Returns:
        Megabytes.
    """
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 1e6 if "peak_bytes_in_use" in stats else _process_mb()


def torch_device() -> tuple[str, str]:
    """Device for torch, and its name.

    Returns:
        `cuda` or `cpu`, and the name for a table.
    """
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name()
    return "cpu", "cpu"


def _process_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _start(module: str, name: str, options: dict[str, Any]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", module, "--worker", name, json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _ask(process: subprocess.Popen, line: str) -> str:
    process.stdin.write(line)
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit("a worker stopped; see its message above")
    return answer
