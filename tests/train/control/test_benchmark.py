"""What `python -m benchmarks.quadruped` refuses before it starts a process."""

from types import SimpleNamespace

import pytest

from benchmarks import quadruped
from corrkd_jax.errors import InputError


@pytest.mark.parametrize(
    ("variants", "package", "says"),
    [
        (
            ("ant", "horse"),
            None,
            "--variants 'horse': choose from 'ant', 'solo8', 'learning', 'go1'",
        ),
        (("ant", "ant"), None, "--variants 'ant': stands twice"),
        ((), None, "--variants: name at least one of ant, solo8"),
        (("go1",), None, r"--variants go1: needs MuJoCo Playground \(pip install playground\)"),
        (("go1",), "__init__.py", "--variants go1: no .*unitree_go1; Playground fetches it"),
    ],
)
def test_refuses(tmp_path, monkeypatch, variants, package, says):
    place = package and SimpleNamespace(origin=str(tmp_path / package))
    monkeypatch.setattr(quadruped.importlib.util, "find_spec", lambda name: place)
    with pytest.raises(InputError, match=says):
        quadruped.check(variants)


def test_go1_where_its_meshes_are(tmp_path, monkeypatch):
    (tmp_path / "external_deps" / "mujoco_menagerie" / "unitree_go1").mkdir(parents=True)
    place = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(quadruped.importlib.util, "find_spec", lambda name: place)
    quadruped.check(("ant", "go1"))
