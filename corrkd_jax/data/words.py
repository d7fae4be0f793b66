"""Words of an utterance: their vectors, and which of them are content words.

Counterfactuals of context (MCIS, arXiv:2403.05023) need to know which text frames are content
words. A *rule* decides it, a function from the words of one utterance to as many booleans, and
`content_mask` applies it to a split. The paper's own tool is not known; `lexicon`, `tfidf` and
`keep_bias_words` are those of related methods, and any other function will do.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from corrkd_jax.data import fields as checked
from corrkd_jax.data.dataset import Dataset, Split, make_dataset
from corrkd_jax.data.file_kinds import check_text
from corrkd_jax.data.seed_lexicon import NEGATIVE, POSITIVE
from corrkd_jax.errors import InputError

Rule = Callable[[Sequence[str]], Sequence[bool]]
"""Words of an utterance -> a boolean for each, True for a content word."""

_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


@dataclass(frozen=True)
class WordVectors:
    """Vectors of some words, from `read_vectors`.

    Attributes:
        index: word -> its row of `matrix`.
        matrix: `[1 + vectors, size]` float32; row 0 is zero and stands for every unknown word.
        unknown: number of words of the vocabulary without a vector.
    """

    index: dict[str, int]
    matrix: np.ndarray
    unknown: int

    def of(self, words: Iterable[str]) -> np.ndarray:
        """Vectors of a sequence of words.

        Args:
            words: any words.

        Returns:
            `[words, size]`; zeros for an unknown word.
        """
        return self.matrix[[self.index.get(word, 0) for word in words]]


def tokenize(text: str) -> list[str]:
    """Words of a text, in lower case: runs of letters and digits, joined by inner ' or -.

    Other signs are left out. A language written without spaces gives one word a clause; segment it
    first.

    Args:
        text: any text.

    Returns:
        The words in order.
    """
    return _TOKEN.findall(text.lower().replace("\u2019", "'"))


def read_vectors(path: str | Path, vocabulary: Iterable[str]) -> WordVectors:
    """Vectors of the words in `vocabulary`, by exact spelling or else in lower case.

    Args:
        path: a file in GloVe's or word2vec's text format.
        vocabulary: words to look up; the others of the file are skipped.

    Returns:
        `WordVectors`.

    Raises:
        InputError: the file cannot be read, or a line is not a word and its numbers.
    """
    path, vocabulary = Path(path), set(vocabulary)
    check_text(path, "word vectors in GloVe's text format")
    wanted = vocabulary | {word.lower() for word in vocabulary}
    table: dict[str, np.ndarray] = {}
    size = 0
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                parts = line.rstrip().split(" ")
                if number == 1 and len(parts) == 2 and all(map(str.isdigit, parts)):
                    continue  # word2vec's text format begins with a count and a size
                size = size or len(parts) - 1
                # Some words of the large GloVe files contain spaces: count from the right.
                word = " ".join(parts[:-size]) if size else ""
                if not word:
                    raise InputError(
                        f"{path}: line {number}: expected a word and its {size or 'many'} numbers; "
                        "use GloVe's text format"
                    )
                if word in wanted:
                    try:
                        table[word] = np.array(parts[-size:], np.float32)
                    except ValueError:
                        raise InputError(
                            f"{path}: line {number}: the vector of {word!r} has a field that is no "
                            "number; use GloVe's text format"
                        ) from None
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: word_vectors cannot be read ({error}); check it") from error
    rows = [np.zeros(size, np.float32)]
    index = {}
    for word in sorted(vocabulary):
        vector = table.get(word, table.get(word.lower()))
        if vector is not None:
            index[word] = len(rows)
            rows.append(vector)
    if not index:
        raise InputError(f"{path}: word_vectors has none of the file's words; check the language")
    return WordVectors(index, np.stack(rows), len(vocabulary) - len(index))


def rebuild_text(dataset: Dataset, word_vectors: str | Path, max_frames: int = 50) -> Dataset:
    """Dataset whose text is the vectors of the words of `raw_text`, one word a frame.

    Args:
        dataset: with `raw_text` in every split.
        word_vectors: a file in GloVe's text format; an unknown word is a zero vector.
        max_frames: number of frames; longer sentences keep their first words, shorter ones are
            padded.

    Returns:
        The dataset with text `[n, max_frames, size]`, its mask and `words`, by `tokenize`. A row
        without a word has one valid frame of zeros. Audio and vision are as they were; `aligned`
        only says whether they happen to have `max_frames` frames as well. A note counts the words
        that have a vector.

    Raises:
        InputError: a split has no `raw_text`, or the file of vectors cannot be used.
    """
    sentences = {}
    for name, split in dataset.splits.items():
        if split.raw_text is None:
            raise InputError(
                f"{dataset.source}: {name}: text: is numbers already, and there is no raw_text to "
                "rebuild it from; drop word_vectors"
            )
        sentences[name] = [tokenize(text) for text in split.raw_text]
    running = Counter(word for rows in sentences.values() for row in rows for word in row)
    vectors = read_vectors(word_vectors, running)
    known = sum(count for word, count in running.items() if word in vectors.index)
    notes = [note for note in dataset.notes if not note.startswith("text: ")]
    notes.append(
        f"text: rebuilt from raw_text; {len(vectors.index)} of {len(running)} words have a vector "
        f"({100 * known / running.total():.1f} % of the running words), the others are set to 0"
    )
    long = sum(len(row) > max_frames for rows in sentences.values() for row in rows)
    if long:
        notes.append(f"text: {long} sentences have more than {max_frames} words and are cut")
    splits = {}
    for name, split in dataset.splits.items():
        rows = tuple(tuple(row[:max_frames]) for row in sentences[name])
        text, valid = checked.pad(
            [vectors.of(row) for row in rows], max_frames, f"{dataset.source}: {name}", "text"
        )
        valid[:, 0] = True
        splits[name] = replace(
            split,
            features={**split.features, "text": text},
            valid={**split.valid, "text": valid},
            words=rows,
        )
    return make_dataset(splits, dataset.source, dataset.layout, notes, dataset.tasks)


def read_pieces(path: str | Path) -> tuple[str, ...]:
    """Word pieces of BERT's `vocab.txt`, one a line; the line is the id.

    Args:
        path: the file.

    Returns:
        The word pieces in order.

    Raises:
        InputError: the file cannot be read.
    """
    return tuple(_lines(Path(path), "a BERT vocabulary, one word piece a line"))


def words_of_pieces(text_bert: Any, pieces: Sequence[str], where: str) -> tuple:
    """Words of the frames of word pieces, as `Split.words` has them.

    Every piece of a word stands for the whole word, so that a mask of words covers all of its
    frames. Special pieces such as [CLS], [SEP], [PAD] and [UNK] stand for none, and so does a frame
    outside of the attention mask.

    Args:
        text_bert: `[n, 3, time]`, ids first and attention mask second, as MMSA's files hold it.
        pieces: from `read_pieces`.
        where: file and split, for messages.

    Returns:
        n rows of words, "" for a frame that stands for none.

    Raises:
        InputError: an id is not in the vocabulary.
    """
    tokens = checked.numbers(text_bert, where, "text_bert")
    if tokens.ndim != 3 or tokens.shape[1] != 3:
        raise InputError(f"{where}: text_bert: shape {tokens.shape}; (n, 3, time) is needed")
    ids = tokens[:, 0]
    if not np.all((ids >= 0) & (ids < len(pieces)) & (ids == np.rint(ids))):
        raise InputError(
            f"{where}: text_bert: has ids outside of the {len(pieces)} word pieces of the "
            "vocabulary; give the vocab.txt of the model that made the file"
        )
    rows = []
    for row, mask in zip(ids.astype(np.int64), tokens[:, 1] != 0, strict=True):
        words: list[str] = []
        start = 0
        for frame, (number, real) in enumerate(zip(row, mask, strict=True)):
            piece = pieces[number] if real else ""
            if piece.startswith("##") and frame and words[-1]:
                words.append("")
                words[start:] = [words[start] + piece[2:]] * (frame + 1 - start)
            else:
                start = frame
                words.append("" if re.fullmatch(r"\[.+\]", piece) else piece)
        rows.append(tuple(words))
    return tuple(rows)


def content_mask(split: Split, rule: Rule, where: str) -> np.ndarray:
    """Mask of the text frames that are content words.

    Args:
        split: with `words`.
        rule: rule of content words. It reads neither padding nor frames that stand for no word;
            these are never content.
        where: file and split, for messages.

    Returns:
        `[n, time]` bool.

    Raises:
        InputError: the text frames of the split are not known to be words.
        ValueError: the rule does not return one boolean a word.
    """
    mask = np.zeros(split.valid["text"].shape, bool)
    for row, words in zip(mask, known_words(split, where), strict=True):
        frames = [frame for frame, word in enumerate(words) if word]
        found = np.asarray(rule([words[frame] for frame in frames]), bool)
        if found.shape != (len(frames),):
            raise ValueError(f"the rule returned {found.shape} booleans for {len(frames)} words")
        row[frames] = found
    return mask


def known_words(split: Split, where: str) -> tuple[tuple[str, ...], ...]:
    """Words of a split's text frames, or a refusal that says how to get them.

    Args:
        split: any split.
        where: file and split, for messages.

    Returns:
        `Split.words`.

    Raises:
        InputError: the text frames of the split are not known to be words.
    """
    if split.words is not None:
        return split.words
    if split.raw_text is not None:
        how = "give word_vectors to rebuild text from raw_text, or vocabulary for text_bert"
    else:
        how = "use a file with raw_text or words; without them only the label term is possible"
    raise InputError(f"{where}: words: which word a text frame is, is not known; {how}")


def lexicon(source: str | Path | Iterable[str] = (*NEGATIVE, *POSITIVE)) -> Rule:
    """Rule by which the words of a sentiment lexicon, in any case, are content.

    Args:
        source: a file with one word a line (`#` begins a comment) or the words themselves; the
            default is a small list of everyday English, `corrkd_jax.data.seed_lexicon`.

    Returns:
        The rule.

    Raises:
        InputError: the file cannot be read or has no word.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        lines = _lines(path, "a lexicon, one word a line")
        source = [word for line in lines if (word := line.split("#")[0].strip())]
        if not source:
            raise InputError(f"{path}: has no word; give a lexicon, one word a line")
    known = {word.lower() for word in source}
    return lambda words: [word.lower() in known for word in words]


