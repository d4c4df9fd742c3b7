"""Well-known convolutional networks for images (n, height, width, channels), made of the layers of `nanonet.nn`.

model = models.resnet20(classes=10, channels=3)
scores = model(x)                                   # (n, classes)

width multiplies the number of channels (and of hidden units) of a network; rng is a seed or a generator for its
initial weights.
"""

from __future__ import annotations

import numpy as np

from nanonet import nn
from nanonet.errors import OptionError
from nanonet.options import count, number
from nanonet.random import as_generator

__all__ = ["alexnet", "lenet", "resnet18", "resnet20", "vgg"]

Rng = np.random.Generator | int | None


def lenet(classes: int = 10, channels: int = 1, size: int = 28, rng: Rng = None) -> nn.Sequential:
    """LeNet-5 (LeCun et al. 1998, figure 2), with mean pooling, for images of size x size, at least 12.

    Its radial basis functions at the end are a linear layer, as is usual.
    """
    rng = as_generator(rng)
    left = (count("lenet: size", size, 12) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2, rng=rng),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5, rng=rng),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(left * left * 16, 120, rng=rng),
        nn.Tanh(),
        nn.Linear(120, 84, rng=rng),
        nn.Tanh(),
        nn.Linear(84, classes, rng=rng),
    )


def alexnet(
    classes: int = 1000, channels: int = 3, width: float = 1.0, dropout: float = 0.5, rng: Rng = None
) -> nn.Sequential:
    """AlexNet (Krizhevsky et al. 2012) as on one device (Krizhevsky 2014), for images of at least 63 x 63."""
    rng = as_generator(rng)
    a, b, c, d, hidden = _scaled(width, 64, 192, 384, 256, 4096)
    return nn.Sequential(
        nn.Conv2d(channels, a, 11, stride=4, padding=2, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(a, b, 5, padding=2, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(b, c, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.Conv2d(c, d, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.Conv2d(d, d, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d(6),
        nn.Flatten(),
        nn.Dropout(dropout, rng=rng),
        nn.Linear(36 * d, hidden, rng=rng),
        nn.ReLU(),
        nn.Dropout(dropout, rng=rng),
        nn.Linear(hidden, hidden, rng=rng),
        nn.ReLU(),
        nn.Linear(hidden, classes, rng=rng),
    )


def vgg(
    classes: int = 10,
    channels: int = 3,
    widths: tuple[int, ...] = (64, 128, 256),
    depth: int = 2,
    batch_norm: bool = True,
    dropout: float = 0.0,
    rng: Rng = None,
) -> nn.Sequential:
    """A network in the style of VGG (Simonyan & Zisserman 2015): for each width `depth` 3 x 3 convolutions, then
    max pooling by 2; at the end the mean of each channel, dropout and a linear layer.

    For images of at least 2^len(widths) pixels a side.
    """
    rng = as_generator(rng)
    if not widths:
        raise OptionError("vgg: widths is (); wanted at least one width")
    layers: list[nn.Module] = []
    for width in widths:
        for _ in range(count("vgg: depth", depth)):
            layers.append(
                nn.Conv2d(channels, width, 3, padding=1, bias=not batch_norm, weight_init="he_normal", rng=rng)
            )
            layers += [nn.BatchNorm2d(width), nn.ReLU()] if batch_norm else [nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Dropout(dropout, rng=rng)] if dropout else []
    return nn.Sequential(*layers, nn.GlobalAvgPool2d(), *head, nn.Linear(channels, classes, rng=rng))


def resnet20(classes: int = 10, channels: int = 3, width: float = 1.0, rng: Rng = None) -> nn.Sequential:
    """The residual network of 20 layers for small images (He et al. 2016a, section 4.2), with normalization and ReLU
    before each convolution (He et al. 2016b, "Identity mappings in deep residual networks").

    Shortcuts to more channels are 1 x 1 convolutions.
    """
    rng = as_generator(rng)
    widths = _scaled(width, 16, 32, 64)
    layers: list[nn.Module] = [_conv(channels, widths[0], 3, 1, rng)]
    before = widths[0]
    for stage, now in enumerate(widths):
        for block in range(3):
            stride = 2 if stage and not block else 1
            body = nn.Sequential(
                nn.BatchNorm2d(before),
                nn.ReLU(),
                _conv(before, now, 3, stride, rng),
                nn.BatchNorm2d(now),
                nn.ReLU(),
                _conv(now, now, 3, 1, rng),
            )
            layers.append(nn.Residual(body, _conv(before, now, 1, stride, rng) if before != now else None))
            before = now
    head = nn.Linear(before, classes, rng=rng)
    return nn.Sequential(*layers, nn.BatchNorm2d(before), nn.ReLU(), nn.GlobalAvgPool2d(), head)


def resnet18(classes: int = 1000, channels: int = 3, width: float = 1.0, rng: Rng = None) -> nn.Sequential:
    """The residual network of 18 layers (He et al. 2016a, table 1), for images of at least 32 x 32 or so."""
    rng = as_generator(rng)
    widths = _scaled(width, 64, 128, 256, 512)
    before = widths[0]
    layers = [_conv(channels, before, 7, 2, rng), nn.BatchNorm2d(before), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for stage, now in enumerate(widths):
        for block in range(2):
            stride = 2 if stage and not block else 1
            body = nn.Sequential(
                _conv(before, now, 3, stride, rng),
                nn.BatchNorm2d(now),
                nn.ReLU(),
                _conv(now, now, 3, 1, rng),
                nn.BatchNorm2d(now),
            )
            shortcut = None
            if stride != 1 or before != now:
                shortcut = nn.Sequential(_conv(before, now, 1, stride, rng), nn.BatchNorm2d(now))
            layers.append(nn.Residual(body, shortcut, activation="relu"))
            before = now
    return nn.Sequential(*layers, nn.GlobalAvgPool2d(), nn.Linear(before, classes, rng=rng))


def _conv(inputs: int, outputs: int, size: int, stride: int, rng: np.random.Generator) -> nn.Conv2d:
    """A convolution that keeps the image's size, but for the stride, before or after a normalization."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False, weight_init="he_normal", rng=rng)


def _scaled(width: float, *channels: int) -> tuple[int, ...]:
    number("width", width, "(0, inf)")
    return tuple(max(1, round(c * width)) for c in channels)
