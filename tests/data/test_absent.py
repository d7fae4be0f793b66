"""Files with one or two modalities: zeros stand for the others, and a note says so."""

from pathlib import Path

import numpy as np
import pytest

from corrkd_jax.data import msa
from corrkd_jax.errors import InputError
from tests.data import files

NOTE = "no split has this key; one frame of one zero stands for it in every row"


def _without(tmp_path: Path, *absent: str, layout=files.mmsa_unaligned, how=None) -> Path:
    content = layout()
    for fields in content.values():
        for modality in absent:
            fields.pop(modality)
            if how is not None:
                fields[modality] = how(modality)
    return files.save(tmp_path / "data.pkl", content)


@pytest.mark.parametrize("layout", [files.mmsa_unaligned, files.mult_sentiment])
@pytest.mark.parametrize("absent", [("vision",), ("audio", "vision"), ("text",), ("text", "audio")])
def test_zeros_stand_for_what_a_file_lacks(tmp_path: Path, layout, absent: tuple[str, ...]):
    path = _without(tmp_path, *absent, layout=layout)
    data, whole = msa.read(path), msa.read(files.save(tmp_path / "whole.pkl", layout()))
    for name, split in data.splits.items():
        assert tuple(split.features) == tuple(split.valid) == msa.MODALITIES
        for modality in msa.MODALITIES:
            if modality in absent:
                assert split.features[modality].shape == (len(split.ids), 1, 1)
                assert not split.features[modality].any()
                assert split.valid[modality].all()
            else:
                expected = whole.splits[name].features[modality]
                np.testing.assert_array_equal(split.features[modality], expected)
    assert [note for note in data.notes if "stands for" in note] == [f"{m}: {NOTE}" for m in absent]
    # what is written is read back, and scaled to zero
    msa.write_npz(data, tmp_path / "data.npz")
    again = msa.read(tmp_path / "data.npz")
    assert again.notes == data.notes
    scaled = msa.apply_scaler(again.train, msa.fit_scaler(again.train))
    assert not scaled.features[absent[0]].any()


def test_none_is_absent_too(tmp_path: Path):
    data = msa.read(_without(tmp_path, "audio", how=lambda _: None))
    assert f"audio: {NOTE}" in data.notes


def test_text_is_built_from_words_where_it_is_absent(tmp_path: Path):
    path = _without(tmp_path, "text")
    vectors = tmp_path / "glove.txt"
    vectors.write_text("train 1 2\n")
    data = msa.read(path, vectors, 4)
    assert data.train.features["text"].shape == (7, 4, 2)
    assert data.train.features["text"][0, 0].tolist() == [1, 2]
    assert not any("stands for" in note for note in data.notes)


def test_a_vocabulary_needs_text(tmp_path: Path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\nfilm\n")
    with pytest.raises(InputError, match=r"train: no key 'text'; vocabulary needs it"):
        msa.read(_without(tmp_path, "text"), vocabulary=vocabulary)


def test_another_name_for_an_absent_modality_is_refused(tmp_path: Path):
    content = files.mmsa_unaligned()
    for fields in content.values():
        fields["visual"] = fields.pop("vision")
    path = files.save(tmp_path / "data.pkl", content)
    with pytest.raises(InputError) as caught:
        msa.read(path)
    assert str(caught.value) == (
        f"{path}: train: no key 'vision', but 'visual' is an array of shape (7, 11, 4); rename or "
        "remove it"
    )


def test_a_modality_of_some_splits_is_refused(tmp_path: Path):
    content = files.mmsa_unaligned()
    del content["valid"]["audio"]
    with pytest.raises(InputError, match=r"valid: no key 'audio'; the split must have it"):
        msa.read(files.save(tmp_path / "data.pkl", content))


def test_no_modality_at_all_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"train: no key 'text'"):
        msa.read(_without(tmp_path, *msa.MODALITIES))
