"""Image networks of published repositories, rebuilt in torch, as oracles of the Flax ones."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d, relu


def randomised(module):
    """The module with running statistics and scales that nobody could mistake for initial ones."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, x in module.state_dict().items():
            if name.endswith("running_mean"):
                x.normal_(0, 0.3)
            elif name.endswith("running_var") or (x.ndim == 1 and name.endswith("weight")):
                x.uniform_(0.5, 1.5)
    return module


def arrays(module):
    return {name: x.detach().numpy().copy() for name, x in module.state_dict().items()}


def channels_first(x):
    return torch.tensor(np.moveaxis(x, -1, 1))


def conv(features_in, features, kernel=3, stride=1, bias=False, groups=1):
    return nn.Conv2d(features_in, features, kernel, stride, kernel // 2, groups=groups, bias=bias)


def mean(x):
    return adaptive_avg_pool2d(x, 1).flatten(1)


class ResidualBlock(nn.Module):
    def __init__(self, features_in, width, stride, bottleneck, shortcut):
        super().__init__()
        shapes = [(width, 3, stride), (width, 3, 1)]
        if bottleneck:
            shapes = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
        self.units, features = len(shapes), features_in
        for i, (out, kernel, step) in enumerate(shapes, 1):
            self.add_module(f"conv{i}", conv(features, out, kernel, step))
            self.add_module(f"bn{i}", nn.BatchNorm2d(out))
            features = out
        self.changed = None
        if stride != 1 or features_in != features:
            self.changed = shortcut
            other = nn.Sequential(conv(features_in, features, 1, stride), nn.BatchNorm2d(features))
            self.add_module(shortcut, other)
        self.features = features

    def forward(self, x):
        y = x
        for i in range(1, self.units + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.units:
                y = relu(y)
        return relu(y + (getattr(self, self.changed)(x) if self.changed else x))


class ResNet(nn.Module):
    def __init__(self, classes, depth, stem, width):
        super().__init__()
        cifar = stem == "cifar"
        self.pools = not cifar
        self.conv1 = conv(3, width, 3) if cifar else conv(3, width, 7, 2)
        self.bn1 = nn.BatchNorm2d(width)
        features = width
        for stage, count in enumerate({18: (2, 2, 2, 2)}.get(depth, (3, 4, 6, 3))):
            blocks = []
            for i in range(count):
                stride = 2 if stage and not i else 1
                shortcut = "shortcut" if cifar else "downsample"
                args = width * 2**stage, stride, depth == 50, shortcut
                blocks.append(ResidualBlock(features, *args))
                features = blocks[-1].features
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.head = "linear" if cifar else "fc"
        self.add_module(self.head, nn.Linear(features, classes))

    def forward(self, x):
        x = relu(self.bn1(self.conv1(x)))
        if self.pools:
            x = max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return getattr(self, self.head)(mean(x)), mean(x)


class WideBlock(nn.Module):
    def __init__(self, features_in, features, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(features_in)
        self.conv1 = conv(features_in, features, 3, stride)
        self.bn2 = nn.BatchNorm2d(features)
        self.conv2 = conv(features, features)
        self.convShortcut = None
        if features_in != features:
            self.convShortcut = conv(features_in, features, 1, stride)

    def forward(self, x):
        y = relu(self.bn1(x))
        if self.convShortcut is not None:
            x = self.convShortcut(y)
        return x + self.conv2(relu(self.bn2(self.conv1(y))))


class WideResNet(nn.Module):
    def __init__(self, classes, depth, widen):
        super().__init__()
        self.conv1, features = conv(3, 16), 16
        for group in range(3):
            block, out = nn.Module(), 16 * widen * 2**group
            block.layer = nn.Sequential(
                *(
                    WideBlock(out if i else features, out, 2 if group and not i else 1)
                    for i in range((depth - 4) // 6)
                )
            )
            features = out
            self.add_module(f"block{group + 1}", block)
        self.bn1 = nn.BatchNorm2d(features)
        self.fc = nn.Linear(features, classes)

    def forward(self, x):
        x = self.block3.layer(self.block2.layer(self.block1.layer(self.conv1(x))))
        features = mean(relu(self.bn1(x)))
        return self.fc(features), features


class VGG(nn.Module):
    def __init__(self, classes, groups):
        super().__init__()
        features = 3
        for i, widths in enumerate(groups):
            layers = []
            for out in widths:
                layers += [conv(features, out, bias=True), nn.BatchNorm2d(out), nn.ReLU()]
                features = out
            self.add_module(f"block{i}", nn.Sequential(*layers[:-1]))
        self.classifier = nn.Linear(features, classes)

    def forward(self, x):
        tall = x.shape[2] == 64
        for i in range(5):
            x = relu(getattr(self, f"block{i}")(x))
            if i < 3 or (i == 3 and tall):
                x = max_pool2d(x, 2)
        return self.classifier(mean(x)), mean(x)


def activated(features_in, features, kernel, stride=1, groups=1):
    return nn.Sequential(
        conv(features_in, features, kernel, stride, groups=groups),
        nn.BatchNorm2d(features),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    def __init__(self, features_in, features, stride, expansion):
        super().__init__()
        hidden = features_in * expansion
        layers = [activated(features_in, hidden, 1)] if expansion != 1 else []
        layers += [
            activated(hidden, hidden, 3, stride, hidden),
            conv(hidden, features, 1),
            nn.BatchNorm2d(features),
        ]
        self.conv = nn.Sequential(*layers)
        self.adds = stride == 1 and features_in == features

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    """Of a quarter of the width, whose channels are written out."""

    channels = (8, 8, 8, 16, 24, 40, 80)

    def __init__(self, classes):
        super().__init__()
        features, layers = 8, [activated(3, 8, 3, 2)]
        counts, strides = (1, 2, 3, 4, 3, 3, 1), (1, 2, 2, 2, 1, 2, 1)
        for out, count, stride in zip(self.channels, counts, strides, strict=True):
            for i in range(count):
                expansion = 1 if len(layers) == 1 else 6
                layers.append(InvertedResidual(features, out, 1 if i else stride, expansion))
                features = out
        self.features = nn.Sequential(*layers, activated(features, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x):
        features = mean(self.features(x))
        return self.classifier[1](features), features


class LeNet(nn.Module):
    def __init__(self, widths, numbered):
        super().__init__()
        a, b, c, hidden = widths
        layers = [nn.Conv2d(1, a, 5), nn.Conv2d(a, b, 5), nn.Conv2d(b, c, 5)]
        layers += [nn.Linear(c, hidden), nn.Linear(hidden, 10)]
        named = ("conv1", "conv2", "conv3", "fc1", "fc2")
        if numbered:
            self.features, self.fc = nn.Module(), nn.Module()
            for i, layer in zip((0, 3, 6), layers[:3], strict=True):
                self.features.add_module(str(i), layer)
            for i, layer in zip((0, 2), layers[3:], strict=True):
                self.fc.add_module(str(i), layer)
        else:
            for name, layer in zip(named, layers, strict=True):
                self.add_module(name, layer)

    def forward(self, x):
        conv1, conv2, conv3, hidden, last = [
            m for m in self.modules() if isinstance(m, nn.Conv2d | nn.Linear)
        ]
        x = max_pool2d(relu(conv1(x)), 2)
        x = relu(conv3(max_pool2d(relu(conv2(x)), 2))).flatten(1)
        return last(relu(hidden(x))), x


def up():
    return nn.Upsample(scale_factor=2)


def slope():
    return nn.LeakyReLU(0.2)


class Generator(nn.Module):
    """Of zju-vipa's names; `normalized` is the end of DAFL's own."""

    def __init__(self, latent, size, widths, normalized=False, bias=False, epsilon=1e-5):
        super().__init__()
        a, b, c = widths
        self.shape = a, size // 4, size // 4
        self.l1 = nn.Sequential(nn.Linear(latent, a * (size // 4) ** 2))
        inner = [up(), conv(a, b, bias=bias), nn.BatchNorm2d(b, epsilon), slope()]
        inner += [up(), conv(b, c, bias=bias), nn.BatchNorm2d(c, epsilon), slope()]
        end = [nn.Tanh(), nn.BatchNorm2d(3, affine=False)] if normalized else [nn.Sigmoid()]
        self.conv_blocks = nn.Sequential(nn.BatchNorm2d(a), *inner, conv(c, 3, bias=True), *end)

    def forward(self, latents):
        return self.conv_blocks(self.l1(latents).unflatten(1, self.shape))


class TransposedGenerator(nn.Module):
    def __init__(self, latent, size, width):
        super().__init__()
        self.shape = 8 * width, size // 16, size // 16
        self.project = nn.Sequential(nn.Flatten(), nn.Linear(latent, 8 * width * (size // 16) ** 2))
        layers, features = [nn.BatchNorm2d(8 * width)], 8 * width
        for out in (4 * width, 2 * width, width, width):
            layers += [
                nn.ConvTranspose2d(features, out, 4, 2, 1, bias=False),
                nn.BatchNorm2d(out),
                slope(),
            ]
            features = out
        self.main = nn.Sequential(*layers, conv(width, 3, bias=True), nn.Sigmoid())

    def forward(self, latents):
        return self.main(self.project(latents).unflatten(1, self.shape))


class DeepGenerator(nn.Module):
    def __init__(self, latent, width):
        super().__init__()
        self.l1 = nn.Sequential(nn.Linear(latent, 3))
        layers, features = [], latent
        for i, out in enumerate((2 * width, 2 * width, width, width, width)):
            layers += [up()] if i else []
            layers += [conv(features, out), nn.BatchNorm2d(out), slope()]
            features = out
        self.conv_blocks = nn.Sequential(*layers, conv(width, 3, bias=True), nn.Sigmoid())

    def forward(self, latents):
        return self.conv_blocks(latents)


class PatchCritic(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            slope(),
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            slope(),
            conv(2 * width, 1, 1),
        )

    def forward(self, images):
        return self.main(images)[:, 0]
