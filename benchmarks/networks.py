"""One and the same training step in each library, from the same weights on the same batch.

Every maker returns a function without arguments that does one step and returns its loss, before the update; `float` of
that loss waits until the step is done. `reference` does it in plain NumPy and float64: the answer that others are
checked against.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

Step = Callable[[], Any]
Weights = list[tuple[np.ndarray, np.ndarray]]
"""(weight (in, out), bias (out,)) of each layer, float32."""

MOMENTUM = 0.9
BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Network:
    """A multi-layer perceptron with ReLU between its layers and softmax cross-entropy at the end, and how it trains.

    optimizer is "sgd" (with momentum 0.9) or "adam".
    """

    name: str
    widths: tuple[int, ...]
    batch: int
    optimizer: str
    learning_rate: float

    def weights(self) -> Weights:
        """Starting values, uniform as He et al. (2015) have it; biases are zero."""
        rng = np.random.default_rng(1)
        bounds = [(a, b, np.sqrt(6 / a)) for a, b in pairwise(self.widths)]
        return [(rng.uniform(-s, s, (a, b)).astype(np.float32), np.zeros(b, np.float32)) for a, b, s in bounds]

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """One batch: x (batch, inputs) float32 in [0, 1], y (batch,) int64; every class occurs."""
        rng = np.random.default_rng(2)
        x = rng.uniform(0, 1, (self.batch, self.widths[0])).astype(np.float32)
        return x, rng.permutation(np.arange(self.batch) % self.widths[-1])

    @property
    def parameters(self) -> int:
        return sum(a * b + b for a, b in pairwise(self.widths))

    @property
    def flop(self) -> float:
        """Operations of the matrix products: forward, weight gradients, and input gradients but for the first layer."""
        products = [2.0 * self.batch * a * b for a, b in pairwise(self.widths)]
        return 3 * sum(products) - products[0]

    @property
    def bytes(self) -> int:
        """What a step cannot avoid to move: weights and optimizer state read and written, the batch read."""
        states = {"sgd": 1, "adam": 2}[self.optimizer]
        return 4 * (2 * (1 + states) * self.parameters + self.batch * self.widths[0])


def losses(step: Step, count: int) -> list[float]:
    """The losses of the next `count` steps."""
    return [float(step()) for _ in range(count)]


def repeated(step: Step) -> Callable[[int], None]:
    """The step as a candidate for `harness.interleave`: it waits for the last loss."""

    def run(times: int) -> None:
        for _ in range(times):
            loss = step()
        float(loss)

    return run


# ---------------------------------------------------------------------------------------------- reference


def reference(network: Network) -> Step:
    """Plain NumPy, float64."""
    x, y = network.data()
    x = x.astype(np.float64)
    params = [p.astype(np.float64) for pair in network.weights() for p in pair]
    states = [[np.zeros_like(p) for p in params] for _ in BETAS]
    rows, t = np.arange(len(y)), 0

    def step() -> float:
        nonlocal t
        t += 1
        inputs = [x]
        for w, b in zip(params[:-2:2], params[1:-2:2]):
            inputs.append(np.maximum(inputs[-1] @ w + b, 0))
        scores = inputs[-1] @ params[-2] + params[-1]
        log_p = scores - scores.max(1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))

        g = np.exp(log_p)
        g[rows, y] -= 1
        g /= len(y)
        gradients = []
        for layer in reversed(range(len(inputs))):
            gradients[:0] = [inputs[layer].T @ g, g.sum(0)]
            g = (g @ params[2 * layer].T) * (inputs[layer] > 0)

        for p, d, m, v in zip(params, gradients, *states):
            if network.optimizer == "sgd":
                m[...] = MOMENTUM * m + d
                p -= network.learning_rate * m
            else:
                m[...] = BETAS[0] * m + (1 - BETAS[0]) * d
                v[...] = BETAS[1] * v + (1 - BETAS[1]) * d * d
                p -= network.learning_rate * (m / (1 - BETAS[0] ** t)) / (np.sqrt(v / (1 - BETAS[1] ** t)) + EPSILON)
        return -log_p[rows, y].mean()

    return step


# ----------------------------------------------------------------------------------------------- nanonet


def nanonet_step(network: Network, jit: bool = True, device: str = "cpu") -> Step:
    """The loop as in PyTorch, recorded, or eager."""
    import nanonet
    import nanonet.functional as F
    from nanonet import nn, optim

    layers = []
    for w, b in network.weights():
        layer = nn.Linear(*w.shape)
        layer.weight.data, layer.bias.data = w, b
        layers += [layer, nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
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


# ------------------------------------------------------------------------------------------------- peers


def torch_step(network: Network, fused: bool = False, device: str = "cpu", capturable: bool = False) -> Step:
    """PyTorch, eager, on as many threads as torch.set_num_threads says. capturable: by a CUDA graph."""
    import torch
    from torch import nn
    from torch.nn import functional

    layers = []
    for w, b in network.weights():
        layer = nn.Linear(*w.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(w.T))
            layer.bias.copy_(torch.from_numpy(b))
        layers += [layer, nn.ReLU()]
    model = nn.Sequential(*layers[:-1]).to(device)
    options = {"lr": network.learning_rate, "fused": fused}
    if network.optimizer == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), momentum=MOMENTUM, **options)
    else:
        optimizer = torch.optim.Adam(model.parameters(), betas=BETAS, eps=EPSILON, capturable=capturable, **options)
    x, y = (torch.from_numpy(array).to(device) for array in network.data())

    def step():
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def jax_step(network: Network) -> Step:
    """JAX, the whole step under jit, its state donated."""
    import jax
    import jax.numpy as jnp

    start, update = jax_optimizer(network)

    def loss_of(params, x, y):
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = params[-1]
        log_p = jax.nn.log_softmax(x @ w + b)
        return -jnp.take_along_axis(log_p, y[:, None], 1).mean()

    @partial(jax.jit, donate_argnums=0)
    def train(state, x, y):
        loss, gradients = jax.value_and_grad(loss_of)(state[0], x, y)
        return update(state, gradients), loss

    state = start(network.weights())
    x, y = map(jnp.asarray, network.data())

    def step():
        nonlocal state
        state, loss = train(state, x, y)
        return loss

    return step


def jax_optimizer(network) -> tuple[Callable, Callable]:
    """start(weights), the state before training: (params, m, v, t); update(state, gradients), the one after a step."""
    import jax
    import jax.numpy as jnp

    tree = jax.tree_util.tree_map
    b1, b2 = BETAS

    def start(weights):
        params = tree(jnp.asarray, weights)
        m = tree(jnp.zeros_like, params)
        v = tree(jnp.zeros_like, params) if network.optimizer == "adam" else None
        return params, m, v, jnp.zeros((), jnp.float32)

    def update(state, gradients):
        params, m, v, t = state
        t = t + 1
        if network.optimizer == "sgd":
            m = tree(lambda m, g: MOMENTUM * m + g, m, gradients)
            return tree(lambda p, m: p - network.learning_rate * m, params, m), m, v, t
        m = tree(lambda m, g: b1 * m + (1 - b1) * g, m, gradients)
        v = tree(lambda v, g: b2 * v + (1 - b2) * g * g, v, gradients)
        c1, c2 = 1 - b1**t, 1 - b2**t
        change = tree(lambda m, v: network.learning_rate * (m / c1) / (jnp.sqrt(v / c2) + EPSILON), m, v)
        return tree(lambda p, d: p - d, params, change), m, v, t

    return start, update


def sklearn_step(network: Network) -> Step:
    """scikit-learn, one partial_fit for each step."""
    estimator = _estimator(network)
    x, y = network.data()

    def step():
        estimator.partial_fit(x, y)
        return estimator.loss_

    return step


def sklearn_steps(network: Network, batches: int = 64) -> Callable[[int], None]:
    """scikit-learn's own loop over mini-batches, as a candidate: partial_fit is given `batches` of them at once."""
    estimator = _estimator(network)
    x, y = network.data()
    x, y = np.tile(x, (batches, 1)), np.tile(y, batches)

    def run(times: int) -> None:
        for done in range(0, times, batches):
            rows = network.batch * min(batches, times - done)
            estimator.partial_fit(x[:rows], y[:rows])

    return run


def _estimator(network: Network):
    """An MLPClassifier that has our weights and has not trained yet."""
    from sklearn.neural_network import MLPClassifier

    estimator = MLPClassifier(
        network.widths[1:-1],
        solver=network.optimizer,
        alpha=0.0,
        batch_size=network.batch,
        learning_rate_init=network.learning_rate,
        momentum=MOMENTUM,
        nesterovs_momentum=False,
        beta_1=BETAS[0],
        beta_2=BETAS[1],
        epsilon=EPSILON,
        shuffle=False,
    )
    estimator.partial_fit(*network.data(), classes=np.arange(network.widths[-1]))
    del estimator._optimizer  # it starts anew, from our weights
    for w, b, (w0, b0) in zip(estimator.coefs_, estimator.intercepts_, network.weights()):
        w[...], b[...] = w0, b0
    return estimator


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use `count` threads within."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def sklearn_threads(count: int) -> Iterator[None]:
    """Let the BLAS under scikit-learn use `count` threads within."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(count, "blas"):
        yield


def on_threads(threads: Callable[[int], AbstractContextManager], count: int, run: Callable[[int], Any]):
    """`run` within `threads(count)`."""

    def limited(times: int) -> None:
        with threads(count):
            run(times)

    return limited
