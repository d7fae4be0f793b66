"""The biased task: its rates are the ones it states, and the reader takes it."""

import pickle

import numpy as np
import pytest

from corrkd_jax.data import msa, planted_bias
from corrkd_jax.data.planted_bias import BIASED, LABEL_BIASED, REVERSED, UNBIASED


@pytest.mark.parametrize("bias", [BIASED, UNBIASED, REVERSED])
def test_rates(bias):
    split = planted_bias.generate(0, bias, 6000)
    labels = split["classification_labels"].astype(int)
    assert labels.mean() == pytest.approx(bias.positive, abs=0.02)
    words = np.array([text.split(" ") for text in split["raw_text"]])
    kinds = np.char.rstrip(words, "0123456789")
    assert np.isin(kinds, ["bad", "good"]).mean() == pytest.approx(0.15, abs=0.01)
    assert np.isin(kinds, ["left", "right"]).mean() == pytest.approx(0.30, abs=0.01)
    for pair, rate in ((("bad", "good"), 0.75), (("left", "right"), bias.context)):
        own = np.array(pair)[labels][:, None]
        agrees = (kinds == own)[np.isin(kinds, pair)]
        assert agrees.mean() == pytest.approx(rate, abs=0.02)
    for name in ("audio", "vision"):
        first = split[name][:, 0, 0]
        assert first[labels == 1].mean() - first[labels == 0].mean() == pytest.approx(1.2, abs=0.08)


def test_text_is_its_words_and_content_the_lexicon():
    split = planted_bias.generate(1, BIASED, 20)
    words = [planted_bias.WORDS[i] for i in split["text"][3].argmax(-1)]
    assert split["raw_text"][3] == " ".join(words)
    found = planted_bias.content(split["raw_text"])
    assert found.shape == (20, planted_bias.FRAMES)
    assert found[3].tolist() == [word.startswith(("bad", "good")) for word in words]


def test_splits_of_a_seed_differ_and_repeat():
    one, same, other = (planted_bias.generate(2, BIASED, 9, stream) for stream in (1, 1, 2))
    assert one["raw_text"] == same["raw_text"] != other["raw_text"]
    np.testing.assert_array_equal(one["audio"], same["audio"])
    assert not set(one["id"]) & set(other["id"])


def test_the_reader_takes_it(tmp_path):
    parts = {"train": BIASED, "valid": UNBIASED, "test": REVERSED}
    content = {
        name: planted_bias.generate(3, bias, 30, stream)
        for stream, (name, bias) in enumerate(parts.items())
    }
    path = tmp_path / "bias.pkl"
    path.write_bytes(pickle.dumps(content))
    dataset = msa.read(path)
    assert dataset.layout == "mmsa"
    assert dataset.train.features["text"].shape == (30, 12, 140)
    assert dataset.train.raw_text == tuple(content["train"]["raw_text"])


def test_reversed():
    for bias, positive, context in ((BIASED, 0.5, 0.2), (LABEL_BIASED, 0.15, 0.5)):
        assert bias.reversed.positive == pytest.approx(positive)
        assert bias.reversed.context == pytest.approx(context)
    assert UNBIASED.reversed == UNBIASED


@pytest.mark.parametrize("bias", [BIASED, LABEL_BIASED, UNBIASED])
def test_splits_of_an_experiment(bias):
    content = planted_bias.splits(0, bias)
    leans = {
        "train": (1500, bias),
        "valid": (500, UNBIASED),
        "test": (2000, UNBIASED),
        "valid_biased": (500, bias),
        "test_reversed": (2000, bias.reversed),
        "test_iid": (2000, bias),
    }
    assert list(content) == list(leans)
    for name, (n, lean) in leans.items():
        labels = content[name]["classification_labels"].astype(int)
        assert len(labels) == n
        assert labels.mean() == pytest.approx(lean.positive, abs=0.06)
        words = np.array([text.split(" ") for text in content[name]["raw_text"]])
        kinds = np.char.rstrip(words, "0123456789")
        agrees = (kinds == np.array(["left", "right"])[labels][:, None])[
            np.isin(kinds, ["left", "right"])
        ]
        assert agrees.mean() == pytest.approx(lean.context, abs=0.04)
    assert len({name for fields in content.values() for name in fields["id"]}) == 8500


def test_write(tmp_path):
    path = planted_bias.write(tmp_path / "new", 1, LABEL_BIASED)
    assert path == tmp_path / "new" / "planted_bias.pkl"
    data = msa.read(path)
    assert (data.layout, data.notes) == ("mmsa", ())
    assert list(data.more) == ["valid_biased", "test_reversed", "test_iid"]
    expected = planted_bias.splits(1, LABEL_BIASED)["test_iid"]
    assert data.more["test_iid"].raw_text == tuple(expected["raw_text"])
    # text frames are words, as counterfactuals of context need
    assert " ".join(data.test.words[0]) == data.test.raw_text[0]
