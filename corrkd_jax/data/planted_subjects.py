"""Task whose training subjects lean to a label by their style, by a known amount.

Every subject has a style, one of four kinds, that says nothing about the label except by the share
of positive utterances its kind has in training. A model that predicts from style is right on the
training subjects and wrong on new ones without that lean. The task is planted for SuCI
(arXiv:2403.05025). The Bayes accuracy of the content alone is Phi(0.8), 78.8 %.
"""

from pathlib import Path

import numpy as np

from corrkd_jax.atomic import write_pickle
from corrkd_jax.data.dataset import MODALITIES

SUBJECTS, UTTERANCES = 24, 50
SIZES = {"text": 8, "audio": 4, "vision": 4}
"""Numbers of features of each modality, in this order; together they are x of `generate`."""

_KINDS, _LEAN = 4, 0.35
_SHIFT, _NORM, _SPREAD = 0.8, 3.0, 0.2


def generate(seed: int, confounded: bool = True) -> dict[str, dict]:
    """Splits in MMSA's fields.

    A subject of kind c has the style s = centre_c + 0.2 n, where centres have norm 3 and no part in
    the first of 16 features. An utterance with label y is x = s + n + 0.8 (2y - 1) e_1. n is
    standard normal. Subjects take the kinds in turn. In the training law kinds 0 and 2 have label 1
    with probability 0.85, kinds 1 and 3 with 0.15.

    | split | subjects | share of label 1 |
    |---|---|---|
    | `train` | 24 | training law |
    | `valid` | 24 others | training law |
    | `test` | 24 others (A) | 0.5 |
    | `test_reversed` | those of `test` (B) | training law, reversed |
    | `test_seen` | those of `train` | training law |

    Validation is like a user's: new subjects, collected as those of training were. A model selected
    by it is not selected for the other law.

    Args:
        seed: random seed, not negative. Each split has a random stream of its own.
        confounded: False is the negative control, 0.5 in every split, with the same styles and
            noise.

    Returns:
        Splits in MMSA's fields: `text` `[1200, 1, 8]`, `audio`, `vision` `[1200, 1, 4]` float32,
        one frame, x in this order; `id` `subjNN$_$i`, `classification_labels` 0 or 1,
        `regression_labels` -1 or 1, `annotations`.
    """
    law = np.random.default_rng([seed, 0])
    size = sum(SIZES.values())
    centres = np.zeros((_KINDS, size))
    centres[:, 1:] = law.standard_normal((_KINDS, size - 1))
    centres *= _NORM / np.linalg.norm(centres, axis=1, keepdims=True)
    kinds = np.arange(3 * SUBJECTS) % _KINDS
    styles = centres[kinds] + _SPREAD * law.standard_normal((len(kinds), size))
    lean = np.where(kinds % 2 == 0, _LEAN, -_LEAN) if confounded else np.zeros(len(kinds))
    train, valid, test = np.split(np.arange(len(kinds)), 3)

    def part(stream: int, subjects: np.ndarray, sign: int, first: int = 0) -> dict:
        random = np.random.default_rng([seed, stream])
        subject = np.repeat(subjects, UTTERANCES)
        share = 0.5 + sign * lean[subject]
        labels = (random.random(len(subject)) < share).astype(np.int64)
        x = styles[subject] + random.standard_normal((len(subject), size))
        x[:, 0] += _SHIFT * (2 * labels - 1)
        parts = np.split(x.astype(np.float32)[:, None], np.cumsum(list(SIZES.values()))[:-1], 2)
        numbers = np.tile(np.arange(first, first + UTTERANCES), len(subjects))
        return dict(zip(MODALITIES, parts, strict=True)) | {
            "id": [f"subj{s:02d}$_${i}" for s, i in zip(subject, numbers, strict=True)],
            "classification_labels": labels.astype(np.float32),
            "regression_labels": (2 * labels - 1).astype(np.float32),
            "annotations": ["Positive" if y else "Negative" for y in labels],
        }

    return {
        "train": part(1, train, 1),
        "valid": part(2, valid, 1),
        "test": part(3, test, 0),
        "test_reversed": part(4, test, -1, first=UTTERANCES),
        "test_seen": part(5, train, 1, first=UTTERANCES),
    }


def write(folder: str | Path, seed: int, confounded: bool = True) -> Path:
    """Write `planted_subjects.pkl`, a pickle of protocol 4 in MMSA's layout; see `generate`.

    Args:
        folder: where to write; made if absent.
        seed: see `generate`.
        confounded: see `generate`.

    Returns:
        Path of the file.

    Raises:
        InputError: the folder or the file cannot be written.
    """
    return write_pickle(folder, "planted_subjects.pkl", generate(seed, confounded))
