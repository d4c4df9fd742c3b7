"""Matrix products on one thread, float32, square: this backend, NumPy's OpenBLAS and PyTorch, and the FMA peak."""

import numpy as np

from benchmarks.harness import Row, installed, interleave, repeat
from benchmarks.peak import fma_flop, fma_loop

TITLE = "Matrix product, one thread, float32"
NOTE = "The limit is the rate of a loop of nothing but multiply-adds in registers, timed in the same rounds."
ENVIRONMENT = dict.fromkeys(("NANONET_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SIZES = (128, 256, 512, 1024, 2048)
#: At these sizes the product is to be ahead of OpenBLAS and at this share of the peak.
JUDGED, SHARE = range(256, 1025), 0.9


def run(quick: bool = False) -> list[Row]:
    """One row for each size."""
    return [_row(n, rounds=5 if quick else 21) for n in (SIZES[:2] if quick else SIZES)]


def _row(n: int, rounds: int) -> Row:
    from kernels import registry

    backend = registry.get("numba_cpu")
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, n, n), np.float32)
    out = np.full((n, n), np.nan, np.float32)

    backend.matmul(a, b, out=out)
    check_product(a, b, out)

    theirs = np.empty_like(out)
    candidates = {
        "nanonet": repeat(lambda: backend.matmul(a, b, out=out)),
        "NumPy": repeat(lambda: np.matmul(a, b, out=theirs)),
        "peak": fma_loop(),
    }
    if installed("torch"):
        import torch

        torch.set_num_threads(1)
        ta, tb, tout = torch.from_numpy(a), torch.from_numpy(b), torch.empty(n, n)
        candidates["PyTorch"] = repeat(lambda: torch.mm(ta, tb, out=tout))

    samples = interleave(candidates, rounds)
    flop = 2.0 * n**3
    limit = flop / fma_flop() * float(np.median(samples["peak"]))
    row = Row.of(f"{n} x {n}", samples, peers={"NumPy": "NumPy", "PyTorch": "PyTorch"}, flop=flop, limit=limit)
    return row.want({"NumPy": 1.0}, of_limit=SHARE) if n in JUDGED else row


def check_product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Raises AssertionError if `out` is not a @ b to float32 accuracy."""
    wide = a.astype(np.float64) @ b.astype(np.float64)
    bound = 4 * np.finfo(np.float32).eps * (np.abs(a).astype(np.float64) @ np.abs(b))
    assert (np.abs(out - wide) <= np.maximum(bound, 1e-6)).all(), "the product is wrong, so it is not timed"
