"""Training step of CorrKD in torch, as one would write it there: eager or compiled, one seed."""

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Layer(nn.Module):
    """Pre-norm transformer layer, the four dropouts of the paper's preset."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Sequence `[batch, frames, width]` after attention and the feed-forward network."""
        batch, frames, width = x.shape
        qkv = self.query_key_value(self.norm_attention(x))
        q, k, v = qkv.view(batch, frames, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # the fused kernel where there is one for these shapes
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1 if self.training else 0.0)
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, frames, width))
        x = x + F.dropout(mixed, 0.1, self.training)
        y = F.relu(self.expand(self.norm_feed_forward(x)))
        y = self.contract(F.dropout(y, 0.1, self.training))
        return x + F.dropout(y, 0.1, self.training)


class Encoder(nn.Module):
    """Temporal convolution, positions, layers, norm, mean over time."""

    def __init__(self, size: int, width: int, layers: int, heads: int, frames: int):
        super().__init__()
        self.conv = nn.Conv1d(size, width, 3, padding=1)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        half = width // 2
        angles = torch.arange(frames)[:, None] * torch.exp(
            -math.log(10000.0) * torch.arange(half) / (half - 1)
        )
        self.register_buffer("positions", torch.cat([angles.sin(), angles.cos()], dim=1))
        self.scale = math.sqrt(width)

    def forward(self, x: Tensor) -> Tensor:
        """Mean over time, `[batch, width]`, of an encoded sequence `[batch, frames, size]`."""
        x = self.conv(x.transpose(1, 2)).transpose(1, 2) * self.scale + self.positions
        x = F.dropout(x, 0.25, self.training)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x).mean(dim=1)


class Network(nn.Module):
    """Network of CorrKD: joint features and logits."""

    def __init__(self, sizes: tuple[int, ...], classes: int, frames: int):
        super().__init__()
        width, layers, heads = 40, 4, 10
        self.encoders = nn.ModuleList(Encoder(s, width, layers, heads, frames) for s in sizes)
        self.hidden = nn.Linear(width * len(sizes), width * len(sizes))
        self.out = nn.Linear(width * len(sizes), classes)

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Joint features `[batch, width * modalities]` and logits `[batch, classes]`."""
        joint = torch.cat([e(x) for e, x in zip(self.encoders, inputs, strict=True)], dim=-1)
        hidden = F.dropout(F.relu(self.hidden(joint)), 0.1, self.training)
        return joint, self.out(joint + hidden)


def contrastive(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """SCD loss on unit rows, the mean over pairs.

    Args:
        student: `[batch, features]`.
        teacher: `[batch, features]`.
        margin: distance beyond which a negative no longer counts.

    Returns:
        Scalar.
    """
    count = len(student)
    student, teacher = F.normalize(student), F.normalize(teacher)
    matched = ((student - teacher) ** 2).sum(-1)
    crossed = torch.cdist(student, teacher)
    # no choice of entries by a mask, whose number a GPU would have to ask for
    away = 1 - torch.eye(count, device=student.device)
    pairs = matched[:, None] + F.relu(margin - crossed) ** 2
    return (away * pairs).sum() / (count * (count - 1))


def prototype(student: Tensor, teacher: Tensor, labels: Tensor, classes: int) -> Tensor:
    """CPD loss.

    Args:
        student: `[batch, features]`.
        teacher: `[batch, features]`.
        labels: `[batch]` integers.
        classes: number of classes.

    Returns:
        Scalar.
    """
    members = F.one_hot(labels, classes).to(student.dtype)
    counts = members.sum(0).clamp(min=1)[:, None]

    def cosines(features: Tensor) -> Tensor:
        centers = members.T @ features / counts
        return F.normalize(features) @ F.normalize(centers).T

    return ((cosines(student) - cosines(teacher)) ** 2).mean()


MODES = {"eager": None, "compiled": "default", "compiled, CUDA graphs": "reduce-overhead"}
"""How a step runs, and the mode of `torch.compile`, which takes all but the optimizer."""


def steps_timer(
    rows: int,
    frames: int,
    sizes: tuple[int, ...],
    batch: int,
    classes: int,
    device: str,
    mode: str = "eager",
) -> Callable[[int], float]:
    """Timer of training steps.

    Args:
        rows: number of rows of the data.
        frames: number of frames of each modality.
        sizes: numbers of features of the modalities.
        batch: number of rows a step.
        classes: number of classes.
        device: torch's name of the device.
        mode: one of `MODES`. On a GPU what is compiled computes in bfloat16 by autocast, as ours
            does; eager torch stays in float32, for the casts would cost it more than they save.

    Returns:
        A function that runs a number of steps and returns seconds a step.
    """
    torch.manual_seed(0)
    data = [torch.randn(rows, frames, size, device=device) for size in sizes]
    labels = torch.randint(classes, (rows,), device=device)
    teacher = Network(sizes, classes, frames).to(device).eval()
    student = Network(sizes, classes, frames).to(device).train()
    optimizer = torch.optim.Adam(student.parameters(), 4e-3)

    def objective(inputs: list[Tensor], y: Tensor) -> Tensor:
        with torch.no_grad():
            target, _ = teacher(inputs)
        masked = []
        for x in inputs:
            modality = torch.rand(batch, 1, 1, device=device) < 4 / 7
            frame = torch.rand(batch, frames, 1, device=device) >= 0.45
            masked.append(x * (modality & frame))
        joint, logits = student(masked)
        loss = F.cross_entropy(logits, y) + contrastive(joint, target, 1.2)
        return loss + prototype(joint, target, y, classes)

    if mode != "eager":
        objective = torch.compile(objective, mode=MODES[mode])
    lower = mode != "eager" and device != "cpu"

    def step(index: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=lower):
            loss = objective([x[index] for x in data], labels[index])
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 0.8)
        optimizer.step()

    def run(steps: int) -> float:
        order = torch.randperm(rows, device=device)
        blocks = order[: rows // batch * batch].view(-1, batch)
        if device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for number in range(steps):
            step(blocks[number % len(blocks)])
        if device != "cpu":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps

    return run
