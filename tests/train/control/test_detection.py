"""The detector's training on the toy: who drives, what is watched, how it is weighed."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.quadruped import PRESETS, DetectorConfig, FaultConfig, QuadrupedConfig
from envs.faults import LOCKED, POWER_LOSS
from envs.switching import Rule
from train.control import canonical, detection, episodes, ppo, robots
from train.control.detection import BLIND, DETECTOR, ONSETS, ORACLE, WATCHED, DetectorStage

COUNT = 48
CONFIG = replace(
    PRESETS["surrogate"], num_envs=COUNT, detector=DetectorConfig(hidden=8), switch=Rule(0.5, 1, 1)
)


@pytest.fixture(scope="module")
def stage():
    robot = robots.build(CONFIG)
    return DetectorStage(CONFIG, robot, ppo.build_policy(CONFIG, robot), None)


@pytest.fixture(scope="module")
def batch(stage):
    blank = jnp.zeros((4, 1, stage.robot.env.observation_size))
    params = stage.policy.init(jax.random.key(0), blank, jnp.zeros(4, jnp.int32))["params"]
    return {"row": jnp.ones(COUNT), "policy": params}


@pytest.fixture(scope="module")
def started(stage, batch):
    return stage.init(jax.random.key(1), batch, None, {})


def with_info(state, **info):
    """The state, with these in the `info` of its robots."""
    robots, memory = state.robots.tree
    states = robots.states.replace(info=robots.states.info | info)
    own = detection.parallel.Own((robots._replace(states=states), memory))
    return state._replace(robots=own)


def of(driver):
    return np.arange(COUNT) % 3 == driver


def test_faults_strike_early_but_in_the_oracles_episodes(stage):
    drawn = jax.vmap(stage._draw(COUNT))(jax.random.split(jax.random.key(2), 200))
    onset = np.asarray(drawn.onset)
    for driver in (BLIND, DETECTOR):
        early = onset[:, of(driver)]
        assert (early.min(), early.max()) == ONSETS
    late = onset[:, of(ORACLE)]
    assert late.min() < ONSETS[0]
    # never in the last step: nobody could see it
    assert stage.robot.steps - 20 < late.max() <= stage.robot.steps - 2
    struck = [np.asarray(x).any(axis=-1) for x in (drawn.power_loss, drawn.locked)]
    assert [x.mean() for x in struck] == pytest.approx([1 / 3, 1 / 3], abs=0.02)


def test_heads_drive_for_the_leg_that_failed_or_seems_to_have(stage, batch, started, monkeypatch):
    monkeypatch.setattr(canonical, "drive", lambda *args: jnp.tile(args[-1][:, None] / 4, 4))
    struck = fault(jnp.full(COUNT, POWER_LOSS), 50)
    # every leg fails in some robot of each driver, and every other seems to have
    failed, believed = jnp.arange(COUNT) // 3 % 4, (jnp.arange(COUNT) // 3 + 1) % 4
    struck = struck._replace(power_loss=jnp.arange(4) == failed[:, None])
    state = with_info(started, step=jnp.full(COUNT, 60), fault=struck)
    worlds, memory = state.robots.tree
    # a detector in doubt, which leaves what was believed before
    params = jax.tree.map(jnp.zeros_like, started.params)
    own = detection.parallel.Own((worlds, memory._replace(leg=believed)))
    (worlds, _), _ = stage._rollout(
        state._replace(params=params, robots=own), batch["policy"], jax.random.key(3)
    )
    legs = np.round(4 * np.asarray(worlds.states.obs[:, 3:7]))
    for driver, expected in ((ORACLE, failed), (DETECTOR, believed)):
        own = np.asarray(expected)[of(driver)]
        assert set(own) == {0, 1, 2, 3}
        np.testing.assert_array_equal(legs[of(driver)], np.tile(own[:, None], 4))


@pytest.mark.parametrize(
    ("trained", "failing"), [(("FL",), {0, 1, 2, 3}), (("FR", "HL"), {1, 2}), (("HR",), {3})]
)
def test_any_leg_that_the_policy_serves_may_fail(trained, failing):
    """One trained leg serves all four by mirroring; a detector sees the healthy gait as it is."""
    settings = replace(QuadrupedConfig(), num_envs=COUNT, faults=FaultConfig(legs=trained))
    robot = robots.build(settings)
    stage = DetectorStage(settings, robot, ppo.build_policy(settings, robot), None)
    drawn = jax.vmap(stage._draw(COUNT))(jax.random.split(jax.random.key(2), 20))
    broken = np.asarray(drawn.power_loss | drawn.locked).reshape(-1, 4, 2)
    assert set(broken.any(axis=-1).argmax(axis=-1)[broken.any(axis=(1, 2))]) == failing
    # both joints, as the policy was trained
    assert (broken.all(axis=-1) == broken.any(axis=-1)).all()
    # the policy's own training has but its legs
    own = jax.vmap(robot.fault, (0, None, None))(jax.random.split(jax.random.key(3), 99), 1, 0)
    legs = {("FL", "FR", "HL", "HR")[leg] for leg in own.power_loss.argmax(axis=-1) // 2}
    assert legs == set(trained)


def fault(conditions, onset):
    return jax.vmap(robots.build(CONFIG).fault)(
        jax.random.split(jax.random.key(0), COUNT), conditions, jnp.full(COUNT, onset)
    )


def test_the_oracle_the_healthy_head_and_the_detector_drive_a_third_each(
    stage, batch, started, monkeypatch
):
    # a robot observes its last action, which here says who drove
    monkeypatch.setattr(episodes, "drive", lambda *args: jnp.tile(args[-1][:, None] / 2, 4))
    state = with_info(
        started, step=jnp.full(COUNT, 60), fault=fault(jnp.full(COUNT, POWER_LOSS), 50)
    )
    # a detector that says the same of every joint, surely
    params = jax.tree.map(jnp.zeros_like, started.params)
    params["condition"]["bias"] = 9.0 * jax.nn.one_hot(LOCKED, 3)
    (worlds, _), _ = stage._rollout(
        state._replace(params=params), batch["policy"], jax.random.key(3)
    )
    heads = np.round(2 * np.asarray(worlds.states.obs[:, 3:7]))
    assert (heads[of(ORACLE)] == POWER_LOSS).all()
    assert (heads[of(BLIND)] == 0).all()
    assert (heads[of(DETECTOR)] == LOCKED).all()


@pytest.mark.parametrize("since", [WATCHED - 1, WATCHED])
def test_only_the_oracles_robots_are_watched_for_longer(stage, batch, started, since):
    state = with_info(
        started, step=jnp.full(COUNT, 50 + since), fault=fault(jnp.zeros(COUNT, int), 50)
    )
    (worlds, memory), (windows, _, lost) = stage._rollout(state, batch["policy"], jax.random.key(3))
    step = np.asarray(worlds.states.info["step"])
    assert (step[of(ORACLE)] == 51 + since).all()
    assert (step[~of(ORACLE)] == (0 if since == WATCHED else 51 + since)).all()
    # who starts anew has seen nothing; the others remember this step
    blank = np.asarray(memory.window == 0).all(axis=(1, 2))
    np.testing.assert_array_equal(blank, step == 0)
    # what is learned from was seen before, whoever starts anew
    assert np.asarray(windows[0, :, -1]).any(axis=-1).all()
    assert not lost


def test_the_truth_is_that_of_the_last_step(stage, batch, started):
    """A fault shows itself once a step was made with it, not in the step that it begins with."""
    for since, expected in ((0, 0), (1, LOCKED)):
        state = with_info(
            started, step=jnp.full(COUNT, 50 + since), fault=fault(jnp.full(COUNT, LOCKED), 50)
        )
        _, (_, labels, _) = stage._rollout(state, batch["policy"], jax.random.key(3))
        assert labels.max() == expected


def test_conditions_weigh_by_their_rarity_on_each_joint(stage, batch, started):
    conditions = jnp.array([0, 0, 0, 0, 0, POWER_LOSS] * (COUNT // 6))
    state = with_info(started, step=jnp.full(COUNT, 60), fault=fault(conditions, 50))
    key = jax.random.key(3)
    _, (windows, labels, _) = stage._rollout(state, batch["policy"], key)
    logits = stage.detector.apply({"params": state.params}, windows[0])
    each = np.asarray(optax.softmax_cross_entropy_with_integer_labels(logits, labels[0]))
    weights = np.ones_like(each)
    # the first leg fails in a sixth of the robots, the others never
    weights[:, 0] = np.where(labels[0, :, 0] == POWER_LOSS, 6, 6 / 5)
    _, metrics = stage.step(state, batch, key)
    assert metrics["total"] == pytest.approx((weights * each).sum() / weights.sum(), rel=1e-5)


def test_recall_runs_on_for_a_condition_that_nobody_shows(stage, batch, started):
    conditions = jnp.tile(jnp.array([0, POWER_LOSS]), COUNT // 2)
    state = with_info(started, step=jnp.full(COUNT, 60), fault=fault(conditions, 50))
    # says "without power" of every joint: right wherever that is the truth, and nowhere else
    params = jax.tree.map(jnp.zeros_like, started.params)
    params["condition"]["bias"] = jax.nn.one_hot(POWER_LOSS, 3)
    state = state._replace(params=params, running=jnp.array([0.5, 0.5, 0.7]))
    after, metrics = stage.step(state, batch, jax.random.key(3))
    np.testing.assert_allclose(after.running, [0.95 * 0.5, 0.95 * 0.5 + 0.05, 0.7], rtol=1e-5)
    assert metrics["recall"] == pytest.approx((0 + 1 + 0.7) / 3, rel=1e-5)
    rows = {"row": jnp.ones(5)}
    found = stage.summarize(stage.evaluate(after, rows))
    assert found["recall_power_loss"] == pytest.approx(0.95 * 0.5 + 0.05, rel=1e-5)
    assert found["score"] == pytest.approx(float(jnp.mean(after.running)), rel=1e-5)
