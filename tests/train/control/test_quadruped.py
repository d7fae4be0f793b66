"""The training program: PPO on the toy, detector, engine, resume, bad input."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.quadruped import PRESETS, FaultConfig, QuadrupedConfig
from corrkd_jax.errors import InputError
from envs import surrogate
from tests.train.engine import toy
from train import evaluate, export
from train.control import detection, episodes, ppo, reflection, report, robots, throughput, worlds
from train.control import program as quadruped
from train.control.finished import SwitchOptions, load_run
from train.control.policy import Controller
from train.control.report import Results, Row
from train.engine import loop, parallel
from train.engine.pipeline import Pipeline
from train.engine.stage import Limit, looped

# the run that all look at
pytestmark = pytest.mark.seconds(200)

TINY = (
    *("--num-envs", "16", "--seeds", "2", "--evaluation-robots", "8", "--devices", "1"),
    *("--network.front", "8", "--network.hidden", "8", "--ppo.rollout-length", "4"),
    *("--ppo.iterations", "2", "--ppo.report-every", "1", "--ppo.epochs", "2"),
    *("--detector.updates", "2", "--detector.report-every", "1", "--detector.hidden", "8"),
    *("--detector.tune-iterations", "2", "--save-every", "0"),
)


def config(**changes):
    """A run small enough to compile in seconds."""
    settings = dataclasses.replace(
        PRESETS["surrogate"].ppo, rollout_length=4, iterations=2, report_every=1, epochs=2
    )
    start = dataclasses.replace(
        PRESETS["surrogate"],
        num_envs=16,
        network=dataclasses.replace(PRESETS["surrogate"].network, front=8, hidden=(8,)),
        ppo=settings,
        seeds=1,
    )
    return dataclasses.replace(start, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run of the program, tiny."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        # its two thousand robots have a test of their own in the default run
        patch.setattr(reflection, "gates", lambda *_: {})
        quadruped.main([*TINY, "--workdir", str(folder)])
    return folder


def test_report(finished):
    """All arms and switches, survival as shares of the robots, detector figures."""
    figures = json.loads((finished / "results.json").read_text())
    assert list(figures["rows"]) == [
        "ours, oracle switch",
        "ours, learned switch",
        "ours, tuned, learned switch",
        "ours, healthy head only",
        "no reflection, oracle switch",
        "Mix (one network)",
        "Normal (healthy only)",
    ]
    for row in figures["rows"].values():
        survival = np.asarray(row["survival"])
        assert survival.shape == (2, 3)
        assert ((survival >= 0) & (survival <= 1)).all()
        np.testing.assert_allclose(8 * survival % 1, 0, atol=1e-6)
    health = np.asarray(figures["rows"]["ours, oracle switch"]["survival"])[:, 0]
    # without a fault the oracle has nothing to say
    np.testing.assert_array_equal(
        health, np.asarray(figures["rows"]["ours, healthy head only"]["survival"])[:, 0]
    )
    assert np.shape(figures["detector"]["confusion"]) == (2, 3, 3)
    for name in ("training", "survival", "detector"):
        assert (finished / "figures" / f"{name}.png").stat().st_size > 10_000
    assert "MISSED" in (finished / "report.md").read_text()
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "<td>MISSED</td>" in page


def test_times_are_written_down(finished):
    """Every control step of every stage is in one of the calls."""
    rates = throughput.of_training(finished, load_run(finished).config)
    assert [(each.what, each.steps) for each in rates] == [
        ("policies", 2 * 16 * 4 * 4 * 2),
        ("detector", 2 * 16 * PRESETS["surrogate"].detector.rollout_length * 2),
        ("tuned", 2 * 16 * 4 * 2),
    ]
    text = (finished / "report.md").read_text()
    assert all(f"| {each.what} |" in text for each in rates)


def test_load(finished):
    """What evaluation and export read: parameters by arm, seeds in front."""
    run = load_run(finished)
    assert run.arms == ("ours", "no-reflection", "mix", "normal", "tuned")
    assert (run.preset, list(run.seeds)) == ("surrogate", [1, 2])
    params = run.one("ours", 2)
    every = run.policy.apply({"params": params}, jnp.zeros((5, 11)), method="every")
    assert every.shape == (3, 5, 4)
    params = run.detector_of(2)
    assert run.detector.apply({"params": params}, jnp.zeros((25, 11))).shape == (4, 3)
    # tuning moves the fault heads alone, and the actor's deviation not
    before, after = (run.one(name, 2) for name in ("ours", "tuned"))
    jax.tree.map(np.testing.assert_array_equal, before["actor"]["front"], after["actor"]["front"])
    np.testing.assert_array_equal(before["std"], after["std"])
    for head in ("head_0", "head_1"):
        kernels = (tree["actor"][head]["kernel"][0] for tree in (before, after))
        np.testing.assert_array_equal(*kernels)
    # another switch, or parts of one
    rule = load_run(finished, SwitchOptions(strike=1)).config.switch
    assert rule == dataclasses.replace(run.config.switch, strike=1)
    rule = load_run(finished, SwitchOptions(confidence=0, recovery=9)).config.switch
    assert rule == dataclasses.replace(run.config.switch, confidence=0, recovery=9)
    for command in ("export", "render"):
        with pytest.raises(InputError, match=r"--switch.strike -1: must be positive"):
            quadruped.main([command, str(finished), "x.gif", "--switch.strike", "-1"])


def test_the_doors_export_and_evaluate_it(finished, tmp_path):
    """`train.export` writes what the program's own command does; `train.evaluate` its tables."""
    export.main([str(finished), str(tmp_path / "door"), "--arm", "ours", "--seed", "2"])
    command = ["--arm", "ours", "--seed", "2"]
    quadruped.main(["export", str(finished), str(tmp_path / "command"), *command])
    names = {path.name for path in (tmp_path / "door").iterdir()}
    assert names == {"policy.npz", "policy.py", "policy.stablehlo", "README.md"}
    door, command = (Controller(tmp_path / name / "policy.npz") for name in ("door", "command"))
    assert door.metadata == command.metadata
    assert door.metadata["run"] == "run"
    observation = np.ones(11, np.float32)
    np.testing.assert_array_equal(door(observation), command(observation))
    options = ("--num-envs", "4", "--speeds", "high", "--no-strict", "--arms", "mix")
    evaluate.main([str(finished), *options, "--out", str(tmp_path / "evaluation")])
    found = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert {row["policy"] for row in found["rows"]} == {"Mix (one network)"}
    assert [rate["what"] for rate in found["throughput"]] == [
        "policies",
        "detector",
        "tuned",
        "evaluation",
    ]


