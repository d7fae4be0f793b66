"""The planted task: sizes, determinism, the law of the labels, and the planted strengths."""

from pathlib import Path

import numpy as np
import pytest

from corrkd_jax.data import msa, planted
from corrkd_jax.errors import InputError


@pytest.fixture(scope="module")
def contents() -> tuple[dict, dict]:
    return planted.generate(0)


def test_sizes_and_shared_parts(contents):
    student, teacher = contents
    sizes = {"train": 300, "valid": 500, "test": 2000}
    for split, n in sizes.items():
        assert student[split]["text"].shape == (n, 8, 12)
        assert student[split]["audio"].shape == (n, 8, 6)
        assert student[split]["vision"].shape == (n, 8, 8)
        assert student[split]["text"].dtype == np.float32
    assert len(teacher["train"]["text"]) == 3000
    assert teacher["valid"] is student["valid"]
    assert teacher["test"] is student["test"]
    ids = [name for part in (*student.values(), teacher["train"]) for name in part["id"]]
    assert ids[0] == "planted$_$000001"
    assert len(set(ids)) == len(ids) == 5800


def test_score_tells_the_class(contents):
    for split in contents[0].values():
        classes = split["classification_labels"].astype(int)
        np.testing.assert_array_equal(np.array([-2, -1, 1, 2])[classes], split["regression_labels"])
        assert set(classes) == {0, 1, 2, 3}


def test_deterministic_by_seed_and_streams_are_independent(contents):
    again = planted.generate(0)
    other = planted.generate(1)[0]
    smaller = planted.generate(0, train=10, flips=0.0)[0]
    for split, fields in contents[0].items():
        for key, value in fields.items():
            np.testing.assert_array_equal(value, again[0][split][key])
        assert not np.array_equal(fields["text"], other[split]["text"])
    np.testing.assert_array_equal(contents[0]["test"]["text"], smaller["test"]["text"])


def test_flip_rate_in_the_students_train_only():
    n = 20000
    noisy, teacher = planted.generate(3, train=n, teacher_train=50)
    clean, clean_teacher = planted.generate(3, train=n, teacher_train=50, flips=0.0)
    np.testing.assert_array_equal(noisy["train"]["text"], clean["train"]["text"])
    for key in ("classification_labels", "regression_labels"):
        for split in ("valid", "test"):
            np.testing.assert_array_equal(noisy[split][key], clean[split][key])
        np.testing.assert_array_equal(teacher["train"][key], clean_teacher["train"][key])
    # The teacher's samples are others than the student's.
    labels = [part["train"]["classification_labels"][:50] for part in (clean, teacher)]
    assert not np.array_equal(*labels)
    first, second = (part["train"]["classification_labels"] for part in (noisy, clean))
    rate = np.mean(first != second)
    assert abs(rate - 0.225) < 3 * np.sqrt(0.225 * 0.775 / n)


def test_default_flip_rate(contents):
    clean = planted.generate(0, flips=0.0)[0]["train"]["classification_labels"]
    rate = np.mean(contents[0]["train"]["classification_labels"] != clean)
    assert abs(rate - 0.225) < 3 * np.sqrt(0.225 * 0.775 / 300)


def test_law_of_the_features():
    # Without the class noise the variance of a feature follows from the law: within a frame that
    # carries the signal 1 + 1.5^2 Var(u A), otherwise 1.
    silent = planted.generate(0, train=4000, frame_rate=0.0)[0]["train"]
    for modality in msa.MODALITIES:
        assert abs(silent[modality].std() - 1) < 0.02
    full = planted.generate(0, train=4000, frame_rate=1.0, flips=0.0)[0]["train"]
    signal = full["text"].mean(1)
    within = np.mean(
        [np.trace(np.cov(signal[full["classification_labels"] == label].T)) for label in range(4)]
    )
    law = np.random.default_rng([0, 0])
    law.standard_normal((4, 5))
    mixing = law.standard_normal((5, 12)) / np.sqrt(5)
    own = 1.3**2 * (0.36 * 0.64 + 0.16)
    expected = 1.5**2 * own * np.sum(mixing**2) + 12 / 8
    assert abs(within / expected - 1) < 0.05
    other = planted.generate(1, train=4000, frame_rate=1.0, flips=0.0)[0]["train"]
    means = [
        part["text"][part["classification_labels"] == 0].mean((0, 1)) for part in (full, other)
    ]
    assert np.abs(means[0] - means[1]).max() > 0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_language_is_strong_audio_and_vision_are_weak(seed: int):
    linear_model = pytest.importorskip("sklearn.linear_model")
    _, teacher = planted.generate(seed)
    train, test = teacher["train"], teacher["test"]

    def accuracy(*modalities: str) -> float:
        def pooled(split):
            return np.concatenate([split[modality].mean(1) for modality in modalities], 1)

        model = linear_model.LogisticRegression(max_iter=500)
        model.fit(pooled(train), train["classification_labels"])
        return model.score(pooled(test), test["classification_labels"])

    text, audio, vision = accuracy("text"), accuracy("audio"), accuracy("vision")
    assert 0.65 < text < 0.82
    assert text > max(audio, vision) + 0.10
    assert min(audio, vision) > 0.25 + 0.15
    assert accuracy(*msa.MODALITIES) > text


def test_write_and_read(tmp_path: Path):
    folder = tmp_path / "new" / "folder"
    paths = planted.write(folder, 0)
    assert [path.name for path in paths] == ["planted.pkl", "planted_teacher.pkl"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in paths}
    student, teacher = map(msa.read, paths)
    for data in (student, teacher):
        assert data.layout == "mmsa"
        assert data.aligned
        assert data.notes == ()
        assert data.train.valid["audio"].all()
        classes, _, number = msa.labels(data.train, "classes", data.source)
        assert number == 4
        assert classes.shape == (len(data.train.ids), 1)
        msa.check_classes(classes, np.ones(classes.shape), data.source, "train")
    np.testing.assert_array_equal(student.test.features["text"], teacher.test.features["text"])
    first = paths[0].read_bytes()
    assert first[:2] == b"\x80\x04"
    planted.write(folder, 0)
    assert paths[0].read_bytes() == first


def test_write_to_an_impossible_folder(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/folder"):
        planted.write(tmp_path / "file" / "folder", 0)
