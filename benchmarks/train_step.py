"""One training step: recorded by nanonet, against PyTorch, JAX and scikit-learn."""

import os
from functools import partial

import numpy as np

from benchmarks import convnets, networks
from benchmarks.convnets import ConvNet
from benchmarks.harness import Candidate, Row, installed, interleave
from benchmarks.networks import Network
from benchmarks.peak import copy_loop, fma_flop, fma_loop

TITLE = "Training step"
NOTE = (
    "Forward, backward and update with cross-entropy, float32, on all cores: multi-layer perceptrons with ReLU, a "
    "small convolutional network and ResNet-20. PyTorch is eager and scikit-learn runs its own loop over "
    "mini-batches, each at its best of 1 or 2 threads, PyTorch with or without its fused optimizer, on NCHW or "
    "channels-last tensors; JAX is jitted with its state donated. The limit is the larger of FLOP / peak on all cores "
    "and bytes / copy bandwidth at that size, timed in the same rounds."
)
ENVIRONMENT: dict[str, str] = {}
CORES = os.cpu_count() or 1
MLPS = (
    Network("digits 64-64-10, batch 32, SGD", (64, 64, 10), 32, "sgd", 0.01),
    Network("MNIST 784-128-10, batch 32, Adam", (784, 128, 10), 32, "adam", 1e-3),
    Network("MNIST 784-128-10, batch 128, Adam", (784, 128, 10), 128, "adam", 1e-3),
    Network("wide 784-1024-1024-10, batch 256, Adam", (784, 1024, 1024, 10), 256, "adam", 1e-4),
)
CONVNETS = (convnets.CNN, convnets.RESNET20)
#: How many times faster than each peer the steps are to be, and which part of their limit they are to reach.
GOALS = (
    {"PyTorch": 15.0, "JAX": 8.0},
    {"PyTorch": 4.0, "JAX": 3.0},
    {"PyTorch": 3.0, "JAX": 2.5},
    {"PyTorch": 3.0, "JAX": 1.3},
    {"PyTorch": 2.5},
    {"PyTorch": 1.5},
)
SHARE = 0.7
#: Losses that are compared before a step is timed.
CHECKED = {Network: 10, ConvNet: 4}


def run(quick: bool = False) -> list[Row]:
    """One row for each network."""
    chosen = MLPS[:1] if quick else (*MLPS, *CONVNETS)
    return [_row(network, goal, rounds=5 if quick else 15) for network, goal in zip(chosen, GOALS)]


def _row(network: Network | ConvNet, goal: dict[str, float], rounds: int) -> Row:
    count = CHECKED[type(network)]
    expected = networks.losses(answer(network), count)
    step = nanonet_step(network)
    check_losses("nanonet", networks.losses(step, count), expected)
    candidates: dict[str, Candidate] = {"nanonet": networks.repeated(step)}
    columns: dict[str, str] = {}
    for name, (column, candidate) in peers(network, expected).items():
        candidates[name], columns[name] = candidate, column
    samples = interleave({**candidates, "peak": fma_loop(threads=CORES), "copy": copy_loop(network.bytes // 2)}, rounds)
    compute = network.flop / (CORES * fma_flop()) * float(np.median(samples["peak"]))
    limit = max(compute, float(np.median(samples["copy"])))
    return Row.of(network.name, samples, peers=columns, flop=network.flop, limit=limit).want(goal, of_limit=SHARE)


def answer(network: Network | ConvNet) -> networks.Step:
    """The step in float64, by NumPy or, for convolutional networks, by PyTorch."""
    return networks.reference(network) if isinstance(network, Network) else convnets.torch_step(network, wide=True)


def nanonet_step(network: Network | ConvNet) -> partial:
    """The recorded step with its arguments; its `func` is what `nanonet.jit` gave."""
    return (networks if isinstance(network, Network) else convnets).nanonet_step(network)


def peers(network: Network | ConvNet, expected: list[float]) -> dict[str, tuple[str, Candidate]]:
    """For each setting of each library that is installed its column and its candidate, with checked losses."""
    found: dict[str, tuple[str, Candidate]] = {}

    def checked(name: str, step: networks.Step) -> Candidate:
        check_losses(name, networks.losses(step, len(expected)), expected)
        return networks.repeated(step)

    counts = sorted({1, min(2, CORES)})
    plain = isinstance(network, Network)
    if installed("torch"):
        for settings in TORCH[Network if plain else ConvNet]:
            run = checked("PyTorch", (networks if plain else convnets).torch_step(network, **settings))
            for count in counts if plain else counts[-1:]:
                name = ", ".join(["PyTorch", *settings, f"threads: {count}"])
                found[name] = ("PyTorch", networks.on_threads(networks.torch_threads, count, run))
    if installed("jax"):
        found["JAX"] = ("JAX", checked("JAX", (networks if plain else convnets).jax_step(network)))
    if plain and installed("sklearn"):
        check_losses("scikit-learn", networks.losses(networks.sklearn_step(network), len(expected)), expected)
        run = networks.sklearn_steps(network)
        for count in counts:
            limited = networks.on_threads(networks.sklearn_threads, count, run)
            found[f"scikit-learn, threads: {count}"] = ("scikit-learn", limited)
    return found


#: The settings in which PyTorch is tried.
TORCH = {
    Network: ({}, {"fused": True}),
    ConvNet: ({}, {"fused": True}, {"last": True}, {"fused": True, "last": True}),
}


def check_losses(name: str, found: list[float], expected: list[float]) -> None:
    """Raises AssertionError if a library's losses are not those of the reference."""
    if not np.allclose(found, expected, rtol=2e-3, atol=1e-4):
        raise AssertionError(f"{name} does not compute this training step: losses {found}, wanted {expected}")
