"""Real frames: what lengths and attention masks claim against where the content is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corrkd_jax.data import msa
from corrkd_jax.data.padding import blind_rows
from corrkd_jax.errors import InputError
from tests.data import files

SIZES = {"train": 120, "valid": 20, "test": 20}


def extracted(
    lengths: dict[str, np.ndarray], front: bool = False, noise: bool = False
) -> dict[str, Any]:
    """A split as MMSA-FET and the script of Self-MM write it.

    Arrays have mean + 3 deviations frames and longer sequences are cut, but `*_lengths` are not.
    Padding is zeros or normal numbers, behind or in front.
    """
    random = np.random.default_rng(0)
    fields: dict[str, Any] = {}
    for (modality, own), size in zip(lengths.items(), files.DIMS, strict=False):
        time = int(own.mean() + 3 * own.std())
        array = random.normal(size=(len(own), time, size))
        mask = _mask(own, time, front)
        fields[modality] = array if noise else np.where(mask[..., None], array, 0)
        fields[f"{modality}_lengths"] = own.tolist()
    scores = random.uniform(-3, 3, len(own))
    return fields | {"regression_labels": scores}


def _lengths(n: int) -> dict[str, np.ndarray]:
    """One clip of 40 frames of sound, all others of 14; text and vision vary."""
    random = np.random.default_rng(n)
    audio = np.full(n, 14)
    audio[n // 2] = 40
    return {"text": random.integers(3, 9, n), "audio": audio, "vision": random.integers(9, 33, n)}


def _mask(lengths: np.ndarray, time: int, front: bool = False) -> np.ndarray:
    mask = np.arange(time) < np.minimum(lengths, time)[:, None]
    return mask[:, ::-1] if front else mask


def _read(tmp_path: Path, change=lambda fields: None, **options) -> tuple[msa.Dataset, dict]:
    content = {name: extracted(_lengths(n), **options) for name, n in SIZES.items()}
    for fields in content.values():
        change(fields)
    return msa.read(files.save(tmp_path / "data.pkl", content)), content


def _notes(data: msa.Dataset, modality: str = "audio") -> list[str]:
    return [note for note in data.notes if note.startswith(f"{modality}: ")]


CUT = "audio: 3 of 160 lengths are longer than the array (up to 40 frames) and are cut to it"


@pytest.mark.parametrize("front", [False, True])
def test_lengths_beyond_the_array_are_cut_to_it(tmp_path: Path, front: bool):
    data, content = _read(tmp_path, front=front)
    # mean 14.2 and deviation 2.36: 21 frames, though one clip has 40
    assert content["train"]["audio"].shape[1] == 21
    assert max(content["train"]["audio_lengths"]) == 40
    for name, n in SIZES.items():
        split = data.splits[name]
        for modality, own in _lengths(n).items():
            expected = _mask(own, split.features[modality].shape[1], front)
            np.testing.assert_array_equal(split.valid[modality], expected)
    where = "audio: padding is in front of the frames, so audio_lengths are counted from the end"
    assert _notes(data) == ([CUT, where] if front else [CUT])
    assert (
        _notes(data, "vision")
        == [
            "vision: padding is in front of the frames, so vision_lengths are counted from the end"
        ][: int(front)]
    )


def test_unsigned_lengths_count_from_the_end_too(tmp_path: Path):
    def change(fields: dict) -> None:
        fields["audio_lengths"] = np.array(fields["audio_lengths"], np.uint8)

    data, _ = _read(tmp_path, change, front=True)
    expected = _mask(_lengths(120)["audio"], 21, front=True)
    np.testing.assert_array_equal(data.train.valid["audio"], expected)


def test_padding_of_noise_is_ignored_by_the_lengths(tmp_path: Path):
    data, _ = _read(tmp_path, noise=True)
    np.testing.assert_array_equal(data.train.valid["audio"], _mask(_lengths(120)["audio"], 21))
    assert "non-zero frames" in _notes(data)[1]
    assert "call padding and are ignored" in _notes(data)[1]


def test_lengths_of_another_field_are_not_used(tmp_path: Path):
    def swap(fields: dict) -> None:
        fields["audio_lengths"], fields["vision_lengths"] = (
            fields["vision_lengths"],
            fields["audio_lengths"],
        )

    data, _ = _read(tmp_path, swap)
    for modality in ("audio", "vision"):
        time = data.train.features[modality].shape[1]
        expected = _mask(_lengths(120)[modality], time)
        np.testing.assert_array_equal(data.train.valid[modality], expected)
    said = _notes(data)[-1]
    assert said.startswith("audio: audio_lengths is not used, since in ")
    assert said.endswith(
        "padded rows it ends elsewhere than the non-zero frames (it fits vision); padding is taken "
        "from frames of zeros"
    )
    assert "(it fits audio)" in _notes(data, "vision")[-1]


def test_lengths_of_the_frames_before_pooling_are_not_used(tmp_path: Path):
    def raw(fields: dict) -> None:
        fields["audio_lengths"] = [10 * length for length in fields["audio_lengths"]]

    data, _ = _read(tmp_path, raw)
    np.testing.assert_array_equal(data.train.valid["audio"], _mask(_lengths(120)["audio"], 21))
    assert "160 of 160 lengths are longer than the array (up to 400 frames)" in _notes(data)[0]
    assert "audio_lengths is not used, since in 157 of 157 padded rows" in _notes(data)[1]


def _pieces(fields: dict) -> None:
    """Text of GloVe vectors, one a word, beside word pieces with [CLS] and [SEP]."""
    words, n = fields.pop("text_lengths"), len(fields["text"])
    text = np.zeros((n, 16, 5))
    text[:, : fields["text"].shape[1]] = fields["text"]
    mask = np.arange(16) < np.array(words)[:, None] + 5
    fields |= {"text": text, "text_bert": np.stack([2 * mask, mask, 0 * mask], 1)}


def test_an_attention_mask_of_other_tokens_is_not_used(tmp_path: Path):
    data, content = _read(tmp_path, _pieces)
    np.testing.assert_array_equal(data.train.valid["text"], content["train"]["text"].any(-1))
    assert _notes(data, "text") == [
        "text: text_bert is not used, since in 160 of 160 padded rows it ends elsewhere than the "
        "non-zero frames; padding is taken from frames of zeros"
    ]


def test_words_of_other_tokens_are_refused(tmp_path: Path):
    _read(tmp_path, _pieces)
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\ngood\n")
    with pytest.raises(InputError, match=r"train: text_bert: .* in 120 of 120 .* drop vocabulary"):
        msa.read(tmp_path / "data.pkl", vocabulary=vocabulary)


def test_zeros_at_the_ends_of_some_rows_are_frames(tmp_path: Path):
    """A face that is lost, an unknown word: fewer than half of the rows, so lengths are right."""

    def lose(fields: dict) -> None:
        for row in range(0, len(fields["vision"]), 4):
            last = min(fields["vision_lengths"][row], fields["vision"].shape[1])
            fields["vision"][row, last - 3 : last] = 0

    data, _ = _read(tmp_path, lose)
    time = data.train.features["vision"].shape[1]
    np.testing.assert_array_equal(data.train.valid["vision"], _mask(_lengths(120)["vision"], time))
    assert _notes(data, "vision") == [
        "vision: 120 frames of zeros at the ends of rows are real by lengths or text_bert and are "
        "kept"
    ]


def test_special_tokens_without_a_picture_are_frames(tmp_path: Path):
    """[CLS] and [SEP] are zeros in every row, so lengths go one beyond the content at each end."""

    def blank(fields: dict) -> None:
        rows, time = np.arange(len(fields["vision"])), fields["vision"].shape[1]
        last = np.minimum(fields["vision_lengths"], time) - 1
        fields["vision"][:, 0] = fields["vision"][rows, last] = 0

    data, _ = _read(tmp_path, blank)
    time = data.train.features["vision"].shape[1]
    np.testing.assert_array_equal(data.train.valid["vision"], _mask(_lengths(120)["vision"], time))
    assert [note.split(" ")[1] for note in _notes(data, "vision")] == ["320"]


def test_a_few_zeros_in_padding_of_noise_tell_nothing(tmp_path: Path):
    def chance(fields: dict) -> None:
        fields["audio"][0, -1] = 0

    data, _ = _read(tmp_path, chance, noise=True)
    np.testing.assert_array_equal(data.train.valid["audio"], _mask(_lengths(120)["audio"], 21))


def test_frames_of_sequences_are_known_and_not_doubted(tmp_path: Path):
    content = files.mag_bert()
    for rows in content.values():
        for (text, vision, audio), _, _ in rows:
            text[-1], vision[-2:], audio[-2:] = 0, 0, 0
    data = msa.read(files.save(tmp_path / "data.pkl", content))
    np.testing.assert_array_equal(data.train.valid["vision"].sum(1), np.arange(1, 8))
    assert data.notes == ()


def test_a_modality_of_zeros_is_said(tmp_path: Path):
    data, _ = _read(tmp_path, lambda fields: fields["vision"].fill(0))
    assert _notes(data, "vision") == ["vision: every value is zero, as if it were missing"]
    time = data.train.features["vision"].shape[1]
    np.testing.assert_array_equal(data.train.valid["vision"], _mask(_lengths(120)["vision"], time))


def test_blind_rows():
    features = np.zeros((3, 4, 2))
    features[:2, :2] = 1
    mask = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]], bool)
    assert blind_rows(mask, features) == 1
    assert blind_rows(~mask, features) == 1
    assert blind_rows(np.roll(mask, 2, axis=1), features) == 1
