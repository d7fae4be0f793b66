"""Epoch of Fast-5 at CIFAR's size in plain torch, as one would write it there: eager, one seed.

WRN-40-2 teaches WRN-16-1: a call for images (five descents of a copy of the generator, FOMAML),
then steps of distillation on pooled ones.
"""

import copy
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
KEPT = 2560


class Block(nn.Module):
    """Pre-activation block; a shortcut of its own starts from the normalised input."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(before, width, 1, stride, bias=False) if before != width else None

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, before, height, width]` -> `[batch, width, height / stride, width / stride]`."""
        y = F.relu(self.norm1(x))
        x = x if self.shortcut is None else self.shortcut(y)
        return x + self.conv2(F.relu(self.norm2(self.conv1(y))))


class WideResNet(nn.Module):
    """Wide ResNet, WRN-depth-widen."""

    def __init__(self, depth: int, widen: int, classes: int = 10):
        super().__init__()
        self.stem, before = nn.Conv2d(3, 16, 3, 1, 1, bias=False), 16
        blocks = []
        for group in range(3):
            for number in range((depth - 4) // 6):
                width, stride = 16 * widen * 2**group, 2 if group and not number else 1
                blocks.append(Block(before, width, stride))
                before = width
        self.blocks, self.norm = nn.Sequential(*blocks), nn.BatchNorm2d(before)
        self.head = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[batch, classes]` of images `[batch, 3, 32, 32]`."""
        x = F.relu(self.norm(self.blocks(self.stem(x))))
        return self.head(x.mean((2, 3)))


class Generator(nn.Module):
    """Generator of Fast, with latents of 256."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(256, 128 * 8 * 8)
        self.maps = nn.Sequential(
            nn.BatchNorm2d(128),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 128, 3, 1, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 64, 3, 1, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 3, 3, 1, 1),
            nn.Sigmoid(),
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Images `[batch, 3, 32, 32]` in [0, 1] of latents `[batch, 256]`."""
        return self.maps(self.project(latents).view(-1, 128, 8, 8))


class Fast:
    """State and steps of Fast, from epoch to epoch."""

    def __init__(self, batch: int, device: str):
        self.batch, self.device = batch, device
        self.teacher = WideResNet(40, 2).to(device).eval().requires_grad_(False)
        self.student = WideResNet(16, 1).to(device)
        self.generator = Generator().to(device)
        self.meta = torch.optim.Adam(self.generator.parameters(), 5 * 3e-3, betas=(0.5, 0.999))
        self.sgd = torch.optim.SGD(self.student.parameters(), 0.2, 0.9, weight_decay=1e-4)
        self.pool = torch.zeros(KEPT, 3, 32, 32, dtype=torch.uint8, device=device)
        self.written = 0
        self.mean = torch.tensor(MEAN, device=device).view(3, 1, 1)
        self.std = torch.tensor(STD, device=device).view(3, 1, 1)
        self.norms = [m for m in self.teacher.modules() if isinstance(m, nn.BatchNorm2d)]
        self.remembered: list[tuple[Tensor, Tensor]] | None = None

    def shown(self, images: Tensor) -> Tensor:
        """Images cropped from four pixels of padding, mirrored and normalised.

        Args:
            images: `[batch, 3, 32, 32]`, in [0, 1].

        Returns:
            `[batch, 3, 32, 32]`.
        """
        padded = F.pad(images, (4, 4, 4, 4))
        corners = torch.randint(9, (len(images), 2)).tolist()
        crops = [x[:, i : i + 32, j : j + 32] for x, (i, j) in zip(padded, corners, strict=True)]
        cropped = torch.stack(crops)
        mirrored = torch.rand(len(images), 1, 1, 1, device=self.device) < 0.5
        return (torch.where(mirrored, cropped.flip(3), cropped) - self.mean) / self.std

    def call(self) -> None:
        """Synthesise a batch of images, pool the best, and update the generator by FOMAML."""
        targets = torch.randint(10, (self.batch,), device=self.device)
        latents = torch.randn(self.batch, 256, device=self.device, requires_grad=True)
        learner = copy.deepcopy(self.generator).train()
        groups = [{"params": learner.parameters(), "lr": 3e-3}, {"params": [latents], "lr": 0.01}]
        adam = torch.optim.Adam(groups, betas=(0.5, 0.999))
        self.student.eval()
        self.meta.zero_grad()
        least, best = float("inf"), None
        statistics: list[tuple[Tensor, Tensor]] = []

        def listen(_: nn.Module, inputs: tuple[Tensor], __: Tensor) -> None:
            x = inputs[0]
            statistics.append((x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)))

        hooks = [norm.register_forward_hook(listen) for norm in self.norms]
        for _ in range(5):
            statistics.clear()
            images = learner(latents)
            shown = self.shown(images)
            t, s = self.teacher(shown), self.student(shown)
            loss = 0.4 * F.cross_entropy(t, targets)
            if self.remembered is not None:
                pairs = zip(statistics, self.remembered, strict=True)
                statistics[:] = [
                    tuple(0.1 * new + 0.9 * old for new, old in zip(a, b, strict=True))
                    for a, b in pairs
                ]
            for norm, (mean, var) in zip(self.norms, statistics, strict=True):
                loss = loss + 10 * (norm.running_mean - mean).norm()
                loss = loss + 10 * (norm.running_var - var).norm()
            agree = (s.argmax(1) == t.argmax(1)).float()
            kl = F.kl_div(s.log_softmax(1), t.softmax(1), reduction="none").sum(1)
            loss = loss - 1.1 * (agree * kl).mean()
            if loss.item() < least:
                least, best = loss.item(), images.detach()
            adam.zero_grad()
            loss.backward()
            with torch.no_grad():
                for meta, x in zip(self.generator.parameters(), learner.parameters(), strict=True):
                    meta.grad = x.grad.clone() if meta.grad is None else meta.grad + x.grad
            adam.step()
        for hook in hooks:
            hook.remove()
        self.meta.step()
        self.remembered = [(mean.detach(), var.detach()) for mean, var in statistics]
        at = (self.written + torch.arange(self.batch)) % KEPT
        self.pool[at] = (255 * best.clamp(0, 1)).to(torch.uint8)
        self.written += self.batch

    def distil(self) -> None:
        """Train the student for one step on pooled images."""
        rows = torch.randint(min(self.written, KEPT), (self.batch,), device=self.device)
        shown = self.shown(self.pool[rows].float() / 255)
        with torch.no_grad():
            t = self.teacher(shown)
        s = self.student.train()(shown)
        loss = F.kl_div((s / 20).log_softmax(1), (t / 20).softmax(1), reduction="batchmean") * 400
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()


def epoch_timer(batch: int, steps: int, synthesis: bool, device: str) -> Callable[[], float]:
    """Timer of an epoch.

    Args:
        batch: number of images a step, and of a call.
        steps: number of steps of distillation.
        synthesis: begin with a call.
        device: torch's name of the device.

    Returns:
        A function that runs an epoch and returns its seconds.
    """
    torch.manual_seed(0)
    run = Fast(batch, device)
    run.call()

    def epoch() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        if synthesis:
            run.call()
        for _ in range(steps):
            run.distil()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return epoch
