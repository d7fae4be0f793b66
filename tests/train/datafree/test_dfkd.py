"""Data-free distillation: every host, the stage around them, resume, devices, bad input."""

import csv
import dataclasses
import json

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks import dfkd as benchmark
from configs.dfkd import HOSTS, presets
from corrkd_jax.data.image_set import Normalization
from corrkd_jax.data.images import read as read_images
from corrkd_jax.errors import InputError
from corrkd_jax.losses import synthesis
from corrkd_jax.models.backbones import named
from tests.data import image_layouts as layouts
from tests.train.datafree import tiny_dfkd
from tests.train.datafree.tiny_dfkd import (
    BATCH,
    CLASSES,
    KEY,
    ONE,
    SIDE,
    config,
    images,
    owner_of,
    state_and_view,
)
from tests.train.engine import toy
from tests.train.engine.test_resume import Stopped, Stops
from tests.train.test_convert import weights
from train import evaluate, export
from train.datafree import inputs as dfkd_inputs
from train.datafree import program as dfkd
from train.datafree import report as dfkd_report
from train.datafree.arms import ALONE, BALANCED, FLAT, KDCI, RANDOM, SCALED, TRAINED, arms
from train.datafree.distilling import among_best
from train.datafree.hosts.host import total
from train.datafree.trained import load_run
from train.engine import cli, loop, parallel
from train.engine.parallel import Layout
from train.engine.pipeline import Pipeline
from train.engine.stage import vectorized
from train.images import pretrained

# whole runs of the program
pytestmark = pytest.mark.seconds(100)


@pytest.fixture(scope="module")
def loaded():
    return tiny_dfkd.loaded()


@pytest.mark.parametrize("host", ["deepinv", "fast", "cmi", "dfnd"])
def test_hosts_that_keep_their_images(host, loaded):
    """Bytes of the right number, terms by their names, a loss that falls with the descents."""
    losses = {}
    for steps in (1, 12) if host in ("deepinv", "fast") else (3,):
        slow = {"learning_rate": 0.01, "jitter": 0} if host == "deepinv" else {}
        owner = owner_of(config(host, steps=steps, **slow), loaded)
        state, view = state_and_view(owner, loaded)
        data = jax.tree.map(jnp.asarray, dfkd.sets(owner.config, loaded))

        @jax.jit
        def call(own, key, owner=owner, view=view, data=data):
            return owner.host.call(own, view, key, data)

        own, made, terms = call(state.host, KEY)
        assert made.dtype == jnp.uint8
        assert made.shape == (40 if host == "dfnd" else BATCH, SIDE, SIDE, 1)
        assert set(terms) == set(owner.host.losses)
        assert all(np.isfinite(x) for x in terms.values())
        losses[steps] = float(total(terms))
        if host in ("fast", "cmi"):
            again = call(own, KEY)[2]
            kept = "contrast" if host == "cmi" else "bn"
            assert again[kept] != terms[kept], "what is kept from call to call counts"
    if host == "dfnd":
        logits, _ = view.ask_teacher(view.networks.read(jnp.asarray(loaded.pool.images)))
        surest = np.argsort(-np.max(jax.nn.log_softmax(logits), axis=-1), kind="stable")[:40]
        np.testing.assert_array_equal(made, loaded.pool.images[surest])
    elif len(losses) > 1:
        assert losses[12] < losses[1]


@pytest.mark.parametrize("host", ["dafl", "zskt", "dfq", "dfad", "mosaic"])
def test_hosts_that_make_new_images(host, loaded):
    """Finite terms by their names; the generator moves; images lie in the range of pixels."""
    owner = owner_of(config(host), loaded)
    state, view = state_and_view(owner, loaded)
    real = view.networks.read(jnp.asarray(loaded.pool.images[:BATCH]))
    own, terms, _ = jax.jit(lambda own: owner.host.turn(own, view, KEY, real))(state.host)
    assert set(terms) == set(owner.host.losses)
    assert all(np.isfinite(x) for x in terms.values())
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), own.generator["params"], state.host.generator["params"]
    )
    assert all(x > 0 for x in jax.tree.leaves(moved))
    made = owner.host.draw(own, jnp.ones((5, 4)))
    pixels = view.networks.pixels(made)
    assert made.shape == (5, SIDE, SIDE, 1)
    assert 0 <= pixels.min() <= pixels.max() <= 1


