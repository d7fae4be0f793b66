"""The command line: ranges stand beside fields, are checked for all of them and said by --help."""

import dataclasses
import re
import shlex
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Annotated, get_args, get_origin, get_type_hints

import jax
import pytest

import configs.debias
import configs.dfkd
import configs.msa
import configs.quadruped
from corrkd_jax.errors import InputError
from corrkd_jax.ranges import Finite, Fraction, NotNegative, Positive, Range, Share
from train.engine import cli
from train.engine.workdir import Workdir, config_from, rename_fields

PROGRAMS = {
    "msa": (configs.msa.PRESETS, configs.msa.RENAMED),
    "debias": (configs.debias.presets("mcis"), configs.debias.RENAMED),
    "dfkd": (configs.dfkd.presets("deepinv"), configs.dfkd.RENAMED),
    "quadruped": (configs.quadruped.PRESETS, configs.quadruped.RENAMED),
}


@dataclass(frozen=True)
class Inner:
    """Inner fields."""

    decay: Annotated[float, Fraction] = 0.5
    """Decay of a mean."""
    widths: Annotated[tuple[int, ...], Positive] = (3, 4)
    """Widths."""


@dataclass(frozen=True)
class Outer:
    """Outer fields."""

    learning_rate: Annotated[float, Positive] = 0.1
    """Learning rate
    of all."""
    late: Annotated[int | None, NotNegative] = None
    """Steps late."""
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("limit", "inside", "outside", "words"),
    [
        (Positive, (1, 1e-9, 10**400), (0, -1, float("nan"), float("inf")), "positive"),
        (NotNegative, (0, 2.5), (-1e-9, float("-inf")), "not negative"),
        (Share, (0, 1, 0.5), (1.001, -0.1), "from 0 to 1"),
        (Fraction, (0, 0.999), (1, -0.1), "at least 0 and below 1"),
        (Finite, (-3, 3.5), (float("nan"), float("inf")), "finite"),
        (Range(low=2), (2, 9), (1,), "at least 2"),
        (Range(low=2, above_low=True), (2.1,), (2,), "above 2"),
        (Range(low=1, high=2, above_low=True), (2,), (1, 2.1), "above 1 and at most 2"),
    ],
    ids=str,
)
def test_a_range_admits_what_its_words_say(limit, inside, outside, words):
    assert all(limit.admits(value) for value in inside)
    assert not any(limit.admits(value) for value in outside)
    assert str(limit) == words


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--learning-rate", "0"], "--learning-rate 0.0: must be positive"),
        (["--learning-rate", "nan"], "--learning-rate nan: must be finite and positive"),
        (["--late", "-1"], "--late -1: must not be negative"),
        (["--inner.decay", "1"], "--inner.decay 1.0: must be at least 0 and below 1"),
        (["--inner.widths", "3", "0"], "--inner.widths 0: must be positive"),
    ],
)
def test_numbers_out_of_range_are_refused(words, complaint):
    with pytest.raises(InputError, match=re.escape(complaint)):
        cli.parse(words, "program", "", {"only": Outer()})
    with pytest.raises(InputError, match=re.escape(complaint)):
        cli.parse_options(Outer, words, "program", "")


def test_help_says_range_default_and_doc(capsys):
    with pytest.raises(SystemExit):
        cli.parse(["--help"], "program", "", {"only": dataclasses.replace(Outer(), late=3)})
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert "Learning rate of all. (positive; default: 0.1)" in text
    assert "Steps late. (not negative; default: 3)" in text
    assert "Widths. (positive; default: 3 4)" in text


def test_options_keep_their_defaults_and_take_what_is_given():
    name, config, run = cli.parse(
        ["only", "--inner.widths", "7", "--late", "2", "--resume"], "program", "", {"only": Outer()}
    )
    assert name == "only"
    assert run.resume
    assert config == Outer(0.1, 2, Inner(0.5, (7,)))


