"""Robots in cells of the grid: the toy under untrained networks, SOLO8 without its physics."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.quadruped import QuadrupedConfig
from envs import solo8_model
from envs.faults import HEALTHY, LOCKED, POWER_LOSS
from tests.train.control.tiny_quadruped import TINY, untrained
from train.control import canonical, robots
from train.control.evaluation import grid
from train.control.solo8 import Solo8

DT, STEPS, COUNT = 0.02, 400, 6


def test_cells_of_the_real_robot():
    cells = grid.cells(Solo8(), ("FL", "HR"), ("HFE", "both"))
    assert [cell.kind for cell in cells] == [HEALTHY] + [POWER_LOSS] * 4 + [LOCKED] * 4
    assert [(cell.leg, cell.joints) for cell in cells[1:3]] == [("FL", "HFE"), ("FL", "both")]
    assert np.flatnonzero(cells[1].power_loss).tolist() == [0]
    assert np.flatnonzero(cells[8].locked).tolist() == [6, 7]
    assert not any(cell.power_loss.any() and cell.locked.any() for cell in cells)


@pytest.fixture(scope="module")
def solo8():
    return robots.build(QuadrupedConfig())


def test_the_quiet_robot(solo8):
    """No noise and pushes, the nominal floor; every torso its own mass, unless that is refused."""
    robot = solo8.kind.quiet(solo8)
    assert (robot.env.config.noise, robot.env.config.push_velocity) == (0, 0)
    drawn = robot.vary(jax.random.split(jax.random.PRNGKey(0), 300))
    assert set(drawn) == {"body_mass", "body_inertia"}
    added = drawn["body_mass"] - robot.env.sys.body_mass
    np.testing.assert_allclose((added.min(), added.max()), (-0.2, 1.0), atol=0.02)
    assert not np.delete(added, 1, axis=1).any()
    assert solo8.kind.quiet(solo8, added_mass=False).vary(None) == {}
    noisy = solo8.kind.quiet(solo8, noise=0.5).env.config
    assert (noisy.noise, noisy.push_velocity) == (0.5, 0)


def test_masses_reach_the_physics(solo8, monkeypatch):
    """One step of two robots that differ by their masses alone."""
    robot = solo8.kind.quiet(solo8)
    seen = []
    monkeypatch.setattr(type(robot.env), "step", lambda env, state, action: seen.append(env))
    masses = robot.env.sys.body_mass + 1
    robot.step({"body_mass": masses}, None, None)
    np.testing.assert_array_equal(seen[0].sys.body_mass, masses)
    assert seen[0].config.noise == 0


def test_what_is_sensed_of_the_real_robot():
    """Turned by 2 rad about the vertical and then rolled by 0.3; moving and turning."""
    yaw, roll = np.array([np.cos(1), 0, 0, np.sin(1)]), [np.cos(0.15), np.sin(0.15), 0, 0]
    w, x = roll[:2]
    quaternion = np.array([yaw[0] * w, yaw[0] * x, yaw[3] * x, yaw[3] * w])
    ahead = np.array([np.cos(2), np.sin(2), 0])
    touch = np.zeros(9)
    touch[solo8_model.FEET] = [0.9, 1.1, 0, 20]
    touch[solo8_model.KNEES] = 50
    body = SimpleNamespace(
        qpos=jnp.array([[0, 0, 0.2, *quaternion, *np.zeros(8)]]),
        qvel=jnp.array([[*(0.6 * ahead), 0.1, 0.2, 0.3, *np.zeros(8)]]),
        sensordata=jnp.array([touch]),
    )
    states = SimpleNamespace(pipeline_state=body, info={"command": jnp.array([[0.8, 0.1]])})
    found = Solo8().sensed(states)
    expected = {"speed": 0.6, "missed_speed": 0.2, "missed_yaw": -0.2, "tilt": 0.3}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], [value], atol=1e-3)
    assert found["standing"].tolist() == [[False, True, False, True]]


@pytest.fixture(scope="module")
def toy():
    """Its detector is sure from the first step on that the first leg is locked."""
    logits = np.zeros((4, 3), np.float32)
    logits[:, HEALTHY] = logits[0, LOCKED] = 20
    logits[0, HEALTHY] = 0
    detector = SimpleNamespace(
        apply=lambda variables, window: jnp.tile(logits, (window.shape[0], 1, 1))
    )
    return replace(untrained(replace(TINY, robot="surrogate")), detector=detector)


@pytest.fixture(scope="module")
def follow(toy):
    """Robots under a switch; `fall`: the step that fells them, and lets them stand again."""
    cell = grid.cells(toy.robot.kind, (), ())[POWER_LOSS]
    params = jax.tree.map(lambda x: x[0], toy.models["ours"])

    def call(switch, fall=STEPS, late=0):
        def step(variation, state, action):
            body = state.pipeline_state._replace(tilt=jnp.zeros(()))
            after = toy.robot.step(variation, state.replace(pipeline_state=body), action)
            return after.replace(done=(state.info["step"] == fall).astype(jnp.float32))

        robot = toy.robot._replace(step=step)
        course = grid.course(cell, switch, "high", "strict", DT, late)
        key = jax.random.key(0)
        found = jax.jit(lambda: grid.run(toy, robot, params, {}, course, key, COUNT))()
        return jax.tree.map(np.asarray, found)

    return call


@pytest.fixture(scope="module")
def oracle(follow):
    return follow("oracle")


def test_robots_begin_together_under_a_command_of_the_cell(oracle):
    np.testing.assert_array_equal(oracle["step"], np.tile(np.arange(STEPS)[:, None], (1, COUNT)))
    command = oracle["speed"] + oracle["missed_speed"]
    np.testing.assert_allclose(command, np.tile(command[0], (STEPS, 1)), atol=1e-5)
    assert ((command >= 0.7 - 1e-5) & (command <= 0.9 + 1e-5)).all()
    assert len(np.unique(command[0])) == COUNT
    onset = oracle["onset"][0]
    assert ((onset >= 50) & (onset <= 200)).all()
    assert len(np.unique(onset)) > 1


def test_each_switch_chooses_the_head(oracle, follow):
    struck = oracle["step"] >= oracle["onset"]
    np.testing.assert_array_equal(oracle["head"], np.where(struck, POWER_LOSS, HEALTHY))
    # what a joint shows is a step later than the flag
    np.testing.assert_array_equal(oracle["true"][1:, :, 0], POWER_LOSS * struck[:-1])
    assert not oracle["true"][..., 1:].any()
    assert not oracle["verdict"].any()
    assert not follow("blind")["head"].any()
    learned = follow("learned")
    assert (learned["verdict"] == [LOCKED, 0, 0, 0]).all()
    # three sure verdicts
    expected = np.where(np.arange(STEPS) < 2, HEALTHY, LOCKED)
    np.testing.assert_array_equal(learned["head"], np.tile(expected[:, None], (1, COUNT)))


@pytest.mark.parametrize("switch", ["oracle", "learned"])
def test_policies_are_mirrored_for_the_leg_that_failed_or_seems_to_have(toy, monkeypatch, switch):
    """Every leg in turn; the toy's speed shows which leg its driver was told of."""
    monkeypatch.setattr(canonical, "drive", lambda *args: jnp.tile(args[-1][:, None] / 4, 4))
    detector = SimpleNamespace(
        # sure that the leg which its parameters name is locked
        apply=lambda variables, window: jnp.tile(
            20.0 * jax.nn.one_hot(LOCKED * (jnp.arange(4) == variables["params"]), 3),
            (window.shape[0], 1, 1),
        )
    )
    told = replace(toy, detector=detector)
    robot = told.robot._replace(steps=8)
    params = jax.tree.map(lambda x: x[0], toy.models["ours"])

    @jax.jit
    def speeds(leg):
        locked = jnp.arange(4) == (0 if switch == "learned" else leg)
        cell = grid.Cell(LOCKED, "", "", jnp.zeros(4, bool), locked)
        course = grid.course(cell, switch, "high", "strict", DT)
        return grid.run(told, robot, params, leg, course, jax.random.key(0), 2)["speed"]

    for leg in range(4):
        found = np.asarray(speeds(jnp.int32(leg)))
        # four legs push with a quarter of its number from the step on in which it is known
        first = 2 if switch == "learned" else 0
        np.testing.assert_allclose(found[: first + 1], 0, atol=1e-6)
        np.testing.assert_allclose(found[first + 1], DT * leg, rtol=1e-5)


def test_an_oracle_may_be_late(oracle, follow):
    found = follow("oracle", late=3)
    np.testing.assert_array_equal(found["onset"], oracle["onset"])
    struck = found["step"] >= found["onset"] + 3
    np.testing.assert_array_equal(found["head"], np.where(struck, POWER_LOSS, HEALTHY))


def test_heads_drive(oracle, follow):
    """Another head moves the body otherwise, from the step on in which it takes over."""
    blind, learned = follow("blind"), follow("learned")
    differs = (blind["speed"] != learned["speed"]).all(axis=1)
    assert differs.argmax() == 3
    before = oracle["step"] <= oracle["onset"]
    np.testing.assert_array_equal(oracle["speed"][before], blind["speed"][before])


def test_who_falls_stays_fallen(follow):
    found = follow("oracle", fall=300)
    late = np.arange(STEPS)[:, None] * np.ones((1, COUNT))
    np.testing.assert_array_equal(found["alive"], late <= 300)
    np.testing.assert_array_equal(found["stood"], late < 300)
    np.testing.assert_array_equal(found["reward"] > 0, late < 300)