@pytest.mark.parametrize(
    ("host", "loss", "published"),
    [
        ("deepinv", "adversarial_js", (3.0, True)),
        ("zskt", "adversarial_kl", (1.0,)),
        ("mosaic", "adversarial_kl", (1.0,)),
    ],
)
def test_quirks_of_the_competition_are_settings(host, loss, published, loaded, monkeypatch):
    """The published ones by default; any other reaches the loss."""
    real, met = getattr(synthesis, loss), []
    pool = jnp.zeros((BATCH, SIDE, SIDE, 1))

    def recorded(student, teacher, temperature, *reverse, **rest):
        met.append((temperature, *reverse))
        return real(student, teacher, temperature, *reverse, **rest)

    monkeypatch.setattr(synthesis, loss, recorded)
    other = {"adversarial_temperature": 20.0, "reverse": False}
    for changes, expected in (({}, published), (other, tuple(other.values())[: len(published)])):
        owner = owner_of(config(host, **changes), loaded)

        def made(owner=owner):
            state, view = state_and_view(owner, loaded)
            return (owner.host.call or owner.host.turn)(state.host, view, KEY, pool)

        jax.eval_shape(made)
        assert set(met) == {expected}
        met.clear()


@pytest.mark.parametrize("host", ["dfq", "deepinv"])
def test_shards_of_a_batch_make_what_one_device_makes(host, loaded):
    """Statistics, balance and all gradients are the whole batch's: generators' and images'."""
    shown = {}
    for devices in (1, 8):
        layout = Layout("batch", devices)
        owner = owner_of(config(host, steps=2, jitter=0), loaded, layout)

        def made(_, owner=owner):
            state, view = state_and_view(owner, loaded)
            if host == "dfq":
                own, terms, _ = owner.host.turn(state.host, view, KEY, None)
                return owner.host.draw(own, jnp.ones((2, 4))), terms
            _, made, terms = owner.host.call(state.host, view, KEY, {})
            return made.astype(jnp.float32) / 255, terms

        mapped = jax.pmap(made, parallel.AXIS, devices=jax.devices()[:devices])
        shown[devices] = jax.tree.map(np.asarray, mapped(jnp.zeros(devices)))
        for row in jax.tree.leaves(shown[devices]):
            np.testing.assert_allclose(row, np.broadcast_to(row[0], row.shape), atol=1e-6)
    (images_one, terms_one), (images_eight, terms_eight) = shown[1], shown[8]
    for name, value in terms_one.items():
        np.testing.assert_allclose(terms_eight[name][0], value[0], rtol=1e-4, err_msg=name)
    # a pixel on the border of two bytes may fall to either side
    assert np.mean(np.abs(images_eight[0] - images_one[0]) > 1.5 / 255) < 0.01


@pytest.fixture(scope="module")
def run(loaded):
    """The host and KDCI, compiled once: pipeline, data, names."""
    chosen = dataclasses.replace(config("fast"), ablate=True, skew=0.2)
    owner = owner_of(chosen, loaded)
    names = list(arms(chosen, owner.prototypes))
    return Pipeline([owner.stage()], ONE, vectorized), dfkd.sets(chosen, loaded), names, owner


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    pipe, data, names, _ = run
    folder = tmp_path_factory.mktemp("whole")
    workdir = toy.claimed(folder)
    tracks = loop.run(pipe, dict(data), (5,), names, workdir)
    workdir.close()
    return tracks, (folder / "metrics.jsonl").read_text()


