"""Gates of reflection: each seed's own networks, robots and draws."""

import jax
import jax.numpy as jnp
import numpy as np

from configs.quadruped import PRESETS
from train.control import reflection, robots


def test_every_seed_is_tested_by_its_own_robots(monkeypatch):
    """Faulty robots of each seed stand off by its mark, if they begin where their partners are."""
    samples = 200
    monkeypatch.setattr(reflection, "SAMPLES", samples)
    robot = robots.build(PRESETS["surrogate"])._replace(steps=4)

    def follow(robot, policy, params, key, rho):
        bodies = jax.random.normal(key, (8, 2 * samples, 2))
        offset = rho * params["mark"] * (jnp.arange(2 * samples) >= samples)
        return bodies + offset[:, None], jnp.ones((8, 2 * samples), bool)

    monkeypatch.setattr(reflection, "_follow", follow)
    marks = np.array([0.0, 5.0, -3.0])
    found = reflection.gates(robot, None, {"mark": marks}, jax.random.key(0))
    copied, rest = (np.array([gate.difference for gate in found[rho]]) for rho in (1.0, 0.0))
    assert copied.shape == rest.shape == (3, 2)
    np.testing.assert_allclose(copied, np.tile(marks[:, None], 2), atol=0.5)
    np.testing.assert_allclose(rest, 0, atol=0.5)
    assert len(np.unique(rest)) == rest.size
    p = np.array([gate.p for gate in found[1.0]])
    assert (p[0] > 1e-3).all()
    assert (p[1:] < 1e-6).all()
