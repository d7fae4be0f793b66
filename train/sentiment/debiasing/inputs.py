"""A de-biasing run's data: the file, and the columns that its method needs."""

import dataclasses
from pathlib import Path

import numpy as np

from configs.debias import DebiasConfig
from corrkd_jax.data import msa, planted_bias, subjects, words
from corrkd_jax.errors import InputError
from train.engine.parallel import compute_dtype
from train.sentiment import inputs
from train.sentiment.debiasing.dictionary import mean_features
from train.sentiment.inputs import Inputs


def load(config: DebiasConfig, training: bool = True) -> tuple[Inputs, int]:
    """Read a file; add the columns that the method needs.

    Args:
        config: of the run.
        training: without it subjects are left alone: a dictionary needs none of new rows.

    Returns:
        The sets, and the number of strata, 0 unless a method intervenes.

    Raises:
        InputError: see `corrkd_jax.data`; a file without words for the context term, rows without
            a subject, a single subject, a subject in train and in test.
    """
    dtype = compute_dtype("float32")
    loaded = inputs.load(config.data, dtype)
    dataset = loaded.dataset
    columns: dict[str, dict[str, np.ndarray]] = {
        name: {"index": np.arange(len(rows), dtype=np.int32)} for name, rows in loaded.sets.items()
    }
    strata = 0
    if config.debias == "mcis":
        rule, source = _content_rule(config, dataset)
        notes = (*dataset.notes, f"words: content are {source}")
        loaded = dataclasses.replace(loaded, dataset=dataclasses.replace(dataset, notes=notes))
        for name, split in dataset.splits.items():
            where = f"{dataset.source}: {name}"
            columns[name]["content"] = words.content_mask(split, rule, where)
    if config.debias == "suci" and training:
        strata, column = _strata(config, dataset, loaded)
        for name, own in column.items():
            columns[name]["subject"] = own
    sets = {
        name: dataclasses.replace(rows, more=columns[name]) for name, rows in loaded.sets.items()
    }
    return dataclasses.replace(loaded, sets=sets), strata


def check_data(config: DebiasConfig, loaded: Inputs) -> None:
    """Refuse data that the model or the search cannot use, before anything is trained.

    Raises:
        InputError: a search by scores where the labels are none; a model that moves every word by
            what is heard and seen with it, and frames that are not those of the words.
    """
    dataset, goal = loaded.dataset, config.mcis.objective
    if config.debias == "mcis" and goal in ("acc7", "neg_mae") and not loaded.task.has_scores:
        raise InputError(
            f"--mcis.objective {goal}: needs scores, and --data.labels {config.data.labels} has "
            "none; choose macro_f1, weighted_f1 or accuracy"
        )
    if config.model != "mag":
        return
    for name, split in dataset.splits.items():
        frames = {m: x.shape[1] for m, x in split.features.items()}
        for modality in ("audio", "vision"):
            if frames[modality] not in (1, frames["text"]):
                raise InputError(
                    f"{dataset.source}: {name}: {modality} has {frames[modality]} frames, text "
                    f"{frames['text']}; --model mag needs aligned data, or one frame an utterance"
                )


def _content_rule(config: DebiasConfig, dataset: msa.Dataset) -> tuple[words.Rule, str]:
    """The rule of content words, and what it takes for them."""
    where = f"{dataset.source}: train"
    if config.mcis.content == "tfidf":
        return words.tfidf(dataset.train, where), "words that TF-IDF gives a weight"
    if config.mcis.content == "bias_words":
        classes = msa.labels(dataset.train, "ternary", dataset.source)[0][:, 0]
        rule = words.keep_bias_words(dataset.train, classes, where)
        return rule, "all words but the most biased"
    if config.mcis.lexicon:
        return words.lexicon(config.mcis.lexicon), f"those of {config.mcis.lexicon}"
    if Path(dataset.source).name == "planted_bias.pkl":
        return words.lexicon(planted_bias.LEXICON), "the planted task's, by the file's name"
    return words.lexicon(), "those of a small English lexicon; --mcis.lexicon takes another"


def _strata(
    config: DebiasConfig, dataset: msa.Dataset, loaded: Inputs
) -> tuple[int, dict[str, np.ndarray]]:
    """Number of strata and the stratum of every row, -1 where it is not one of training's."""
    if config.data.clusters:
        from sklearn.cluster import KMeans

        means = {name: np.asarray(mean_features(rows.take())) for name, rows in loaded.sets.items()}
        if config.data.clusters > len(means["train"]):
            raise InputError(
                f"--data.clusters {config.data.clusters}: there are only {len(means['train'])} "
                "training rows"
            )
        model = KMeans(config.data.clusters, n_init=4, random_state=0).fit(means["train"])
        return config.data.clusters, {
            name: model.predict(x).astype(np.int32) for name, x in means.items()
        }
    names = subjects.all_subject_names(dataset, config.data.subjects or None)
    pairs = [("train", "test"), ("valid", "test")]
    if dataset.layout != "mustard" or config.data.folds or config.data.leave_out:
        # MUStARD has no part for validation: its reader takes rows, and so speakers, of training
        pairs.append(("train", "valid"))
    for pair in pairs:
        subjects.check_disjoint(dataset, names, pair)
    others = [name for name in names if name != "train"]
    known, numbers = subjects.encode(
        names["train"], *(names[name] for name in others), source=dataset.source
    )
    return len(known), dict(zip(["train", *others], numbers, strict=True))
