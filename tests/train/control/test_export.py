"""The exported controller against the network it came from, over rollouts of random observations.

Loads what was written with NumPy alone in a process without JAX.
"""

import subprocess
import sys
from dataclasses import replace

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from configs.quadruped import FaultConfig
from corrkd_jax.errors import InputError
from envs import mirror
from envs.switching import Rule
from tests.train.control.tiny_quadruped import TINY, untrained
from train.control import canonical, detection, finished
from train.control import export as quadruped_export
from train.control.policy import Controller

STEPS = 40


@pytest.fixture(scope="module", params=["surrogate", "solo8"])
def exported(request, tmp_path_factory):
    loaded = untrained(replace(TINY, robot=request.param, switch=Rule(0.7, 2, 4)))
    if request.param == "surrogate":
        # a kernel that does not divide the window
        detector = loaded.detector.clone(kernel=4)
        drawn = detector.init(jax.random.key(1), detection.blank(loaded.robot, 1).window)["params"]
        drawn["condition"]["kernel"] *= 20
        watching = jax.tree.map(lambda x: x[None], drawn)
        loaded = replace(loaded, detector=detector, detector_params=watching)
    out = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finished, "load_run", lambda folder, switch: loaded)
        quadruped_export.export(out, out / "there", [])
    rng = np.random.default_rng(1)
    # what lasts decides what is detected: four robots whose signals have other means
    size = loaded.robot.env.observation_size
    observations = rng.normal(size=(4, STEPS, size)) + 2 * rng.normal(size=(4, 1, size))
    return loaded, out / "there", observations.astype(np.float32)


@pytest.fixture(scope="module")
def stepped(exported):
    loaded, out, observations = exported
    step = jax.export.deserialize(bytearray((out / "policy.stablehlo").read_bytes()))
    memory = detection.blank(loaded.robot, 4)._asdict()
    found = []
    for now in observations.swapaxes(0, 1):
        actions, probabilities, memory = step.call(now, memory)
        found.append((actions, probabilities, memory["kind"], memory["leg"]))
    return [np.stack(x, axis=1) for x in zip(*found, strict=True)]


def test_numpy_alone_walks_the_same(exported, stepped):
    _, out, observations = exported
    actions, probabilities, kinds, legs = stepped
    assert len(np.unique(kinds)) > 1
    for robot in range(4):
        controller = Controller(out / "policy.npz")
        for t in range(STEPS):
            action = controller(observations[robot, t])
            assert (controller.kind, controller.leg) == (kinds[robot, t], legs[robot, t])
            np.testing.assert_allclose(action, actions[robot, t], atol=1e-5)
            np.testing.assert_allclose(controller.probabilities, probabilities[robot, t], atol=1e-5)