def test_a_full_disk_is_one_line(monkeypatch, tmp_path):
    """Of the report, its figures and the results."""
    results = Results({"x": Row(np.ones((1, 3)), np.ones((1, 3)))}, None, {})
    kind = robots.kind_of(PRESETS["surrogate"])
    page = report.build(
        kind, results, title="x", facts=[], metrics=[], rates=[], folder=tmp_path, seeds=range(1)
    )
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match=r"survival\.png: cannot be written: No space left"):
        report.write(tmp_path, page, kind, results)
    assert not list((tmp_path / "figures").iterdir())


def test_a_model_of_another_robot(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace('"surrogate"', '"solo8"'))
    with pytest.raises(InputError, match=r"needs .* \(.*config.json: robot solo8\)"):
        load_run(tmp_path / "run")


def test_resume_continues_bit_for_bit(finished, tmp_path, monkeypatch):
    """From the last but one checkpoint: worlds, optimizer and rate come back as they were."""
    monkeypatch.setattr(reflection, "gates", lambda *_: {})
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    done = sorted(int(path.name) for path in (folder / "checkpoints").iterdir())
    shutil.rmtree(folder / "checkpoints" / str(done[-1]))
    (folder / "results.json").unlink()
    quadruped.main([*TINY, "--workdir", str(folder), "--resume"])
    whole, resumed = (
        json.loads((path / "results.json").read_text()) for path in (finished, folder)
    )
    assert whole == resumed
    with pytest.raises(InputError, match=r"preset is 'surrogate' there, 'solo8' here"):
        quadruped.main(
            ["solo8", *TINY, "--evaluation-robots", "0", "--workdir", str(folder), "--resume"]
        )


