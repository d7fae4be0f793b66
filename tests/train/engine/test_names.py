"""Folders of a user's with names like ours: not executed, said in one line, or not seen at all."""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tomllib

import pytest

from corrkd_jax import packages
from tests.train.sentiment.tiny import ROOT
from train.engine import names


@pytest.fixture
def folder(tmp_path):
    """Of a user who has a script and packages of his own; each says so when it is executed."""
    for name in ("train.py", "configs/__init__.py", "envs/__init__.py", "corrkd_jax/other.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("print('the user runs')\n")
    return tmp_path


def python(folder, *words):
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_ours_are_ours():
    names.require_ours()


@pytest.mark.parametrize(
    ("door", "package"),
    [
        ("msa", "configs"),
        ("dfkd", "envs"),
        ("quadruped", "configs"),
        ("evaluate", "envs"),
        ("export", "configs"),
        ("convert", "envs"),
    ],
)
def test_a_package_in_the_way_is_one_line_and_not_executed(folder, door, package):
    (folder / "train.py").unlink()
    (folder / "corrkd_jax" / "other.py").unlink()
    for other in {"configs", "envs"} - {package}:
        (folder / other / "__init__.py").unlink()
        (folder / other).rmdir()
    done = python(folder, "-m", f"train.{door}")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"error: {folder / package / '__init__.py'}: stands in the way of corrkd_jax's own "
        f"'{package}'; start with the command corrkd or in another folder; if it is installed, "
        "uninstall what it is of and install corrkd-jax again\n"
    )


def test_the_command_sees_none_of_them(folder):
    """By `-m`, which looks in the current folder first, unlike what pip installs."""
    done = python(folder, "-m", "corrkd_jax.command", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the user runs" not in done.stdout
    assert "corrkd evaluate RUN" in done.stdout
    asks = """if True:
        import sys
        from corrkd_jax import packages
        sys.meta_path.insert(0, packages.Finder)
        import train, configs
        print(train.__file__, configs.__file__)
    """
    done = python(folder, "-c", asks)
    assert done.stdout.split() == [
        str(ROOT / name / "__init__.py") for name in ("train", "configs")
    ]


def test_other_packages_are_not_looked_for():
    assert packages.Finder.find_spec("jax") is None
    assert packages.Finder.find_spec("train.engine") is None


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (None, str(ROOT / "envs")),
        (importlib.machinery.ModuleSpec("envs", None, origin="/site/envs.py"), "/site/envs.py"),
        (importlib.machinery.ModuleSpec("envs", None, is_package=True), "envs"),
    ],
    ids=["none", "module", "folder"],
)
def test_what_python_finds_instead_is_named(spec, found):
    assert names.another(spec, "envs") == found


def test_another_distributions_file_in_our_place_is_found(tmp_path, monkeypatch):
    """PyPI's `envs` writes over ours: the folder is right, and what is in it is not."""
    (tmp_path / "train" / "engine").mkdir(parents=True)
    (tmp_path / "envs").mkdir()
    file = tmp_path / "envs" / "__init__.py"
    monkeypatch.setattr(names, "__file__", str(tmp_path / "train" / "engine" / "names.py"))
    spec = importlib.util.spec_from_file_location("envs", file)
    file.write_text('"""Environments of corrkd_jax."""\n')
    assert names.another(spec, "envs") == ""
    file.write_text("from .util import Env\n")
    assert names.another(spec, "envs") == str(file)


def test_what_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"corrkd": "corrkd_jax.command:main"}
    setuptools = project["tool"]["setuptools"]
    assert {f"{name}*" for name in packages.NAMES} == set(setuptools["packages"]["find"]["include"])
