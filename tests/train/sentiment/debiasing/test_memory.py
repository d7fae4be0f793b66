"""What Self-MM remembers."""

import dataclasses

import jax
import numpy as np

from configs.debias import DebiasOptimizerConfig
from tests.train.sentiment.debiasing.stages import started
from train.sentiment.debiasing.arms import arms
from train.sentiment.debiasing.models import build_model
from train.sentiment.task import Task


def test_self_mm_makes_labels_from_the_second_epoch_on():
    task = Task("score", 1, ("sentiment",))
    stage, _, batch = started("self_mm", DebiasOptimizerConfig(batch_size=4))
    model = build_model(stage.config, task)
    stage = dataclasses.replace(stage, task=task, model=model)
    batch |= {"labels": np.array([[-2.0], [1], [3], [-1]]), "index": np.arange(4)}
    hyper = jax.tree.map(np.float32, next(iter(arms(stage.config, 0).values())))
    state = stage.init(jax.random.key(0), batch, hyper, {})
    state = stage.refresh(state, {"train": batch}, jax.random.key(0), {}, 0)
    step = jax.jit(stage.step)
    for epoch in (1, 2):
        state, _ = step(state, batch, jax.random.key(epoch))
        for name in ("text", "audio", "vision"):
            same = np.allclose(state.tables.labels[name], batch["labels"][:, 0])
            assert same == (epoch == 1)
