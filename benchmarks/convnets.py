"""Convolutional networks as tables of layers, and one training step of them in each library, from the same weights.

A network is a tuple of the layers below. Every maker returns a function without arguments that does one step and
returns its loss before the update, as in `benchmarks.networks`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from benchmarks.networks import BETAS, EPSILON, MOMENTUM, Step, jax_optimizer

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Conv:
    """`out` channels, kernel size x size, padding size // 2, without bias (a Norm follows, or nothing needs one)."""

    out: int
    size: int = 3
    stride: int = 1


@dataclass(frozen=True)
class Norm:
    """Batch normalization, momentum 0.1, eps 1e-5."""


@dataclass(frozen=True)
class ReLU:
    pass


@dataclass(frozen=True)
class Pool:
    """The greatest of size x size."""

    size: int = 2


@dataclass(frozen=True)
class Mean:
    """The mean over the image."""


@dataclass(frozen=True)
class Dense:
    """A linear layer with bias, on the flattened image."""

    out: int


@dataclass(frozen=True)
class Residual:
    """body(x) + shortcut(x)."""

    body: tuple
    shortcut: tuple = ()


@dataclass(frozen=True)
class ConvNet:
    """Layers, and how they train. optimizer is "sgd" (with momentum 0.9) or "adam"."""

    name: str
    image: Shape
    layers: tuple
    batch: int
    optimizer: str
    learning_rate: float
    classes: int = 10

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """One batch: x (batch, h, w, c) float32 in [0, 1], y (batch,) int64; every class occurs."""
        rng = np.random.default_rng(2)
        x = rng.uniform(0, 1, (self.batch, *self.image)).astype(np.float32)
        return x, rng.permutation(np.arange(self.batch) % self.classes)

    def weights(self) -> list[list[np.ndarray]]:
        """Starting values of each layer that has some, in the order of `walk`, as He et al. (2015) have it."""
        rng = np.random.default_rng(1)
        found = []
        for layer, shape in walk(self.layers, self.image):
            if isinstance(layer, Conv):
                size = (layer.size, layer.size, shape[2], layer.out)
                found.append([_he(rng, size, prod(size[:3]))])
            elif isinstance(layer, Norm):
                found.append([np.ones(shape[2], np.float32), np.zeros(shape[2], np.float32)])
            elif isinstance(layer, Dense):
                found.append([_he(rng, (prod(shape), layer.out), prod(shape)), np.zeros(layer.out, np.float32)])
        return found

    @property
    def parameters(self) -> int:
        return sum(array.size for arrays in self.weights() for array in arrays)

    @property
    def flop(self) -> float:
        """Operations of convolutions and linear layers: forward, both gradients, but none for the first input."""
        total, first = 0.0, True
        for layer, shape in walk(self.layers, self.image):
            if isinstance(layer, (Conv, Dense)):
                taps = layer.size**2 * shape[2] if isinstance(layer, Conv) else prod(shape)
                once = 2.0 * self.batch * prod(result(layer, shape)) * taps
                total += once * (2 if first else 3)
                first = False
        return total

    @property
    def bytes(self) -> int:
        """What a step cannot avoid to move: weights and optimizer state read and written, the batch read, and each
        layer's result written, read, and read again for the gradient, which is written and read."""
        states = {"sgd": 1, "adam": 2}[self.optimizer]
        results = sum(prod(result(layer, shape)) for layer, shape in walk(self.layers, self.image))
        free = sum(prod(shape) for layer, shape in walk(self.layers, self.image) if isinstance(layer, ReLU))
        kept = self.batch * (5 * (results - free) + prod(self.image))
        return 4 * (2 * (1 + states) * self.parameters + kept)


def _he(rng: np.random.Generator, size: Shape, inputs: int) -> np.ndarray:
    bound = np.sqrt(6 / inputs)
    return rng.uniform(-bound, bound, size).astype(np.float32)