def test_the_stage(run, whole):
    """Pool, dictionary, controls, both evaluations; the student waits for the warm-up."""
    names = run[2]
    track = whole[0]["student"]
    state = jax.tree.map(lambda x: x[0], track.state)
    assert names == [BALANCED, ALONE, KDCI, TRAINED, RANDOM, FLAT, SCALED]
    at = {name: number for number, name in enumerate(names)}
    np.testing.assert_array_equal(state.pool.written, 3 * BATCH)
    np.testing.assert_allclose(state.dictionary.prior.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(state.histogram.sum(-1), 1, rtol=1e-5)
    assert set(np.unique(state.dictionary.prior[at[FLAT]]).round(4)) <= {0.0, 0.25, 0.3333, 0.5}
    start = np.eye(CLASSES)
    kernels = state.variables["params"]["compensation"]["confounder"]
    for name in (ALONE, KDCI, RANDOM, FLAT, SCALED):
        np.testing.assert_array_equal(kernels[at[name]], start)
    assert np.abs(kernels[at[TRAINED]] - start).max() > 1e-5
    history = {k: v[0] for k, v in track.history["valid"].items()}
    for name in (BALANCED, ALONE):
        np.testing.assert_array_equal(history["keep"][at[name]], history["drop"][at[name]])
    student = state.variables["params"]["backbone"]["hidden0"]["kernel"]
    assert np.abs(student[at[KDCI]] - student[at[ALONE]]).max() > 1e-5


def test_stopped_and_continued(run, whole, tmp_path):
    """Generator, pool, statistics, dictionary and student go on bit for bit."""
    pipe, data, names, _ = run
    workdir = toy.claimed(tmp_path, Stops)
    workdir.log_calls = 2
    with pytest.raises(Stopped):
        loop.run(pipe, dict(data), (5,), names, workdir, save_every=0)
    workdir.close()
    workdir = toy.claimed(tmp_path, resume=True)
    tracks = loop.run(pipe, dict(data), (5,), names, workdir, resume=True)
    workdir.close()
    jax.tree.map(np.testing.assert_array_equal, tracks, whole[0])
    assert (tmp_path / "metrics.jsonl").read_text() == whole[1]


def streaming(host):
    """A run whose pool stays on disk."""
    chosen = config(host)
    data = dataclasses.replace(chosen.data, feed="grain", threads=2)
    return dataclasses.replace(chosen, data=data)


def test_what_a_streamed_pool_leaves_on_the_device(loaded):
    """A sample of the rows, none twice; whole batches of all of them come from disk."""
    chosen = streaming("mosaic")
    chosen = dataclasses.replace(
        chosen, compensation=dataclasses.replace(chosen.compensation, images=30)
    )
    there = dfkd_inputs.sets(chosen, loaded)["pool"]["images"]
    assert there.shape == (30, SIDE, SIDE, 1)
    assert len(np.unique(there.reshape(30, -1), axis=0)) == 30
    feed = dfkd_inputs.feed_of(chosen, loaded, (5,))
    stage = owner_of(chosen, loaded).stage()
    assert not stage.refresh_needs_all
    assert feed.steps(stage) == dfkd_inputs.turns_an_epoch(chosen, loaded) == 80 // BATCH
    resident = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, feed="auto"))
    assert dfkd_inputs.feed_of(resident, loaded, (5,)) is None
    assert len(dfkd_inputs.sets(resident, loaded)["pool"]["images"]) == 80


def test_a_pool_on_disk_gives_the_images_that_the_device_would_choose(loaded):
    chosen = streaming("dfnd")
    owner = owner_of(chosen, loaded)
    state, view = state_and_view(owner, loaded)
    data = {"pool": jax.tree.map(jnp.asarray, loaded.pool.take())}
    _, expected, _ = owner.host.call(state.host, view, KEY, data)
    rows, pixels = [], loaded.pool.images

    class Disk:
        shape = pixels.shape

        def __getitem__(self, index):
            rows.append(len(pixels[index]))
            return pixels[index]

    on_disk = loaded._replace(pool=dataclasses.replace(loaded.pool, images=Disk()))
    assert dfkd_inputs.streamed(chosen, on_disk)
    narrowed = dfkd.narrowed(chosen, owner, on_disk)
    assert max(rows[:-1]) == BATCH
    np.testing.assert_array_equal(narrowed.pool.images, expected)
    # what the host then takes of it is all of it, in the same order
    data = jax.tree.map(jnp.asarray, dfkd_inputs.sets(chosen, narrowed))
    _, again, _ = owner.host.call(state.host, view, KEY, data)
    np.testing.assert_array_equal(again, expected)