class TestArms:
    def test_they_differ_in_numbers_alone(self):
        own, bare, mix, normal = ppo.arms(
            config(arms=("ours", "no-reflection", "mix", "normal"))
        ).values()
        np.testing.assert_array_equal(own.heads, [0, 0, 1, 2])
        np.testing.assert_array_equal(mix.heads, 0)
        np.testing.assert_array_equal(mix.conditions, own.conditions)
        np.testing.assert_array_equal(normal.conditions, 0)
        assert (own.reflection, bare.reflection) == (1, 0)


def begun(stage):
    """First state of the first arm, and the batch that its steps take."""
    batch = {"row": jnp.ones(stage.config.num_envs)}
    hyper = jax.tree.map(jnp.asarray, ppo.arms(stage.config)["ours"])
    return jax.jit(lambda key: stage.init(key, batch, hyper, {}))(jax.random.key(0)), batch


@pytest.fixture(scope="module")
def stage():
    settings = config(arms=("ours",))
    return ppo.PpoStage(settings, robots.build(settings), None)


class TestStage:
    def test_minibatches_are_stratified(self, stage):
        """Each has the same number of every group, and each sample is used once."""
        order = np.asarray(stage._stratified(jax.random.key(0), 16))
        assert order.shape == (4, 4, 4)
        for group in range(4):
            np.testing.assert_array_equal(np.sort(order[:, group].ravel()), range(16))

    def test_advantages_are_normalised_over_all_groups(self, stage):
        raw = jax.random.normal(jax.random.key(0), (4, 4, 4)) * 3 + jnp.arange(4.0)[:, None]
        found = stage._normalized(raw, None)
        assert abs(found.mean()) < 1e-6
        assert found.std() == pytest.approx(1, abs=1e-5)
        # groups keep what sets them apart
        assert np.ptp(found.mean(axis=(0, 2))) > 0.3

    @pytest.mark.parametrize("normalize", ["pooled", "group"])
    def test_of_some_that_count_only_these_are_normalised(self, normalize):
        settings = config(ppo=dataclasses.replace(config().ppo, normalize=normalize))
        stage = ppo.PpoStage(settings, robots.build(settings), None)
        raw = jax.random.normal(jax.random.key(0), (6, 4, 4))
        counted = jax.random.bernoulli(jax.random.key(1), 0.5, raw.shape)
        found = np.asarray(stage._normalized(jnp.where(counted, raw, 1e3), counted))
        parts = [slice(None)] if normalize == "pooled" else range(4)
        for part in parts:
            own = found[:, part][np.asarray(counted[:, part])]
            assert abs(own.mean()) < 1e-5
            assert own.std() == pytest.approx(1, abs=1e-4)

    def test_no_callback_to_the_host(self, stage):
        state, batch = begun(stage)
        program = str(jax.make_jaxpr(stage.step)(state, batch, jax.random.key(0)))
        assert "callback" not in program


def test_penalties_grow_over_the_ramp_and_no_epoch_of_it_is_kept():
    """A toy whose reward is the factor on its penalties; its terms are told as well."""
    settings = config(arms=("ours",))
    settings = dataclasses.replace(
        settings, ppo=dataclasses.replace(settings.ppo, penalty_ramp=2, report_every=1)
    )
    robot = robots.build(settings)

    def begin(*args):
        state = robot.env.begin(*args)
        return state.replace(
            info=state.info | {"penalty": jnp.ones(())}, metrics={"paid": jnp.zeros(())}
        )

    def step(variation, state, action):
        after = robot.step(variation, state, action)
        terms = {"paid": -3 * state.info["penalty"]}
        return after.replace(reward=state.info["penalty"], metrics=terms)

    env = SimpleNamespace(
        begin=begin,
        reset=robot.env.reset,
        observation_size=robot.env.observation_size,
        action_size=robot.env.action_size,
    )
    stage = ppo.PpoStage(settings, robot._replace(env=env, step=step), None)
    state, batch = begun(stage)
    advance = jax.jit(stage.step)
    rewards, scores = [], []
    for number in range(4):
        state, metrics = advance(state, batch, jax.random.key(number))
        rewards.append(float(metrics["reward"]))
        assert metrics["reward_paid"] == -3 * metrics["reward"]
        scores.append(float(stage.summarize(stage.evaluate(state, batch))["score"]))
    assert rewards == [0, 0.5, 1, 1]
    assert scores[0] == -1
    assert min(scores[1:]) > 0


