"""docs/add-a-method.md: its files, written where their titles say, make a program that works."""

import contextlib
import importlib
import io
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
import scipy

from corrkd_jax.errors import InputError
from corrkd_jax.losses import cross_entropy
from tests.docs import pages
from tests.docs.pages import ROOT
from train import evaluate, export, programs
from train.engine import cli
from train.engine.workdir import Workdir

# the page's program from its files to its report
pytestmark = pytest.mark.seconds(60)

TEXT = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
FILES = pages.files(TEXT)
(REFUSED,) = re.findall(r"^\$ python -m train\.noisy (\S+) (\S+)\nerror: (.*)$", TEXT, re.MULTILINE)
COMMANDS = [
    command
    for command in pages.commands(TEXT)
    if command.split()[0] in pages.modules(TEXT) and command.split()[1:] != list(REFUSED[:2])
]
(ENTRY,) = re.findall(r'^\+\s+"(\w+)": "([\w.]+)",$', TEXT, re.MULTILINE)
ONE = ("--devices", "1")


@dataclass(frozen=True)
class Example:
    """The page's files, in a folder and as modules by name, and a run with what it printed."""

    folder: Path
    modules: dict[str, ModuleType]
    run: Path
    printed: str

    def main(self, *argv: str) -> None:
        self.modules["train.noisy"].main([*argv, *ONE])

    def write(self, path: Path, flipped: float = 0.4) -> Path:
        self.modules["corrkd_jax.data.noisy_points"].write(path, flipped)
        return path


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The files beside the house, found where the house's own modules are."""
    folder = tmp_path_factory.mktemp("example")
    for name, code in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code, encoding="utf-8")
    names = sorted(pages.modules(TEXT))
    with pytest.MonkeyPatch.context() as patch:
        for parent in {Path(name).parent for name in FILES}:
            if (ROOT / parent).exists():
                package = importlib.import_module(".".join(parent.parts))
                patch.setattr(package, "__path__", [*package.__path__, str(folder / parent)])
        patch.setitem(programs.PROGRAMS, *ENTRY)
        modules = {name: importlib.import_module(name) for name in names}
        run, printed = folder / "runs" / "noisy", io.StringIO()
        with contextlib.redirect_stdout(printed):
            modules["train.noisy"].main(["--workdir", str(run), *ONE])
        yield Example(folder, modules, run, printed.getvalue())
    for name in names:
        del sys.modules[name]
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:
            delattr(sys.modules[parent], child)


def rows(text: str) -> list[list[str]]:
    """Cells of all tables in a text, rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def same_numbers(text: str, other: str) -> None:
    """Two texts have the same tables, but for what rounding does on another machine."""
    number = re.compile(r"[+-]?\d+\.\d+")
    assert [[number.sub("#", cell) for cell in row] for row in rows(text)] == [
        [number.sub("#", cell) for cell in row] for row in rows(other)
    ]
    values = [
        [float(x) for row in rows(t) for x in number.findall(" ".join(row))] for t in (text, other)
    ]
    np.testing.assert_allclose(*values, atol=1.0)


def test_the_page_adds_and_replaces_nothing():
    assert [name for name in FILES if (ROOT / name).exists()] == []
    assert ENTRY[0] not in programs.PROGRAMS
    # readers see no titles where pages are shown as plain Markdown
    assert [name for name in FILES if f"`{name}`" not in pages.prose(TEXT)] == []


def test_the_files_have_the_houses_style(example):
    pytest.importorskip("ruff")
    # ruff tells its own modules from others by the files that it finds
    ours = 'lint.isort.known-first-party=["configs", "corrkd_jax", "train"]'
    options = ["--config", str(ROOT / "pyproject.toml"), str(example.folder)]
    for command in (["check", "--config", ours], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *options], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_a_program(example):
    program = programs.find(ENTRY[0])
    assert ENTRY[0] == program.NAME
    assert programs.of_run(example.run) is program


def test_claims_hold(example):
    results = json.loads((example.run / "results.json").read_text())
    scores = {name: np.asarray(values) for name, values in results.items()}
    claims = example.modules["train.label_noise.report"].claims(scores)
    assert len(claims) == 3
    assert claims.missed == ()
    assert all(values.shape == (3,) for values in scores.values())


def test_the_page_shows_what_is_printed(example):
    (shown,) = pages.blocks(TEXT, "text")
    printed = example.printed[example.printed.index("## Arms") :]
    assert len(rows(printed)) == 9
    same_numbers(shown, printed)
    report = (example.run / "report.md").read_text(encoding="utf-8")
    assert report.strip() == example.printed.strip()


class Stopped(Exception):
    """What ends the run; not an error that the program knows."""


class Stops(Workdir):
    """Stops once the third call's metrics are written, before their checkpoint is."""

    calls = 3

    def log(self, rows):
        super().log(rows)
        self.calls -= 1
        if not self.calls:
            raise Stopped


