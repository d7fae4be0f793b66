"""Which model of a de-biasing run is exported, and with which coefficients."""

from types import SimpleNamespace

import numpy as np
import pytest

from configs.debias import DebiasConfig
from train.sentiment.debiasing import export
from train.sentiment.debiasing.counterfactual import BOTH, LABEL, VANILLA
from train.sentiment.task import Task


@pytest.mark.parametrize(("seed", "number"), [(0, 0), (7, 0), (8, 1)])
def test_coefficients_are_those_of_the_seed_and_the_row(seed, number):
    asked = []
    pairs = {name: np.array([[k, 0.1], [k, 0.2]]) for k, name in enumerate((VANILLA, LABEL, BOTH))}
    run = SimpleNamespace(
        config=DebiasConfig(model="pooled", debias="mcis", seeds=2, first_seed=7),
        task=Task("binary", 2, ("sentiment",)),
        arms=("Pooled",),
        rows=tuple(pairs),
        coefficients=pairs,
        one=lambda arm, seed: asked.append((arm, seed)) or {},
        shapes=dict.fromkeys(("text", "audio", "vision"), (4, 2)),
        preset="x",
    )
    for row, k in ((LABEL, 1), ("", 2)):
        metadata = export.exportable(run, row, seed).metadata
        assert metadata["coefficients"] == pytest.approx([k, 0.1 * (1 + number)])
        assert metadata["seed"] == 7 + number
    assert asked == [("Pooled", seed)] * 2
