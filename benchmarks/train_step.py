"""One training step of small networks: recorded by nanonet, against PyTorch, JAX and scikit-learn."""

import os

import numpy as np

from benchmarks import networks
from benchmarks.harness import Candidate, Row, installed, interleave
from benchmarks.networks import Network
from benchmarks.peak import copy_loop, fma_flop, fma_loop

TITLE = "Training step"
NOTE = (
    "Forward, backward and update of a multi-layer perceptron with ReLU and cross-entropy, float32, on all cores. "
    "PyTorch is eager and scikit-learn runs its own loop over mini-batches, each at its best of 1 or 2 threads, "
    "PyTorch with or without its fused optimizer; JAX is jitted with its state donated. The limit is the larger of "
    "FLOP / peak on all cores and bytes / copy bandwidth at that size, timed in the same rounds."
)
ENVIRONMENT: dict[str, str] = {}
NETWORKS = (
    Network("digits 64-64-10, batch 32, SGD", (64, 64, 10), 32, "sgd", 0.01),
    Network("MNIST 784-128-10, batch 128, Adam", (784, 128, 10), 128, "adam", 1e-3),
    Network("wide 784-1024-1024-10, batch 256, Adam", (784, 1024, 1024, 10), 256, "adam", 1e-4),
)
GOALS = ({"PyTorch": 8.0, "JAX": 4.0}, {"PyTorch": 2.0}, {})
CORES = os.cpu_count() or 1


def run(quick: bool = False) -> list[Row]:
    """One row for each network."""
    return [_row(n, goal, rounds=5 if quick else 21) for n, goal in zip(NETWORKS, GOALS)][: 1 if quick else None]


def _row(network: Network, goal: dict[str, float], rounds: int) -> Row:
    expected = networks.losses(networks.reference(network), 10)
    step = networks.nanonet_step(network)
    check_losses("nanonet", networks.losses(step, 10), expected)
    candidates: dict[str, Candidate] = {"nanonet": networks.repeated(step)}
    columns: dict[str, str] = {}
    for name, (column, candidate) in peers(network, expected).items():
        candidates[name], columns[name] = candidate, column
    samples = interleave({**candidates, "peak": fma_loop(threads=CORES), "copy": copy_loop(network.bytes // 2)}, rounds)
    compute = network.flop / (CORES * fma_flop()) * float(np.median(samples["peak"]))
    limit = max(compute, float(np.median(samples["copy"])))
    return Row.of(network.name, samples, peers=columns, flop=network.flop, limit=limit).want(goal)


def peers(network: Network, expected: list[float]) -> dict[str, tuple[str, Candidate]]:
    """For each setting of each library that is installed its column and its candidate, with checked losses."""
    found: dict[str, tuple[str, Candidate]] = {}

    def checked(name: str, step: networks.Step) -> Candidate:
        check_losses(name, networks.losses(step, len(expected)), expected)
        return networks.repeated(step)

    counts = sorted({1, min(2, CORES)})
    if installed("torch"):
        for fused in (False, True):
            run = checked("PyTorch", networks.torch_step(network, fused))
            for count in counts:
                name = f"PyTorch{', fused' if fused else ''}, threads: {count}"
                found[name] = ("PyTorch", networks.on_threads(networks.torch_threads, count, run))
    if installed("jax"):
        found["JAX"] = ("JAX", checked("JAX", networks.jax_step(network)))
    if installed("sklearn"):
        check_losses("scikit-learn", networks.losses(networks.sklearn_step(network), len(expected)), expected)
        run = networks.sklearn_steps(network)
        for count in counts:
            limited = networks.on_threads(networks.sklearn_threads, count, run)
            found[f"scikit-learn, threads: {count}"] = ("scikit-learn", limited)
    return found


def check_losses(name: str, found: list[float], expected: list[float]) -> None:
    """Raises AssertionError if a library's losses are not those of the reference."""
    if not np.allclose(found, expected, rtol=2e-3, atol=1e-4):
        raise AssertionError(f"{name} does not compute this training step: losses {found}, wanted {expected}")