@pytest.mark.parametrize("kind", [1, 2])
def test_every_joint_speaks_for_its_leg(exported, kind):
    _, out, observations = exported
    joints = Controller(out / "policy.npz").metadata["joints"]
    for joint in range(joints):
        controller = Controller(out / "policy.npz")
        sure = np.tile(np.float32([1, 0, 0]), (joints, 1))
        sure[joint] = np.eye(3)[kind]
        controller._detect = lambda sure=sure: sure
        for _ in range(controller.metadata["strike_steps"]):
            assert controller.kind == 0
            controller(observations[0, 0])
        assert (controller.kind, controller.leg) == (kind, joint // (joints // 4))


def test_needs_numpy_only(exported, stepped):
    _, out, observations = exported
    np.save(out / "observations.npy", observations[0])
    code = (
        "import sys, numpy as np; from policy import Controller; c = Controller('policy.npz');"
        "np.save('actions.npy', [c(x) for x in np.load('observations.npy')]);"
        "assert not {'jax', 'flax', 'train', 'envs'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=out, check=True)
    np.testing.assert_allclose(np.load(out / "actions.npy"), stepped[0][0], atol=1e-5)


def test_says_what_an_observation_is(exported):
    loaded, out, _ = exported
    text = (out / "README.md").read_text()
    metadata = Controller(out / "policy.npz").metadata
    assert len(metadata["observation"]) == loaded.robot.env.observation_size
    assert len(metadata["action"]) == loaded.robot.env.action_size
    assert all(what in text for what in (*metadata["observation"], *metadata["action"]))
    # legs by their names, which are those of observations and actions
    legs = {"solo8": ("FL", "FR", "HL", "HR"), "surrogate": [f"leg {n}" for n in range(1, 5)]}
    expected = ", ".join(f"{n} {leg}" for n, leg in enumerate(legs[loaded.config.robot]))
    assert f"Legs: {expected}; in health the leg is 0." in text
    for leg in legs[loaded.config.robot]:
        assert any(leg in what for what in metadata["action"])
    assert "leg 0" not in text
    assert "Arm ours, seed 1; the run has seed 1." in text
    assert "takes another controller's gait for a\nfault" in text
    assert ("Clip the action to 10.0 either way" in text) == (loaded.config.robot == "solo8")


@pytest.mark.parametrize("leg", range(4))
def test_a_policy_for_one_leg_serves_all(exported, leg):
    """`pi(mirror o, fault on the other leg) = mirror pi(o, fault on FL)`."""
    loaded, _, observations = exported
    if loaded.config.robot != "solo8":
        pytest.skip("the toy breaks its first leg only")
    tables = canonical.mirrors(loaded.config, loaded.robot)
    params = jax.tree.map(lambda x: x[0], loaded.models["ours"])
    o, heads, legs = observations[:, 0], jnp.full(4, 1), jnp.full(4, leg)
    action = canonical.drive(loaded.policy, params, tables, o, heads, 0 * legs)
    image = np.stack([mirror.mirror(x, mirror.OBSERVATION["quat"], leg) for x in o])
    found = canonical.drive(loaded.policy, params, tables, image, heads, legs)
    expected = np.stack([mirror.mirror(x, mirror.JOINTS, leg) for x in np.asarray(action)])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # robots side by side each have their own leg
    mixed = canonical.drive(loaded.policy, params, tables, o, heads, jnp.arange(4))
    alone = canonical.drive(loaded.policy, params, tables, o, heads, legs)
    np.testing.assert_allclose(mixed[leg], alone[leg], atol=1e-6)
    # the healthy head is not mirrored, whichever leg is to fail
    well = [
        canonical.drive(loaded.policy, params, tables, o, 0 * heads, x) for x in (legs, 0 * legs)
    ]
    np.testing.assert_array_equal(*well)
    # a run that trained all legs is taken at its word
    every = replace(loaded.config, faults=FaultConfig(legs=("FL", "FR")))
    tables = canonical.mirrors(every, loaded.robot)
    np.testing.assert_array_equal(tables.observation.index, np.tile(np.arange(30), (4, 1)))


def test_one_network_drives_whatever_is_believed(exported):
    """Mix has one trained head: the first drives, unmirrored, whatever the detector says."""
    loaded, _, observations = exported
    own = loaded.models["ours"]
    chosen = quadruped_export.driver_of(replace(loaded, models={"mix": own}), "mix", 0)
    params = jax.tree.map(lambda x: x[0], own)
    kinds, legs = jnp.arange(4) % 3, jnp.arange(4)
    found = canonical.drive(
        loaded.policy, chosen.policy, chosen.tables, observations[:, 0], kinds, legs
    )
    expected = canonical.drive(
        loaded.policy, params, chosen.tables, observations[:, 0], 0 * kinds, legs
    )
    np.testing.assert_array_equal(found, expected)
    other = canonical.drive(loaded.policy, params, chosen.tables, observations[:, 0], kinds, legs)
    assert not np.allclose(found, other)
    if loaded.config.robot == "solo8":
        assert (chosen.tables.observation.index == np.arange(30)).all()


@pytest.mark.parametrize(
    ("arm", "seed", "says"), [("mix", 0, "--arm mix: the run has ours"), ("", 2, "seeds 1 to 1")]
)
def test_refuses(exported, arm, seed, says):
    with pytest.raises(InputError, match=says):
        quadruped_export.driver_of(exported[0], arm, seed)


def test_refuses_a_run_without_detector(exported):
    with pytest.raises(InputError, match="trained no detector"):
        quadruped_export.driver_of(replace(exported[0], detector_params=None), "", 0)
