"""Sentiment task whose training split has a label bias and a context bias of known size.

A tenth of the words carry the sentiment, others only go with it. In the training split one class
occurs more often, and each class has context words of its own. On a split without that bias a model
that trusts context is wrong, so that the gain by counterfactual inference can be measured. The task
is planted for MCIS (arXiv:2403.05023); the words are made up.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from corrkd_jax.atomic import write_pickle

FRAMES = 12
KINDS = {"bad": 20, "good": 20, "left": 20, "right": 20, "plain": 60}
"""Numbers of words by kind: negative, positive, context of class 0 and of class 1, neutral."""

WORDS = tuple(f"{kind}{i:02d}" for kind, count in KINDS.items() for i in range(count))
LEXICON = tuple(word for word in WORDS if word.startswith(("bad", "good")))
"""Content words: those that carry sentiment."""

_START = dict(zip(KINDS, np.cumsum([0, *KINDS.values()])[:-1].tolist(), strict=True))


@dataclass(frozen=True)
class Bias:
    """Label bias and context bias of a split.

    Attributes:
        positive: share of class 1; 0.5 has no label bias.
        context: share of context words that belong to the sample's class; 0.5 has no context bias,
            less reverses it.
    """

    positive: float
    context: float

    @property
    def reversed(self) -> "Bias":
        """Opposite bias: of context where there is one, with balanced labels, else of labels.

        A balanced share stays balanced.
        """
        if self.context != 0.5:
            return Bias(0.5, 1 - self.context)
        return Bias(1 - self.positive, 0.5)


BIASED = Bias(0.8, 0.8)
LABEL_BIASED = Bias(0.85, 0.5)
UNBIASED = Bias(0.5, 0.5)
REVERSED = Bias(0.5, 0.2)


def generate(seed: int, bias: Bias, n: int, stream: int = 0) -> dict:
    """Split in MMSA's fields.

    Each of 12 words is a sentiment word with probability 0.15, then of its class's kind with 0.75;
    a context word with 0.30, then of its class's list with `bias.context`; else neutral. Audio (5
    features) and vision (20) are standard normal, with the first feature shifted by 0.6 towards the
    class. They are one frame repeated, as in files of utterance features.

    Args:
        seed: random seed, not negative.
        bias: bias of this split.
        n: number of samples.
        stream: number of the split; each has a random stream of its own.

    Returns:
        `text` `[n, 12, 140]` one-hot float32, `audio`, `vision` `[n, 12, size]` float32,
        `raw_text`, `id`, `classification_labels` 0 or 1, `regression_labels` -1 or 1,
        `annotations`.
    """
    random = np.random.default_rng([seed, stream])
    labels = (random.random(n) < bias.positive).astype(np.int64)
    sign = 2 * labels - 1
    kind = random.random((n, FRAMES))
    agrees = random.random((n, FRAMES)) < np.where(kind < 0.15, 0.75, bias.context)
    side = np.where(agrees, labels[:, None], 1 - labels[:, None])
    number = random.integers(0, 20, (n, FRAMES))
    sentiment = np.where(side == 1, _START["good"], _START["bad"]) + number
    context = np.where(side == 1, _START["right"], _START["left"]) + number
    neutral = _START["plain"] + random.integers(0, KINDS["plain"], (n, FRAMES))
    words = np.where(kind < 0.15, sentiment, np.where(kind < 0.45, context, neutral))

    def sense(size: int) -> np.ndarray:
        x = random.standard_normal((n, 1, size))
        x[:, 0, 0] += 0.6 * sign
        return np.repeat(x, FRAMES, axis=1).astype(np.float32)

    return {
        "text": np.eye(len(WORDS), dtype=np.float32)[words],
        "audio": sense(5),
        "vision": sense(20),
        "raw_text": [" ".join(WORDS[i] for i in row) for row in words],
        "id": [f"bias{stream}$_${i:06d}" for i in range(n)],
        "classification_labels": labels.astype(np.float32),
        "regression_labels": sign.astype(np.float32),
        "annotations": ["Positive" if y else "Negative" for y in labels],
    }


def splits(seed: int, bias: Bias = BIASED) -> dict[str, dict]:
    """Splits of an experiment.

    | split | n | bias |
    |---|---|---|
    | `train` | 1500 | `bias` |
    | `valid` | 500 | `UNBIASED`: coefficients are searched on it |
    | `valid_biased` | 500 | `bias`: a validation split drawn like training |
    | `test` | 2000 | `UNBIASED` |
    | `test_reversed` | 2000 | `bias.reversed` |
    | `test_iid` | 2000 | `bias` |

    Args:
        seed: random seed, not negative.
        bias: bias of training: `BIASED`, `LABEL_BIASED`, or `UNBIASED` for the negative control.

    Returns:
        Split -> MMSA's fields.
    """
    return {
        "train": generate(seed, bias, 1500, 1),
        "valid": generate(seed, UNBIASED, 500, 2),
        "test": generate(seed, UNBIASED, 2000, 4),
        "valid_biased": generate(seed, bias, 500, 3),
        "test_reversed": generate(seed, bias.reversed, 2000, 5),
        "test_iid": generate(seed, bias, 2000, 6),
    }


def write(folder: str | Path, seed: int, bias: Bias = BIASED) -> Path:
    """Write `planted_bias.pkl`, a pickle of protocol 4 in MMSA's layout; see `splits`.

    Args:
        folder: where to write; made if absent.
        seed: see `splits`.
        bias: see `splits`.

    Returns:
        Path of the file.

    Raises:
        InputError: the folder or the file cannot be written.
    """
    return write_pickle(folder, "planted_bias.pkl", splits(seed, bias))


def content(raw_text: list[str], lexicon: tuple[str, ...] = LEXICON) -> np.ndarray:
    """Mask of the words that carry sentiment.

    Args:
        raw_text: n sentences of `generate`.
        lexicon: content words.

    Returns:
        `[n, 12]` bool.
    """
    known = set(lexicon)
    return np.array([[word in known for word in text.split(" ")] for text in raw_text])
