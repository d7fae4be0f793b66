"""Whose utterance it is: names from ids and tables, integers, disjoint splits, new splits."""

import os
from pathlib import Path

import numpy as np
import pytest

from corrkd_jax.data import msa, planted_subjects, subjects
from corrkd_jax.errors import InputError
from tests.data import files


def _split(*ids: str) -> msa.Split:
    return msa.Split({}, {}, ids, None, None, None)


def test_names_from_ids():
    split = _split("v1$_$3", "v2$_$1$_$2", "v[1]x[3]", "a b[0]", "w$_$1#2")
    assert subjects.subject_names(split, "x") == ("v1", "v2", "v[1]x", "a b", "w")


@pytest.mark.parametrize("name", ["train-000001", "12", "video_3", ""])
def test_ids_that_tell_nothing(name: str):
    with pytest.raises(InputError, match=rf"f\.pkl: train: row 1: id '{name}' names no subject"):
        subjects.subject_names(_split("v$_$1", name), "f.pkl: train")


def test_a_table_names_videos_or_whole_ids(tmp_path: Path):
    path = tmp_path / "subjects.csv"
    path.write_text(
        "\ufeffvideo_id,age,subject_id\nv1,30,ann\nv2,40,bob\nv2$_$7,40,eve\n12,1,bob\n"
    )
    table = subjects.read_table(path)
    split = _split("v1$_$1", "v2[4]", "v2$_$7", "12")
    assert subjects.subject_names(split, "x", table) == ("ann", "bob", "eve", "bob")
    with pytest.raises(InputError, match=r"f\.pkl: test: row 0: id 'v3\$_\$1' has no subject"):
        subjects.subject_names(_split("v3$_$1"), "f.pkl: test", table)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("video,subject_id\nv,s\n", r"no column 'video_id' \(found: video, subject_id\)"),
        ("video_id;subject_id\nv;s\n", r"no column 'video_id' \(found: video_id;subject_id\)"),
        ("", r"no column 'video_id' \(found: none\)"),
        ("video_id,subject_id\nv\n", "line 2: is not complete"),
        ("video_id,subject_id\nv,s\nv,t\n", "line 3: v has two subjects, s and t"),
        (None, "cannot be read"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str | None, words: str):
    path = tmp_path / "subjects.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=rf"subjects\.csv: {words}"):
        subjects.read_table(path)


def test_encode():
    known, (train, valid, test) = subjects.encode(["b", "a", "b"], ["c", "a"], [])
    assert known == ("a", "b")
    assert train.tolist() == [1, 0, 1]
    assert train.dtype == valid.dtype == test.dtype == np.int32
    assert valid.tolist() == [-1, 0]
    assert test.shape == (0,)
    with pytest.raises(InputError, match=r"f\.pkl: train: all rows are of one subject \(a\)"):
        subjects.encode(["a", "a"], ["b"], source="f.pkl")


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> msa.Dataset:
    return msa.read(planted_subjects.write(tmp_path_factory.mktemp("planted"), 0))


def test_disjoint_splits(planted: msa.Dataset):
    names = subjects.all_subject_names(planted)
    assert list(names) == list(planted.splits)
    subjects.check_disjoint(planted, names)
    with pytest.raises(InputError) as caught:
        subjects.check_disjoint(planted, names, splits=("valid", "train", "test_seen"))
    message = str(caught.value)
    assert message.startswith(f"{planted.source}: subject subj00 is in both train and test_seen")
    assert "(24 such)" in message


def test_leave_subjects_out():
    names = ["a", "b", "c", "a", "d"]
    for seed in range(5):
        out = subjects.leave_subjects_out(names, 2, seed)
        assert out.dtype == bool
        left = {name for name, flag in zip(names, out, strict=True) if flag}
        assert len(left) == 2
        assert not left & {name for name, flag in zip(names, out, strict=True) if not flag}
        order = [4, 2, 0, 3, 1]
        again = subjects.leave_subjects_out([names[i] for i in order], 2, seed)
        assert again.tolist() == out[order].tolist()
    draws = {tuple(subjects.leave_subjects_out(names, 2, seed)) for seed in range(20)}
    assert len(draws) > 3
    for k in (0, 4, 9):
        with pytest.raises(InputError, match=f"{k} of 4 subjects cannot be left out"):
            subjects.leave_subjects_out(names, k, 0)


