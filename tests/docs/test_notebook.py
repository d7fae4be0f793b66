"""The notebook in docs/: executed, free of errors, and in step with the programs it calls."""

import ast
import importlib
import json
import re
from pathlib import Path

import nbformat
import pytest

from tests.docs import pages

PATH = Path(__file__).parents[2] / "docs" / "colab.ipynb"
NOTEBOOK = nbformat.read(PATH, as_version=4)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]
OURS = ("corrkd_jax", "configs", "train", "envs")
PLACES = re.compile(r"(?<![\w./])/(?:home|root|tmp|Users|usr|opt|var|work|private)\b[^\s\"'\\]*")


def python_of(cell):
    """A cell without its shell commands and magics."""
    lines = cell.source.splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def commands():
    """Every command of a code cell or, between backticks, of the text."""
    return list(dict.fromkeys(c for cell in NOTEBOOK.cells for c in pages.commands(cell.source)))


def texts(cell):
    """What a cell printed."""
    return [output.text for output in cell.outputs if output.output_type == "stream"]


def test_is_a_small_notebook():
    nbformat.validate(NOTEBOOK)
    assert PATH.stat().st_size < 400_000


def test_every_cell_ran_in_order_without_an_error():
    assert [cell.execution_count for cell in CODE] == list(range(1, len(CODE) + 1))
    for cell in CODE:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
        for text in texts(cell):  # a failing command leaves its cell without an error output
            assert not re.search(r"Traceback|^error:|No module named", text, re.MULTILINE), text


def test_shows_pictures_and_a_report():
    kinds = [kind for cell in CODE for output in cell.outputs for kind in output.get("data", ())]
    assert kinds.count("image/png") >= 2
    assert "text/markdown" in kinds


def test_code_compiles():
    for cell in CODE:
        ast.parse(python_of(cell))


def test_what_it_imports_exists():
    imported = 0
    for node in ast.walk(ast.parse("\n".join(map(python_of, CODE)))):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in OURS:
            module = importlib.import_module(node.module)
            for alias in node.names:
                # a submodule becomes an attribute once it is imported
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                imported += 1
    assert imported > 5


@pytest.mark.parametrize("command", commands())
def test_commands_are_what_the_programs_take(command, tmp_path):
    pages.understand(command, tmp_path)


def test_commands_are_found():
    programs = {command.split()[0] for command in commands()}
    assert programs == {"train.msa", "train.evaluate", "train.export", "train.convert"}


def test_holds_no_path_of_the_machine_it_ran_on():
    notebook = json.loads(PATH.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("image/png", None)  # base64 has slashes too
    assert PLACES.findall(json.dumps(notebook)) == []
