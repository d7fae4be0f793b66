"""Batches of padded sequences, and MMSA's models that take their text as features."""

from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

LENGTHS = {
    "text": np.array([5, 3, 1, 4]),
    "audio": np.array([7, 2, 5, 1]),
    "vision": np.array([4, 4, 6, 2]),
}
"""Valid frames; no modality's are another's."""

TIME = {name: int(lengths.max()) for name, lengths in LENGTHS.items()}


def sample(widths, lengths=LENGTHS, time=TIME, seed=0):
    """Inputs of random numbers, the padding at the end being zeros, and which frames are real."""
    rng = np.random.default_rng(seed)
    valid = {name: np.arange(time[name]) < lengths[name][:, None] for name in widths}
    inputs = {
        name: rng.normal(size=(len(mask), time[name], widths[name])).astype(np.float32)
        * mask[..., None]
        for name, mask in valid.items()
    }
    return inputs, valid


def random_variables(model, inputs, valid, seed=0):
    """Variables of a model, all of them random: its own initialisation takes long to compile."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs, valid)
    return jax.tree.map(lambda x: rng.normal(scale=0.5, size=x.shape).astype(x.dtype), shapes)


def padded_in_front(inputs, valid, frames=2, garbage=0.0):
    """The same frames after `frames` more of padding and before another one, all `garbage`."""

    def longer(x, fill):
        around = [(0, 0), (frames, 1)] + [(0, 0)] * (x.ndim - 2)
        return np.pad(x, around, constant_values=fill)

    valid = {name: longer(mask, False) for name, mask in valid.items()}
    inputs = {
        name: np.where(valid[name][..., None], longer(x, 0), np.float32(garbage))
        for name, x in inputs.items()
    }
    return inputs, valid


def build_oracle(module: ModuleType, name: str, args: SimpleNamespace) -> Any:
    """A model of MMSA's with random weights everywhere, whose text goes through no BERT.

    Its text encoder gives what its attribute `given` holds; see `text_of`.
    """
    torch = pytest.importorskip("torch")

    class Given(torch.nn.Module):
        def __init__(self, **unused):
            super().__init__()

        def forward(self, text):
            return self.given

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BertTextEncoder", Given)
        torch.manual_seed(0)
        model = getattr(module, name)(args).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def text_of(model: Any, features: np.ndarray, valid: np.ndarray) -> Any:
    """MMSA's `text` argument, ids and masks, after its encoder was given the features."""
    torch = pytest.importorskip("torch")
    encoder = next(part for part in model.children() if type(part).__name__ == "Given")
    encoder.given = torch.tensor(features)
    mask = torch.tensor(valid, dtype=torch.float32)
    return torch.stack([torch.zeros_like(mask), mask, torch.zeros_like(mask)], dim=1)


def state_of(model: Any) -> dict[str, np.ndarray]:
    return {name: x.numpy() for name, x in model.state_dict().items()}


def gradients_of(model: Any) -> dict[str, np.ndarray]:
    """Gradients by the names of the weights, zeros where there is none.

    An LSTM has two biases for one of ours, with the same gradient: one of them is kept.
    """
    return {
        name: np.zeros(p.shape, np.float32)
        if p.grad is None or "bias_hh" in name
        else p.grad.numpy()
        for name, p in model.named_parameters()
    }
