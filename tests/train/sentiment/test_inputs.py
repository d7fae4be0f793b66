"""What a run is told of its files before it trains."""

import pickle
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from configs.debias import DebiasConfig, DebiasDataConfig, McisConfig
from configs.msa import DataConfig
from corrkd_jax.data import planted_bias
from corrkd_jax.errors import InputError
from tests.data import files
from tests.train.sentiment import tiny
from train.sentiment.debiasing import inputs as debiasing
from train.sentiment.inputs import load


def test_notes_are_of_labels_and_of_the_teachers_file_too(tmp_path: Path):
    student, teacher = tiny.files(tmp_path)
    content = pickle.loads(teacher.read_bytes())
    content["train"]["audio_lengths"] = [9] * 64  # the array has four frames
    content["train"]["regression_labels"][:5] = 0
    files.save(teacher, content)
    config = DataConfig(path=str(student), teacher_path=str(teacher), labels="binary")
    notes = load(config, jnp.float32).dataset.notes
    cut = "64 of 64 lengths are longer than the array (up to 9 frames) and are cut to it"
    assert f"the teacher's small_teacher.pkl: audio: {cut}" in notes
    own = "the teacher's small_teacher.pkl: labels: "
    assert f"{own}5 of 64 scores of train are 0 and no label" in notes


@pytest.mark.parametrize(("shift", "scale", "labels"), [(3, 1, "binary"), (0, 0.3, "seven")])
def test_scores_of_another_scale_are_one_line(tmp_path: Path, shift, scale, labels):
    student, _ = tiny.files(tmp_path)
    content = pickle.loads(student.read_bytes())
    for fields in content.values():
        fields["regression_labels"] = fields["regression_labels"] * scale + shift
    files.save(student, content)
    expected = r"small\.pkl: train: scores lie in .*, but label mode"
    for config in (DataConfig, DebiasDataConfig):
        with pytest.raises(InputError, match=expected):
            load(config(path=str(student), labels=labels), jnp.float32)


def test_which_words_are_content_is_said(tmp_path: Path):
    path = planted_bias.write(tmp_path, 0)
    words = tmp_path / "words.txt"
    words.write_text("good0\n")

    def told(file: Path, **options) -> str:
        data = DebiasDataConfig(path=str(file), labels="classes")
        config = DebiasConfig(debias="mcis", data=data, mcis=McisConfig(**options))
        return debiasing.load(config)[0].dataset.notes[-1]

    assert told(path) == "words: content are the planted task's, by the file's name"
    assert told(path, lexicon=str(words)) == f"words: content are those of {words}"
    other = path.rename(tmp_path / "mine.pkl")
    assert "a small English lexicon; --mcis.lexicon takes another" in told(other)


def test_a_file_of_text_alone_is_scaled_to_zeros(tmp_path: Path):
    student, _ = tiny.files(tmp_path)
    content = pickle.loads(student.read_bytes())
    for fields in content.values():
        del fields["audio"], fields["vision"]
    files.save(student, content)
    loaded = load(DataConfig(path=str(student), labels="classes"), jnp.float32)
    rows = loaded.sets["train"].take()
    assert rows["inputs"]["vision"].shape == (64, 1, 1)
    assert not np.any(rows["inputs"]["audio"])
    assert np.any(rows["inputs"]["text"])
    assert sum("stands for it in every row" in note for note in loaded.dataset.notes) == 2