def numeric_fields(kind, prefix=""):
    """Dotted names of numeric fields of a dataclass, with their hints."""
    hints = get_type_hints(kind, include_extras=True)
    for each in dataclasses.fields(kind):
        hint = hints[each.name]
        bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if dataclasses.is_dataclass(bare):
            yield from numeric_fields(bare, f"{prefix}{each.name}.")
        elif {int, float} & {bare, *get_args(bare)}:
            yield f"{prefix}{each.name}", hint


def fields_of(kind, prefix=""):
    """Dotted names of all fields of a dataclass that are none themselves."""
    hints = get_type_hints(kind)
    for each in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[each.name]):
            yield from fields_of(hints[each.name], f"{prefix}{each.name}.")
        else:
            yield f"{prefix}{each.name}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_numeric_field_has_a_range_that_its_presets_keep(program):
    presets, _ = PROGRAMS[program]
    kind = type(next(iter(presets.values())))
    names = {name for name, hint in numeric_fields(kind) if get_origin(hint) is not Annotated}
    assert names == set()
    assert {name for name, _ in numeric_fields(cli.RunOptions)} == {
        name for name, *_ in cli.ranges(cli.RunOptions())
    }
    for config in presets.values():
        cli.check_ranges(config)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_field_is_documented_by_a_sentence(program):
    presets, _ = PROGRAMS[program]

    def check(kind):
        docs, hints = cli.field_docs(kind), get_type_hints(kind)
        for each in dataclasses.fields(kind):
            if dataclasses.is_dataclass(hints[each.name]):
                check(hints[each.name])
            else:
                assert re.fullmatch(r"[A-Z].*[.)]", docs[each.name]), (kind, each.name)

    check(type(next(iter(presets.values()))))
    check(cli.RunOptions)


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_earlier_name_gets_one_line_that_says_todays(program):
    presets, renamed = PROGRAMS[program]
    known = set(fields_of(type(next(iter(presets.values())))))
    for old, new in renamed.items():
        assert new in known
        assert old not in known
        for words in ([cli.flag(old), "1"], [f"{cli.flag(old)}=1"], [f"--{old}", "1"]):
            with pytest.raises(InputError) as refused:
                cli.parse(words, "program", "", presets, renamed)
            assert str(refused.value) == f"{cli.flag(old)}: is called {cli.flag(new)} now"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_configuration_under_earlier_names_is_read(program):
    presets, renamed = PROGRAMS[program]
    config = next(iter(presets.values()))
    today = dataclasses.asdict(config)
    then = rename_fields(today, {new: old for old, new in renamed.items()})
    assert then != today
    before = repr(then)
    assert config_from(type(config), rename_fields(then, renamed), "config.json") == config
    assert repr(then) == before
    # a configuration of today has nothing to rename
    assert config_from(type(config), rename_fields(today, renamed), "config.json") == config


@pytest.fixture
def door(monkeypatch):
    """This process as `python -m train.msa`, or as the installed command."""

    def as_called(name):
        spec = SimpleNamespace(name=name) if name.startswith("train.") else None
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
        monkeypatch.setattr(sys, "argv", [f"/somewhere/bin/{name}"])

    return as_called


def test_texts_name_programs_as_the_user_calls_them(door, capsys):
    text = "python -m train.evaluate RUN, python -m train.msa --model mult, or train.convert"
    door("train.msa")
    assert cli.as_called(text) == text
    door("corrkd")
    assert cli.as_called(text) == "corrkd evaluate RUN, corrkd msa --model mult, or train.convert"
    with pytest.raises(SystemExit):
        cli.parse(["--help"], "python -m train.msa", "As python -m train.msa.", {"only": Outer()})
    shown = capsys.readouterr().out
    assert "usage: corrkd msa only" in shown
    assert "As corrkd msa." in shown
    assert "python -m" not in shown


