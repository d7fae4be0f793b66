"""README and docs: short, linked, and in step with the code that they are about."""

import ast
import importlib
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from corrkd_jax.data import msa, subjects
from corrkd_jax.errors import InputError
from tests.docs import pages
from tests.docs.pages import PAGES, ROOT

README = ROOT / "README.md"
CITATION = ROOT / "CITATION.cff"
OURS = ("corrkd_jax", "configs", "train", "envs", "benchmarks", "tests")
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"`((?:docs|\.ci|" + "|".join(OURS) + r")/[\w./-]+\.\w+)")
COMMANDS = [
    pytest.param(command, id=f"{pages.named(page)}: {command}")
    for page in PAGES
    for command in pages.commands(page.read_text(encoding="utf-8"))
    # what a page builds itself is run by the test of that page
    if command.split()[0] not in pages.modules(page.read_text(encoding="utf-8"))
]


def snippet(number: int) -> dict[str, Any]:
    """The names that a snippet of the README leaves behind."""
    code = pages.blocks(README.read_text(encoding="utf-8"), "python")[number]
    names: dict[str, Any] = {}
    exec(compile(code, f"README.md, snippet {number + 1}", "exec"), names)
    return names


def links(page: Path) -> list[str]:
    """What a page links to, other sites left out."""
    found = LINK.findall(pages.prose(page.read_text(encoding="utf-8")))
    return [link for link in found if not re.match(r"\w+:", link)]


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            found.append(link)
        elif anchor:
            text = target.read_text(encoding="utf-8")
            found += [link] * (anchor not in pages.slugs(text))
    return found


def reached(start: Path) -> set[Path]:
    """Every page and file that links lead to from one page."""
    seen, waiting = set(), [start]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.exists():
            continue
        seen.add(page)
        if page.suffix == ".md":
            paths = [link.partition("#")[0] for link in links(page)]
            waiting += [(page.parent / path).resolve() for path in paths if path]
    return seen


def test_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_readme_has_three_snippets():
    assert len(pages.blocks(README.read_text(encoding="utf-8"), "python")) == 3


def test_readme_loss_runs_as_written():
    gradient = np.asarray(snippet(0)["gradient"])
    assert gradient.shape == (64, 16)
    assert np.abs(gradient[:-1]).max(axis=1).min() > 0
    assert not gradient[-1].any()  # the padded row


def test_readme_counterfactuals_run_as_written():
    names = snippet(1)
    assert names["purified"].shape == names["outputs"].shape
    assert names["found"].score >= names["found"].vanilla


def test_readme_data_run_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = snippet(2)
    assert set(names["kept"]) == set(names["valid"])
    for modality, valid in names["valid"].items():
        kept = np.asarray(names["kept"][modality])
        assert kept.shape == valid.shape
        assert 0 < kept.sum() < valid.sum()


def test_a_file_of_ones_own_is_read_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (code,) = [code for code in pages.blocks(text, "python") if "own.pkl" in code]
    exec(compile(code, "docs/data.md", "exec"), {})
    data = msa.read("own.pkl")
    written = pickle.loads((tmp_path / "own.pkl").read_bytes())["train"]
    assert {m: x.shape for m, x in data.train.features.items()} == {
        "text": (200, 20, 8),
        "audio": (200, 1, 1),
        "vision": (200, 1, 1),
    }
    np.testing.assert_array_equal(data.train.valid["text"].sum(1), written["text_lengths"])
    np.testing.assert_allclose(data.train.scores, written["regression_labels"], rtol=1e-6)
    names = subjects.all_subject_names(data)
    assert set(names["train"]) == {"a0", "a1", "a2", "a3", "a4"}
    subjects.check_disjoint(data, names)
    # the lines that the page shows
    assert len(data.notes) == 2
    assert f"own.pkl: {data.notes[0]}\n" in text
    for mode in ("binary", "ternary", "seven", "score"):
        assert msa.label_notes(data.train, mode, "own.pkl", "train") == []


@pytest.mark.parametrize("page", PAGES, ids=pages.named)
def test_links_resolve(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One two\n\n[a](no.md) [b](page.md#one-two) [c](#three) [d](https://e.org)\n")
    assert broken(page) == ["no.md", "#three"]


def test_every_page_is_linked_from_the_index():
    inside = {page for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert inside - reached(ROOT / "docs" / "index.md") == set()


@pytest.mark.parametrize("page", PAGES, ids=pages.named)
def test_files_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    files = set(FILE.findall(text)) - pages.files(text).keys()
    assert [file for file in files if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=pages.named)
def test_python_on_a_page_imports_what_exists(page):
    text = page.read_text(encoding="utf-8")
    written = pages.modules(text)
    for code in pages.blocks(text, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in OURS:
                if node.module in written:
                    continue
                module = importlib.import_module(node.module)
                for alias in node.names:
                    if f"{node.module}.{alias.name}" in written:
                        continue
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_what_the_programs_take(command, tmp_path):
    pages.understand(command, tmp_path)


def test_commands_are_found_and_wrong_ones_refused(tmp_path):
    text = "Run `python -m train.msa --seeds 2` or\n```\npython -m train.evaluate RUN  # all\n```\n"
    text += "As `corrkd evaluate RUN`; `corrkd` is in `corrkd_jax/command.py`, `corrkd --help`.\n"
    text += "Not one: `--parts corrkd solo8`, and where corrkd is.\n"
    assert pages.commands(text) == [
        *("train.msa --seeds 2", "train.evaluate RUN", "corrkd evaluate RUN", "corrkd --help")
    ]
    for wrong in (
        "train.msa --optimizer.epoch 3",
        "train.dfkd --host none",
        "train.evaluate RUN --no-such-option 1",
        "train.export RUN OUT --no-such-option 1",
        "train.quadruped export RUN OUT --no-such-option 1",
        "benchmarks.msa --no-such-option 1",
        "corrkd msa --no-such-option 1",
        "corrkd evaluate RUN --no-such-option 1",
        "corrkd evaluation RUN",
    ):
        with pytest.raises((SystemExit, InputError)):
            pages.understand(wrong, tmp_path)


def test_every_module_of_the_library_is_in_the_reference():
    listed, whole = set(), set()
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        listed |= set(re.findall(r"^::: (\S+)", text, re.MULTILINE))
        whole |= set(
            re.findall(r"^::: (\S+)\n    options:\n      show_submodules: true", text, re.M)
        )
    for package in (
        "corrkd_jax/losses",
        "corrkd_jax/causal",
        "corrkd_jax/metrics",
        "corrkd_jax/models",
        "corrkd_jax/data",
        "envs",
        "configs",
        "train/engine",
    ):
        for file in (ROOT / package).rglob("[!_]*.py"):
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            assert module in listed or any(module.startswith(f"{name}.") for name in whole), module


def test_citation_is_a_citation():
    citation = yaml.safe_load(CITATION.read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors"} <= set(citation)
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert citation["version"] == version[1]
    assert citation["license"] == "Apache-2.0"
