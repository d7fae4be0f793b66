"""Words of text frames: rebuilt text, BERT's word pieces, and rules for content words."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from corrkd_jax.data import msa, planted_bias, words
from corrkd_jax.data.seed_lexicon import NEGATIVE, POSITIVE
from corrkd_jax.errors import InputError
from tests.data import files


def _split(*sentences: str, frames: int = 6) -> msa.Split:
    rows = tuple(tuple(sentence.split()) for sentence in sentences)
    lengths = np.array([max(1, len(row)) for row in rows])
    valid = {"text": np.arange(frames) < lengths[:, None]}
    ids = tuple(map(str, range(len(rows))))
    return msa.Split({}, valid, ids, None, None, sentences, rows)


def _marked(split: msa.Split, rule: words.Rule) -> list[list[str]]:
    mask = words.content_mask(split, rule, "file: train")
    assert mask.shape == split.valid["text"].shape
    assert not mask[~split.valid["text"]].any()
    return [
        [word for word, content in zip(row, marks, strict=False) if content]
        for row, marks in zip(split.words, mask, strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IT WAS, LIKE, great!!", ["it", "was", "like", "great"]),
        ("Don\u2019t 'quote' a well-known_name", ["don't", "quote", "a", "well-known", "name"]),
        ("10/10 - déjà vu", ["10", "10", "déjà", "vu"]),
        ("... -- '", []),
        ("我不想嫁给李茶,好", ["我不想嫁给李茶", "好"]),
    ],
)
def test_tokenize(text: str, expected: list[str]):
    assert words.tokenize(text) == expected


class TestRebuildText:
    def _data(self, tmp_path: Path, **options) -> msa.Dataset:
        content = files.mmsa_unaligned()
        for fields in content.values():
            fields["raw_text"] = ["A good, good FILM..."] * len(fields["text"])
        content["test_ood"] = content["test"] | {"id": ["x"] * 5}
        content["train"]["raw_text"][1] = "?!"
        content["train"]["raw_text"][2] = "Zebra bad Zebra"
        return msa.read(files.save(tmp_path / "data.pkl", content), **options)

    def test_words_are_frames(self, tmp_path: Path):
        before = self._data(tmp_path)
        vectors = files.glove(tmp_path / "glove.txt")
        data = self._data(tmp_path, word_vectors=vectors, max_frames=5)
        expected = [[1, 2], [3, 4], [3, 4], [5, 6], [0, 0]]
        for split in data.splits.values():
            np.testing.assert_array_equal(split.features["text"][0], expected)
            assert split.valid["text"][0].tolist() == [True] * 4 + [False]
        assert data.train.words[:3] == (
            ("a", "good", "good", "film"),
            (),
            ("zebra", "bad", "zebra"),
        )
        assert not data.train.features["text"][1].any()
        assert data.train.valid["text"][1].tolist() == [True] + [False] * 4
        # the vector of an unknown word is zero, and its frame is real
        np.testing.assert_array_equal(data.train.features["text"][2, :3], [[7, 8], [0, 0], [7, 8]])
        for name, split in data.splits.items():
            for modality in ("audio", "vision"):
                assert (
                    split.features[modality].shape == before.splits[name].features[modality].shape
                )
                np.testing.assert_array_equal(
                    split.features[modality], before.splits[name].features[modality]
                )
            assert split.raw_text == before.splits[name].raw_text

    def test_notes_tell_the_coverage_and_what_is_cut(self, tmp_path: Path):
        data = self._data(tmp_path, word_vectors=files.glove(tmp_path / "glove.txt"), max_frames=3)
        # 19 rows of four words and one of three, of which "bad" has no vector
        assert data.notes[-2:] == (
            "text: rebuilt from raw_text; 4 of 5 words have a vector (98.7 % of the running "
            "words), the others are set to 0",
            "text: 19 sentences have more than 3 words and are cut",
        )
        assert not any("call padding" in note for note in data.notes if note.startswith("text"))
        assert data.train.words[0] == ("a", "good", "good")

    def test_aligned_is_found_again(self, tmp_path: Path):
        path = files.save(tmp_path / "data.pkl", files.mmsa_aligned())
        vectors = tmp_path / "glove.txt"
        vectors.write_text("sentence 1\n")
        assert msa.read(path).aligned
        assert not msa.read(path, vectors, 4).aligned
        assert msa.read(path, vectors, 6).aligned

    def test_from_npz(self, tmp_path: Path):
        msa.write_npz(self._data(tmp_path), tmp_path / "data.npz")
        vectors = files.glove(tmp_path / "glove.txt")
        data = msa.read(tmp_path / "data.npz", vectors, 5)
        assert data.layout == "npz"
        assert data.test.words[0] == ("a", "good", "good", "film")
        direct = self._data(tmp_path, word_vectors=vectors, max_frames=5)
        np.testing.assert_array_equal(data.test.features["text"], direct.test.features["text"])

    def test_a_split_without_raw_text(self, tmp_path: Path):
        content = files.mmsa_aligned()
        del content["valid"]["raw_text"]
        path = files.save(tmp_path / "data.pkl", content)
        with pytest.raises(InputError, match=r"data\.pkl: valid: text: .* there is no raw_text"):
            msa.read(path, files.glove(tmp_path / "glove.txt"))


class TestWordPieces:
    VOCABULARY = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "un", "##believ", "##able", "film", "!")

    def _files(self, tmp_path: Path, rows: list[list[int]]) -> tuple[Path, Path]:
        """Every row of every split takes its pieces from `rows`, in turn."""
        vocabulary = tmp_path / "vocab.txt"
        vocabulary.write_text("\n".join(self.VOCABULARY) + "\n")
        content = files.mmsa_aligned()
        for fields in content.values():
            n = len(fields["text"])
            ids = np.zeros((n, 6))
            for number in range(n):
                row = rows[number % len(rows)]
                ids[number, : len(row)] = row
            fields["text_bert"] = np.stack([ids, ids != 0, 0 * ids], 1)
            for modality, size in zip(msa.MODALITIES, files.DIMS, strict=True):
                fields[modality] = np.where(ids != 0, 1.0, 0.0)[..., None].repeat(size, axis=2)
        return files.save(tmp_path / "data.pkl", content), vocabulary

    def test_every_piece_stands_for_its_word(self, tmp_path: Path):
        path, vocabulary = self._files(tmp_path, [[1, 4, 5, 6, 7, 2], [1, 3, 8, 2]])
        data = msa.read(path, vocabulary=vocabulary)
        assert data.train.words[0] == (
            "",
            "unbelievable",
            "unbelievable",
            "unbelievable",
            "film",
            "",
        )
        assert data.train.words[1] == ("", "", "!", "", "", "")
        mask = words.content_mask(data.train, words.lexicon(["Unbelievable"]), "x")
        assert mask[0].tolist() == [False, True, True, True, False, False]
        everything = words.content_mask(data.train, lambda row: [True] * len(row), "x")
        assert everything[1].tolist() == [False, False, True, False, False, False]

    def test_frames_outside_of_the_mask_and_a_piece_without_a_start(self):
        ids = [[1, 5, 4, 6, 7, 4]]
        text_bert = np.array([[*ids, [1, 1, 1, 1, 1, 0], [0] * 6]], float)
        rows = words.words_of_pieces(text_bert, self.VOCABULARY, "x")
        assert rows == (("", "##believ", "unable", "unable", "film", ""),)

    def test_bad_input(self, tmp_path: Path):
        path, vocabulary = self._files(tmp_path, [[1, 9, 2]])
        with pytest.raises(InputError, match=r"train: text_bert: has ids outside of the 9 word pi"):
            msa.read(path, vocabulary=vocabulary)
        path, vocabulary = self._files(tmp_path, [[1, 0.5, 2]])
        with pytest.raises(InputError, match="text_bert: has ids outside"):
            msa.read(path, vocabulary=vocabulary)
        with pytest.raises(InputError, match=r"none\.txt: cannot be read .* BERT vocabulary"):
            msa.read(path, vocabulary=tmp_path / "none.txt")
        with pytest.raises(InputError, match="word_vectors or vocabulary"):
            msa.read(path, files.glove(tmp_path / "glove.txt"), vocabulary=vocabulary)
        content = files.mmsa_aligned()
        del content["test"]["text_bert"]
        content["train"]["text_bert"][:, 0] = 0
        content["valid"]["text_bert"][:, 0] = 0
        files.save(path, content)
        with pytest.raises(InputError, match=r"test: no key 'text_bert'; vocabulary needs it"):
            msa.read(path, vocabulary=vocabulary)
        files.save(path, files.mult_sentiment())
        with pytest.raises(InputError, match="vocabulary is for the layout mmsa, not mult"):
            msa.read(path, vocabulary=vocabulary)


class TestContentMask:
    def test_any_function(self):
        split = _split("a bb ccc", "dd")
        assert _marked(split, lambda row: [len(word) > 1 for word in row]) == [
            ["bb", "ccc"],
            ["dd"],
        ]

    def test_frames_that_stand_for_no_word_are_never_content(self):
        split = dataclasses.replace(_split("a b c"), words=(("", "b", ""),))
        seen = []
        mask = words.content_mask(split, lambda row: seen.append(row) or [True] * len(row), "x")
        assert seen == [["b"]]
        assert mask.tolist() == [[False, True, False, False, False, False]]

    def test_a_rule_of_another_length(self):
        with pytest.raises(ValueError, match=r"\(1,\) booleans for 3 words"):
            words.content_mask(_split("a b c"), lambda row: [True], "x")

    def test_without_words(self):
        split = dataclasses.replace(_split("a b c"), words=None)
        with pytest.raises(InputError, match=r"f\.pkl: train: words: .* give word_vectors"):
            words.content_mask(split, words.lexicon(), "f.pkl: train")
        bare = dataclasses.replace(split, raw_text=None)
        for make in (words.tfidf, lambda s, where: words.keep_bias_words(s, [0], where)):
            with pytest.raises(InputError, match=r"f\.pkl: train: words: .* only the label term"):
                make(bare, "f.pkl: train")


class TestLexicon:
    def test_seed(self):
        assert min(len(NEGATIVE), len(POSITIVE)) >= 150
        both = (*NEGATIVE, *POSITIVE)
        assert len(set(both)) == len(both)
        assert all(words.tokenize(word) == [word] for word in both)
        split = _split("a GREAT movie", "the plot was awful but", "it")
        assert _marked(split, words.lexicon()) == [["GREAT"], ["awful"], []]

    def test_file(self, tmp_path: Path):
        path = tmp_path / "words.txt"
        path.write_text("# mine\nMovie\n\nplot  # of a film\n", encoding="utf8")
        for given in (path, str(path)):
            split = _split("a great movie", "the plot")
            assert _marked(split, words.lexicon(given)) == [["movie"], ["plot"]]
        path.write_text("# nothing\n")
        with pytest.raises(InputError, match=r"words\.txt: has no word"):
            words.lexicon(path)
        with pytest.raises(InputError, match=r"none\.txt: cannot be read .* a lexicon"):
            words.lexicon(tmp_path / "none.txt")

    def test_of_the_planted_bias(self, tmp_path: Path):
        content = planted_bias.generate(0, planted_bias.BIASED, 50)
        path = files.save(tmp_path / "x.pkl", dict.fromkeys(("train", "valid", "test"), content))
        split = msa.read(path).train
        mask = words.content_mask(split, words.lexicon(planted_bias.LEXICON), "x")
        np.testing.assert_array_equal(mask, planted_bias.content(content["raw_text"]))
        assert 0.05 < mask.mean() < 0.3


class TestTfidf:
    def test_stop_words_and_unknown_words_are_no_content(self):
        pytest.importorskip("sklearn")
        train = _split("the Movie was dull", "a movie and a plot", "the plot ,")
        rule = words.tfidf(train, "x")
        assert _marked(train, rule) == [["Movie", "dull"], ["movie", "plot"], ["plot"]]
        assert _marked(_split("this MOVIE is unseen", "the"), rule) == [["MOVIE"], []]

    def test_the_largest_weights(self):
        pytest.importorskip("sklearn")
        # "movie" is in every utterance, so its weight is the least
        train = _split("movie dull", "movie plot", "movie plot")
        rule = words.tfidf(train, "x", most=1)
        assert _marked(train, rule) == [["dull"], ["plot"], ["plot"]]
        assert _marked(_split("plot dull movie"), words.tfidf(train, "x", most=2)) == [
            ["plot", "dull"]
        ]

    def test_only_stop_words(self):
        pytest.importorskip("sklearn")
        with pytest.raises(InputError, match="x: words: all are stop words"):
            words.tfidf(_split("the and", "of"), "x")


class TestKeepBiasWords:
    TRAIN = _split("even left left plain", "even left", "even right", "even plain", "Even rare")
    CLASSES = np.array([[0], [0], [1], [1], [0]])

    def test_only_leaning_words_stay(self):
        # counts by class: even 3, 2 (std / mean 0.2); left 3, 0; plain 1, 1 (0); right, rare 1
        rule = words.keep_bias_words(self.TRAIN, self.CLASSES, "x")
        split = _split("EVEN left plain right rare new")
        assert _marked(split, rule) == [["plain", "new"]]
        rule = words.keep_bias_words(self.TRAIN, self.CLASSES, "x", variation=0.25)
        assert _marked(split, rule) == [["EVEN", "plain", "new"]]
        # at the bound it still leans
        rule = words.keep_bias_words(self.TRAIN, self.CLASSES, "x", variation=1.0)
        assert _marked(split, rule) == [["EVEN", "plain", "new"]]

    def test_the_most_frequent_and_ties_by_the_alphabet(self):
        split = _split("even left plain right rare new")
        kept = [{"even"}, {"even", "left"}, {"even", "left", "rare"}]
        for most, expected in enumerate(kept, start=1):
            rule = words.keep_bias_words(self.TRAIN, self.CLASSES, "x", most=most)
            assert set(split.words[0]) - set(_marked(split, rule)[0]) == expected

    def test_rows_of_weight_zero_do_not_count(self):
        weights = np.array([[1.0], [1], [1], [1], [0]])
        rule = words.keep_bias_words(self.TRAIN, self.CLASSES, "x", weights)
        # even 2, 2 now, and "rare" was never seen
        assert _marked(_split("even left rare"), rule) == [["even", "rare"]]

    def test_no_word_leans(self):
        with pytest.raises(InputError, match="x: words: none occurs more"):
            words.keep_bias_words(self.TRAIN, np.zeros(5, int), "x")

    def test_finds_the_planted_context(self):
        content = planted_bias.generate(0, planted_bias.Bias(0.5, 0.8), 6000)
        split = _split(*content["raw_text"], frames=planted_bias.FRAMES)
        labels = content["classification_labels"].astype(int)
        # by their law context words lean by 0.6, those of sentiment by 0.5, neutral ones by 0
        rule = words.keep_bias_words(split, labels, "x", variation=0.3)
        neutral = [word.startswith("plain") for word in planted_bias.WORDS]
        assert rule(planted_bias.WORDS) == neutral


DATA = Path(
    os.environ.get("CORRKD_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
MOSI = DATA / "mosi" / "mosi_context8.pkl"


@pytest.mark.skipif(not MOSI.exists(), reason="no real MOSI file; set CORRKD_SHARED_DATA")
def test_real_mosi_as_words():
    data = msa.read(MOSI, MOSI.with_name("glove.mosi.300d.txt"), 30)
    assert data.train.features["text"].shape == (1447, 30, 300)
    assert not data.aligned
    assert "(79.6 % of the running words)" in data.notes[0]
    assert data.train.words[0][:5] == ("but", "for", "this", "one", "i")
    found = words.content_mask(data.test, words.lexicon(), "test")
    share = found.sum() / data.test.valid["text"].sum()
    assert 0.04 < share < 0.12
    plain = msa.read(MOSI)
    assert plain.train.words is None
    np.testing.assert_array_equal(data.test.features["audio"], plain.test.features["audio"])