def test_a_timeout_is_not_a_fall():
    """A toy whose clock runs out in every step."""
    settings = config(arms=("ours",))
    robot = robots.build(settings)

    def step(variation, state, action):
        after = robot.step(variation, state, action)
        info = after.info | {"step": jnp.full_like(after.info["step"], robot.steps)}
        return after.replace(info=info, done=jnp.zeros(()))

    stage = ppo.PpoStage(settings, robot._replace(step=step), None)
    state, batch = begun(stage)
    state, metrics = jax.jit(stage.step)(state, batch, jax.random.key(0))
    assert metrics["falls"] == 0
    assert not state.running["fell"].any()
    np.testing.assert_allclose(state.running["ended"], 1 - ppo.MEMORY, rtol=1e-5)


def test_shards_keep_their_own_worlds():
    """Two devices: parameters alike, worlds different, both through the canonical layout."""
    settings = config(arms=("ours",), ppo=config().ppo)
    layout = parallel.Layout("batch", 2)
    stage = ppo.PpoStage(settings, robots.build(settings), layout.axis_name).stage()
    data = quadruped.rows(settings)
    pipeline = Pipeline([stage], layout, looped)
    whole = toy.train(pipeline, data)["policies"]
    cut = toy.train(pipeline, data, cuts=(1,))["policies"]
    jax.tree.map(np.testing.assert_array_equal, whole.state, cut.state)
    tilt = whole.state.worlds.tree[0].states.pipeline_state.tilt
    assert tilt.shape == (2, 1, 1, 8)  # shards, seeds, arms, worlds
    assert not np.intersect1d(tilt[0], tilt[1]).size
    back = parallel.collect(parallel.spread(whole.state, layout), layout)
    jax.tree.map(np.testing.assert_array_equal, back, whole.state)


def test_shards_begin_with_worlds_of_their_own():
    settings = config(arms=("ours",))
    stage = ppo.PpoStage(settings, robots.build(settings), "shards")
    hyper = jax.tree.map(jnp.asarray, ppo.arms(settings)["ours"])

    def begin(row):
        return stage.init(jax.random.key(0), {"row": row}, hyper, {})

    state = jax.jit(jax.vmap(begin, axis_name="shards"))(jnp.ones((2, 8)))
    tilt = state.worlds.tree[0].states.pipeline_state.tilt
    assert not np.intersect1d(tilt[0], tilt[1]).size
    jax.tree.map(lambda x: np.testing.assert_array_equal(x[0], x[1]), state.params)


def test_broken_physics_stops_the_run(tmp_path, monkeypatch):
    """One robot in a hundred may lose its physics; here all do."""
    whole = surrogate.Surrogate.step

    def broken(self, state, action):
        after = whole(self, state, action)
        body = after.pipeline_state
        return after.replace(pipeline_state=body._replace(speed=body.speed * jnp.nan))

    monkeypatch.setattr(surrogate.Surrogate, "step", broken)
    options = ("--arms", "ours", "--seeds", "1", "--detector.updates", "0")
    options += ("--detector.tune-iterations", "0", "--workdir", str(tmp_path / "run"))
    says = (
        r"policies: epoch 1, step 1: lost_worlds is over 0.01 \(part of the robots whose physics "
        r"broke, a number in it not finite\) \(seed 1, arm ours\)"
    )
    with pytest.raises(InputError, match=says):
        quadruped.main([*TINY, *options])
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_limit_stops_the_run():
    """A metric over its limit ends any run."""
    layout = parallel.Layout("batch", 1)
    stages = toy.stages(layout.axis_name)
    limited = [dataclasses.replace(stages[0], limits={"fit": Limit(1e-9, "of a line")}), stages[1]]
    says = r"teacher: epoch 1, step 1: fit is over 1e-09 \(of a line\) \(seed 5\)"
    with pytest.raises(InputError, match=says):
        loop.run(Pipeline(limited, layout, looped), toy.data(), (5,), ("hard", "soft"))


