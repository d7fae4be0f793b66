"""The engine on a toy pipeline: cuts, lanes, devices, the best epoch, faults, streaming."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from corrkd_jax.errors import InputError
from tests import xla
from tests.train.engine import toy
from train.engine import loop, parallel
from train.engine.feed import Feed
from train.engine.parallel import Layout
from train.engine.pipeline import FROZEN, Pipeline, epoch_order, fault_of
from train.engine.stage import looped, vectorized

ONE = Layout("batch", 1)
SEEDS = (5, 9)


def assert_same(a, b):
    """Equal in structure, type and every bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def assert_close(a, b, tolerance):
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(
            x, y, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path)
        )


@pytest.fixture(scope="module")
def sets():
    return toy.data()


@pytest.fixture(scope="module")
def noisy():
    """A pipeline that uses its keys; validates every second epoch."""
    return toy.pipeline(ONE, epochs=(3, 4), noise=1.0, validate_every=2)


@pytest.fixture(scope="module")
def noisy_run(noisy, sets):
    return toy.train(noisy, sets, SEEDS)


@pytest.fixture(scope="module")
def quiet_run(sets):
    """One device, no random numbers in a step: what sharded runs must repeat."""
    return toy.train(toy.pipeline(ONE), sets, SEEDS)


@pytest.mark.parametrize(
    "cuts", [(1, 2, 3, 4, 5, 6), (2, 5), (3,), (0, 3, 3, 7)], ids=["each", "inside", "at", "empty"]
)
def test_chunks_give_the_bits_of_one_call(noisy, noisy_run, sets, cuts):
    assert_same(toy.train(noisy, sets, SEEDS, cuts), noisy_run)


def test_seeds_do_not_touch_each_other(noisy, noisy_run, sets):
    alone = toy.train(noisy, sets, SEEDS[1:])
    assert_same(alone, jax.tree.map(lambda x: x[1:], noisy_run))
    assert not np.array_equal(noisy_run["teacher"].best[0], noisy_run["teacher"].best[1])


def test_a_student_sees_the_best_of_the_teacher(sets):
    """In one call for both stages, with a teacher whose last epoch is not its best."""
    still = toy.two_arms(rate=(0.0, 0.0))
    pipe = toy.pipeline(ONE, epochs=(8, 1), batch=64, rate=1.0, arms=still)
    tracks = toy.train(pipe, sets, SEEDS)
    teacher, student = tracks["teacher"], tracks["student"]
    assert (teacher.best_epoch < 7).all()
    for lane in range(len(SEEDS)):
        gap = sets["train"]["x"] @ (student.state["w"][lane, 0] - teacher.best[lane])
        soft = student.history["train"]["soft"][lane, 0, 0]
        np.testing.assert_allclose(soft, np.mean(gap**2), rtol=1e-4)


def test_engine_repeats_a_plain_loop(sets):
    """Order of rows, steps, refresh, validation and choice against NumPy."""

    def refresh(state, data, key, context, epoch):
        rows = data["train"]
        residual = jnp.mean(rows["y"] - rows["x"] @ state["w"])
        return {**state, "offset": residual}

    pipe = toy.pipeline(ONE, refresh=refresh)
    track = toy.train(pipe, sets, (5,), (1, 4))["teacher"]
    stage, train, valid = pipe.stages[0], sets["train"], sets["valid"]
    start = parallel.collect(
        pipe.advance(
            parallel.spread(pipe.empty(sets, (5,)), ONE),
            parallel.spread(np.asarray((5,), np.int32), ONE),
            parallel.replicate(sets, ONE),
            0,
            0,
        ),
        ONE,
    )
    assert not start["teacher"].state["w"].any(), "an empty call starts nothing"
    w = np.asarray(first_weights(pipe, sets), np.float64)
    # the stage begins refreshed
    offset = np.mean(train["y"] - train["x"] @ w)
    scores, weights, fits = [], [], []
    for epoch in range(stage.epochs):
        order = np.asarray(epoch_order(stage, 5, epoch, len(train["y"])))
        of_steps = []
        for index in order.reshape(-1, stage.batch):
            x, y = train["x"][index], train["y"][index]
            prediction = x @ w + offset
            of_steps.append(np.mean((prediction - y) ** 2))
            gradient = 2 * x.T @ (prediction - y) / len(y)
            gradient += 2 * prediction.mean() * x.mean(axis=0)
            w = w - 0.05 * gradient
        offset = np.mean(train["y"] - train["x"] @ w)
        scores.append(-np.mean((valid["x"] @ w + offset - valid["y"]) ** 2))
        weights.append(w)
        fits.append(np.mean(of_steps))
    np.testing.assert_allclose(track.history["train"]["fit"][0], fits, rtol=1e-4)
    np.testing.assert_allclose(track.history["valid"]["score"][0], scores, rtol=1e-4)
    np.testing.assert_allclose(track.state["w"][0], w, rtol=1e-4)
    assert track.best_epoch[0] == np.argmax(scores)
    np.testing.assert_allclose(track.best[0], weights[np.argmax(scores)], rtol=1e-4)


