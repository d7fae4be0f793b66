"""Programs are found by name, and doors know nothing but that; rooms load no other room."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from corrkd_jax.errors import InputError
from train import convert, evaluate, export, programs

ROOT = Path(programs.__file__).parents[1]
DOORS = sorted(
    path for path in (ROOT / "train").glob("*.py") if path.stem not in ("__init__", "programs")
)


def loads(module, prefix):
    """Modules of a prefix that importing a module loads, in an interpreter of its own."""
    code = f"import sys, {module}; print(*[m for m in sys.modules if m.startswith({prefix!r})])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1].split() if done.stdout.strip() else []


@pytest.mark.parametrize("module", ["train.engine.loop", "train.quadruped"])
def test_what_has_nothing_to_do_with_sentiment_loads_none_of_it(module):
    assert loads(module, "train.sentiment") == []


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_a_program_has_a_name_and_three_functions(name):
    program = programs.find(name)
    assert name == program.NAME
    for function in (program.main, program.evaluate, program.export):
        assert callable(function)


@pytest.mark.parametrize("path", DOORS, ids=lambda path: path.stem)
def test_a_door_has_at_most_thirty_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 30


def run_of(folder, program):
    """The folder of a run that a program of that name says it wrote."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"program": program, "preset": "x"}))
    return folder


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_doors_call_the_program_that_wrote_the_run(tmp_path, monkeypatch, name):
    folder, calls = run_of(tmp_path / "run", name), []
    program = programs.find(name)
    monkeypatch.setattr(program, "evaluate", lambda *given: calls.append(("evaluate", *given)))
    monkeypatch.setattr(program, "export", lambda *given: calls.append(("export", *given)))
    evaluate.main([str(folder), "--split", "valid"])
    export.main([str(folder), str(tmp_path / "out"), "--seed", "3"])
    assert calls == [
        ("evaluate", folder, ["--split", "valid"]),
        ("export", folder, tmp_path / "out", ["--seed", "3"]),
    ]


@pytest.mark.parametrize(("name", "option"), [("msa", "--legacy-f1-order"), ("debias", "")])
def test_a_program_shows_its_own_options(tmp_path, capsys, name, option):
    folder = run_of(tmp_path / "run", name)
    with pytest.raises(SystemExit):
        evaluate.main([str(folder), "--help"])
    shown = capsys.readouterr().out
    assert "--data.path" in shown
    assert ("--legacy-f1-order" in shown) == bool(option)


@pytest.mark.parametrize("main", [evaluate.main, export.main], ids=["evaluate", "export"])
def test_a_run_of_no_program_is_refused(tmp_path, main):
    folder = run_of(tmp_path / "run", "gan")
    with pytest.raises(InputError, match=r"config\.json: was written by no program .*'gan'"):
        main([str(folder), str(tmp_path / "out")])
    with pytest.raises(InputError, match=r"this is not the folder of a run"):
        main([str(tmp_path), str(tmp_path / "out")])


@pytest.mark.parametrize("door", [evaluate, export, convert], ids=lambda door: door.__name__)
def test_help_without_names_says_how_a_door_is_used(capsys, door):
    with pytest.raises(SystemExit) as stopped:
        door.main(["--help"])
    assert not stopped.value.code
    assert capsys.readouterr().out.strip() == door.__doc__.strip()