def test_how_good_a_teacher_from_a_file_is(loaded, capsys):
    """Right where the labels are its own answers, whatever fills the last block up; else warned."""
    networks = owner_of(config("fast"), loaded).networks
    test = images(300)
    logits, _ = networks.teacher.apply(
        loaded.teacher.variables, networks.read(jnp.asarray(test.images))
    )
    own = np.asarray(jnp.argmax(logits, axis=-1), np.int32)
    agreed = loaded._replace(test=dataclasses.replace(test, labels=own))
    capsys.readouterr()
    assert dfkd.teacher_accuracy(networks, agreed) == 1.0
    assert not capsys.readouterr().out
    wrong = np.where(np.arange(300) < 30, own, (own + 1) % CLASSES).astype(np.int32)
    agreed = loaded._replace(test=dataclasses.replace(test, labels=wrong))
    assert dfkd.teacher_accuracy(networks, agreed) == 0.1
    assert "right on 10.0% of test images, chance is 33.3%" in capsys.readouterr().out


def test_what_a_teachers_file_is_taken_for(loaded):
    """Its network by the weights or by an option, its normalisation by the file or by the data."""
    teacher = dataclasses.replace(loaded.teacher, network="wrn40_2", normalization=None)
    chosen = dataclasses.replace(config("fast"), teacher="somewhere/wrn.pth")
    assert dfkd.teacher_line(chosen, teacher) == (
        "teacher: wrn.pth is a wrn40_2 by its weights' names and shapes; normalisation by the data "
        "set's usual constants"
    )
    chosen = dataclasses.replace(chosen, teacher_network="wrn40_2")
    noted = dataclasses.replace(teacher, normalization=Normalization((0.5,), (0.5,)))
    assert dfkd.teacher_line(chosen, noted) == (
        "teacher: wrn.pth is a wrn40_2 by --teacher-network; normalisation by its file"
    )


def test_results_and_gates(run, whole):
    """Accuracy of the last epoch is the history's; the gates wait for ten seeds."""
    _, _, names, owner = run
    results = dfkd.evaluate_students(owner, images(30), whole[0], names)
    history = whole[0]["student"].history["valid"]
    for mode in ("keep", "drop"):
        for number, name in enumerate(names):
            last = history[mode][:, number, -1]
            np.testing.assert_allclose(results.accuracy(name, mode), last, rtol=1e-5)
    np.testing.assert_array_equal(results.rows, [10, 10, 10])
    assert np.all(results.divergence(ALONE) >= 0)
    json.dumps(results.to_json())
    chosen = presets("deepinv")["digits"]
    assert "too few" in dfkd_report.planted_gates("digits", chosen, results)
    assert dfkd_report.planted_gates("cifar10", chosen, results) == ""
    assert dfkd_report.planted_gates("digits", presets("fast")["digits"], results) == ""
    ten = dataclasses.replace(
        results,
        right={mode: np.repeat(x, 10, axis=0) for mode, x in results.right.items()},
        histogram=np.repeat(results.histogram, 10, axis=0),
    )
    right = {mode: x.copy() for mode, x in ten.right.items()}
    for name, count in ((BALANCED, 9), (ALONE, 5), (KDCI, 6), (RANDOM, 5)):
        for mode in right:
            right[mode][:, names.index(name)] = count
    ten = dataclasses.replace(ten, right=right, teacher=np.full(10, 0.99))
    verdicts = dfkd_report.planted_gates("digits", chosen, ten)
    assert dfkd_report.planted_claims(ten).missed == (
        "kept, it changes by so many points at most",
        "every distillation loss is finite and falls",
    )
    assert "| kept, it changes by so many points at most | 10.00 | <= 2 | MISSED |" in verdicts
    assert "| KDCI gains, points | 10.00 | >= 0.5 | holds |" in verdicts
    np.testing.assert_allclose(ten.rare(ALONE, "drop", 3), 0.5)


def test_of_equal_logits_the_first_class_wins():
    """As in argmax, so that a class is among the best one where argmax names it."""
    logits = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [0.0, 2.0, 2.0]])
    labels = jnp.array([0, 1, 2, 0])
    for count, expected in ((1, [1, 0, 0, 0]), (2, [1, 1, 1, 0]), (3, [1, 1, 1, 1])):
        np.testing.assert_array_equal(among_best(logits, labels, count), expected)