def result(layer, shape: Shape) -> Shape:
    """The shape that a layer makes of one image's shape."""
    if isinstance(layer, Conv):
        h, w = ((side - 1) // layer.stride + 1 for side in shape[:2])
        return (h, w, layer.out)
    if isinstance(layer, Pool):
        return (shape[0] // layer.size, shape[1] // layer.size, shape[2])
    if isinstance(layer, Residual):
        for inner in layer.body:
            shape = result(inner, shape)
        return shape
    return {Mean: shape[-1:], Dense: (getattr(layer, "out", 0),)}.get(type(layer), shape)


def with_inputs(layers: tuple, shape: Shape) -> Iterator[tuple[object, Shape]]:
    """The layers, each with the shape of its input."""
    for layer in layers:
        yield layer, shape
        shape = result(layer, shape)


def walk(layers: tuple, shape: Shape) -> Iterator[tuple[object, Shape]]:
    """As `with_inputs`, in depth: of a Residual its body, then its shortcut."""
    for layer, inside in with_inputs(layers, shape):
        if isinstance(layer, Residual):
            yield from walk(layer.body, inside)
            yield from walk(layer.shortcut, inside)
        else:
            yield layer, inside


def resnet20(width: int = 16) -> tuple:
    """Pre-activation ResNet-20 (He et al. 2016, arXiv 1603.05027) for small images."""
    layers: list = [Conv(width)]
    inputs = width
    for stage in range(3):
        channels = width << stage
        for _ in range(3):
            stride = 1 if inputs == channels else 2
            body = (Norm(), ReLU(), Conv(channels, 3, stride), Norm(), ReLU(), Conv(channels))
            layers.append(Residual(body, () if stride == 1 else (Conv(channels, 1, 2),)))
            inputs = channels
    return (*layers, Norm(), ReLU(), Mean(), Dense(10))


def resnet18(width: int = 64) -> tuple:
    """ResNet-18 (He et al. 2015) as it is used for images of 32 x 32: a 3 x 3 convolution first, and no pooling."""
    layers: list = [Conv(width), Norm(), ReLU()]
    inputs = width
    for stage in range(4):
        channels = width << stage
        for _ in range(2):
            stride = 1 if inputs == channels else 2
            body = (Conv(channels, 3, stride), Norm(), ReLU(), Conv(channels), Norm())
            layers += [Residual(body, () if stride == 1 else (Conv(channels, 1, 2), Norm())), ReLU()]
            inputs = channels
    return (*layers, Mean(), Dense(10))


CNN = ConvNet(
    "CNN 28x28x1, conv 32, conv 64, batch norm, pooling, batch 64, Adam",
    (28, 28, 1),
    (Conv(32), Norm(), ReLU(), Pool(), Conv(64), Norm(), ReLU(), Pool(), Dense(10)),
    batch=64,
    optimizer="adam",
    learning_rate=1e-3,
)
RESNET20 = ConvNet("ResNet-20 32x32x3, batch 64, SGD", (32, 32, 3), resnet20(), 64, "sgd", 0.01)


# ----------------------------------------------------------------------------------------------- nanonet


def nanonet_step(network: ConvNet, jit: bool = True, device: str = "cpu") -> Step:
    """The loop as in PyTorch, recorded, or eager."""
    import nanonet
    import nanonet.functional as F
    from nanonet import nn, optim

    weights = iter(network.weights())

    def module(layer, shape: Shape):
        if isinstance(layer, Conv):
            made = nn.Conv2d(shape[2], layer.out, layer.size, layer.stride, layer.size // 2, bias=False)
            (made.weight.data,) = next(weights)
        elif isinstance(layer, Norm):
            made = nn.BatchNorm2d(shape[2])
            made.weight.data, made.bias.data = next(weights)
        elif isinstance(layer, Dense):
            linear = nn.Linear(prod(shape), layer.out)
            linear.weight.data, linear.bias.data = next(weights)
            made = nn.Sequential(nn.Flatten(), linear)
        elif isinstance(layer, Residual):
            body = sequence(layer.body, shape)
            made = nn.Residual(body, sequence(layer.shortcut, shape) if layer.shortcut else None)
        else:
            made = {ReLU: nn.ReLU, Mean: nn.GlobalAvgPool2d, Pool: lambda: nn.MaxPool2d(layer.size)}[type(layer)]()
        return made

    def sequence(layers: tuple, shape: Shape):
        return nn.Sequential(*(module(*pair) for pair in with_inputs(layers, shape)))

    model = sequence(network.layers, network.image)
    model.to(device)
    if network.optimizer == "sgd":
        optimizer = optim.SGD(model.parameters(), lr=network.learning_rate, momentum=MOMENTUM)
    else:
        optimizer = optim.Adam(model.parameters(), lr=network.learning_rate, betas=BETAS, eps=EPSILON)

    def train(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    call = nanonet.jit(train) if jit else train
    return partial(call, *(nanonet.tensor(array, device=device) for array in network.data()))


# ----------------------------------------------------------------------------------------------- PyTorch


def torch_step(
    network: ConvNet,
    fused: bool = False,
    last: bool = False,
    wide: bool = False,
    device: str = "cpu",
    capturable: bool = False,
) -> Step:
    """PyTorch, eager. last: channels-last tensors; wide: in float64; capturable: by a CUDA graph."""
    import torch
    from torch import nn
    from torch.nn import functional

    weights = iter(network.weights())

    class Block(nn.Module):
        def __init__(self, body, shortcut):
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x):
            return self.body(x) + self.shortcut(x)

    def given(parameter, value) -> None:
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def module(layer, shape: Shape):
        if isinstance(layer, Conv):
            made = nn.Conv2d(shape[2], layer.out, layer.size, layer.stride, layer.size // 2, bias=False)
            given(made.weight, next(weights)[0].transpose(3, 2, 0, 1))
        elif isinstance(layer, Norm):
            made = nn.BatchNorm2d(shape[2])
            next(weights)
        elif isinstance(layer, Dense):
            linear = nn.Linear(prod(shape), layer.out)
            weight, bias = next(weights)
            if len(shape) == 3:  # the rows of an NHWC weight, in the order of NCHW
                weight = weight.reshape(*shape, -1).transpose(2, 0, 1, 3).reshape(weight.shape)
            given(linear.weight, weight.T)
            given(linear.bias, bias)
            made = nn.Sequential(nn.Flatten(), linear)
        elif isinstance(layer, Residual):
            body = sequence(layer.body, shape)
            made = Block(body, sequence(layer.shortcut, shape) if layer.shortcut else nn.Identity())
        elif isinstance(layer, Mean):
            made = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        else:
            made = nn.ReLU() if isinstance(layer, ReLU) else nn.MaxPool2d(layer.size)
        return made

    def sequence(layers: tuple, shape: Shape):
        return nn.Sequential(*(module(*pair) for pair in with_inputs(layers, shape)))

    layout = torch.channels_last if last else torch.contiguous_format
    dtype = torch.float64 if wide else torch.float32
    model = sequence(network.layers, network.image).to(device, dtype).to(memory_format=layout)
    if network.optimizer == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=network.learning_rate, momentum=MOMENTUM, fused=fused)
    else:
        rest = {"betas": BETAS, "eps": EPSILON, "fused": fused, "capturable": capturable}
        optimizer = torch.optim.Adam(model.parameters(), lr=network.learning_rate, **rest)
    x, y = (torch.from_numpy(array).to(device) for array in network.data())
    x = x.to(dtype).permute(0, 3, 1, 2).contiguous(memory_format=layout)

    def step():
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


# --------------------------------------------------------------------------------------------------- JAX


def jax_step(network: ConvNet) -> Step:
    """JAX, the whole step under jit, its state donated. Running statistics are kept as the others keep them."""
    import jax
    import jax.numpy as jnp

    tree = jax.tree_util.tree_map
    start, update = jax_optimizer(network)
    apply = _jax_network(network)

    def loss_of(params, x, y):
        scores, statistics = apply(params, x)
        log_p = jax.nn.log_softmax(scores)
        return -jnp.take_along_axis(log_p, y[:, None], 1).mean(), statistics

    @partial(jax.jit, donate_argnums=(0, 1))
    def train(state, running, x, y):
        (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(state[0], x, y)
        running = tree(lambda r, s: 0.9 * r + 0.1 * s, running, statistics)
        return update(state, gradients), running, loss

    state = start(network.weights())
    x, y = map(jnp.asarray, network.data())
    running = tree(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(apply, state[0], x)[1])

    def step():
        nonlocal state, running
        state, running, loss = train(state, running, x, y)
        return loss

    return step


def _jax_network(network: ConvNet) -> Callable:
    """apply(params, x): the scores, and mean and variance of each Norm."""
    import jax
    import jax.numpy as jnp

    def apply(params, x):
        params, statistics = iter(params), []

        def run(layers, x):
            for layer in layers:
                x = one(layer, x)
            return x

        def one(layer, x):
            if isinstance(layer, Conv):
                (w,) = next(params)
                padding = [(layer.size // 2,) * 2] * 2
                numbers = ("NHWC", "HWIO", "NHWC")
                return jax.lax.conv_general_dilated(x, w, (layer.stride,) * 2, padding, dimension_numbers=numbers)
            if isinstance(layer, Norm):
                weight, bias = next(params)
                mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
                statistics.append((mean, variance))
                return (x - mean) * (weight / jnp.sqrt(variance + 1e-5)) + bias
            if isinstance(layer, Dense):
                w, b = next(params)
                return x.reshape(len(x), -1) @ w + b
            if isinstance(layer, Residual):
                body = run(layer.body, x)
                return body + run(layer.shortcut, x)
            if isinstance(layer, Pool):
                window = (1, layer.size, layer.size, 1)
                return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
            return x.mean((1, 2)) if isinstance(layer, Mean) else jax.nn.relu(x)

        return run(network.layers, x), statistics

    return apply