def tfidf(train: Split, where: str, most: int | None = None) -> Rule:
    """Rule by which words are content that scikit-learn's TF-IDF gives a weight.

    They are words of training that are no stop words.

    Args:
        train: the train split, with `words`; frequencies are those of its utterances.
        where: file and split, for messages.
        most: largest number of content words of an utterance, those of the largest weight; None, as
            in Corsair, takes all of them, which leaves little more than stop words.

    Returns:
        The rule.

    Raises:
        InputError: the text frames of the split are not known to be words, or all are stop words.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer

    def terms(words: Sequence[str]) -> list[str]:
        lower = (word.lower() for word in words)
        return [word for word in lower if word not in ENGLISH_STOP_WORDS and tokenize(word)]

    rows = known_words(train, where)
    vectorizer = TfidfVectorizer(analyzer=terms)
    try:
        vectorizer.fit(rows)
    except ValueError:
        raise InputError(f"{where}: words: all are stop words; use another rule") from None
    names = vectorizer.get_feature_names_out()

    def rule(words: Sequence[str]) -> list[bool]:
        weights = vectorizer.transform([words])
        # ties by the alphabet, as the columns are
        order = np.argsort(-weights.data, kind="stable")[:most]
        content = set(names[weights.indices[order]])
        return [word.lower() in content for word in words]

    return rule


def keep_bias_words(
    train: Split,
    classes: np.ndarray,
    where: str,
    weights: np.ndarray | None = None,
    most: int = 100,
    variation: float = 0.1,
) -> Rule:
    """Rule by which all words are content but those that lean to a class, as in CIDer.

    A bias word is one whose occurrences in the classes, c, have std(c) / mean(c) of at least
    `variation`. The most frequent of them are context, and everything else is content.

    Args:
        train: the train split, with `words`.
        classes: `[n]` or `[n, 1]` integers, its labels, such as `labels` returns.
        where: file and split, for messages.
        weights: like `classes`; a row of weight 0 is not counted. None counts all.
        most: number of bias words; of equally frequent ones the first by the alphabet.
        variation: least coefficient of variation, by the population's standard deviation.

    Returns:
        The rule.

    Raises:
        InputError: the text frames of the split are not known to be words, or no word leans.
    """
    rows = known_words(train, where)
    classes = np.asarray(classes).reshape(len(rows))
    counted = np.ones(len(rows), bool) if weights is None else np.ravel(weights) > 0
    seen, columns = np.unique(classes[counted], return_inverse=True)
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(seen), np.int64))
    for number, column in zip(np.flatnonzero(counted), columns, strict=True):
        for word in filter(None, rows[number]):
            counts[word.lower()][column] += 1
    leaning = [word for word, c in counts.items() if c.std() >= variation * c.mean()]
    if not leaning:
        raise InputError(
            f"{where}: words: none occurs more in one class than in another by {variation}; use "
            "another rule or a smaller variation"
        )
    kept = set(sorted(leaning, key=lambda word: (-counts[word].sum(), word))[:most])
    return lambda words: [word.lower() not in kept for word in words]


def _lines(path: Path, what: str) -> list[str]:
    check_text(path, what)
    try:
        # not splitlines: a vocabulary may hold signs that it takes for the end of a line
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give {what}") from error
