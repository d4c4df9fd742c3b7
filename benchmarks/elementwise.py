"""Elementwise functions, float32: this backend, NumPy, PyTorch and JAX, and the bandwidth of a copy."""

from collections.abc import Callable

import numpy as np

from benchmarks.harness import Candidate, Row, installed, interleave, repeat
from benchmarks.peak import copy_loop
from kernels.elementwise import BY_NAME
from kernels.numba_cpu.threads import single_thread, usable_cores

TITLE = "Elementwise functions, float32"
NOTE = (
    "The limit is a copy by one thread of as many bytes as the function reads and writes, timed in the same rounds: "
    "what memory gives to large arrays, while the arithmetic decides about those that stay in a cache. NumPy has one "
    "thread."
)
ENVIRONMENT = {"OMP_NUM_THREADS": str(usable_cores())}
NAMES = ("add", "relu", "exp", "log", "tanh", "sigmoid", "gelu")
SIZES = {"64 KB": 1 << 14, "1 MB": 1 << 18, "64 MB": 1 << 24}
#: Share of the copy bandwidth that one thread is to reach on the largest arrays.
SHARE = 0.8


def run(quick: bool = False) -> list[Row]:
    """A row for each function, size and number of threads."""
    counts = sorted({1, usable_cores()})
    if quick:
        return [_row("exp", "64 KB", 1, 3)]
    return [_row(name, size, threads, 7) for size in SIZES for threads in counts for name in NAMES]


def _row(name: str, size: str, threads: int, rounds: int) -> Row:
    from kernels import registry

    backend, formula = registry.get("numba_cpu"), BY_NAME[name].forward
    rng = np.random.default_rng(0)
    inputs = rng.uniform(0.1, 3, (len(formula.variables), SIZES[size])).astype(np.float32)
    out = np.full(SIZES[size], np.nan, np.float32)

    def ours(times: int) -> None:
        for _ in range(times):
            backend.elementwise(formula, *inputs, out=out)

    def alone(times: int) -> None:
        with single_thread():
            ours(times)

    ours(1)
    candidates: dict[str, Candidate] = {"nanonet": alone if threads == 1 else ours}
    peers = {"NumPy": numpy_call(name, inputs)} if threads == 1 and name in NUMPY else {}
    if installed("torch"):
        peers["PyTorch"] = torch_call(name, inputs, threads)
    if installed("jax") and threads > 1:
        peers["JAX"] = jax_call(name, inputs)
    for peer, call in peers.items():
        np.testing.assert_allclose(np.asarray(call()), out, rtol=1e-5, atol=1e-6, err_msg=f"{peer} and {name}")
        candidates[peer] = repeat(call)
    moved = inputs.nbytes + out.nbytes
    samples = interleave({**candidates, "copy": copy_loop(moved // 2)}, rounds)
    case = f"{name}, {size}, {threads} thread{'s' if threads > 1 else ''}"
    row = Row.of(case, samples, peers={peer: peer for peer in peers}, limit=float(np.median(samples["copy"])))
    return row.want(of_limit=SHARE) if size == "64 MB" else row


NUMPY = {"add": np.add, "exp": np.exp, "log": np.log, "tanh": np.tanh}


def numpy_call(name: str, inputs: np.ndarray) -> Callable[[], np.ndarray]:
    out = np.empty_like(inputs[0])
    return lambda: NUMPY[name](*inputs, out=out)


def torch_call(name: str, inputs: np.ndarray, threads: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(threads)
    tensors = [torch.from_numpy(x) for x in inputs]
    if name in ("relu", "gelu"):  # without an `out` argument
        function = getattr(torch.nn.functional, name)
        return lambda: function(*tensors)
    function, out = getattr(torch, name), torch.empty(inputs.shape[1])
    return lambda: function(*tensors, out=out)


def jax_call(name: str, inputs: np.ndarray) -> Callable[[], object]:
    import jax
    import jax.numpy as jnp

    functions = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "gelu": lambda x: jax.nn.gelu(x, approximate=False)}
    call = jax.jit(functions.get(name) or getattr(jnp, name))
    arrays = [jnp.asarray(x) for x in inputs]
    return lambda: call(*arrays).block_until_ready()
