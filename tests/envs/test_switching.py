from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import switching
from envs.faults import HEALTHY, LOCKED, POWER_LOSS
from envs.switching import Rule


def probabilities(kind=HEALTHY, joint=0, certainty=0.9):
    """All joints surely healthy but one."""
    each = np.tile([0.98, 0.01, 0.01], (8, 1))
    each[joint] = (1 - certainty) / 2
    each[joint, kind] = certainty
    return jnp.array(each)


@pytest.fixture(scope="module")
def run():
    traces = []

    @jax.jit
    def run(memory, steps):
        traces.append(1)

        def step(memory, probabilities):
            memory = switching.decide(memory, probabilities, Rule())
            return memory, (memory.kind, memory.leg)

        return jax.lax.scan(step, memory, steps)

    def call(steps, memory=None):
        # one length, so that all tests share one program
        steps = steps + [probabilities(certainty=0.5)] * (40 - len(steps))
        memory, (kinds, legs) = run(memory or switching.start(2), jnp.stack(steps))
        return memory, kinds.tolist(), legs.tolist()

    call.traces = traces
    return call


def test_a_fault_takes_three_confident_steps(run):
    _, kinds, legs = run([probabilities(POWER_LOSS, joint=5)] * 3)
    assert kinds == [HEALTHY] * 2 + [POWER_LOSS] * 38
    assert legs == [0] * 2 + [2] * 38


def test_doubt_starts_the_count_again(run):
    sure, doubtful = probabilities(LOCKED), probabilities(LOCKED, certainty=0.79)
    _, kinds, _ = run([sure, sure, doubtful] * 5)
    assert kinds == [HEALTHY] * 40


def test_another_kind_or_leg_starts_the_count_again(run):
    weak, locked, other = (
        probabilities(POWER_LOSS),
        probabilities(LOCKED),
        probabilities(POWER_LOSS, joint=2),
    )
    _, kinds, _ = run([weak, weak, locked, locked, weak, weak, other, other])
    assert kinds == [HEALTHY] * 40
    # the other joint of the same leg is the same verdict
    _, kinds, _ = run([weak, weak, probabilities(POWER_LOSS, joint=1)])
    assert kinds[2] == POWER_LOSS


def test_health_takes_twenty_five_and_every_joint(run):
    broken, _, _ = run([probabilities(LOCKED, joint=7)] * 3)
    _, kinds, legs = run([probabilities()] * 25, broken)
    assert kinds == [LOCKED] * 24 + [HEALTHY] * 16
    assert legs == [3] * 24 + [0] * 16
    _, kinds, _ = run([probabilities(certainty=0.7)] * 40, broken)
    assert kinds == [LOCKED] * 40


@pytest.mark.parametrize(
    ("rule", "kinds"),
    [
        (Rule(0.8, 1, 2), [POWER_LOSS, POWER_LOSS, POWER_LOSS, HEALTHY]),
        # more patience with faults than with health
        (Rule(0.8, 2, 1), [HEALTHY, POWER_LOSS, HEALTHY, HEALTHY]),
        (Rule(0.95, 1, 1), [HEALTHY, HEALTHY, HEALTHY, HEALTHY]),
    ],
)
def test_the_rule_is_the_callers(rule, kinds):
    memory, found = switching.start(2), []
    for kind in (POWER_LOSS, POWER_LOSS, HEALTHY, HEALTHY):
        memory = switching.decide(memory, probabilities(kind), rule)
        found.append(int(memory.kind))
    assert found == kinds


def test_one_fault_may_follow_another(run):
    _, kinds, _ = run([probabilities(LOCKED)] * 3 + [probabilities(POWER_LOSS)] * 3)
    assert kinds[2:] == [LOCKED] * 3 + [POWER_LOSS] * 35


def test_nothing_is_compiled_for_a_fault(run):
    run([probabilities(LOCKED)])
    run([probabilities(POWER_LOSS)])
    assert len(run.traces) == 1


def test_many_robots_are_one_robot_each(run):
    kinds = (HEALTHY, POWER_LOSS, LOCKED)
    steps = jnp.stack([probabilities(kind, joint=2 * kind) for kind in kinds])
    memory = jax.vmap(lambda _: switching.start(2))(jnp.arange(3))
    for _ in range(3):
        memory = jax.vmap(partial(switching.decide, rule=Rule()))(memory, steps)
    assert memory.kind.tolist() == list(kinds)
    assert memory.leg.tolist() == [0, 1, 2]


def test_a_joint_a_leg_does_as_well():
    kind, leg, probability = switching.verdict(probabilities(LOCKED, joint=3)[:4])
    assert (kind, leg) == (LOCKED, 3)
    assert probability == pytest.approx(0.9)


@pytest.mark.parametrize("kind", [POWER_LOSS, LOCKED])
@pytest.mark.parametrize("joints", [4, 8])
def test_every_joint_speaks_for_its_leg(joints, kind):
    for joint in range(joints):
        found, leg, _ = switching.verdict(probabilities(kind, joint)[:joints])
        assert (found, leg) == (kind, joint // (joints // 4))


def test_the_window_rolls():
    memory = switching.start(2, window=3)
    for step in range(1, 5):
        memory = switching.remember(memory, jnp.full(2, float(step)))
    assert memory.window.tolist() == [[2, 2], [3, 3], [4, 4]]
    assert not switching.remember(switching.start(2, 3), jnp.ones(2)).window[:2].any()