def test_speaker_independent(planted: msa.Dataset):
    names = subjects.all_subject_names(planted)
    data = subjects.speaker_independent(planted, names, valid=5, test=20, seed=3)
    new = subjects.all_subject_names(data)
    assert [len(set(new[name])) for name in msa.SPLITS] == [72 - 25, 5, 20]
    subjects.check_disjoint(data, new)
    assert data.more == {}
    before = {i: s.features["text"][row] for s in _core(planted) for row, i in enumerate(s.ids)}
    assert sum(len(split.ids) for split in _core(data)) == len(before)
    for split in _core(data):
        for row in (0, -1):
            np.testing.assert_array_equal(split.features["text"][row], before[split.ids[row]])
    other = subjects.speaker_independent(planted, names, valid=5, test=20, seed=4)
    assert other.test.ids != data.test.ids
    with pytest.raises(InputError, match="52 of 52 subjects cannot be left out"):
        subjects.speaker_independent(planted, names, valid=52, test=20, seed=3)


def test_subjects_are_dealt_evenly_whatever_the_order():
    names = ["a"] * 6 + ["b"] * 3 + ["c"] * 2 + ["d"] * 2 + ["e"]
    assert subjects.deal_subjects(names, 3) == [{"a"}, {"b", "e"}, {"c", "d"}]
    assert subjects.deal_subjects(names[::-1], 3) == subjects.deal_subjects(names, 3)
    for folds in (0, 6):
        with pytest.raises(InputError, match=f"{folds} folds of 5 subjects"):
            subjects.deal_subjects(names, folds)


def test_split_by_named_subjects(planted: msa.Dataset):
    names = subjects.all_subject_names(planted)
    pooled = sorted({name for split in msa.SPLITS for name in names[split]})
    # one of each of the file's own splits
    test = {names[split][0] for split in msa.SPLITS}
    valid = {name for name in pooled if name not in test} - set(pooled[-40:])
    data = subjects.split_by_subject(planted, names, valid, test)
    new = {name: set(of) for name, of in subjects.all_subject_names(data).items()}
    assert new == {"train": set(pooled) - valid - test, "valid": valid, "test": test}
    before = {i: s.features["text"][row] for s in _core(planted) for row, i in enumerate(s.ids)}
    assert sum(len(split.ids) for split in _core(data)) == len(before)
    np.testing.assert_array_equal(data.test.features["text"][-1], before[data.test.ids[-1]])
    for valid, test, word in (
        ({"subj00"}, {"subj00"}, "subject subj00 cannot be in both valid and test"),
        ({"nobody"}, {"subj00"}, "no subject nobody among the 72"),
        (set(pooled), set(), "no subject is left for training"),
    ):
        with pytest.raises(InputError, match=word):
            subjects.split_by_subject(planted, names, valid, test)


def _core(data: msa.Dataset) -> list[msa.Split]:
    return [data.splits[name] for name in msa.SPLITS]


DATA = Path(
    os.environ.get("CORRKD_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
MOSI = DATA / "mosi" / "mosi_context8.pkl"


@pytest.mark.skipif(not MOSI.exists(), reason="no real MOSI file; set CORRKD_SHARED_DATA")
def test_real_mosi():
    data = msa.read(MOSI)
    names = subjects.all_subject_names(data)
    subjects.check_disjoint(data, names)
    assert [len(set(names[name])) for name in msa.SPLITS] == [62, 8, 8]
    known, (train, valid) = subjects.encode(names["train"], names["valid"])
    assert len(known) == 62
    assert np.bincount(train).sum() == 1447
    assert set(valid) == {-1}


def test_a_file_without_ids(tmp_path: Path):
    data = msa.read(files.save(tmp_path / "data.pkl", files.mult_emotion()))
    with pytest.raises(InputError, match=r"data\.pkl: train: row 0: id 'train-000000' names no"):
        subjects.all_subject_names(data)
