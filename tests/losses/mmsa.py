"""Trainers of the MMSA package as oracles of losses, without what only their loops need."""

import sys
from types import ModuleType
from unittest.mock import MagicMock

import pytest

from tests.models import mmsa


def load_trainer(name: str) -> ModuleType:
    """A module of MMSA's trainers, such as `multiTask.SELF_MM`, or a skip without MMSA."""
    with pytest.MonkeyPatch.context() as patch:
        # metrics, which the losses do not touch, and the bar of progress
        for unused in ("mmsa_oracle.utils", "tqdm"):
            patch.setitem(sys.modules, unused, MagicMock())
        return mmsa.load(f"trains.{name}")
