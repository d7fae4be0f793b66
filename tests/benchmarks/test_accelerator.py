"""The program that measures an accelerator, tiny and on whatever is here."""

import json
import sys
from functools import partial

import jax
import pytest

from benchmarks import accelerator, accelerator_parts, msa, quadruped, rounds
from benchmarks.accelerator_parts import PARTS, Job, Part
from benchmarks.roofline import Program
from corrkd_jax.errors import InputError
from train.engine.pipeline import Pipeline

# the benchmark's parts in processes of their own
pytestmark = pytest.mark.seconds(150)


def table_of(folder):
    return (folder / "accelerator.md").read_text()


def rows_of(folder):
    return json.loads((folder / "accelerator.json").read_text())["parts"]


def test_measures_a_part_of_each_kind(tmp_path, monkeypatch, capfd):
    """One in JAX, one in torch, which may be absent: then that is said."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # torch's threads wait for each other by turning
    words = ["--small", "--rounds", "2", "--out", str(tmp_path)]
    accelerator.main([*words, "--parts", "corrkd-torch", "mcis", "--minutes", "30"])
    said, rows = capfd.readouterr().out, rows_of(tmp_path)
    assert table_of(tmp_path).strip() in said
    grid = rows["mcis-grid"]
    assert len(grid["seconds"]) == 2
    assert min(*grid["seconds"], grid["compile_s"], grid["pass_s"]) > 0
    assert "| MCIS, the grid (`mcis-grid`) | 0." in said
    assert "1681 points on 16 samples" in said
    assert f"{jax.devices()[0].device_kind}, jax {jax.__version__}" in said
    assert "the numbers mean nothing" in said
    torch = rows["corrkd-torch"]
    if "reason" in torch:
        assert torch["reason"].startswith("torch is not installed")
    else:
        assert len(torch["seconds"]) == 2


def fake(name, **of):
    return Part(name, name.title(), None, lambda s, work: f"{s / work:.2f} s", 60, **of)


HUNG_S = 10
"""Limit of the part that hangs: more than an interpreter takes to start on a busy machine."""

SCRIPTS = {
    "good": 'print(\'hello\'); print(\'{"compile_s": 1.5, "device": "chip"}\');'
    'print(\'{"seconds": [2, 4, 3], "work": 6, "note": "a|b"}\')',
    "slow": 'print(\'{"seconds": [8], "work": 2}\')',
    "told": 'print(\'{"reason": "OSError: no"}\'); raise SystemExit(3)',
    "died": "import sys; print('Traceback', file=sys.stderr); sys.exit('no such thing\\n')",
    "hung": "import time; print('{\"compile_s\": 2.5}', flush=True); time.sleep(600)",
    "late": "",
}


@pytest.fixture
def fakes(monkeypatch):
    """Parts whose processes are one-line scripts; ten seconds each are taken off the clock."""
    parts = tuple(
        fake(name, against=("slow", "told") if name == "good" else (), goal="much")
        for name in SCRIPTS
    )
    monkeypatch.setattr(accelerator, "PARTS", parts)
    monkeypatch.setattr(
        accelerator, "command", lambda part, limit, _: [sys.executable, "-c", SCRIPTS[part.name]]
    )
    return parts


def test_every_part_has_its_row(fakes, tmp_path, monkeypatch, capfd):
    """Whatever became of it; and the files hold each before the next one starts."""
    seen, limits = [], {}
    measure = accelerator.measure

    def watched(part, limit, options, logs):
        if seen:
            assert set(rows_of(tmp_path)) == set(seen)
            assert all(f"(`{name}`)" in table_of(tmp_path) for name in seen)
        seen.append(part.name)
        limits[part.name] = limit
        row = measure(part, HUNG_S if part.name == "hung" else limit, options, logs)
        if part.name == "hung":
            monkeypatch.setattr(accelerator, "LEAST", 1e9)
        return row

    monkeypatch.setattr(accelerator, "measure", watched)
    accelerator.main(["--out", str(tmp_path), "--minutes", "16"])
    assert seen == [name for name in SCRIPTS if name != "late"]
    assert limits["good"] == 120  # a minute of eight, of sixteen two
    lines = {line.split(" ")[1]: line for line in table_of(tmp_path).splitlines() if "(`" in line}
    assert list(lines) == [name.title() for name in SCRIPTS]
    # six things in three seconds against two in eight
    assert "| 0.50 s | 0.33 to 0.67 | 8.00 x Slow | much | 2 |" in lines["Good"]
    assert "| a/b |" in lines["Good"]
    assert "| OSError: no | - | - |" in lines["Told"]
    assert "| no such thing | - | - |" in lines["Died"]
    assert f"| stopped after {HUNG_S} s, measuring | - | - |" in lines["Hung"]
    assert "| not started: " in lines["Late"]
    assert "chip; " in table_of(tmp_path)
    said = capfd.readouterr().err
    assert "hung: stopped after" in said
    assert (tmp_path / "logs" / "died.txt").read_text().startswith("Traceback")


def test_nothing_measured_is_a_failure(fakes, tmp_path):
    with pytest.raises(SystemExit) as ended:
        accelerator.main(["--out", str(tmp_path), "--parts", "died"])
    assert ended.value.code == 1
    assert rows_of(tmp_path)["died"]["reason"] == "no such thing"


def test_worker_tells_as_it_goes(monkeypatch, capsys):
    """What a library prints is no report; a round that would not end in time is left out."""

    def build(small):
        print("hello")
        times = iter([0.25, 0.5])
        variant = rounds.Variant(lambda: next(times), {"compile_s": 1.0, "device": "chip"})
        return Job(variant, 3.0, lambda seconds: {"note": f"{small} {seconds}"})

    part = Part("toy", "Toy", build, str, 60)
    monkeypatch.setattr(accelerator, "PARTS", (part,))
    options = accelerator.Options(rounds=2, small=True)
    accelerator.worker("toy", 60, options)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0]["device"] == "chip"
    assert told[1:3] == [{"seconds": x, "work": 3.0} for x in ([0.25], [0.25, 0.5])]
    assert told[3] == {"note": "True 0.375"}
    accelerator.worker("toy", -1, options)
    assert len(capsys.readouterr().out.splitlines()) == 3
    with pytest.raises(StopIteration):
        accelerator.worker("toy", 60, accelerator.Options(rounds=3))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["reason"] == "StopIteration: "


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--parts", "horse"), "--parts horse: choose from corrkd, solo8, ant, fast5, mcis, or"),
        (("--minutes", "0"), "--minutes 0.0: must be positive"),
        (("--rounds", "0"), "--rounds 0: must be positive"),
        (("--out", "/dev/null/x"), "/dev/null/x: cannot be made: "),
    ],
)
def test_refuses(words, says):
    with pytest.raises(InputError, match=says):
        accelerator.main(words)


def test_parts_by_program():
    names = [part.name for part in accelerator.chosen(["solo8", "mcis-grid"])]
    assert names == ["solo8-4096", "mcis-grid", "solo8-16384", "solo8-2048", "solo8-8192"]
    assert accelerator.chosen(()) == list(PARTS)
    assert {name for part in PARTS for name in part.against} <= {part.name for part in PARTS}


@pytest.mark.parametrize("name", ["corrkd-5x6", "fast5"])
def test_a_part_is_ready_to_be_compiled(name, monkeypatch):
    """All that it traces, without the minutes that compiling takes."""
    monkeypatch.setattr(Pipeline, "advance", lambda self, tracks, *_: tracks)
    monkeypatch.setattr(Pipeline, "planned_bytes", lambda *_: 0)
    part = next(part for part in PARTS if part.name == name)
    job = part.build(True)
    assert job.work == {"corrkd-5x6": 30, "fast5": 1}[name]
    assert job.variant.run() > 0
    assert part.says(0.3, job.work).startswith({30: "10.00 ms a model (300.00", 1: ""}[job.work])


def test_robots_are_ready_to_be_compiled():
    def one():
        step, state = quadruped.prepare("learning", quadruped.Options(num_envs=16, steps=2))
        return state, step(state, jax.random.PRNGKey(0))

    before, after = (jax.tree.map(lambda x: x.shape, tree) for tree in jax.eval_shape(one))
    assert before == after


def test_share_of_the_roofline():
    """Of a loop over steps, once for each seed that has a loop of its own."""

    def steps(x):
        return jax.lax.fori_loop(0, 3, lambda _, x: x @ x, x)

    program = jax.jit(steps).lower(jax.numpy.ones((64, 64))).compile()
    variant = rounds.Variant(lambda: 1.0, {}, program.as_text)
    options = msa.Options(steps=3, lanes="map")
    of = partial(accelerator_parts.share_of_roofline, variant, small=True)
    found = of(options, 5, seconds=1e-3)
    turn = Program(program.as_text()).turn(3)
    assert found["bytes"] == 5 * turn.bytes
    assert found["operations"] == 5 * turn.operations
    peak = max(
        found["bytes"] / found["peak_bytes_s"], found["operations"] / found["peak_operations_s"]
    )
    assert found["roofline_share"] == pytest.approx(peak / 1e-3)
    assert "% of the roofline" in found["note"]
    alike = of(msa.Options(steps=3, lanes="vmap"), 5, seconds=1e-3)
    assert alike["bytes"] == turn.bytes
    assert "not found" in of(msa.Options(steps=4), 1, seconds=1e-3)["note"]