def test_only_fault_heads_are_tuned():
    tree = {
        "front": {"kernel": jnp.ones((3, 2, 2))},
        "head_0": {"kernel": jnp.ones((3, 2, 2)), "bias": jnp.ones((3, 2))},
        "std": jnp.ones(4),
    }
    found = jax.tree.map_with_path(ppo._of_fault_heads, {"policy": {"actor": tree}})
    actor = found["policy"]["actor"]
    assert not actor["front"]["kernel"].any()
    assert not actor["std"].any()
    for x in actor["head_0"].values():
        assert not x[0].any()
        assert (x[1:] == 1).all()


def test_a_tuning_strikes_as_the_detector_learned_it():
    """Early, which is often; not from the first step on, as the training before it."""
    settings = config(arms=("ours",))
    robot = robots.build(settings)
    plain = ppo.PpoStage(settings, robot, None)
    tuning = dataclasses.replace(plain, detector=detection.build_detector(settings, robot))
    keys = jax.random.split(jax.random.key(0), 100)
    for stage, expected in ((plain, (0, 0)), (tuning, detection.ONSETS)):
        onset = jax.vmap(stage._draw(ppo.arms(settings)["ours"], 16))(keys).onset
        assert (onset.min(), onset.max()) == expected


def test_a_tuning_begins_with_the_first_arms_networks_and_no_reflection():
    settings = config(arms=("ours",))
    plain = ppo.PpoStage(settings, robots.build(settings), None)
    state, batch = begun(plain)
    robot = plain.robot
    tuning = dataclasses.replace(plain, detector=detection.build_detector(settings, robot))
    arms = jax.tree.map(lambda x: jnp.stack([x, x + 1]), state.params)
    first = tuning.init(jax.random.key(1), batch, state.hyper, {ppo.POLICIES: arms})
    jax.tree.map(np.testing.assert_array_equal, first.params, state.params)
    assert (state.hyper.reflection, first.hyper.reflection) == (1, 0)
    np.testing.assert_array_equal(first.hyper.heads, [0, 0, 1, 2])


def test_only_the_heads_that_are_tuned_explore(monkeypatch):
    settings = config(arms=("ours",))
    robot = robots.build(settings)
    plain = ppo.PpoStage(settings, robot, None)
    tuning = dataclasses.replace(plain, detector=detection.build_detector(settings, robot))
    # robots 0 and 2 of each group under the healthy head
    heads = jnp.tile(jnp.array([0, 1, 0, 2]), (4, 1))
    monkeypatch.setattr(
        ppo.PpoStage, "_look", lambda self, hyper, batch, robots, memory: (memory, heads, heads > 0)
    )
    state, batch = begun(plain)
    memory = detection.blank(robot, 16)
    state = state._replace(worlds=parallel.Own((state.worlds.tree[0], memory)))
    for stage, still in ((tuning, [True, False, True, False]), (plain, [False] * 4)):
        monkeypatch.setattr(ppo.PpoStage, "_blank", lambda *_: memory)
        _, samples, _ = stage._rollout(state, batch, jax.random.key(0))
        moved = np.asarray(samples.action - samples.mean).reshape(4, 4, 4, 4)
        # [groups, steps, robots, actions]
        at_rest = (moved == 0).all(axis=(0, 1, 3))
        np.testing.assert_array_equal(at_rest, still)