def test_a_stopped_run_continues_bit_for_bit(example, tmp_path, monkeypatch):
    argv = ["--workdir", str(tmp_path / "run"), "--save-every", "0"]
    with monkeypatch.context() as patch:
        patch.setattr("train.engine.run.Workdir", Stops)
        with pytest.raises(Stopped):
            example.main(*argv)
    metrics = (tmp_path / "run" / "metrics.jsonl", example.run / "metrics.jsonl")
    assert 0 < len(metrics[0].read_text()) < len(metrics[1].read_text())
    assert not (tmp_path / "run" / "results.json").exists()
    example.main(*argv, "--resume")
    calls = (tmp_path / "run" / "timing.jsonl").read_text().splitlines()
    began = [json.loads(call)["global_epoch"] for call in calls]
    assert began == sorted(set(began))  # nothing was trained twice
    assert metrics[0].read_text() == metrics[1].read_text()
    load = example.modules["train.label_noise.program"].load
    models = (load(folder).models for folder in (tmp_path / "run", example.run))
    jax.tree.map(np.testing.assert_array_equal, *models)


def test_a_finished_run_is_evaluated(example, tmp_path, capsys):
    evaluate.main([str(example.run)])
    same_numbers(capsys.readouterr().out, example.printed)
    # other points: no claims about them
    evaluate.main([str(example.run), "--path", str(example.write(tmp_path / "points.npz"))])
    assert rows(capsys.readouterr().out) == rows(example.printed)[:4]
    with pytest.raises(InputError, match=r"none\.npz: no such file"):
        evaluate.main([str(example.run), "--path", str(tmp_path / "none.npz")])


def test_a_finished_run_is_exported(example, tmp_path):
    export.main([str(example.run), str(tmp_path), "--seed", "1"])
    model = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    test = np.load(example.run / "data" / "points.npz")
    probabilities = np.asarray(model.call(test["test/points"]))
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)
    accuracy = np.mean(probabilities.argmax(axis=-1) == test["test/labels"])
    results = json.loads((example.run / "results.json").read_text())
    assert accuracy == pytest.approx(results["forward correction"][1], abs=1e-3)
    with pytest.raises(InputError, match="--arm none: the run has cross-entropy; forward"):
        export.main([str(example.run), str(tmp_path), "--arm", "none"])


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        REFUSED,
        ("--learning-rate", "0", "--learning-rate 0.0: must be positive"),
        ("--seeds", "0", "--seeds 0: must be positive"),
        ("--arms", "none", "--arms 'none': choose from 'cross-entropy', 'forward correction'"),
        ("--path", "none.npz", "none.npz: no such file; check the path"),
    ],
)
def test_bad_input_is_one_line(example, tmp_path, capsys, option, value, complaint):
    workdir = ("--workdir", str(tmp_path / "run"))
    with pytest.raises(SystemExit) as stopped:
        cli.guard(lambda argv: example.main(*argv), [*workdir, option, value])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {complaint}")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_what_the_program_takes(example, command, tmp_path):
    pages.understand(command, tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("train/labels", np.array([0, 2]), "train/labels: must be 0 or 1"),
        ("valid/points", np.zeros((3, 2)), r"valid/points: must be finite, \[rows, 2\]"),
        ("test/points", np.full((2, 2), np.nan), "test/points: must be finite"),
        ("test/labels", None, "no key 'test/labels'"),
    ],
)
def test_the_reader_names_file_and_field(example, tmp_path, field, value, complaint):
    points = example.modules["corrkd_jax.data.noisy_points"]
    arrays = dict(np.load(example.write(tmp_path / "points.npz")))
    arrays[field] = value
    np.savez(tmp_path / "points.npz", **{k: x for k, x in arrays.items() if x is not None})
    with pytest.raises(InputError, match=f"points.npz: {complaint}"):
        points.read(tmp_path / "points.npz")


def test_the_correction_is_the_likelihood_of_the_labels(example):
    correct = example.modules["corrkd_jax.losses.label_noise"].forward_correction
    random = np.random.default_rng(0)
    logits, labels = random.normal(0, 3, (64, 4)).astype(np.float32), np.arange(64) % 4
    transition = random.dirichlet(np.ones(4), 4).astype(np.float32)

    @jax.jit
    @jax.value_and_grad
    def loss(logits, transition):
        return cross_entropy(correct(logits, transition), labels)

    likelihood = (scipy.special.softmax(logits, axis=-1) @ transition)[np.arange(64), labels]
    value, _ = loss(logits, transition)
    np.testing.assert_allclose(value, -np.log(likelihood).mean(), rtol=1e-5)
    # the zeros of a matrix make no gradient NaN
    _, gradient = loss(logits, np.eye(4, dtype=np.float32))
    probabilities = scipy.special.softmax(logits, axis=-1)
    np.testing.assert_allclose(gradient, (probabilities - np.eye(4)[labels]) / 64, atol=1e-7)