def first_weights(pipe, sets):
    """What the teacher starts from: the state of a run whose learning rate is zero."""
    frozen = toy.pipeline(ONE, epochs=(1, 1), rate=0.0)
    assert frozen.stages[0].name == pipe.stages[0].name
    return toy.train(frozen, sets, (5,))["teacher"].state["w"][0]


def test_the_best_epoch_is_kept(sets):
    """Rates so high that later epochs are worse; the kept weights are those of that epoch."""
    pipe = toy.pipeline(ONE, epochs=(8, 1), noise=6.0, rate=0.3)
    seeds = (1, 2, 3, 4)
    track = toy.train(pipe, sets, seeds)["teacher"]
    scores = track.history["valid"]["score"]
    np.testing.assert_array_equal(track.best_epoch, np.argmax(scores, axis=1))
    np.testing.assert_array_equal(track.best_score, scores.max(axis=1))
    assert (track.best_epoch < 7).any(), "the case is one where the last epoch is not the best"
    for lane in range(len(seeds)):
        valid, w = sets["valid"], track.best[lane]
        mse = np.mean((valid["x"] @ w - valid["y"]) ** 2)
        np.testing.assert_allclose(mse, -track.best_score[lane], rtol=1e-4)


def test_validate_every_looks_then_and_at_the_end(noisy_run):
    looked = noisy_run["student"].history["valid"]["mse"] > 0
    np.testing.assert_array_equal(looked[0, 0], [False, True, False, True])
    np.testing.assert_array_equal(
        noisy_run["teacher"].history["valid"]["mse"][0] > 0, [False, True, True]
    )
    assert set(noisy_run["teacher"].best_epoch) <= {1, 2}
    assert set(noisy_run["student"].best_epoch.ravel()) <= {1, 3}


@pytest.mark.parametrize("layout", [ONE, Layout("batch", 2), Layout("seeds", 2)], ids=str)
def test_nothing_is_traced_or_compiled_twice(sets, layout):
    pipe = toy.pipeline(layout)
    tracks = parallel.spread(pipe.empty(sets, SEEDS), layout)
    seeds = parallel.spread(np.asarray(SEEDS, np.int32), layout)
    data = parallel.replicate(sets, layout)
    compiled = []

    def listen(event, seconds, **_):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        tracks = pipe.advance(tracks, seeds, data, 0, 0)
        traces, programs = len(toy.TRACES), len(compiled)
        assert programs > 0
        for first, last in ((0, 1), (1, 2), (2, 4), (4, 7)):
            tracks = pipe.advance(tracks, seeds, data, first, last)
        assert len(toy.TRACES) == traces
        assert len(compiled) == programs
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_buffers_are_donated(noisy, sets):
    tracks = parallel.spread(noisy.empty(sets, SEEDS), ONE)
    seeds = parallel.spread(np.asarray(SEEDS, np.int32), ONE)
    data = parallel.replicate(sets, ONE)
    noisy.advance(tracks, seeds, data, 0, 1)
    assert all(x.is_deleted() for x in jax.tree.leaves(tracks))
    assert not any(x.is_deleted() for x in jax.tree.leaves((seeds, data)))


def test_planned_memory_holds_the_data_and_runs_nothing(noisy):
    def planned(rows):
        data = toy.data(rows)
        tracks = parallel.spread(noisy.empty(data, (5,)), noisy.layout)
        own = parallel.spread(np.asarray((5,), np.int32), noisy.layout)
        found = noisy.planned_bytes(tracks, own, parallel.replicate(data, noisy.layout))
        # neither run nor given away
        assert not any(x.is_deleted() for x in jax.tree.leaves(tracks))
        return found

    row = sum(x.nbytes for x in jax.tree.leaves(toy.data(1)["train"]))
    assert planned(4096) - planned(64) >= (4096 - 64) * row


