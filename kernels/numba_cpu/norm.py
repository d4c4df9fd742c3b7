"""The slots `batch_norm` and `batch_norm_backward`: sums of chunks, their merger, and a pass that writes."""

from functools import cache, lru_cache

import numpy as np

from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.layout import contiguous, rows
from kernels.numba_cpu.threads import parts_for
from kernels.plan import empty

#: Elements that are worth a thread of their own.
WORTH = 1 << 15
#: Bytes of a chunk's rows within a panel, columns of a panel.
_CHUNK, _WIDTH = 1 << 17, 256


def batch_norm(
    x: np.ndarray,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    eps: float,
    activation: str | None,
    out: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
) -> None:
    """See `kernels.contract.Backend.batch_norm`."""
    if not x.shape[1]:
        return
    x, n, c, stride = rows(x) if x.size else (x, *x.shape, 0)
    statistics, moments, normalize = _forward(x.dtype)
    chunk, parts = _chunks(n, c, x.itemsize), parts_for(x.size, WORTH)
    weight, bias = _vector(weight), _vector(bias)
    partial, coefficients = empty(np, (-(-n // chunk), 3, c), x.dtype), empty(np, (2, c), x.dtype)
    launch("batch_norm", statistics, parts, x, partial, n, c, stride, chunk, _WIDTH)
    launch("batch_norm", moments, 1, partial, weight, bias, mean, variance, coefficients, n, c, chunk, float(eps))
    low = 0.0 if activation else -np.inf
    launch("batch_norm", normalize, parts, x, mean, coefficients, out, n, c, stride, chunk, _WIDTH, low)


def batch_norm_backward(
    g: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    mean: np.ndarray,
    variance: np.ndarray,
    eps: float,
    activation: str | None,
    out: np.ndarray,
    weight_gradient: np.ndarray,
    bias_gradient: np.ndarray,
) -> None:
    """See `kernels.contract.Backend.batch_norm_backward`."""
    if not x.shape[1]:
        return
    g, n, c, g_stride = rows(g) if x.size else (g, *x.shape, 0)
    x, _, _, stride = rows(x) if x.size else (x, n, c, 0)
    sums, totals, gradient = _backward(x.dtype, activation)
    chunk, parts = _chunks(n, c, x.itemsize), parts_for(x.size, WORTH)
    weight, bias, mean, variance = _vector(weight), _vector(bias), contiguous(mean), contiguous(variance)
    partial, coefficients = empty(np, (-(-n // chunk), 4, c), x.dtype), empty(np, (4, c), x.dtype)
    sizes = (n, c, g_stride, stride, chunk, _WIDTH)
    name = "batch_norm_backward"
    launch(name, sums, parts, g, x, weight, bias, mean, variance, partial, *sizes, float(eps))
    outs = (weight_gradient, bias_gradient, coefficients)
    launch(name, totals, 1, partial, weight, bias, variance, *outs, n, c, chunk, float(eps))
    launch(name, gradient, parts, g, x, mean, coefficients, out, *sizes)


def _vector(x: np.ndarray | None):
    return 0 if x is None else contiguous(x)


@lru_cache(maxsize=4096)
def _chunks(n: int, c: int, itemsize: int) -> int:
    """Rows of a chunk: fixed by the shape, a multiple of eight."""
    return max(128, min(512, _CHUNK // (min(c, _WIDTH) * itemsize) // 8 * 8))


@cache
def _forward(dtype: np.dtype) -> tuple[int, ...]:
    return tuple(_kernel(name, dtype.name) for name in ("statistics", "moments", "normalize"))


@cache
def _backward(dtype: np.dtype, activation: str | None) -> tuple[int, ...]:
    relu = activation is not None
    return (
        _kernel("sums", dtype.name, relu),
        _kernel("totals", dtype.name),
        _kernel("gradient", dtype.name, relu),
    )


def _kernel(name: str, dtype: str, *options: bool) -> int:
    def make():
        from kernels.numba_cpu.jit import norm

        return getattr(norm, f"make_{name}")(dtype, *options)

    return compile_kernel("/".join(("batch_norm", name, dtype, *(str(option) for option in options))), make)


SLOTS = {"batch_norm": batch_norm, "batch_norm_backward": batch_norm_backward}
