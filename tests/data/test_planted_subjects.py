"""The planted subjects: sizes, rates, styles, the confounding itself and its negative control."""

from pathlib import Path

import numpy as np
import pytest

from corrkd_jax.data import msa, planted_subjects, subjects

SPLITS = ("train", "valid", "test", "test_reversed", "test_seen")
SHARES = {"train": 0.85, "valid": 0.85, "test": 0.5, "test_reversed": 0.15, "test_seen": 0.85}


def _x(fields: dict) -> np.ndarray:
    return np.concatenate([fields[modality][:, 0] for modality in msa.MODALITIES], axis=1)


def _subjects(fields: dict) -> np.ndarray:
    return np.array([int(name.split("$_$")[0].removeprefix("subj")) for name in fields["id"]])


@pytest.fixture(scope="module")
def content() -> dict[str, dict]:
    return planted_subjects.generate(0)


def test_sizes_and_subjects(content):
    assert tuple(content) == SPLITS
    for fields in content.values():
        shapes = [fields[modality].shape for modality in msa.MODALITIES]
        assert shapes == [(1200, 1, 8), (1200, 1, 4), (1200, 1, 4)]
        assert fields["text"].dtype == np.float32
        assert (np.unique(_subjects(fields), return_counts=True)[1] == 50).all()
    who = {name: set(_subjects(fields)) for name, fields in content.items()}
    assert who["train"] == who["test_seen"] == set(range(24))
    assert who["valid"] == set(range(24, 48))
    assert who["test"] == who["test_reversed"] == set(range(48, 72))
    assert len({name for fields in content.values() for name in fields["id"]}) == 6000


@pytest.mark.parametrize("confounded", [True, False])
def test_shares_of_labels(confounded: bool):
    for name, fields in planted_subjects.generate(1, confounded).items():
        labels, kind = fields["classification_labels"], _subjects(fields) % 4
        np.testing.assert_array_equal(fields["regression_labels"], 2 * labels - 1)
        share = SHARES[name] if confounded else 0.5
        for number in range(4):
            expected = share if number % 2 == 0 else 1 - share
            assert labels[kind == number].mean() == pytest.approx(expected, abs=0.09)


def test_law_of_the_features(content):
    """x less its content is a style of norm about 3 and unit noise; kinds are shared by splits."""
    centres = {}
    for name, fields in content.items():
        x, labels = _x(fields).astype(np.float64), fields["classification_labels"]
        first = x[:, 0]
        assert first[labels == 1].mean() == pytest.approx(0.8, abs=0.2)
        assert first[labels == 0].mean() == pytest.approx(-0.8, abs=0.2)
        who = _subjects(fields)
        x[:, 0] -= 0.8 * (2 * labels - 1)
        means = np.array([x[who == subject].mean(0) for subject in np.unique(who)])
        noise = np.concatenate(
            [x[who == s] - mean for s, mean in zip(np.unique(who), means, strict=True)]
        )
        assert noise.std() == pytest.approx(1, abs=0.03)
        centres[name] = np.array([means[kind::4].mean(0) for kind in range(4)])
        np.testing.assert_allclose(np.linalg.norm(centres[name][:, 1:], axis=1), 3, atol=0.3)
    for other in SPLITS[1:]:
        assert np.abs(centres[other] - centres["train"]).max() < 0.5


def test_a_style_is_one_person(content):
    """The same subject in two splits has the same style; another of the kind has another."""

    def style(name: str, subject: int) -> np.ndarray:
        return _x(content[name])[_subjects(content[name]) == subject].mean(0)[1:]

    own = [np.linalg.norm(style("train", s) - style("test_seen", s)) for s in range(24)]
    other = [
        np.linalg.norm(style("train", s) - style("test_seen", (s + 4) % 24)) for s in range(24)
    ]
    assert np.mean(own) < 0.75 * np.mean(other)


def test_deterministic_and_streams(content):
    again, control = planted_subjects.generate(0), planted_subjects.generate(0, False)
    for name, fields in content.items():
        for key, value in fields.items():
            np.testing.assert_array_equal(value, again[name][key])
        # the control differs by the labels alone
        np.testing.assert_array_equal(fields["text"][..., 1:], control[name]["text"][..., 1:])
    assert not np.array_equal(_x(content["train"]), _x(content["test_seen"]))
    assert not np.array_equal(_x(content["train"]), _x(planted_subjects.generate(2)["train"]))


def test_an_ordinary_linear_model_is_misled_and_only_where_confounded():
    linear_model = pytest.importorskip("sklearn.linear_model")

    def accuracies(seed: int, confounded: bool) -> list[float]:
        content = planted_subjects.generate(seed, confounded)
        model = linear_model.LogisticRegression(max_iter=500)
        model.fit(_x(content["train"]), content["train"]["classification_labels"])
        return [
            model.score(_x(content[name]), content[name]["classification_labels"])
            for name in ("test_seen", "test", "test_reversed")
        ]

    # the page: .832, .715, .595 for a linear base, .788 for the content alone
    misled = np.mean([accuracies(seed, True) for seed in range(4)], axis=0)
    np.testing.assert_allclose(misled, [0.832, 0.715, 0.595], atol=0.03)
    control = np.mean([accuracies(seed, False) for seed in range(4)], axis=0)
    np.testing.assert_allclose(control, 0.78, atol=0.02)


def test_write_and_read(tmp_path: Path, content):
    path = planted_subjects.write(tmp_path / "new", 0)
    assert path.name == "planted_subjects.pkl"
    data = msa.read(path)
    assert (data.layout, data.aligned, data.notes) == ("mmsa", True, ())
    assert list(data.more) == ["test_reversed", "test_seen"]
    assert data.train.words is None
    assert subjects.all_subject_names(data)["train"][50] == "subj01"
    together = [data.more["test_seen"].features[modality][:, 0] for modality in msa.MODALITIES]
    np.testing.assert_array_equal(np.concatenate(together, 1), _x(content["test_seen"]))
    classes, weights, number = msa.labels(data.train, "binary", data.source)
    assert number == 2
    assert weights.all()
    np.testing.assert_array_equal(classes, data.train.classes)