def test_classes_are_drawn_by_their_shares(run, loaded):
    _, _, _, owner = run
    _, view = state_and_view(owner, loaded)
    drawn = dataclasses.replace(view, skew=0.01).draw_classes(KEY, 20_000)
    shares = np.bincount(drawn, minlength=CLASSES) / 20_000
    wanted = 0.01 ** (np.arange(CLASSES) / (CLASSES - 1))
    np.testing.assert_allclose(shares, wanted / wanted.sum(), atol=0.01)


def test_the_students_rate(loaded):
    """It waits for the warm-up, then falls along a cosine to Fast's smallest."""
    chosen = config("fast")
    learning = dataclasses.replace(chosen.optimizer, final_learning_rate=0.01)
    owner = owner_of(dataclasses.replace(chosen, optimizer=learning), loaded)
    # one of three epochs of four steps is the warm-up
    for step, rate, waits in ((0, 0.05, True), (4, 0.05, False), (8, 0.03, False), (12, 0.01, 0)):
        found = owner._rate(jnp.int32(step))
        np.testing.assert_allclose(found, (rate, waits), rtol=1e-6)


def refused(*words):
    with pytest.raises(InputError) as error:
        dfkd.main([*map(str, words), "--devices", "1"])
    message = str(error.value)
    assert "\n" not in message
    return message


