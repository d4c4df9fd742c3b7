"""The slot `activation_gradient`."""

from functools import lru_cache

import numpy as np

from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.layout import rows
from kernels.numba_cpu.reduce import reduce
from kernels.numba_cpu.threads import parts_for
from kernels.plan import empty

#: Elements that are worth a thread of their own.
WORTH = 1 << 15
#: Bytes of a chunk's rows within a panel, columns of a panel.
_CHUNK, _WIDTH = 1 << 15, 256


def activation_gradient(
    g: np.ndarray, y: np.ndarray | None, activation: str | None, out: np.ndarray | None, sums: np.ndarray
) -> None:
    """See `kernels.contract.Backend.activation_gradient`."""
    if activation is None or not g.size:
        reduce("sum", g, (0,), sums)
        return
    g, n, m, g_stride = rows(g)
    y, _, _, y_stride = rows(y)
    kernel, chunk, chunks = _prepared(activation, g.dtype, n, m)
    partial = sums if chunks == 1 else empty(np, (chunks, m), g.dtype)
    sizes = (n, m, g_stride, y_stride, chunk, _WIDTH)
    launch("activation_gradient", kernel, parts_for(g.size, WORTH), g, y, out, partial, *sizes)
    if chunks > 1:
        reduce("sum", partial, (0,), sums)


@lru_cache(maxsize=4096)
def _prepared(activation: str, dtype: np.dtype, n: int, m: int) -> tuple[int, int, int]:
    """(kernel, rows of a chunk, chunks): fixed by the shape."""
    chunk = max(256, min(512, _CHUNK // (min(m, _WIDTH) * dtype.itemsize)))

    def make():
        from kernels.numba_cpu.jit import activation as jit

        return jit.make_gradient(dtype.name, activation)

    return compile_kernel(f"activation_gradient/{activation}/{dtype.name}", make), chunk, -(-n // chunk)


SLOTS = {"activation_gradient": activation_gradient}