def test_steps_of_the_healthy_head_do_not_thin_out_a_tuning():
    """Divergence, losses and gradients are those of the control steps that fault heads drove."""
    settings = config(arms=("ours",))
    robot = robots.build(settings)
    plain = ppo.PpoStage(settings, robot, None)
    tuning = dataclasses.replace(plain, detector=detection.build_detector(settings, robot))
    state, _ = begun(plain)
    heads = jnp.where(jnp.arange(24) % 4, 0, 1).reshape(4, 6)
    keys = jax.random.split(jax.random.key(3), 4)
    observation = jax.random.normal(keys[0], (4, 6, robot.env.observation_size))
    mean = jax.random.normal(keys[1], (4, 6, robot.env.action_size))
    numbers = jax.random.normal(keys[2], (4, 4, 6))
    samples = ppo.Samples(observation, heads, heads != 0, mean + 0.1, mean, *numbers)
    # another three steps of the healthy head for each of a fault's, and these alone
    few = jax.tree.map(lambda x: x.reshape(24, *x.shape[2:])[::4][None], samples)
    std = plain._std(state.params)

    def update(batch):
        return tuning._update(state.params, state.optimizer, state.rate, state.hyper, batch, std)

    (params, *_), terms = update(samples)
    (alone, *_), of_few = update(few)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, alone)
    for name, value in terms.items():
        assert value == pytest.approx(float(of_few[name]), rel=1e-4), name


@pytest.fixture(scope="module")
def late():
    settings = config(arms=("ours",), faults=FaultConfig(takeover=(2, 5)))
    return ppo.PpoStage(settings, robots.build(settings), None)


def ramped(stage, ramp):
    """The stage with delays that grow."""
    faults = dataclasses.replace(stage.config.faults, takeover_ramp=ramp)
    return dataclasses.replace(stage, config=dataclasses.replace(stage.config, faults=faults))


@pytest.mark.parametrize(("shards", "normalize"), [(2, "pooled"), (4, "group")])
def test_an_update_of_shards_is_that_of_all(late, shards, normalize):
    """Advantages, losses, divergence, rate and step; some steps do not count, unevenly."""
    settings = dataclasses.replace(late.config.ppo, normalize=normalize)
    late = dataclasses.replace(late, config=dataclasses.replace(late.config, ppo=settings))
    state, _ = begun(late)
    keys = jax.random.split(jax.random.key(0), 4)
    shape = 2, 4, 8  # time, groups, robots
    heads = jnp.broadcast_to(state.hyper.heads[:, None], shape)
    samples = ppo.Samples(
        jax.random.normal(keys[0], (*shape, late.robot.env.observation_size)),
        heads,
        jax.random.uniform(keys[1], shape) < 0.7,
        *(jax.random.normal(key, (*shape, late.robot.env.action_size)) for key in keys[2:]),
        *jax.random.normal(keys[1], (4, *shape)),
    )
    std = late._std(state.params)

    def update(stage, samples):
        own = stage._normalized(samples.advantage, samples.counted)
        # as a rollout does: [time, groups, robots] -> [groups, samples]
        flat = jax.tree.map(
            lambda x: jnp.moveaxis(x, 0, 1).reshape(4, -1, *x.shape[3:]),
            samples._replace(advantage=own),
        )
        hyper = state.hyper
        (params, _, rate), terms = stage._update(
            state.params, state.optimizer, state.rate, hyper, flat, std
        )
        return params, rate, terms["kl"], terms["gradient_norm"]

    expected = jax.jit(lambda samples: update(late, samples))(samples)
    parts = jax.tree.map(lambda x: jnp.stack(jnp.split(x, shards, axis=2)), samples)
    sharded = dataclasses.replace(late, axis_name="batch")
    found = jax.jit(jax.vmap(lambda part: update(sharded, part), axis_name="batch"))(parts)
    for leaf, whole in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, jnp.broadcast_to(whole, leaf.shape), atol=1e-5)