class TestBadInput:
    """One clear line each, and no folder left behind."""

    def test_options(self, tmp_path):
        out = ("--workdir", tmp_path / "run")
        assert "--data.root" in refused("cifar10", *out)
        assert "--first-seed -1: must not be negative" in refused("--first-seed", -1, *out)
        assert "--first-seed 2147483647: seeds" in refused("--first-seed", 2**31 - 1, *out)
        assert "--teacher FILE" in refused("cifar10", "--data.root", tmp_path, *out)
        given = ("--data.root", tmp_path, "--teacher", tmp_path / "t.pth")
        assert "--data.pool" in refused("cifar10", "--host", "dfnd", *given, *out)
        assert "--skew" in refused("--host", "dafl", "--skew", 0.1, *out)
        assert "--optimizer.steps 81" in refused("--host", "dafl", "--optimizer.steps", 81, *out)
        assert "--optimizer.final-learning-rate 0.2" in refused(
            "--optimizer.final-learning-rate", 0.2, *out
        )
        own = ("--host", "dafl", "--synthesis.joint")
        assert "joint: is a step of dafl, not of zskt" in refused(*own, "--host", "zskt", *out)
        assert "steps at 1" in refused(*own, "--synthesis.student-steps", 5, *out)
        assert "--synthesis.adversarial 1.0" in refused(*own, "--synthesis.adversarial", 1, *out)
        assert "--synthesis.tanh: fast keeps" in refused("--host", "fast", "--synthesis.tanh", *out)
        assert "alone makes 200" in refused("--synthesis.keep", 100, *out)
        zero = ("--compensation.start", "zero", "--no-ablate")
        assert "W_z would stay zero" in refused(*zero, *out)
        few = refused("--compensation.prototypes", 300, *out)
        assert "300" in few
        assert "200 images" in few
        assert "no dictionary in 10 epochs" in refused("--compensation.first", 10, *out)
        assert "keeps no images" in refused("--host", "dafl", "--dump", tmp_path / "d", *out)
        assert "--student lenet5: images must be" in refused("--student", "lenet5", *out)
        rows = "'host, balanced', 'host', 'KDCI', 'KDCI, trained W_z', 'random dictionary', "
        rows += "'uniform prior', 'prior times its size'"
        assert refused("--arms", "none", *out) == f"--arms 'none': choose from {rows}"
        # beside one that there is, and where the table is shorter
        assert refused("--arms", ALONE, "kdci", *out) == f"--arms 'kdci': choose from {rows}"
        fewer = ("--no-kdci", "--no-ablate", "--arms", KDCI)
        assert refused(*fewer, *out) == "--arms 'KDCI': choose from 'host'"
        assert "--arms 'KDCI': stands twice" in refused("--arms", KDCI, KDCI, *out)
        assert "no such network" in refused("--student", "resnet9", *out)
        assert "deepinv reads no pool" in refused("--data.feed", "grain", *out)
        grain = ("--host", "mosaic", "--data.feed", "grain")
        assert "--data.feed grain: give the teacher's" in refused(*grain, *out)
        for given in (("--host", "dfl"), ("--host=dfl",), ("--host", "cmi", "--host", "dfl")):
            message = refused(*given, *out)
            assert message == f"--host dfl: no such method; choose from {', '.join(HOSTS)}"
        few = refused("--host", "dfnd", "--synthesis.select", 9999, *out)
        assert "photographs has only" in few
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--batch", "8"), "--prototypes 64: the dictionary is built from one call's 8 images"),
            (("--steps", "0"), "--steps 0: must be positive"),
        ],
    )
    def test_of_the_benchmark(self, words, said, capsys):
        """Before any variant starts."""
        with pytest.raises(SystemExit) as ended:
            cli.guard(benchmark.main, words)
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith(f"error: {said}")

    @pytest.mark.parametrize(
        "words",
        [
            ("--compensation.prototypes", "-3"),
            ("--compensation.components", "-1"),
            ("--compensation.components", "11"),
            ("--compensation.components", "129", "--compensation.feature", "penultimate"),
            ("--compensation.every", "-1"),
            ("--compensation.ramp", "-1"),
            ("--optimizer.momentum", "1.5"),
            ("--optimizer.momentum", "-0.1"),
            ("--optimizer.weight-decay", "-1.0"),
            ("--optimizer.clip-norm", "-1.0"),
            ("--synthesis.beta1", "1.0"),
            ("--synthesis.ema-decay", "2.0"),
            ("--synthesis.learning-rate", "0.0"),
            ("--synthesis.latent", "0"),
            ("--synthesis.widths", "0", "4", "4"),
            ("--synthesis.batch-size", "-1"),
            ("--synthesis.calls", "-1"),
            ("--synthesis.select", "-1"),
            ("--synthesis.bank", "0"),
            ("--synthesis.log-base", "1.0"),
            ("--teacher-training.epochs", "0"),
        ],
        ids=" ".join,
    )
    def test_numbers_out_of_range(self, words, tmp_path):
        """The option is named with its number, in one line."""
        message = refused(*words, "--workdir", tmp_path / "run")
        assert message.startswith(f"{words[0]} {float(words[1]):g}")
        assert not (tmp_path / "run").exists()

    def test_a_teacher_that_does_not_fit(self, tmp_path):
        """Other classes; keys that are missing or in excess, all of them named."""
        network = named.build("wrn10_1", 7).network
        variables = network.init(KEY, jnp.zeros((1, 32, 32, 3)))
        variables = jax.tree.map(np.asarray, variables)
        path = tmp_path / "teacher.safetensors"
        pretrained.save(path, pretrained.Pretrained("wrn10_1", 7, 32, 3, variables))
        message = refused("--teacher", path, "--workdir", tmp_path / "run")
        assert str(path) in message
        assert "7 classes" in message
        few = {"conv1.weight": np.zeros((16, 3, 3, 3), np.float32), "odd": np.zeros(1)}
        np.savez(tmp_path / "teacher.npz", **few)
        message = refused(
            *("--teacher", tmp_path / "teacher.npz", "--teacher-network", "wrn16_1"),
            *("--workdir", tmp_path / "run"),
        )
        for name in ("odd: no place", "bn1.running_mean: missing", "fc.weight: missing"):
            assert name in message
        _, state = weights("wrn10_1", 10)
        del state["fc.bias"]
        np.savez(tmp_path / "teacher.npz", **state)
        message = refused("--teacher", tmp_path / "teacher.npz", "--workdir", tmp_path / "run")
        assert "nearest network known here; --teacher-network names another" in message
        assert "fc.bias: missing" in message


def test_dfnd_sees_as_many_images_as_published():
    """floor(40,000 / taken * 512) passes over those that it takes."""
    chosen = presets("dfnd")["cifar10"].optimizer
    assert chosen.epochs * chosen.steps * chosen.batch_size == 40_000 * 512


