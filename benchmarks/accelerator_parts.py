"""What `python -m benchmarks.accelerator` measures, most telling first.

A part is a name, a function that compiles something and returns how to time it, and how to say
what came out. To add one, write its function and put it into `PARTS`; each runs in a process of
its own, so imports belong inside the function.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import rounds


@dataclass(frozen=True)
class Job:
    """Something compiled that can be timed.

    Attributes:
        variant: times one step, whatever the part calls a step.
        work: what a step does, in a unit that a part shares with those it is held against.
        notes: given the seconds of a step, what else was found, by name; `note` is shown.
    """

    variant: rounds.Variant
    work: float = 1.0
    notes: Callable[[float], dict[str, Any]] = lambda seconds: {}


@dataclass(frozen=True)
class Part:
    """One measurement in a process of its own.

    Attributes:
        name: of the part; `--parts` takes it, or what stands before its first dash.
        title: as the table has it.
        build: whether sizes are to be small -> the job.
        says: seconds of a step and its work -> the measurement in words.
        limit_s: seconds that the part may take where all have eight minutes; more where there
            are more.
        against: parts that it is held against, as work a second.
        goal: what was set as a goal, in words.
    """

    name: str
    title: str
    build: Callable[[bool], Job]
    says: Callable[[float, float], str]
    limit_s: float
    against: tuple[str, ...] = ()
    goal: str = ""


def _corrkd(name: str, small: bool) -> Job:
    from benchmarks import msa

    # no loop but the one over steps turns so often, by which the text of the program finds it
    options = msa.Options(steps=3, batch=4) if small else msa.Options(steps=23)
    seeds, arms = msa.lanes(name)
    variant = msa.ours(name, options)
    return Job(variant, seeds * arms, partial(share_of_roofline, variant, options, seeds, small))


def share_of_roofline(
    variant: rounds.Variant, options: Any, seeds: int, small: bool, seconds: float
) -> dict[str, Any]:
    """How near a loop over training steps comes to what the device can do.

    Args:
        variant: compiled; its text is read.
        options: of `benchmarks.msa`: turns of the loop, and how seeds share the device.
        seeds: of the variant.
        small: whether the device's peak is to be measured with small arrays.
        seconds: of a step.

    Returns:
        Operations and bytes of a step, the peak that was seen, the share, and a `note`.
    """
    import jax.numpy as jnp

    from benchmarks import roofline
    from train.engine import parallel, stage

    dtype = parallel.compute_dtype("auto")
    program = roofline.Program(variant.text())
    notes: dict[str, Any] = {"instructions": program.instructions}
    turn = program.turn(options.steps)
    if turn is None:
        return notes | {"note": "no roofline: the loop over steps was not found in the program"}
    # where seeds run one after the other, each has a loop of its own
    turn = turn.times(seeds if stage.lanes_for(options.lanes) is stage.looped else 1)
    large = (64, 1) if small else (8192, 2000) if dtype == jnp.bfloat16 else (2048, 200)
    peak = roofline.measure_peak(dtype, *large)
    share = peak.seconds(turn) / seconds
    by_bytes = turn.bytes / peak.bytes > turn.operations / peak.operations
    return notes | {
        "operations": turn.operations,
        "bytes": turn.bytes,
        "peak_operations_s": peak.operations,
        "peak_bytes_s": peak.bytes,
        "roofline_share": share,
        "note": (
            f"{100 * share:.0f} % of the roofline, bound by {'memory' if by_bytes else 'products'}:"
            f" {turn.bytes / 1e6:.3g} MB and {turn.operations / 1e9:.3g} GFLOP a step; "
            f"{peak.bytes / 1e9:.3g} GB/s and {peak.operations / 1e12:.3g} TFLOP/s seen; "
            f"{program.instructions} instructions"
        ),
    }


def _torch(mode: str, small: bool) -> Job:
    try:
        import torch
    except ImportError:
        raise SystemExit("torch is not installed (pip install torch==2.13.0)") from None

    from benchmarks import msa

    if mode == "compiled, CUDA graphs" and not torch.cuda.is_available():
        raise SystemExit("CUDA graphs need a GPU that torch can see")
    options = msa.Options(steps=2, batch=4) if small else msa.Options()
    return Job(msa.theirs(options, mode), notes=lambda _: {"note": f"torch {torch.__version__}"})


def _robots(variant: str, robots: int, small: bool) -> Job:
    from benchmarks import quadruped

    # four groups in four minibatches, in training
    robots, steps = (16, 2) if small else (robots, 24)
    options = quadruped.Options(num_envs=robots, steps=steps)
    physics = robots * quadruped.SUBSTEPS[variant]
    return Job(quadruped.build(variant, options), physics)


def _control_steps(substeps: int, seconds: float, work: float) -> str:
    return f"{work / substeps / seconds:,.0f} control steps/s"


def _solo8(robots: int) -> Part:
    return Part(
        f"solo8-{robots}",
        f"SOLO8, learning, {robots:,} robots",
        partial(_robots, "learning", robots),
        partial(_control_steps, 4),
        limit_s=150,
        against=("ant-4096",),
        goal="500,000 control steps/s at 4,096" if robots == 4096 else "",
    )


def _fast5(small: bool) -> Job:
    import jax

    from benchmarks import dfkd

    # as published on an accelerator; what it takes a CPU hours to do is cut short
    steps = 400 if jax.default_backend() != "cpu" else 4
    options = dfkd.Options(steps=steps)
    if small:
        options = dfkd.Options(steps=1, batch=4, prototypes=4)
    variant = dfkd.ours(False, options)
    note = (
        f"a call and {options.steps} steps of {options.batch}; "
        f"{variant.facts['planned_mb']:.0f} MB planned"
    )
    return Job(variant, notes=lambda _: {"note": note})


def _grid(small: bool) -> Job:
    import time

    import jax

    from benchmarks import debias

    start = time.perf_counter()
    options = debias.Options(samples=16 if small else 5000)
    clocks, points = debias.grid_clocks(options, small)
    facts = {
        "compile_s": time.perf_counter() - start,
        "device": jax.devices()[0].device_kind,
    }

    def notes(seconds: float) -> dict[str, Any]:
        once = clocks["pass"]()
        return {
            "pass_s": once,
            "note": (
                f"{points} points on {options.samples} samples; an evaluation pass of MulT takes "
                f"{once:.2f} s, {once / seconds:.0f} grids"
            ),
        }

    return Job(rounds.Variant(clocks["grid"], facts), notes=notes)


def _per_model(seconds: float, work: float) -> str:
    a_step = f"{1e3 * seconds:.2f} ms a step"
    return a_step if work == 1 else f"{1e3 * seconds / work:.2f} ms a model ({a_step})"


def _seconds(seconds: float, work: float) -> str:
    return f"{seconds:.3f} s"


_TORCH = ("corrkd-torch", "corrkd-torch-compiled", "corrkd-torch-graphs")

PARTS: tuple[Part, ...] = (
    Part(
        "corrkd-1x1",
        "CorrKD's step, 1 model",
        partial(_corrkd, "1x1"),
        _per_model,
        limit_s=150,
        against=_TORCH,
        goal="10 times eager torch; compiled in 60 s",
    ),
    Part("corrkd-torch", "eager torch, float32", partial(_torch, "eager"), _per_model, limit_s=90),
    Part(
        "corrkd-16x6",
        "CorrKD's step, 16 x 6 models",
        partial(_corrkd, "16x6"),
        _per_model,
        limit_s=200,
        against=_TORCH,
        goal="50 times eager torch, a model; compiled in 60 s",
    ),
    _solo8(4096),
    Part(
        "ant-4096",
        "Brax's ant (MJX), 4,096 robots",
        partial(_robots, "ant", 4096),
        partial(_control_steps, 5),
        limit_s=120,
    ),
    Part(
        "corrkd-torch-compiled",
        "torch.compile",
        partial(_torch, "compiled"),
        _per_model,
        limit_s=150,
    ),
    Part("fast5", "Fast-5, an epoch", _fast5, _seconds, limit_s=240),
    Part("mcis-grid", "MCIS, the grid", _grid, _seconds, limit_s=90),
    Part(
        "corrkd-5x6",
        "CorrKD's step, 5 x 6 models",
        partial(_corrkd, "5x6"),
        _per_model,
        limit_s=180,
        against=_TORCH,
    ),
    _solo8(16384),
    _solo8(2048),
    _solo8(8192),
    Part(
        "corrkd-torch-graphs",
        "torch.compile, CUDA graphs",
        partial(_torch, "compiled, CUDA graphs"),
        _per_model,
        limit_s=150,
    ),
)
