"""Elementwise functions in float32, in and beyond the caches: this backend, NumPy, PyTorch and JAX."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.accuracy import errors, functions
from benchmarks.harness import Candidate, Row, installed, interleave, repeat
from benchmarks.matmul import alone
from benchmarks.peak import copy_loop
from kernels.numba_cpu.threads import usable_cores

TITLE = "Elementwise functions, float32"
NOTE = (
    "The limit is the time to copy as many bytes as are read and written, on as many threads, in the same rounds; "
    "within the caches instructions bound the functions instead. NumPy has one thread and JAX all, so each stands "
    "only in rows with as many. `python -m benchmarks.accuracy` has the errors."
)
ENVIRONMENT: dict[str, str] = {}
NAMES = ("exp", "log", "tanh", "sigmoid", "gelu", "relu", "add")
SIZES = {"64 KB": 1 << 16, "1 MB": 1 << 20, "64 MB": 1 << 26}
#: Arrays of at least so many bytes are to be worked through at `SHARE` of the copy bandwidth.
LARGE, SHARE = 1 << 26, 0.8


@dataclass(frozen=True)
class Case:
    """A function of the table on arrays of `size` bytes."""

    name: str
    size: int
    threads: int = 1

    def __str__(self) -> str:
        text = next((text for text, size in SIZES.items() if size == self.size), f"{self.size} bytes")
        return f"{self.name} {text}" + (f", {self.threads} threads" if self.threads > 1 else "")

    @property
    def moved(self) -> int:
        """Bytes read and written."""
        return self.size * (3 if self.name == "add" else 2)


def run(quick: bool = False) -> list[Row]:
    """One row for each function, size and number of threads."""
    if quick:
        return [row(Case("gelu", 1 << 12), rounds=3), row(Case("add", 1 << 12, 2), rounds=3)]
    cores = usable_cores()
    return [
        row(Case(name, size, threads), rounds=15)
        for threads in ((1, cores) if cores > 1 else (1,))
        for size in SIZES.values()
        for name in NAMES
    ]


def row(case: Case, rounds: int) -> Row:
    """Time one case."""
    from kernels.elementwise import BY_NAME
    from kernels.numba_cpu.elementwise import elementwise

    rng = np.random.default_rng(0)
    count = 2 if case.name == "add" else 1
    arrays = [rng.uniform(0.1, 3, case.size // 4).astype(np.float32) for _ in range(count)]
    out, formula = np.full_like(arrays[0], np.nan), BY_NAME[case.name].forward
    many = repeat(lambda: elementwise(formula, *arrays, out=out))
    many(1)
    check(case.name, arrays, out)

    candidates: dict[str, Candidate] = {"nanonet": alone(many) if case.threads == 1 else many}
    candidates["copy"] = copy_loop(case.moved // 2, case.threads)
    if case.threads == 1 and case.name in _NUMPY:
        candidates["NumPy"] = repeat(_NUMPY[case.name](arrays, np.empty_like(out)))
    if installed("torch"):
        candidates["PyTorch"] = repeat(torch_call(case, arrays))
    if case.threads == usable_cores() and installed("jax"):
        candidates["JAX"] = repeat(jax_call(case, arrays))
    samples = interleave(candidates, rounds)
    peers = {name: name for name in ("NumPy", "PyTorch", "JAX")}
    made = Row.of(str(case), samples, peers=peers, limit=float(np.median(samples["copy"])))
    return made.want(of_limit=SHARE) if case.size >= LARGE else made


def check(name: str, arrays: list[np.ndarray], out: np.ndarray) -> None:
    """Raises AssertionError if `out` is not within 4 ulp."""
    exact = {"add": np.add, "relu": lambda x: np.maximum(x, 0), **functions()}[name]
    wanted = exact(*[x[: 1 << 16].astype(np.float64) for x in arrays])
    assert errors(out[: 1 << 16], wanted).max() <= 4 and not np.isnan(out).any(), f"{name} is wrong, so it is not timed"


def _numpy(function: Callable) -> Callable[[list[np.ndarray], np.ndarray], Callable[[], object]]:
    return lambda arrays, out: lambda: function(*arrays, out=out)


_NUMPY = {
    **{name: _numpy(function) for name, function in (("exp", np.exp), ("log", np.log), ("tanh", np.tanh))},
    "relu": lambda arrays, out: lambda: np.maximum(arrays[0], 0, out=out),
    "add": _numpy(np.add),
}


def torch_call(case: Case, arrays: list[np.ndarray]) -> Callable[[], object]:
    """The function in PyTorch, into memory that is there where PyTorch can."""
    import torch

    torch.set_num_threads(case.threads)
    inputs = [torch.from_numpy(x) for x in arrays]
    out = torch.empty_like(inputs[0])
    if case.name == "relu":
        return lambda: torch.clamp_min(inputs[0], 0, out=out)
    if case.name == "gelu":
        return lambda: torch.nn.functional.gelu(inputs[0])
    function = getattr(torch, case.name)
    return lambda: function(*inputs, out=out)


def jax_call(case: Case, arrays: list[np.ndarray]) -> Callable[[], object]:
    """The function compiled by JAX. Its result is new memory."""
    import jax

    nn = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "gelu": lambda x: jax.nn.gelu(x, approximate=False)}
    function = jax.jit(nn.get(case.name) or getattr(jax.numpy, case.name))
    inputs = [jax.numpy.asarray(x) for x in arrays]
    return lambda: function(*inputs).block_until_ready()