def test_dfnd_doubts_each_teacher_as_its_code_does():
    """The published figures belong to two data sets; no other teacher has them."""
    found = {name: x.synthesis.teacher_accuracy for name, x in presets("dfnd").items()}
    own = {"digits": 0.98, "cifar10": 0.9523, "cifar100": 0.7774}
    assert found == {**dict.fromkeys(found, 0.0), **own}


@pytest.mark.parametrize(
    ("host", "joint"), [*((host, False) for host in sorted(HOSTS)), ("dafl", True)]
)
def test_presets_are_consistent(host, joint):
    for name, preset in presets(host, joint).items():
        assert preset.host == host
        given = dataclasses.replace(
            preset, data=dataclasses.replace(preset.data, root="x", pool="x"), teacher="x"
        )
        if host == "dfnd" and name in ("svhn", "tiny_imagenet", "imagenet", "folders"):
            with pytest.raises(
                InputError, match=r"--synthesis\.teacher-accuracy 0: give the teacher's"
            ):
                dfkd.check(name, given)
            own = dataclasses.replace(given.synthesis, teacher_accuracy=0.6)
            given = dataclasses.replace(given, synthesis=own)
        dfkd.check(name, given)


def test_the_program(tmp_path, capsys):
    """From the command line to the report, on real digits, with few steps."""
    dfkd.main(
        [
            *("--workdir", str(tmp_path / "run"), "--devices", "1", "--seeds", "2"),
            *(
                "--teacher-training.epochs",
                "8",
                "--optimizer.epochs",
                "2",
                "--optimizer.steps",
                "30",
            ),
            *("--synthesis.steps", "20", "--dump", str(tmp_path / "dump")),
            *("--arms", BALANCED, ALONE, KDCI, RANDOM),
        ]
    )
    report = (tmp_path / "run" / "report.md").read_text()
    assert report.strip() in capsys.readouterr().out
    for words in ("| host, balanced |", "| KDCI |", "rare 5", "Not judged: 2 seeds", "KL to unif"):
        assert words in report
    for name in ("images", "classes"):
        assert (tmp_path / "run" / "figures" / f"{name}.png").stat().st_size > 2_000
    figures = json.loads((tmp_path / "run" / "results.json").read_text())
    assert len(figures["KDCI"]["drop"]["accuracy"]) == 2
    assert figures["host"]["drop"]["accuracy"] == figures["host"]["keep"]["accuracy"]
    assert np.mean(figures["host"]["divergence"]) > 0.4
    assert np.mean(figures["host, balanced"]["divergence"]) < 0.15
    assert np.mean(figures["teacher"]) > 0.9
    assert len(list((tmp_path / "dump").glob("*.png"))) == 200
    assert "![substitution data of KDCI, seed 0, by epoch](figures/images.png)" in report
    picture = np.asarray(Image.open(tmp_path / "run" / "figures" / "images.png"))
    own = np.asarray(Image.open(tmp_path / "dump" / "000000.png"))
    np.testing.assert_array_equal(picture[:32:4, 36:68:4], own)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 3
    _evaluated(tmp_path, figures, capsys)
    _exported(tmp_path)
    kd = [[r["train_kd"] for r in rows if r.get("arm") == arm] for arm in (BALANCED, ALONE, KDCI)]
    assert np.all(np.array(kd)[:, 1] < np.array(kd)[:, 0])


def _evaluated(folder, figures, capsys):
    """The same students on the same images: the report's accuracies, and one line an answer."""
    evaluate.main([str(folder / "run")])
    found = json.loads((folder / "run" / "evaluation.json").read_text())
    for name in (BALANCED, ALONE, KDCI, RANDOM):
        for mode in ("keep", "drop"):
            np.testing.assert_allclose(
                found[name][mode]["accuracy"], figures[name][mode]["accuracy"], atol=1e-6
            )
            np.testing.assert_allclose(
                found[name][mode]["by_class"], figures[name][mode]["by_class"], atol=1e-6
            )
    text = (folder / "run" / "evaluation.md").read_text()
    assert text.startswith(f"# Evaluation of run\n\n* run {folder / 'run'}, preset digits, host d")
    assert text.count("| KDCI |") == 2
    assert "<td>KDCI</td>" in (folder / "run" / "evaluation.html").read_text()
    with pytest.raises(SystemExit) as ended:
        evaluate.main([str(folder / "run"), "--split", "valid"])
    assert ended.value.code == 2
    assert "Expected one of ('train'," in capsys.readouterr().err


