"""Matrix products: this backend, NumPy's OpenBLAS and PyTorch, and the FMA peak."""

from dataclasses import dataclass

import numpy as np

from benchmarks.harness import Candidate, Row, installed, interleave, repeat
from benchmarks.peak import fma_flop, fma_loop
from kernels.numba_cpu.threads import single_thread, usable_cores

TITLE = "Matrix product"
NOTE = (
    "m x k x n, with the transposed operand in brackets; one thread and float32 unless a case says otherwise. The "
    "limit is the rate of a loop of nothing but multiply-adds in registers, timed in the same rounds. NumPy has "
    "one thread always, PyTorch as many as the case."
)
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Case:
    """a (..., m, k) times b (..., k, n). transposed: "a" or "b", which is stored with its last axes exchanged."""

    m: int
    k: int
    n: int
    batch: int = 1
    transposed: str = ""
    dtype: str = "float32"
    threads: int = 1
    share: float = 0.0
    """Of the peak that is to be reached."""

    def __str__(self) -> str:
        sides = f"{self.m} x {self.k} x {self.n}"
        if self.batch > 1:
            sides = f"{self.batch} x ({sides})"
        words = [f"({self.transposed})" if self.transposed else "", self.dtype if self.dtype != "float32" else ""]
        words.append(f"{self.threads} threads" if self.threads > 1 else "")
        return " ".join([sides, *filter(None, words)])

    @property
    def flop(self) -> float:
        return 2.0 * self.batch * self.m * self.k * self.n

    def operands(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """a, b, out."""
        rng, lead = np.random.default_rng(0), (self.batch,) * (self.batch > 1)

        def matrix(rows: int, columns: int, turned: bool) -> np.ndarray:
            sides = (columns, rows) if turned else (rows, columns)
            made = rng.standard_normal((*lead, *sides)).astype(self.dtype)
            return made.swapaxes(-1, -2) if turned else made

        a, b = matrix(self.m, self.k, self.transposed == "a"), matrix(self.k, self.n, self.transposed == "b")
        return a, b, np.full((*lead, self.m, self.n), np.nan, self.dtype)


SQUARES = tuple(Case(n, n, n, share=0.9 if n == 128 else 0.95) for n in (128, 256, 512, 1024, 2048, 4096))
TRAINING = (
    Case(32, 64, 64),
    Case(64, 32, 64, transposed="a"),
    Case(32, 64, 10),
    Case(128, 784, 128),
    Case(784, 128, 128, transposed="a"),
    Case(128, 128, 10),
    Case(256, 784, 1024),
    Case(784, 256, 1024, transposed="a"),
    Case(256, 1024, 1024),
    Case(256, 1024, 1024, transposed="b"),
    Case(1024, 256, 1024, transposed="a"),
    Case(256, 1024, 10),
    Case(64, 64, 64, batch=64),
    Case(50000, 64, 64),
    Case(16, 4096, 4096),
)
DOUBLES = tuple(Case(*sides, dtype="float64") for sides in ((32, 64, 64), (128, 784, 128), (512,) * 3, (1024,) * 3))


def shared(threads: int) -> tuple[Case, ...]:
    """What is to be shared out to that many threads."""
    sides = ((512,) * 3, (1024,) * 3, (2048,) * 3, (128, 784, 128), (256, 1024, 1024))
    return (*(Case(*s, threads=threads) for s in sides), Case(784, 128, 128, transposed="a", threads=threads))


def run(quick: bool = False) -> list[Row]:
    """One row for each case."""
    if quick:
        return [row(case, rounds=3) for case in (SQUARES[0], TRAINING[1], DOUBLES[0], shared(2)[3])]
    cases = [*SQUARES, *TRAINING, *DOUBLES]
    if usable_cores() > 1:
        cases += shared(usable_cores())
    return [row(case, rounds=7 if case.flop > 1e11 else 21) for case in cases]


def row(case: Case, rounds: int) -> Row:
    """Time one case."""
    from kernels import registry

    backend = registry.get("numba_cpu")
    a, b, out = case.operands()

    backend.matmul(a, b, out=out)
    check_product(a, b, out)

    theirs = np.empty_like(out)
    many = repeat(lambda: backend.matmul(a, b, out=out))
    candidates: dict[str, Candidate] = {"nanonet": many if case.threads > 1 else alone(many)}
    candidates["peak"] = fma_loop(case.dtype, case.threads)
    if case.threads > 1:
        candidates["one thread"] = alone(many)
    else:
        candidates["NumPy"] = repeat(lambda: np.matmul(a, b, out=theirs))
    if installed("torch"):
        import torch

        ta, tb, tout = (
            torch.from_numpy(a),
            torch.from_numpy(b),
            torch.empty(out.shape, dtype=getattr(torch, case.dtype)),
        )
        torch.set_num_threads(case.threads)
        candidates["PyTorch"] = repeat(lambda: torch.matmul(ta, tb, out=tout))

    samples = interleave(candidates, rounds)
    limit = case.flop / fma_flop(case.dtype) / case.threads * float(np.median(samples["peak"]))
    peers = {name: name for name in ("NumPy", "PyTorch", "one thread")}
    made = Row.of(str(case), samples, peers=peers, flop=case.flop, limit=limit)
    wanted = {name: 1.0 for name in ("NumPy", "PyTorch") if name in made.peers}
    if case.threads > 1 and case.m >= 512:
        wanted["one thread"] = 0.9 * case.threads
    return made.want(wanted, of_limit=case.share)


def alone(run: Candidate) -> Candidate:
    """The candidate on one thread."""

    def once(times: int) -> None:
        with single_thread():
            run(times)

    return once


def check_product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Raises AssertionError if `out` is not a @ b to the accuracy of its dtype."""
    wide = np.longdouble if out.dtype == np.float64 and out.size < 1 << 14 else np.float64
    size = np.sqrt(a.shape[-1])
    exact = np.matmul(a.astype(wide), b.astype(wide))
    bound = 16 * np.finfo(out.dtype).eps * size * np.abs(a).max() * np.abs(b).max()
    assert (np.abs(out - exact) <= bound).all(), "the product is wrong, so it is not timed"
