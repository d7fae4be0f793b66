"""Programs are found by name, and doors know nothing but that; rooms load no other room."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from corrkd_jax.errors import InputError
from train import command, convert, evaluate, export, programs
from train.engine import cli, run

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


@pytest.mark.parametrize("module", ["train.engine.loop", "train.control.program"])
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
    folder.mkdir(parents=True)
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


def test_the_command_runs_every_program_and_every_door(monkeypatch):
    calls = []
    for name in programs.PROGRAMS:
        module = programs.find(name)
        monkeypatch.setattr(module, "main", lambda argv, name=name: calls.append((name, argv)))
    for door in (evaluate, export, convert):
        name = door.__name__.partition(".")[2]
        monkeypatch.setattr(door, "main", lambda argv, name=name: calls.append((name, argv)))
    words = [*programs.PROGRAMS, *programs.ON_RUNS_AND_FILES]
    for word in words:
        command.main([word, "--option", "1"])
    assert calls == [(word, ["--option", "1"]) for word in words]
    assert {path.stem for path in DOORS} - {"command"} <= set(words)


def test_the_command_lists_its_words_and_refuses_others(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    shown = capsys.readouterr().out
    for word in (*programs.PROGRAMS, *programs.ON_RUNS_AND_FILES):
        assert word in shown
        with pytest.raises(InputError, match=rf"^msae: no such command; choose from .*\b{word}\b"):
            command.main(["msae"])
    with pytest.raises(InputError, match=r"^which command\? corrkd msa \| debias"):
        command.main([])


TRAINS = {"msa": [], "debias": ["--model", "mult"], "dfkd": [], "quadruped": []}


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_resume_never_begins_a_run_without_a_word(tmp_path, monkeypatch, name):
    """Without a folder, and with one that is mistyped; nothing is made."""
    monkeypatch.chdir(tmp_path)
    program = programs.find(name)
    with pytest.raises(InputError, match=r"^--resume: runs/\S+ holds no run to continue; name ano"):
        program.main([*TRAINS[name], "--resume"])
    with pytest.raises(InputError, match=r"^--workdir runs/mosii: holds no run to continue; leave"):
        program.main([*TRAINS[name], "--resume", "--workdir", "runs/mosii"])
    assert list(tmp_path.iterdir()) == []
    run_of(tmp_path / "runs" / "mosi", name)
    with pytest.raises(InputError, match=r"holds no run to continue; runs/mosi does$"):
        program.main([*TRAINS[name], "--resume", "--workdir", "runs/mosii"])
    assert os.listdir("runs") == ["mosi"]


def test_resume_continues_the_newest_run_of_its_program_and_preset(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ages = {
        "planted": ("msa", 5),
        "planted-2": ("msa", 9),
        "planted-3": ("msa", 7),
        "planted-10": ("noisy", 20),
        "planted-mult-mcis": ("debias", 21),
        "planted-copy": ("msa", 22),
    }
    for name, (program, age) in ages.items():
        os.utime(run_of(tmp_path / "runs" / name, program) / "config.json", (age, age))

    def folder(name, **options):
        return str(run.begin(cli.RunOptions(**options), *name))

    assert folder(("msa", "planted"), resume=True) == "runs/planted-2"
    assert capsys.readouterr().out == "continuing runs/planted-2\n"
    assert folder(("noisy", "planted"), resume=True) == "runs/planted-10"
    assert folder(("debias", "planted-mult-mcis"), resume=True) == "runs/planted-mult-mcis"
    assert folder(("msa", "planted"), resume=True, workdir="runs/planted") == "runs/planted"
    assert folder(("msa", "planted")) == "runs/planted-4"
    assert folder(("msa", "planted"), workdir="elsewhere") == "elsewhere"
    with pytest.raises(InputError):
        folder(("dfkd", "planted"), resume=True)