def test_lanes_side_by_side_or_in_turn(noisy_run, sets):
    other = toy.pipeline(ONE, vectorized, epochs=(3, 4), noise=1.0, validate_every=2)
    assert_close(toy.train(other, sets, SEEDS), noisy_run, 1e-5)


@pytest.mark.parametrize(("devices", "lanes"), [(2, vectorized), (8, looped)])
def test_a_sharded_batch_is_the_same_batch(quiet_run, sets, devices, lanes):
    """And every shard holds the same state, to the bit."""
    layout = Layout("batch", devices)
    pipe = toy.pipeline(layout, lanes)
    tracks = pipe.advance(
        parallel.spread(pipe.empty(sets, SEEDS), layout),
        parallel.spread(np.asarray(SEEDS, np.int32), layout),
        parallel.replicate(sets, layout),
        0,
        pipe.epochs,
    )
    for leaf in jax.tree.leaves(tracks):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    assert_close(parallel.collect(tracks, layout), quiet_run, 1e-5)


def test_shards_draw_noise_of_their_own(sets):
    """With one key for all shards, equal noise would survive the mean over a batch."""
    layout = Layout("batch", 8)
    quiet = toy.train(toy.pipeline(layout, epochs=(1, 1)), sets)
    noisy = toy.train(toy.pipeline(layout, epochs=(1, 1), noise=30.0, batch=64, rate=0.0), sets)
    # 64 draws of variance 900: their mean square is 900 +- 160, 8 draws repeated: +- 450
    excess = noisy["teacher"].history["train"]["fit"] - quiet["teacher"].history["train"]["fit"]
    assert abs(float(excess[0, 0]) - 900) < 500


@pytest.mark.parametrize(
    "seeds", [(5, 9), (5, 9, 1, 2), (5, 9, 1)], ids=["one-each", "two-each", "uneven"]
)
def test_seeds_spread_over_devices(noisy, sets, seeds):
    layout = parallel.choose_layout("seeds", len(seeds), 16, devices=2)
    spread = toy.pipeline(layout, epochs=(3, 4), noise=1.0, validate_every=2)
    assert_same(toy.train(spread, sets, seeds, (2,)), toy.train(noisy, sets, seeds))


@pytest.mark.parametrize(
    ("split", "seeds", "devices", "layout"),
    [
        ("auto", 5, 2, Layout("seeds", 2, 5)),
        ("auto", 4, 2, Layout("seeds", 2)),
        ("auto", 3, 8, Layout("seeds", 3)),
        ("auto", 1, 4, Layout("batch", 4)),
        ("auto", 5, 1, Layout("batch", 1)),
        ("batch", 5, 2, Layout("batch", 2)),
    ],
)
def test_cores_share_seeds_and_a_batch_only_on_request(split, seeds, devices, layout):
    assert parallel.choose_layout(split, seeds, 16, devices) == layout