class TestTakeover:
    """Faulty robots that the healthy head drives for 2 to 5 steps more."""

    def test_the_healthy_head_drives_until_then(self, late):
        state, batch = begun(late)
        robots, waits = state.worlds.tree
        assert waits.shape == (16,)
        many = np.asarray(late._blank(jax.random.key(0), 1000, 0))
        np.testing.assert_array_equal(np.unique(many), [2, 3, 4, 5])
        for other in jax.random.split(jax.random.key(0), 4):
            # nothing else that is drawn in a step goes with it
            assert (many != jax.random.randint(other, (1000,), 2, 6)).any()
        waits = jnp.arange(16) % 4 + 2
        for step in range(8):
            info = robots.states.info | {"step": jnp.full(16, step)}
            now = robots._replace(states=robots.states.replace(info=info))
            _, heads, counted = late._look(state.hyper, batch, now, waits)
            own = np.array([0, 0, 1, 2])[:, None]
            due = (step >= np.asarray(waits)).reshape(4, 4)
            np.testing.assert_array_equal(heads, np.where(due, own, 0))
            # healthy robots always count
            np.testing.assert_array_equal(counted, due | (own == 0))

    def test_one_network_learns_from_all_of_it(self, late):
        state, batch = begun(late)
        mix = state.hyper._replace(heads=jnp.zeros(4, int))
        assert late._look(mix, batch, *state.worlds.tree)[2].all()

    @pytest.mark.parametrize(("ramp", "delays"), [(0, [2, 3, 4, 5]), (4, [1, 2])])
    def test_a_new_episode_waits_anew(self, late, ramp, delays):
        """And one that goes on does not; here the clock of the first half runs out."""
        robot = late.robot

        def step(variation, state, action):
            after = robot.step(variation, state, action)
            clock = jnp.where(state.info["fault"].onset == 1, robot.steps, after.info["step"])
            return after.replace(info=after.info | {"step": clock}, done=jnp.zeros(()))

        stage = dataclasses.replace(ramped(late, ramp), robot=robot._replace(step=step))
        state, batch = begun(stage)
        worlds, _ = state.worlds.tree
        onset = jnp.repeat(jnp.array([1, 0]), 8)
        fault = worlds.states.info["fault"]._replace(onset=onset)
        info = worlds.states.info | {"fault": fault, "step": jnp.zeros(16, jnp.int32)}
        worlds = worlds._replace(states=worlds.states.replace(info=info))
        waits = jnp.full(16, 99)
        state = state._replace(worlds=parallel.Own((worlds, waits)), iteration=jnp.int32(2))
        state, _ = jax.jit(stage.step)(state, batch, jax.random.key(0))
        _, waits = state.worlds.tree
        assert set(np.asarray(waits[:8])) <= set(delays)
        assert (waits[8:] == 99).all()

    def test_delays_grow_over_the_ramp_and_no_epoch_of_it_is_kept(self, late):
        stage, key = ramped(late, 2), jax.random.key(0)
        whole = np.asarray(late._blank(key, 1000, 0))
        for iteration, part in ((0, 0), (1, 0.5), (2, 1), (3, 1)):
            delays = stage._blank(key, 1000, jnp.int32(iteration))
            np.testing.assert_array_equal(delays, np.round(part * whole))
        state, batch = begun(stage)
        assert (state.worlds.tree[1] == 0).all()
        for iteration, kept in ((1, False), (2, True)):
            state = state._replace(iteration=jnp.int32(iteration))
            score = stage.summarize(stage.evaluate(state, batch))["score"]
            assert (score > -1) == kept
        # a tuning has the detector's delays
        tuning = dataclasses.replace(stage, detector="one")
        assert tuning.summarize(tuning.evaluate(state._replace(iteration=0), batch))["score"] > -1