@pytest.mark.parametrize(
    "argv",
    [
        ["mosi", "--arms", "MRM + CE", "CorrKD"],
        ["mosi", "--arms", "MRM + CE", "CorrKD", "--workdir", "else where", "--seeds", "2"],
        ["mosi", "--workdir=there", "--resume", "--data.path", "it's $HOME.pkl"],
        ["--no-resume"],
    ],
)
def test_the_continuation_is_the_same_run_quoted_for_a_shell(door, argv):
    door("train.msa")
    python, m, module, *words = shlex.split(cli.continuation(argv, "runs/a b"))
    assert (python, m, module) == ("python", "-m", "train.msa")
    assert words[-3:] == ["--workdir", "runs/a b", "--resume"]
    rest = words[:-3]
    assert "--workdir" not in rest
    dropped = ("--workdir", "else where", "--workdir=there", "--resume", "--no-resume")
    assert rest == [word for word in argv if word not in dropped]


def test_an_interrupt_says_how_to_go_on(door, tmp_path, capsys):
    door("corrkd")

    def claims(argv, logs=True):
        workdir = Workdir(tmp_path / "run", {}, False)
        workdir.claim()
        try:
            if logs:
                workdir.log([{"stage": "s", "epoch": 0, "global_epoch": 0, "loss": [1.0]}])
            raise KeyboardInterrupt
        finally:
            workdir.close()

    def interrupted(main):
        with pytest.raises(SystemExit) as stopped:
            cli.guard(main, ["msa", "--seeds", "2"])
        assert stopped.value.code == 130
        return capsys.readouterr().err

    # nothing was written, so that nothing is there to be continued
    assert interrupted(lambda argv: claims(argv, logs=False)) == "interrupted\n"
    assert not (tmp_path / "run").exists()
    assert interrupted(claims) == (
        "interrupted; this continues it:\n"
        f"corrkd msa --seeds 2 --workdir {tmp_path / 'run'} --resume\n"
    )


@pytest.mark.parametrize(
    ("error", "platforms", "said"),
    [
        (
            AssertionError(),
            "cuda",
            "JAX_PLATFORMS=cuda: no such device is visible; set JAX_PLATFORMS=cpu, or leave it "
            "unset",
        ),
        (
            RuntimeError(
                "Unable to initialize backend 'gpu0': Backend 'gpu0' is not in the list of known "
                "backends: ['cpu']. (set JAX_PLATFORMS='' to choose)"
            ),
            "gpu0",
            "JAX_PLATFORMS=gpu0: Unable to initialize backend 'gpu0': Backend 'gpu0' is not in the "
            "list of known backends: ['cpu']; set JAX_PLATFORMS=cpu, or leave it unset",
        ),
        (
            RuntimeError(
                "Unable to initialize backend 'cuda': INTERNAL: no driver\nmore (you may need to)"
            ),
            "",
            "Unable to initialize backend 'cuda': INTERNAL: no driver; mend its driver, or set "
            "JAX_PLATFORMS=cpu",
        ),
    ],
    ids=["none", "unknown", "driver"],
)
def test_a_missing_device_is_one_line(monkeypatch, capsys, error, platforms, said):
    def refuse(*_):
        raise error

    monkeypatch.setattr(jax, "devices", refuse)
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    with pytest.raises(SystemExit) as stopped:
        cli.guard(lambda argv: jax.devices(), [])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {said}\n"


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (MemoryError(), ""),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory 9 bytes.\n\nmore"), " (Out of memory 9"),
    ],
)
def test_memory_that_is_used_up_is_one_line(capsys, error, what):
    def fails(argv):
        raise error

    with pytest.raises(SystemExit) as stopped:
        cli.guard(fails, [])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: the memory is used up{what}")
    assert said.count("\n") == 1


def test_an_error_that_a_library_makes_of_an_interrupt_is_an_interrupt(monkeypatch, capsys):
    def fails(argv):
        raise RuntimeError("INTERNAL: KeyboardInterrupt: <EMPTY MESSAGE>")

    monkeypatch.setattr("train.engine.interrupt.asked", lambda: True)
    with pytest.raises(SystemExit) as stopped:
        cli.guard(fails, [])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_any_other_error_keeps_its_traceback():
    def fails(argv):
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        cli.guard(fails, [])