@pytest.mark.parametrize("wanted", [2, 10_000])
def test_a_cpu_is_as_many_devices_as_asked_for_and_no_more_than_cores(wanted):
    code = f"""if True:
        import jax
        from train.engine import parallel
        parallel.offer_cpu_devices({wanted})
        print(jax.device_count())
        parallel.offer_cpu_devices(1)  # too late
        print(jax.device_count())
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla.one_device_flags()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(min(wanted, os.cpu_count()))] * 2


def test_accelerators_share_a_batch_where_seeds_come_out_uneven(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert parallel.choose_layout("auto", 5, 16, 2) == Layout("batch", 2)
    assert parallel.choose_layout("auto", 4, 16, 2) == Layout("seeds", 2)


def test_batches_of_uneven_seeds_are_those_of_their_seeds():
    order = np.arange(3 * 2 * 4).reshape(3, 2, 4)
    own = parallel.own_batches(order, Layout("seeds", 2, 3))
    assert own.shape == (2, 2, 2, 4)
    np.testing.assert_array_equal(own[0], order[:2].transpose(1, 0, 2))
    np.testing.assert_array_equal(own[1], order[[2, 2]].transpose(1, 0, 2))


def test_fault_names_epoch_step_terms_and_lane(sets):
    """Arm 1 breaks at its 7th step: epoch 1, step 2 of 4; terms come before their sums."""
    arms = toy.two_arms(broken_at=(toy.NEVER, 6))
    pipe = toy.pipeline(ONE, epochs=(1, 4), arms=arms)
    tracks = toy.train(pipe, sets, SEEDS)
    assert fault_of(tracks["teacher"], pipe.stages[0]) is None
    assert fault_of(tracks["student"], pipe.stages[1]) == (1, 2, ["balance"], (0, 1))
    later = tracks["student"].fault.copy()
    later[0] = 0
    found = fault_of(tracks["student"]._replace(fault=later), pipe.stages[1])
    assert found == (1, 2, ["balance"], (1, 1))
    only_sums = tracks["student"].fault.copy()
    names = sorted(tracks["student"].totals)
    only_sums[0, 1, 2] = 1 << names.index("total") | 1 << names.index("gradient_norm")
    found = fault_of(tracks["student"]._replace(fault=only_sums), pipe.stages[1])
    assert found == (1, 2, ["gradient_norm", "total"], (0, 1))


def test_a_score_that_is_not_a_number_never_wins(sets):
    spoilt = {**sets, "valid": {**sets["valid"], "y": sets["valid"]["y"].copy()}}
    spoilt["valid"]["y"][3] = np.nan
    track = toy.train(toy.pipeline(ONE), spoilt)["teacher"]
    assert np.isnan(track.history["valid"]["score"]).all()
    assert track.best_epoch[0] == 0
    assert np.isfinite(track.best).all()


def test_run_stops_on_a_fault_and_keeps_what_was_saved(sets, tmp_path):
    arms = toy.two_arms(broken_at=(toy.NEVER, 10))
    pipe = toy.pipeline(ONE, epochs=(2, 5), arms=arms)
    workdir = toy.claimed(tmp_path)
    with pytest.raises(InputError) as caught:
        loop.run(pipe, dict(sets), SEEDS, ("plain", "soft"), workdir, save_every=0.0)
    message = str(caught.value)
    assert message.startswith("student: epoch 3, step 3: balance is not finite (seed 5, arm soft)")
    assert "\n" not in message
    latest = workdir.latest()
    assert 2 <= latest <= 4
    tracks, note = workdir.restore(latest, pipe.empty(sets, SEEDS))
    workdir.close()
    assert note == {"epoch": latest}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(tracks))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert max(row["global_epoch"] for row in rows) == latest - 1


def test_a_batch_that_no_set_fills_is_refused(sets):
    """Before the data are handed over; such a stage would train nothing and say NaN."""
    data, pipe = dict(sets), toy.pipeline(ONE, batch=65)
    with pytest.raises(InputError, match=r"teacher: a batch of 65 is larger than .* 'train'"):
        loop.run(pipe, data, SEEDS, ("plain", "soft"))
    assert data.keys() == sets.keys()


def test_loop_is_the_engine(sets, noisy, noisy_run, tmp_path):
    """Chunks of the host's choosing, and one fused call, write and return the same."""
    runs = {}
    for fused in (False, True):
        workdir = toy.claimed(tmp_path / str(fused))
        names = ("plain", "soft")
        tracks = loop.run(noisy, dict(sets), SEEDS, names, workdir, fused=fused, save_every=0.0)
        assert_same(tracks, noisy_run)
        saved, _ = workdir.restore(noisy.epochs, noisy.empty(sets, SEEDS))
        assert_same(saved, noisy_run)
        workdir.close()
        runs[fused] = (tmp_path / str(fused) / "metrics.jsonl").read_text()
    assert runs[False] == runs[True]
    timing = (tmp_path / "False" / "timing.jsonl").read_text().splitlines()
    calls = [json.loads(line) for line in timing]
    assert all(call["seconds"] > 0 and call["devices"] == 1 for call in calls)
    for stage in noisy.stages:
        steps = sum(call["steps"] for call in calls if call["stage"] == stage.name)
        assert steps == stage.epochs * noisy.steps(stage, sets)
    # nobody knows how long each of its two stages took
    assert not (tmp_path / "True" / "timing.jsonl").exists()
    rows = [json.loads(line) for line in runs[False].splitlines()]
    assert len(rows) == 3 + 2 * 4
    assert rows[0].keys() == {
        "stage",
        "epoch",
        "global_epoch",
        *(f"train_{name}" for name in ("fit", "balance", "soft", "total", "gradient_norm")),
    }
    last = rows[-1]
    assert (last["stage"], last["epoch"], last["global_epoch"], last["arm"]) == (
        "student",
        3,
        6,
        "soft",
    )
    history = noisy_run["student"].history
    assert last["valid_mse"] == [float(x) for x in history["valid"]["mse"][:, 1, 3]]
    assert last["train_fit"] == [float(x) for x in history["train"]["fit"][:, 1, 3]]


