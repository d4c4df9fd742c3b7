"""What stands around the kernels: replaying plans, and eager gradients."""

from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.harness import Candidate, Row, installed, interleave, repeat

TITLE = "Overhead"
NOTE = (
    "A replayed instruction is one addition to a counter, its own work included. The eager operations are forward and "
    "backward on 8 x 8 tensors, on one thread."
)
ENVIRONMENT = dict.fromkeys(("NANONET_NUM_THREADS", "OMP_NUM_THREADS"), "1")
INSTRUCTIONS = 1000


def run(quick: bool = False) -> list[Row]:
    """Rows for replay and for eager operations."""
    rounds = 5 if quick else 21
    return [*replay(rounds), *eager(rounds)]


# ------------------------------------------------------------------------------------------------- replay


def replay(rounds: int) -> list[Row]:
    """Nanoseconds for one instruction of a long plan, for entering a plan, and for calling a jitted step."""
    import nanonet

    long, counter = counting_plan(INSTRUCTIONS)
    long.run()
    assert counter == 2 * INSTRUCTIONS, "the plan does not count, so it is not timed"
    short, _ = counting_plan(1)
    step = nanonet.jit(lambda x: x + 1.0)
    x = nanonet.tensor(np.zeros(8, np.float32))
    assert (step(x).numpy() == 1).all()
    assert (step(x).numpy() == 1).all()
    samples = interleave(
        {"long": repeat(long.run), "short": repeat(short.run), "step": repeat(lambda: step(x))}, rounds
    )
    return [
        Row("replay: one instruction in the loop", median(samples["long"]) / INSTRUCTIONS).want(under=50e-9),
        Row("replay: a plan of one instruction, from Python", median(samples["short"])),
        Row("replay: a jitted step of one addition, from Python", median(samples["step"])),
    ]


def counting_plan(instructions: int):
    """A plan that adds 1 to a counter so many times, and the counter, which holds what recording added."""
    from kernels import plan, registry

    backend = registry.get("numba_cpu")
    counter = np.zeros((), np.int64)
    recorder = plan.Recorder()
    with plan.recording(recorder):
        for _ in range(instructions):
            backend.advance(counter, 1)
    return recorder.plan(), counter


# -------------------------------------------------------------------------------------------------- eager


def eager(rounds: int) -> list[Row]:
    """Forward and backward of small operations, against PyTorch."""
    ours = eager_nanonet()
    theirs = eager_torch() if installed("torch") else {}
    rows = []
    for name, (call, gradient) in ours.items():
        candidates: dict[str, Candidate] = {"nanonet": repeat(call)}
        if name in theirs:
            their_call, their_gradient = theirs[name]
            np.testing.assert_allclose(gradient(), their_gradient(), rtol=1e-5, atol=1e-6)
            candidates["PyTorch"] = repeat(their_call)
        samples = interleave(candidates, rounds)
        rows.append(Row.of(f"eager: {name}", samples, peers={"PyTorch": "PyTorch"}).want({"PyTorch": 1.0}))
    return rows


def _inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 8, 8), np.float32)
    return a, b, np.arange(8)


Operations = dict[str, tuple[Callable[[], object], Callable[[], np.ndarray]]]
"""name -> (forward and backward, the gradient for the first operand that one such call gives)."""


def eager_nanonet() -> Operations:
    import nanonet
    import nanonet.functional as F

    a, b, y = map(nanonet.tensor, _inputs())
    return _operations(a.requires_grad_(), b.requires_grad_(), y, F.relu, F.cross_entropy)


def eager_torch() -> Operations:
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    a, b, y = map(torch.from_numpy, _inputs())
    return _operations(a.requires_grad_(), b.requires_grad_(), y, functional.relu, functional.cross_entropy)


def _operations(a, b, y, relu: Callable, cross_entropy: Callable) -> Operations:
    """The same text for both libraries."""
    losses = {
        "(a * b).sum()": lambda: (a * b).sum(),
        "(a @ b).sum()": lambda: (a @ b).sum(),
        "relu(a).sum()": lambda: relu(a).sum(),
        "cross_entropy(a, y)": lambda: cross_entropy(a, y),
    }

    def backward(loss: Callable):
        a.grad = b.grad = None
        loss().backward()

    def gradient(loss: Callable) -> np.ndarray:
        backward(loss)
        return a.grad.numpy().copy()

    return {name: (lambda f=f: backward(f), lambda f=f: gradient(f)) for name, f in losses.items()}
