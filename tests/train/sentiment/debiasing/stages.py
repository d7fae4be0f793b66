"""A small stage of a base model, its first state and a batch, as its tests begin."""

import jax
import numpy as np

from configs.debias import DebiasConfig
from train.sentiment.debiasing.arms import arms
from train.sentiment.debiasing.basemodel import BaseStage
from train.sentiment.debiasing.models import build_model
from train.sentiment.task import Task

TASK = Task("classes", 2, ("sentiment",))


def started(model, optimizer, preset="mosi", steps=1):
    """A stage of two classes, its first state, and a batch of four rows."""
    config = DebiasConfig(model=model, small=True, optimizer=optimizer)
    stage = BaseStage(config, preset, TASK, build_model(config, TASK), 0, steps, None)
    random = np.random.default_rng(0)
    batch = {
        "inputs": {m: random.normal(size=(4, 3, 5)) for m in ("text", "audio", "vision")},
        "valid": {m: np.ones((4, 3), bool) for m in ("text", "audio", "vision")},
        "labels": np.array([[0], [1], [1], [0]]),
        "label_weight": np.ones((4, 1), np.float32),
        "row": np.ones(4, np.float32),
    }
    hyper = jax.tree.map(np.float32, next(iter(arms(config, 0).values())))
    return stage, stage.init(jax.random.key(0), batch, hyper, {}), batch
