"""DAFL's own step, against a plain one of a single loss, and its settings."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.dfkd import presets
from corrkd_jax.data.image_set import Normalization
from corrkd_jax.errors import InputError
from tests.train.datafree import tiny_dfkd
from tests.train.datafree.tiny_dfkd import BATCH, KEY, ONE, config, owner_of
from train.datafree import program as dfkd
from train.datafree.arms import Hyper
from train.datafree.hosts import build_generator
from train.datafree.hosts.networks import Dictionary
from train.engine import parallel
from train.engine.parallel import Layout

NORMALIZATION = Normalization((0.4,), (0.3,))
WEIGHTS = {"class_prior": 0.7, "activation": 0.2, "balance": 3.0}


@pytest.fixture(scope="module")
def loaded():
    found = tiny_dfkd.loaded()
    teacher = dataclasses.replace(found.teacher, normalization=NORMALIZATION)
    return found._replace(teacher=teacher)


def joint(loaded, layout=ONE, **changes):
    """The stage, a state whose student is compensated, and a batch of a shard."""
    own = {"log_base": 10.0, "student_steps": 1, "learning_rate": 0.01, **WEIGHTS, **changes}
    chosen = config("dafl", joint=True, **own)
    learning = dataclasses.replace(
        chosen.optimizer, schedule="constant", weight_decay=0.01, clip_norm=0.0
    )
    owner = owner_of(dataclasses.replace(chosen, optimizer=learning), loaded, layout)
    teacher = loaded.teacher.variables
    state = owner.init(KEY, {}, Hyper(strength=1.0), {"teacher": teacher})
    prototypes = jax.random.normal(KEY, state.dictionary.confounders.shape)
    prior = jnp.array([0.4, 0.3, 0.2, 0.1])
    state = state._replace(dictionary=Dictionary(prototypes, prior, jnp.int32(0)))
    rows = jnp.ones(BATCH // layout.shards)
    return owner, state, {"row": rows, "teacher": teacher, "key": jax.random.key_data(KEY)}


def plain(owner, state, teacher):
    """Two steps of one loss of both networks, from one pass of one batch each."""
    networks, chosen = owner.networks, owner.config.optimizer
    params = {"generator": state.host.generator["params"], "student": state.variables["params"]}
    stats = {"generator": state.host.generator["batch_stats"]}
    stats["student"] = state.variables["batch_stats"]
    made_by = optax.adam(owner.config.synthesis.learning_rate, owner.config.synthesis.beta1, 0.999)
    sgd = optax.chain(
        optax.add_decayed_weights(0.01), optax.sgd(chosen.learning_rate, chosen.momentum)
    )
    tx = {"generator": made_by, "student": sgd}
    states = {name: tx[name].init(params[name]) for name in tx}

    def loss(params, stats, latents):
        made, of_generator = networks.generator.apply(
            {"params": params["generator"], "batch_stats": stats["generator"]},
            latents,
            train=True,
            mutable=["batch_stats"],
        )
        images = made if owner.config.synthesis.tanh else (made - 0.4) / 0.3
        logits, features = networks.teacher.apply(teacher, images)
        answer, of_student = networks.student.apply(
            {"params": params["student"], "batch_stats": stats["student"]},
            jax.lax.stop_gradient(images),
            state.dictionary.confounders,
            state.dictionary.prior,
            1.0,
            train=True,
            mutable=["batch_stats"],
        )
        sure = jax.nn.softmax(logits)
        mean = sure.mean(0)
        soft = jax.lax.stop_gradient(jax.nn.log_softmax(logits / 2))
        said = jax.nn.log_softmax(answer.logits / 2)
        terms = {
            "class_prior": -jnp.log(sure.max(1)).mean(),
            "activation": -jnp.abs(features).mean(),
            "balance": (mean * jnp.log10(mean)).sum(),
            "kd": 4 * (jnp.exp(soft) * (soft - said)).sum(1).mean(),
        }
        terms = {name: WEIGHTS.get(name, 1.0) * x for name, x in terms.items()}
        stats = {"generator": of_generator["batch_stats"], "student": of_student["batch_stats"]}
        return sum(terms.values()), (terms, stats)

    for step in range(2):
        key = jax.random.split(jax.random.fold_in(KEY, step), 2)[0]
        latents = jax.random.normal(key, (BATCH, 4))
        gradients, (terms, stats) = jax.grad(loss, has_aux=True)(params, stats, latents)
        for name in tx:
            updates, states[name] = tx[name].update(gradients[name], states[name], params[name])
            if name == "student":
                held = updates["compensation"]
                updates["compensation"] = {**held, "confounder": 0 * held["confounder"]}
            params[name] = optax.apply_updates(params[name], updates)
    return params, stats, terms


@pytest.mark.parametrize("tanh", [False, True])
def test_both_learn_from_one_pass_and_one_loss(loaded, tanh):
    """Parameters, statistics and terms after two steps."""
    owner, state, batch = joint(loaded, tanh=tanh)
    start, step = state, jax.jit(owner.step)
    for _ in range(2):
        state, metrics = step(state, batch, KEY)
    params, stats, terms = plain(owner, start, batch["teacher"])
    found = {
        "generator": state.host.generator["params"],
        "student": state.variables["params"],
    }
    kept = {
        "generator": state.host.generator["batch_stats"],
        "student": state.variables["batch_stats"],
    }
    for unit in ("unit1", "unit2") if tanh else ():
        # before a batch norm: Adam makes whole steps of gradients that are but rounding
        for tree in (found, params):
            tree["generator"][unit]["conv"].pop("bias")
        for tree in (kept, stats):
            tree["generator"][unit]["norm"].pop("mean")
    for own, expected in ((found, params), (kept, stats)):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5), own, expected)
    for name, value in terms.items():
        own = metrics["kd" if name == "kd" else f"synthesis_{name}"]
        np.testing.assert_allclose(own, value, rtol=1e-4)
    assert state.step == 2


def test_shards_take_the_step_of_one_device(loaded):
    shown = {}
    for devices in (1, 8):
        layout = Layout("batch", devices)

        def step(_, layout=layout):
            owner, state, batch = joint(loaded, layout)
            state, metrics = owner.step(state, batch, KEY)
            return state.host.generator, state.variables, metrics["kd"]

        mapped = jax.pmap(step, parallel.AXIS, devices=jax.devices()[:devices])
        shown[devices] = jax.tree.map(lambda x: np.asarray(x[0]), mapped(jnp.zeros(devices)))
    # Adam's first step is as long for the smallest gradient as for the largest
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), shown[8], shown[1])


def test_its_own_schedule(loaded):
    """2,000 epochs of 120 steps; a tenth of the rate from the 800th and again from the 1,600th."""
    chosen = presets("dafl", joint=True)["cifar10"]
    assert (chosen.optimizer.epochs, chosen.optimizer.steps) == (2000, 120)
    small = joint(loaded)[0]
    learning = dataclasses.replace(chosen.optimizer, batch_size=BATCH)
    owner = owner_of(dataclasses.replace(small.config, optimizer=learning), loaded)
    for epoch, rate in ((0, 0.1), (799, 0.1), (800, 0.01), (1599, 0.01), (1600, 0.001)):
        found, _ = owner._rate(jnp.int32(120 * epoch + 119 * (epoch % 2)))
        np.testing.assert_allclose(found, rate, rtol=1e-5)


def test_asking_for_its_step_brings_its_settings(tmp_path, monkeypatch):
    """By data set; options still win, and without it the benchmark's stay."""
    seen = []
    monkeypatch.setattr(dfkd, "train", lambda preset, config, *_: seen.append(config))
    given = ("--host", "dafl", "--data.root", str(tmp_path), "--teacher", "t.npz")
    for preset in ("cifar10", "cifar100"):
        dfkd.main([preset, *given, "--synthesis.joint", "--synthesis.latent", "7"])
    dfkd.main(["cifar10", *given])
    # of several hosts the last counts, for the defaults too
    dfkd.main(["cifar10", "--host", "fast", *given])
    ten, hundred, turns, again = seen
    assert again == turns
    for chosen, weights in ((ten, (0.05, 0.01, 5)), (hundred, (0.5, 0.1, 20))):
        made = chosen.synthesis
        assert (made.class_prior, made.activation, made.balance) == weights
        assert (made.latent, made.learning_rate, made.log_base, made.tanh) == (7, 0.02, 10, True)
        assert (chosen.optimizer.batch_size, chosen.optimizer.weight_decay) == (1024, 5e-4)
    assert not turns.synthesis.joint
    assert turns.synthesis.student_steps == 5
    assert turns.optimizer.epochs == 200


def test_its_own_generator():
    """tanh and a batch norm: normalised by itself; large images have no such generator."""
    chosen = presets("dafl", joint=True)["cifar10"]
    generator, latent = build_generator(chosen, 32, 3, None, jnp.float32)
    assert latent == (1000,)
    assert (generator.normalized, generator.bias, generator.epsilon) == (True, True, 0.8)
    with pytest.raises(InputError, match=r"--synthesis\.tanh: .* of 64 pixels"):
        build_generator(chosen, 64, 3, None, jnp.float32)
    large = presets("dafl", joint=True)["tiny_imagenet"]
    build_generator(large, 64, 3, None, jnp.float32)


def test_the_benchmarks_generator_is_the_default():
    generator, _ = build_generator(presets("dafl")["cifar10"], 32, 3, None, jnp.float32)
    assert (generator.normalized, generator.bias, generator.epsilon) == (False, False, 1e-5)