def test_oracle_drives_by_the_flag():
    """Before the onset the healthy head, from its step on the fault's."""
    robot = robots.build(config())
    fault = jax.vmap(surrogate.fault)(jnp.array([1, 2, 1, 0]), jnp.array([3, 0, 5, 0]))
    states = worlds.start(robot, lambda _: fault, jax.random.key(0), 4).states
    states = states.replace(info=states.info | {"step": jnp.full(4, 3)})
    _, heads, _ = episodes.oracle().choose(None, states)
    np.testing.assert_array_equal(heads, [1, 2, 0, 0])
    np.testing.assert_array_equal(episodes.oracle(False).choose(None, states)[1], 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num-envs", "30"), "--num-envs 30: must be a multiple of the 4 groups"),
        (("--ppo.minibatches", "7"), "--ppo.minibatches 7 does not divide the 16 control"),
        (
            ("--arms", "best"),
            "--arms 'best': choose from 'ours', 'no-reflection', 'mix', 'normal'",
        ),
        (("--ppo.penalty-ramp", "5"), "--ppo.penalty-ramp: surrogate's reward has no negative"),
        (("--reflection", "2"), "--reflection 2.0: must be from 0 to 1"),
        (("--faults.both", "-1"), "--faults.both -1.0: must be from 0 to 1"),
        (("--ppo.discount", "2"), "--ppo.discount 2.0: must be from 0 to 1"),
        (("--ppo.target-kl", "0"), "--ppo.target-kl 0.0: must be positive"),
        (("--body.solver-iterations", "0"), "--body.solver-iterations 0: must be positive"),
        (("--body.lock-play", "-1", "0"), "--body.lock-play -1.0: must not be negative"),
        (("--arms", "ours", "ours"), "--arms 'ours': stands twice"),
        (("--arms", "mix", "ours"), "--arms mix: the detector switches the heads of the first arm"),
        (
            ("--ppo.iterations", "5", "--ppo.report-every", "2"),
            "--ppo.iterations 5: --ppo.report-every 2 does not divide it",
        ),
        (
            ("--detector.updates", "5", "--detector.report-every", "2"),
            "--detector.updates 5: --detector.report-every 2 does not divide it",
        ),
        (("--faults.onset", "0", "400"), "--faults.onset 0 400: first and last of an episode's"),
        (("--faults.takeover", "8", "4"), "--faults.takeover 8 4: first and last of an episode's"),
        (("--switch.confidence", "1"), "--switch.confidence 1.0: must be at least 0 and below 1"),
        (("--switch.strike", "0"), "--switch.strike 0: must be positive"),
        (("--seeds", "0"), "--seeds 0: must be positive"),
        (("--first-seed", "3000000000"), "--first-seed 3000000000: seeds must lie between 0"),
        (("--detector.updates", "-1"), "--detector.updates -1: must not be negative"),
        (("--faults.takeover-ramp", "-1"), "--faults.takeover-ramp -1: must not be negative"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(InputError) as error:
        quadruped.main([*TINY, *options, "--workdir", str(tmp_path / "run")])
    assert str(error.value).startswith(message)
    assert not (tmp_path / "run").exists()


def test_unknown_leg(tmp_path):
    with pytest.raises(InputError, match=r"--faults.legs XX: choose from FL, FR, HL, HR"):
        quadruped.main(["solo8", "--faults.legs", "XX", "--workdir", str(tmp_path / "run")])


def test_solo8_is_evaluated_by_its_own_program(tmp_path):
    with pytest.raises(InputError, match="--evaluation-robots: is for the surrogate"):
        quadruped.main(["solo8", "--evaluation-robots", "8", "--workdir", str(tmp_path / "run")])


@pytest.mark.parametrize("ramp", ["--ppo.penalty-ramp", "--faults.takeover-ramp"])
def test_a_ramp_must_end(tmp_path, ramp):
    options = ("--ppo.iterations", "9", "--ppo.report-every", "1", ramp, "9")
    with pytest.raises(InputError, match=f"{ramp} 9: must end before the training"):
        quadruped.main(["solo8", *options, "--workdir", str(tmp_path / "run")])


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_run(name):
    quadruped.check(PRESETS[name])


def test_defaults_are_the_papers():
    solo8 = QuadrupedConfig()
    assert (solo8.num_envs, solo8.ppo.rollout_length, solo8.ppo.iterations) == (4096, 24, 1000)
    assert (solo8.faults.legs, solo8.faults.both, solo8.reflection) == (("FL",), 1.0, 1.0)


@pytest.mark.parametrize("command", ["export", "render"])
def test_export_and_render_are_commands_of_the_program(command):
    with pytest.raises(InputError, match=f"which run, .* train.quadruped {command} RUN"):
        quadruped.main([command])