@pytest.mark.parametrize(
    ("layout", "lanes"),
    [(Layout("batch", 2), vectorized), (Layout("seeds", 2), looped)],
    ids=["batch", "seeds"],
)
def test_streaming_repeats_the_resident_run(layout, lanes):
    """Six rows are left over in every epoch."""
    sets = toy.data(rows=70)
    options = {"epochs": (2, 2), "noise": 1.0, "validate_every": 2}
    pipe = toy.pipeline(layout, lanes, **options)
    resident = toy.train(pipe, sets, SEEDS)
    np.testing.assert_array_equal(resident["teacher"].state["step"], [8, 8])
    feed = Feed({"train": toy.ToyRows(sets["train"])}, SEEDS, threads=2)
    assert feed.steps(pipe.stages[0]) == 4
    one_batch = {**sets, "train": feed.sets["train"].take(slice(16))}
    streamed = loop.run(pipe, one_batch, SEEDS, ("plain", "soft"), feed=feed)
    assert_close(streamed, resident, 1e-6)


def test_streaming_refuses_a_stage_that_needs_the_whole_set(sets):
    pipe = toy.pipeline(ONE, refresh=lambda state, *_: state)
    feed = Feed({"train": toy.ToyRows(sets["train"])}, SEEDS, threads=1)
    one_batch = {**sets, "train": feed.sets["train"].take(slice(16))}
    with pytest.raises(InputError, match=r"teacher: works on its whole .*--data.feed device"):
        loop.run(pipe, one_batch, SEEDS, ("plain", "soft"), feed=feed)


def test_streaming_refreshes_from_a_sample_and_sees_weights_from_files(sets):
    """The sample is all that `refresh` sees of the streamed set; here it is the whole of it."""

    def refresh(state, data, key, context, epoch):
        drift = jnp.mean(data["train"]["y"]) * context["file"]["factor"] + epoch
        return {**state, "w": state["w"] + 1e-3 * drift}

    pipe = toy.pipeline(ONE, refresh=refresh)
    teacher, student = pipe.stages
    pipe = Pipeline([replace(teacher, refresh_needs_all=False), student], ONE, looped)
    sets = {**sets, FROZEN: {"file": {"factor": np.float32(2.0)}}}
    resident = toy.train(pipe, sets, SEEDS)
    feed = Feed({"train": toy.ToyRows(sets["train"])}, SEEDS, threads=1)
    streamed = loop.run(pipe, dict(sets), SEEDS, ("plain", "soft"), feed=feed)
    assert_close(streamed, resident, 1e-6)


def test_order_is_a_permutation_of_its_own_epoch_seed_and_stage():
    teacher, student = toy.stages(None)
    orders = {
        name: np.asarray(epoch_order(*arguments, 64))
        for name, arguments in {
            "first": (teacher, 5, 0),
            "epoch": (teacher, 5, 1),
            "seed": (teacher, 6, 0),
            "stage": (student, 5, 0),
        }.items()
    }
    for order in orders.values():
        np.testing.assert_array_equal(np.sort(order), np.arange(64))
    assert len({tuple(order) for order in orders.values()}) == len(orders)
    again = epoch_order(teacher, jnp.int32(5), jnp.int32(0), 64)
    np.testing.assert_array_equal(again, orders["first"])


def test_where_a_global_epoch_belongs():
    pipe = toy.pipeline(ONE, epochs=(3, 4))
    found = [(stage.name, within) for stage, within in map(pipe.where, range(8))]
    assert found == [
        *(("teacher", i) for i in range(3)),
        *(("student", i) for i in range(5)),
    ]
