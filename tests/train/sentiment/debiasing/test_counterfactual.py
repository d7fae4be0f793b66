"""Coefficients of MCIS."""

import numpy as np

from configs.debias import McisConfig
from tests.train.sentiment.debiasing.stages import TASK
from train.sentiment.debiasing import counterfactual
from train.sentiment.debiasing.counterfactual import BOTH, CONTEXT, LABEL, VANILLA, Outputs
from train.sentiment.results import Truth
from train.sentiment.task import Task


class TestSearch:
    """The choice of coefficients sees validation alone."""

    def parts(self, seed=0, n=60):
        random = np.random.default_rng(seed)
        classes = random.integers(0, 2, (n, 1))
        truth = Truth(TASK, classes, np.ones((n, 1), np.float32), None)
        bias = random.standard_normal((2, n, 2)).astype(np.float32)
        factual = np.eye(2, dtype=np.float32)[classes[:, 0]] * 0.8 + bias
        return Outputs(factual, np.zeros((2, 2), np.float32), bias), truth

    def test_finds_the_planted_coefficient(self):
        outputs, truth = self.parts()
        found = counterfactual.search(McisConfig(), {"valid": (outputs, truth)}, TASK)
        assert np.abs(found[BOTH][:, 1] - 1).max() <= 0.5
        assert not found[VANILLA].any()
        assert not found[LABEL][:, 1].any()
        assert not found[CONTEXT][:, 0].any()
        clean = counterfactual.purified(outputs, found[BOTH])
        right = (clean.argmax(-1) == truth.classes[:, 0]).mean()
        assert right > (outputs.factual.argmax(-1) == truth.classes[:, 0]).mean()

    def test_balanced_counts_classes_alike(self):
        classes = np.array([[1], [1], [1], [0]])
        truth = Truth(TASK, classes, np.ones((4, 1), np.float32), None)
        always = np.tile(np.array([0.0, 1], np.float32), (4, 1))
        for balanced, expected in ((False, 0.75), (True, 0.5)):
            score = counterfactual.objective("accuracy", truth, TASK, balanced)
            np.testing.assert_allclose(score(always), expected, rtol=1e-6)
        outputs, truth = self.parts()
        found = counterfactual.search(McisConfig(), {"valid": (outputs, truth)}, TASK)
        assert counterfactual.BALANCED in found

    def test_scores_are_judged_by_their_distance(self):
        task = Task("score", 1, ("sentiment",))
        scores = np.array([-2.0, 0, 1.4], np.float32)
        truth = Truth(task, np.array([[0], [0], [1]]), np.array([[1.0], [0], [1]]), scores)
        near, far = scores[:, None] + 0.5, scores[:, None] + 1.5
        for name, of_near, of_far in (
            ("neg_mae", -0.5, -1.5),
            # rounded half to even: -2, 0, 2 against -2, 0, 1
            ("acc7", 2 / 3, 0),
            # zeros count, as not negative
            ("accuracy", 1, 1),
        ):
            score = counterfactual.objective(name, truth, task)
            np.testing.assert_allclose([score(near), score(far)], [of_near, of_far], atol=1e-6)

    def test_without_words_only_the_label_term(self):
        outputs, truth = self.parts()
        outputs = Outputs(outputs.factual, outputs.label_bias)
        found = counterfactual.search(McisConfig(), {"valid": (outputs, truth)}, TASK)
        assert CONTEXT not in found
        assert BOTH not in found
        np.testing.assert_array_equal(
            counterfactual.purified(outputs, found[VANILLA]), outputs.factual
        )