def _exported(folder):
    """The exported function and the student's weights say what `predictions.csv` says."""
    finished = load_run(folder / "run")
    assert finished.arms == (BALANCED, ALONE, KDCI, RANDOM)
    assert list(finished.seeds) == [0, 1]
    assert finished.one(ALONE, 1).strength == 0
    assert finished.one(KDCI, 1).strength == 1
    with pytest.raises(InputError, match="--seed 2: the run has seeds 0 to 1"):
        finished.one(KDCI, 2)
    export.main([str(folder / "run"), str(folder / "out"), "--seed", "1"])
    lines = csv.DictReader((folder / "run" / "predictions.csv").open())
    lines = [r for r in lines if (r["arm"], r["seed"]) == (KDCI, "1")]
    test = read_images("digits", "", "test")
    model = jax.export.deserialize(bytearray((folder / "out" / "model.stablehlo").read_bytes()))
    said = np.asarray(model.call(test.images))
    assert [str(k) for k in said.argmax(-1)] == [r["drop"] for r in lines]
    np.testing.assert_allclose(said.max(-1), [float(r["p_drop"]) for r in lines], atol=1e-4)
    student = pretrained.load(folder / "out" / "student.safetensors")
    network = named.build(student.network, 10, 8).network
    logits, _ = network.apply(student.variables, test.images / np.float32(test.white))
    np.testing.assert_allclose(jax.nn.softmax(logits), said, atol=1e-5)
    kept = [str(folder / "run"), str(folder / "kept"), "--seed", "1", "--arm", "KDCI, kept"]
    export.main(kept)
    model = jax.export.deserialize(bytearray((folder / "kept" / "model.stablehlo").read_bytes()))
    kept = np.asarray(model.call(test.images[:50])).max(-1)
    np.testing.assert_allclose(kept, [float(r["p_keep"]) for r in lines[:50]], atol=1e-4)
    assert not (folder / "kept" / "student.safetensors").exists()
    with pytest.raises(InputError, match="--arm CMI: the run has host, balanced; host; KDCI"):
        export.main([str(folder / "run"), str(folder / "none"), "--arm", "CMI"])


def test_cifar_from_its_files(tmp_path, capsys):
    """The published layouts of data and teacher, one epoch of the smallest networks."""
    root, state = tmp_path / "data", weights("wrn10_1", 10)[1]
    layouts.cifar10(root, layouts.pixels(12, 32))
    np.savez(tmp_path / "teacher.npz", **{k: 0.1 * np.square(x) for k, x in state.items()})
    dfkd.main(
        [
            *("cifar10", "--host", "fast", "--data.root", str(root), "--student", "wrn10_1"),
            *("--teacher", str(tmp_path / "teacher.npz"), "--kdci", "--devices", "1"),
            *("--seeds", "1", "--optimizer.epochs", "1", "--optimizer.steps", "1"),
            *("--optimizer.batch-size", "4", "--synthesis.steps", "1", "--synthesis.warmup", "0"),
            *("--synthesis.latent", "4", "--synthesis.widths", "4", "4", "4"),
            *("--compensation.prototypes", "2", "--compensation.first", "0"),
            *("--workdir", str(tmp_path / "run")),
        ]
    )
    assert "test, 2 test images" in (tmp_path / "run" / "report.md").read_text()
    # its batch norms remember what they were told, not these images
    assert "hardly trained with a normalisation of mean 0.4914, " in capsys.readouterr().out
    evaluate.main([str(tmp_path / "run"), "--data.path", str(root), "--out", str(tmp_path / "on")])
    lines = list(csv.DictReader((tmp_path / "on" / "predictions.csv").open()))
    assert [r["true"] for r in lines[:2]] == ["class 9", "class 8"]
