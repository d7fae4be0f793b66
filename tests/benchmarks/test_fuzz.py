"""Readers take damaged files: some hundreds here, 10,000 each by `python -m benchmarks.fuzz`."""

import json
import random
import zipfile
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.fuzz_readers import READERS, Reader
from corrkd_jax.errors import InputError

SLOW = {"teacher": 10, "folders": 15, "tiny_imagenet": 15}
"""Readers that lay out a network or decode pictures."""


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_with_one_line(name: str):
    if "torch" in name:
        pytest.importorskip("torch")
    inputs = SLOW.get(name, 30)
    outcome = fuzz.fuzz(name, inputs, seed=1)
    assert outcome.examples == {}
    assert outcome.read + outcome.refused == inputs
    assert outcome.refused


def _careless(path: Path) -> object:
    text = path.read_bytes().decode("latin1")
    if "\n" not in text:
        raise InputError("one line")
    try:
        return json.loads(text)
    except ValueError:
        pass
    match len(text) % 5:
        case 0:
            raise KeyError(text)
        case 1:
            error = InputError("")
            error.args = ("two\nlines",)
            raise error
        case 2:
            return bytearray(2**21)
        case 3:
            return "wrong"
    raise InputError("one line")


def test_a_careless_reader_is_found_out(monkeypatch: pytest.MonkeyPatch):
    def write(folder: Path) -> list[Path]:
        (folder / "x.json").write_text('{"a": 1,\n"b": [2, 3]}')
        return [folder / "x.json"]

    reader = Reader(write, _careless, lambda found: "wrong" if found == "wrong" else "")
    monkeypatch.setitem(READERS, "careless", reader)
    monkeypatch.setattr(fuzz, "MEMORY", 2**20)
    outcome = fuzz.fuzz("careless", 200, seed=0)
    kinds = {kind.split(" at ")[0] for kind in outcome.failures}
    assert kinds == {"KeyError", "several lines", "memory", "broken promise"}
    assert outcome.read
    assert outcome.refused
    monkeypatch.setattr(fuzz, "SLOW", -1.0)
    assert fuzz.fuzz("careless", 3, seed=0).failures["slow"] == 3


def test_damage_reaches_into_archives(tmp_path: Path):
    """Of a damaged archive about half the inputs have right checksums, and another member."""
    READERS["npz"].write(tmp_path)
    whole, rng = (tmp_path / "data.npz").read_bytes(), random.Random(0)
    passed = 0
    for _ in range(40):
        (tmp_path / "x.npz").write_bytes(fuzz.damage(whole, rng))
        try:
            with zipfile.ZipFile(tmp_path / "x.npz") as archive:
                passed += archive.testzip() is None
        except Exception:
            continue
    assert 10 < passed < 35


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch):
    fuzz.main(
        ["--inputs", "3", "--reader", "subjects", "vocabulary", "--out", str(tmp_path / "out")]
    )
    said = capsys.readouterr().out
    assert "| subjects | " in said
    assert "| vocabulary | " in said
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"--reader nothing: choose from pickle, mmsa"):
        fuzz.main(["--reader", "nothing"])
    bad = READERS["vocabulary"]._replace(check=lambda found: "wrong" if found != ("",) else "")
    monkeypatch.setitem(READERS, "vocabulary", bad)
    with pytest.raises(AssertionError):
        fuzz.fuzz("vocabulary", 1, 0)
