"""What each kind of robot answers for itself."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from configs.quadruped import PRESETS, FaultConfig, RobotConfig
from train.control import robots
from train.control.robot import PARTS
from train.control.solo8 import Solo8
from train.control.surrogate import Surrogate


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_chooses_the_kind_that_it_names(preset):
    kind = robots.kind_of(PRESETS[preset])
    assert kind.name == PRESETS[preset].robot
    # what is evaluated by its own run has robots for it, and nothing else has
    assert bool(PRESETS[preset].evaluation_robots) == kind.planted


def test_the_toy_is_built_with_what_it_says_of_itself():
    robot = robots.build(PRESETS["surrogate"])
    assert robot.joints == len(robot.kind.joints) == robot.env.action_size == 4
    assert robot.mjcf == ""
    assert len(robot.kind.observation(RobotConfig())) == robot.env.observation_size
    assert robot.kind.quiet(robot, added_mass=False, noise=2.0) is robot


@pytest.mark.parametrize("mode", ["quat", "gravity"])
def test_an_observation_of_the_real_robot(mode):
    meanings = Solo8().observation(RobotConfig(obs_mode=mode))
    assert len(meanings) == len(set(meanings)) == {"quat": 30, "gravity": 29}[mode]


def test_faults_of_the_toy_strike_its_first_leg_whatever_is_asked_for():
    (place,) = Surrogate().places(("FL", "HR"), tuple(PARTS))
    assert place.broken.tolist() == [True, False, False, False]


def test_faults_of_the_real_robot_strike_where_they_are_asked_for():
    places = Solo8().places(("FR", "HL"), ("KFE", "both"))
    assert [(place.leg, place.joints) for place in places] == [
        ("FR", "KFE"),
        ("FR", "both"),
        ("HL", "KFE"),
        ("HL", "both"),
    ]
    broken = [np.flatnonzero(place.broken).tolist() for place in places]
    names = [[Solo8.joints[joint] for joint in joints] for joints in broken]
    assert names == [["FR_KFE"], ["FR_HFE", "FR_KFE"], ["HL_KFE"], ["HL_HFE", "HL_KFE"]]


def test_only_one_leg_of_the_real_robot_serves_all():
    assert Solo8().mirrored(FaultConfig(legs=("FL",)))
    assert not Solo8().mirrored(FaultConfig(legs=("FR",)))
    assert not Solo8().mirrored(FaultConfig(legs=("FL", "FR")))
    assert not Surrogate().mirrored(FaultConfig(legs=("FL",)))


def test_commands_go_straight_on():
    speeds = jnp.array([0.3, 0.8])
    np.testing.assert_array_equal(Surrogate().straight_on(speeds), speeds)
    np.testing.assert_allclose(Solo8().straight_on(speeds), [[0.3, 0], [0.8, 0]])


def test_an_evaluation_says_what_it_was_made_with():
    assert Solo8().torso(added_mass=True) == "-0.2 to +1 kg"
    assert Solo8().torso(added_mass=False) == "nominal"
    assert Surrogate().torso(added_mass=True) == "nominal"
    assert Solo8().sensor_noise(0.5) == "0.5 x the released code's"
    assert Surrogate().sensor_noise(0.5) == "the toy's"


def test_only_the_real_robot_asks_for_care():
    body = replace(RobotConfig(), action_limit=7.0)
    assert "Clip the action to 7.0 either way" in Solo8().safety(Solo8().actuation(body))
    assert Surrogate().safety(Surrogate().actuation(body)) == ""
