"""The slots `max_pool2d`, `avg_pool2d` and their backward passes."""

from functools import cache

import numpy as np

from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.layout import contiguous
from kernels.numba_cpu.threads import parts_for
from kernels.plan import empty

#: Elements of the larger array that are worth a thread of their own.
WORTH = 1 << 15


def max_pool2d(x: np.ndarray, rows: np.ndarray, columns: np.ndarray, out: np.ndarray, index: np.ndarray) -> None:
    """See `kernels.contract.Backend.max_pool2d`."""
    if out.size:
        x, rows, columns, parts, sizes = _forward(x, rows, columns, out)
        launch("max_pool2d", _kernel("max_forward", x.dtype), parts, x, out, index, rows, columns, *sizes)


def avg_pool2d(x: np.ndarray, rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.avg_pool2d`."""
    if out.size:
        x, rows, columns, parts, sizes = _forward(x, rows, columns, out)
        launch("avg_pool2d", _kernel("avg_forward", x.dtype), parts, x, out, rows, columns, *sizes)


def max_pool2d_backward(
    g: np.ndarray, index: np.ndarray, rows: np.ndarray, columns: np.ndarray, out: np.ndarray
) -> None:
    """See `kernels.contract.Backend.max_pool2d_backward`."""
    _backward("max", g, contiguous(index), rows, columns, out)


def avg_pool2d_backward(g: np.ndarray, rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.contract.Backend.avg_pool2d_backward`."""
    _backward("avg", g, 0, rows, columns, out)


def _forward(x: np.ndarray, rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> tuple:
    n, h, w, c = x.shape
    if x.strides[3] != x.itemsize and c > 1:
        x = contiguous(x)
    parts = parts_for(max(x.size, out.size), WORTH)
    sizes = (n, h, w, c, *out.shape[1:3], *x.strides[:3], _panels(n * out.shape[1], parts))
    return x, contiguous(rows), contiguous(columns), parts, sizes


def _backward(name: str, g: np.ndarray, index, rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
    if not out.size:
        return
    n, h, w, c = out.shape
    g, rows, columns = contiguous(g), contiguous(rows), contiguous(columns)
    above, beside = empty(np, (h, 2), np.dtype(np.int64)), empty(np, (w, 2), np.dtype(np.int64))
    cover = _cover()
    launch("pool_cover", cover, 1, rows, len(rows), h, above)
    launch("pool_cover", cover, 1, columns, len(columns), w, beside)
    parts = parts_for(max(g.size, out.size), WORTH)
    sizes = (n, h, w, c, *g.shape[1:3], above, beside, _panels(n * min(h, g.shape[1]), parts))
    slot = f"{name}_pool2d_backward"
    launch(slot, _kernel(f"{name}_backward", out.dtype), parts, g, index, out, rows, columns, *sizes)


def _panels(items: int, parts: int) -> int:
    """Into how many panels the channels go, so that there is work for each part."""
    return 1 if items >= 4 * parts or parts == 1 else parts


@cache
def _kernel(name: str, dtype: np.dtype) -> int:
    def make():
        from kernels.numba_cpu.jit import pool

        return getattr(pool, f"make_{name}")(dtype.name)

    return compile_kernel(f"pool/{name}/{dtype.name}", make)


@cache
def _cover() -> int:
    def make():
        from kernels.numba_cpu.jit import pool

        return pool.make_cover()

    return compile_kernel("pool/cover", make)


SLOTS = {
    "max_pool2d": max_pool2d,
    "max_pool2d_backward": max_pool2d_backward,
    "avg_pool2d": avg_pool2d,
    "avg_pool2d_backward": avg_pool2d_backward,
}
