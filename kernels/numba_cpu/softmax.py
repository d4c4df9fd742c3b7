"""The slots softmax, log_softmax, cross_entropy and their backward passes."""

from functools import lru_cache

import numpy as np

from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.host import host
from kernels.numba_cpu.layout import contiguous, rows
from kernels.numba_cpu.threads import parts_for

#: Elements that are worth a thread of their own.
WORTH = 1 << 13


def softmax(x: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.softmax`."""
    _forward("softmax", x, out)


def log_softmax(x: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.log_softmax`."""
    _forward("log_softmax", x, out)


def softmax_backward(g: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.softmax_backward`."""
    _backward("softmax_backward", g, y, out)


def log_softmax_backward(g: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.log_softmax_backward`."""
    _backward("log_softmax_backward", g, y, out)


def cross_entropy(
    x: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    smoothing: float,
    loss: np.ndarray,
    probabilities: np.ndarray,
) -> None:
    """See `kernels.contract.Backend.cross_entropy`."""
    if not x.size:
        return
    x, n, c, stride = rows(x)
    weight = 0 if weight is None else contiguous(weight)
    parts = parts_for(x.size, WORTH)
    strides = (stride, *target.strides)
    arrays = (x, target, weight, loss, probabilities)
    launch("cross_entropy", _kernel("cross_entropy", x.dtype, c), parts, *arrays, n, c, *strides, float(smoothing))


def cross_entropy_backward(
    g: np.ndarray,
    probabilities: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    smoothing: float,
    out: np.ndarray,
) -> None:
    """See `kernels.contract.Backend.cross_entropy_backward`."""
    if not out.size:
        return
    p, n, c, stride = rows(probabilities)
    weight = 0 if weight is None else contiguous(weight)
    parts = parts_for(out.size, 4 * WORTH)
    strides = (*g.strides, stride, *target.strides)
    kernel = _kernel("cross_entropy_backward", p.dtype, c)
    launch("cross_entropy_backward", kernel, parts, g, p, target, weight, out, n, c, *strides, float(smoothing))


def _forward(name: str, x: np.ndarray, out: np.ndarray) -> None:
    if out.size:
        x, n, c, stride = rows(x)
        launch(name, _kernel(name, x.dtype, c), parts_for(out.size, WORTH), x, out, n, c, stride)


def _backward(name: str, g: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    if out.size:
        g, n, c, g_stride = rows(g)
        y, _, _, y_stride = rows(y)
        launch(name, _kernel(name, y.dtype, c), parts_for(out.size, WORTH), g, y, out, n, c, g_stride, y_stride)


@lru_cache(maxsize=4096)
def _kernel(name: str, dtype: np.dtype, columns: int) -> int:
    registers = -(-columns // host().lanes(dtype.name))
    narrow = registers if registers <= 2 else 0

    def make():
        from kernels.numba_cpu.jit import softmax

        return getattr(softmax, f"make_{name}")(dtype.name, narrow)

    return compile_kernel(f"{name}/{dtype.name}/{narrow or 'wide'}", make)


SLOTS = {
    "softmax": softmax,
    "log_softmax": log_softmax,
    "softmax_backward": softmax_backward,
    "log_softmax_backward": log_softmax_backward,
    "cross_entropy": cross_entropy,
    "cross_entropy_backward": cross_entropy_backward,
}
