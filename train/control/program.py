"""`python -m train.quadruped`: policies for a robot whose joints may fail, and what detects it.

python -m train.quadruped                           the surrogate, three seeds, all arms
python -m train.quadruped solo8 --workdir RUN       the real robot in MJX, for an accelerator
python -m train.quadruped solo8_cpu --workdir RUN   the same with few robots, for two cores
python -m train.quadruped export RUN OUT            policy, detector and switch for a robot
python -m train.quadruped render RUN OUT.gif        a fault striking in the middle of a gait
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs.quadruped import PRESETS, RENAMED, QuadrupedConfig
from corrkd_jax.errors import InputError
from train.control import detection, ppo, report, robots, throughput
from train.control import export as exporting
from train.control.detection import watched_robots
from train.control.evaluation import by_condition
from train.control.evaluation.evaluate import evaluate
from train.control.export import export
from train.control.film import render as filming
from train.control.report import Results
from train.engine import cli, parallel
from train.engine.pipeline import Pipeline
from train.engine.progress import say
from train.engine.run import Run, begin
from train.engine.tables import proportion, seeds_in_words

__all__ = ["NAME", "check", "evaluate", "export", "main", "rows", "train"]

NAME = "quadruped"


def main(argv: Sequence[str]) -> None:
    """Train, evaluate, report; or export or render a finished run."""
    if argv[:1] == ["export"]:
        run, out, rest = _folders(argv, "RUN OUT", exporting.__doc__)
        export(run, out, rest)
        return
    if argv[:1] == ["render"]:
        run, out, rest = _folders(argv, "RUN OUT.gif", filming.__doc__)
        filming.render(run, out, rest)
        return
    preset, config, options = cli.parse(
        argv, "python -m train.quadruped", (__doc__ or "").split("\n\n")[0], PRESETS, RENAMED
    )
    check(config)
    train(preset, config, options, begin(options, NAME, preset))


def check(config: QuadrupedConfig) -> None:
    """Refuse settings that cannot run, before anything is compiled.

    Raises:
        InputError: names the option and what would do.
    """
    settings, kind = config.ppo, robots.kind_of(config)
    cli.require_seeds(config.first_seed, config.seeds)
    if config.num_envs % 4:
        raise InputError(f"--num-envs {config.num_envs}: must be a multiple of the 4 groups")
    samples = config.num_envs // 4 * settings.rollout_length
    if samples % settings.minibatches:
        raise InputError(
            f"--ppo.minibatches {settings.minibatches} does not divide the {samples} control "
            "steps of a group (--num-envs / 4 * --ppo.rollout-length)"
        )
    if settings.penalty_ramp and not kind.penalties:
        raise InputError(f"--ppo.penalty-ramp: {config.robot}'s reward has no negative terms")
    ramps = {
        "--ppo.penalty-ramp": settings.penalty_ramp,
        "--faults.takeover-ramp": config.faults.takeover_ramp,
    }
    for name, ramp in ramps.items():
        if ramp >= settings.iterations:
            raise InputError(
                f"{name} {ramp}: must end before the training does, after --ppo.iterations "
                f"{settings.iterations}"
            )
    for name, count, every, period in (
        ("--ppo.iterations", settings.iterations, "--ppo", settings.report_every),
        ("--detector.tune-iterations", config.detector.tune_iterations, "--ppo",
         settings.report_every),
        ("--detector.updates", config.detector.updates, "--detector",
         config.detector.report_every),
    ):  # fmt: skip
        if count % period:
            raise InputError(f"{name} {count}: {every}.report-every {period} does not divide it")
    if config.detector.tune_iterations and not config.detector.updates:
        raise InputError("--detector.tune-iterations: needs a detector (--detector.updates)")
    if not config.arms:
        raise InputError("--arms: name at least one")
    ppo.arms(config)
    if config.detector.updates and config.arms[0] in ppo.ONE_NETWORK:
        raise InputError(
            f"--arms {config.arms[0]}: the detector switches the heads of the first arm, and this "
            "one has but one network; name ours first, or --detector.updates 0"
        )
    if config.evaluation_robots and not kind.planted:
        raise InputError(
            "--evaluation-robots: is for the surrogate; evaluate SOLO8 by python -m train.evaluate"
        )


def train(preset: str, config: QuadrupedConfig, options: cli.RunOptions, folder: Path) -> Results:
    """One run from configuration to report; returns what its tables show."""
    with Run(NAME, preset, config, options, folder) as run:
        robot = robots.build(config)
        parts = math.gcd(config.num_envs // 4, watched_robots(config))
        layout = run.layout(parts, "--num-envs or --detector.robots")
        # only now: a run that cannot start leaves no folder that looks like one
        run.workdir.claim()
        policies = ppo.PpoStage(config, robot, layout.axis_name)
        watch = detection.DetectorStage(config, robot, policies.policy, layout.axis_name)
        stages = [policies.stage()]
        if config.detector.updates:
            stages.append(watch.stage())
        if config.detector.tune_iterations:
            stages.append(dataclasses.replace(policies, detector=watch.detector).stage())
        pipeline = Pipeline(stages, layout, run.lanes(small=True))
        tracks = run.train(pipeline, rows(config), list(config.arms))
        best = {name: track.best for name, track in tracks.items()}
        run.workdir.save_model(best)
        results = by_condition.evaluate(config, robot, best)
        if parallel.is_main():
            steps = config.num_envs * config.ppo.iterations * config.ppo.rollout_length
            facts = [
                f"robot {config.robot}, {config.num_envs} at once; {steps:.3g} control steps an "
                f"arm and seed; {seeds_in_words(run.seeds)}",
                evaluation_of(config),
                run.machine(),
            ]
            page = report.build(
                robot.kind,
                results,
                title=f"Quadruped, {preset}",
                facts=facts,
                metrics=run.metrics(),
                rates=throughput.of_training(folder, config),
                folder=folder,
                seeds=run.seeds,
            )
            report.write(folder, page, robot.kind, results)
            say(f"\n{folder / 'report.md'} ({run.seconds:.0f} s)")
        return results


def evaluation_of(config: QuadrupedConfig) -> str:
    """Robots by which a run evaluates itself, and how sure their number makes it."""
    robots = config.evaluation_robots
    if not robots:
        return "evaluated: not yet; the commands under Next do that"
    least, _ = proportion(robots, robots)
    return (
        f"evaluated: {robots} robots a seed, row and condition; where none fell, up to "
        f"{100 * (1 - least):.1f} % of such robots may fall (Wilson, 95 %)"
    )


def rows(config: QuadrupedConfig) -> dict[str, dict[str, np.ndarray]]:
    """What the engine counts steps and epochs by: a row is one robot's part in one step."""
    counts = {
        "worlds": config.num_envs * config.ppo.report_every,
        "watched": watched_robots(config) * config.detector.report_every,
        # running means are looked at, no robot
        "valid": 1,
    }
    return {name: {"row": np.ones(count, np.float32)} for name, count in counts.items()}


def _folders(
    argv: Sequence[str], names: str, description: str | None
) -> tuple[Path, Path, list[str]]:
    """Run, destination and options of a command on a finished run."""
    usage = f"python -m train.quadruped {argv[0]} {names}"
    question = f"which run, and where to? {usage}"
    (run, out), options = cli.leading(argv[1:], 2, question, description or "")
    return Path(run), Path(out), options
