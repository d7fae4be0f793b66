"""Base models from options."""

from train.sentiment.debiasing.models import MODELS, network_options


def test_network_options_take_the_attributes_type():
    options = ["hidden=(8, 4)", "text_width=3", "bounded=True"]
    found = network_options(options, MODELS["pooled"], "pooled")
    assert found == {"hidden": (8, 4), "text_width": 3, "bounded": True}
