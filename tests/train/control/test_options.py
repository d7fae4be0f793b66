"""Options of the room's commands and benchmarks: ranges beside numbers, a sentence for each."""

import re
from typing import Annotated, get_origin

import pytest

from benchmarks import detector, quadruped, solver
from corrkd_jax.errors import InputError
from tests.train.engine.test_cli import fields_of, numeric_fields
from train.control.evaluation.evaluate import EvaluateOptions
from train.control.export import ExportOptions
from train.control.film.render import RenderOptions
from train.control.finished import SwitchOptions
from train.engine import cli

OPTIONS = {
    "evaluate": EvaluateOptions,
    "export": ExportOptions,
    "render": RenderOptions,
    "switch": SwitchOptions,
    "benchmarks.detector": detector.Options,
    "benchmarks.quadruped": quadruped.Options,
    "benchmarks.solver": solver.Options,
}


@pytest.mark.parametrize("command", OPTIONS)
def test_every_numeric_field_has_a_range_that_its_default_keeps(command):
    kind = OPTIONS[command]
    assert list(fields_of(kind))
    bare = {name for name, hint in numeric_fields(kind) if get_origin(hint) is not Annotated}
    assert bare == set()
    cli.check_ranges(kind())


@pytest.mark.parametrize("command", OPTIONS)
def test_every_field_is_documented_by_a_sentence(command):
    docs = cli.field_docs(OPTIONS[command])
    names = {name.partition(".")[0] for name in fields_of(OPTIONS[command])}
    for name in names - {"switch"}:
        assert re.fullmatch(r"[A-Z].*[.)]", docs[name]), name


@pytest.mark.parametrize(
    ("main", "words", "says"),
    [
        (detector.main, "--minutes 0", "--minutes 0: must be positive"),
        (quadruped.main, "--rounds -1", "--rounds -1: must be positive"),
        (solver.main, "--steps 0", "--steps 0: must be positive"),
        (solver.main, "--rows own 0 2", "--rows own 0 2: iterations and places must be positive"),
    ],
)
def test_benchmarks_refuse_numbers_out_of_range(main, words, says):
    with pytest.raises(InputError) as refused:
        main(words.split())
    assert str(refused.value) == says
