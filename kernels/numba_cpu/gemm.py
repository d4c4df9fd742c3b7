"""Matrix products: packed or not, shared out how, by how many threads. blocking.py has the argument block."""

import numpy as np

from kernels.elementwise import BY_NAME
from kernels.numba_cpu import threads
from kernels.numba_cpu.blocking import (
    ACCUMULATE,
    BIAS,
    BLOCK,
    FINISH,
    KC,
    NC,
    STRIP,
    most_rows,
    usual_panel,
    variant,
    widest_panel,
)
from kernels.numba_cpu.compiler import compile_function, compile_kernel
from kernels.numba_cpu.elementwise import elementwise
from kernels.numba_cpu.executor import launch, pack, signature
from kernels.numba_cpu.host import host
from kernels.numba_cpu.layout import contiguous
from kernels.numba_cpu.scratch import memory

#: What was worked out for shapes and strides, and for how many at most. When there are more, all are forgotten.
_calls: dict = {}
_KEPT = 8192


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray, accumulate: bool = False) -> None:
    """out = a @ b, or out += a @ b. a (..., m, k), b (..., k, n) of any strides; the last axis of out is contiguous.

    Leading axes broadcast. k = 0 gives zeros. The bits do not depend on the number of threads.
    """
    _multiply(a, b, 0, out, ACCUMULATE if accumulate else 0)


def linear(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, activation: str | None, out: np.ndarray) -> None:
    """out = activation(x @ w + bias). x (..., k), w (k, n), bias (n,) or None, out (..., n).

    activation is one of elementwise.FUSABLE or None; "relu" is applied to the tile while it is in registers.
    """
    flags = 0
    if bias is None:
        bias = 0
    else:
        flags = BIAS
        if bias.strides[0] != bias.itemsize:
            bias = contiguous(bias)
    if activation == "relu":
        flags |= FINISH
    _multiply(x, w, bias, out, flags)
    if activation not in (None, "relu"):
        elementwise(BY_NAME[activation].forward, out, out=out)


def _multiply(a, b, bias, out, flags) -> None:
    available = threads.get_num_threads()
    key = signature(a, b, out, flags, available)
    call = _calls.get(key)
    if call is None:
        if len(_calls) >= _KEPT:
            _calls.clear()
        shapes = (a.shape, a.strides, b.shape, b.strides, out.shape, out.strides)
        call = _calls[key] = _call(out.itemsize, *shapes, flags, available)
    kernel, parts, scratch, words = call
    if kernel:
        launch("matmul", kernel, parts, a, b, out, bias, memory(parts * scratch) if scratch else 0, words)


def _scattered(count: int, stride: int) -> bool:
    """Whether `count` cache lines `stride` bytes apart crowd each other out of a 32 KiB cache."""
    lines = max(1, abs(stride) // 64)
    return stride % 64 == 0 and count > 4 * max(1, 64 // (lines & -lines))


def _call(size, a_shape, a_strides, b_shape, b_strides, c_shape, c_strides, flags, available):
    """(kernel, parts, bytes of scratch per part, the words from there on) for these shapes; no kernel for no work."""
    if 0 in c_shape:
        return 0, 0, 0, b""
    (m, k), n = a_shape[-2:], b_shape[-1]
    (ars, acs), (brs, bcs), crs = a_strides[-2:], b_strides[-2:], c_strides[-2]
    dtype = "float32" if size == 4 else "float64"
    lanes = host().lanes(dtype)
    m, ars, crs, axes = _batch(m, ars, crs, a_shape, a_strides, b_shape, b_strides, c_shape, c_strides)
    batch = int(np.prod([axis[0] for axis in axes], dtype=np.int64))
    if n == 1:
        bcs = size
    if k == 1:
        acs = size
    work = batch * m * n * k
    parts = min(available, max(1, work // LEAST))
    pairs = -(-n // (2 * lanes))
    row_blocks = column_blocks = 1
    if batch < 2 * parts and parts > 1:
        if pairs >= 8 * parts or m < 12 * parts:
            column_blocks = pairs
        else:
            row_blocks = parts
    parts = min(parts, batch * row_blocks * column_blocks)

    rows, columns = -(-m // row_blocks), -(-n // min(parts, column_blocks))
    widest = widest_panel(host(), rows, -(-columns // lanes))
    most = most_rows(host())[widest]
    k_step = -(-k // max(1, -(-k // KC)))
    block = max(most, BLOCK // max(1, k_step * size) // most * most)
    blocks = -(-rows // block)
    block = -(-rows // blocks // most) * most

    pack_b = bcs != size or (n % lanes > 0 and not host().has_masked_load)
    pack_b = pack_b or (m >= 32 and (m > 512 or k * n * size > NEAR) and _scattered(k_step, brs))
    if acs == size:
        pack_a = m >= 32 and columns >= MANY * lanes
    else:
        pack_a = m >= 12 and columns >= 3 * lanes and _scattered(k_step, acs)

    scratch = 0
    if pack_b:
        scratch += k_step * ((min(n, NC) if rows > block else 0) + STRIP * usual_panel(host()) * lanes) * size + 128
    if pack_a:
        scratch += (block // most + 1) * (k_step * most * size + 128)
    scratch = -(-scratch // 64) * 64

    kernel = compile_kernel(f"gemm/{dtype}{variant()}", lambda: _loops(dtype))
    tile = micro_kernel(dtype)
    words = [word for axis in axes for word in axis]
    strides = (ars, acs, brs, bcs, crs)
    cut = (pack_a, pack_b, row_blocks, column_blocks, len(axes), tile, widest, most, block, max(1, k_step))
    return kernel, parts, scratch, pack(scratch, m, n, k, *strides, flags, *cut, *words)


#: Vectors of columns for which rows of A are laid side by side.
MANY = 256
#: Bytes of B that are read where they lie, however far apart its rows are: the second cache holds them.
NEAR = 1 << 20
#: Multiplications that are worth a thread.
LEAST = 1 << 20


def _loops(dtype: str):
    from kernels.numba_cpu.jit import gemm, vector

    return gemm.gemm(getattr(vector, dtype))


def micro_kernel(dtype: str) -> int:
    """The address of jit/tile.py's function for float32 or float64."""

    def make():
        from kernels.numba_cpu.jit import tile, vector

        return tile.tile(getattr(vector, dtype), "relu")

    return compile_function(f"tile/{dtype}/relu", make, "i" * 13)


def _batch(m, ars, crs, a_shape, a_strides, b_shape, b_strides, c_shape, c_strides):
    """(m, ars, crs, axes): leading axes as (length, strides of a, b, c), or as rows where b does not vary with them."""
    lead = len(c_shape) - 2
    a_lead = (0,) * (lead - len(a_shape) + 2) + tuple(
        0 if length == 1 else stride for length, stride in zip(a_shape[:-2], a_strides)
    )
    b_lead = (0,) * (lead - len(b_shape) + 2) + tuple(
        0 if length == 1 else stride for length, stride in zip(b_shape[:-2], b_strides)
    )
    axes: list[tuple[int, int, int, int]] = []
    for axis in range(lead - 1, -1, -1):
        length, sa, sb, sc = c_shape[axis], a_lead[axis], b_lead[axis], c_strides[axis]
        if length == 1:
            continue
        if not axes and sb == 0 and m == 1:
            m, ars, crs = length, sa, sc
            continue
        if not axes and sb == 0 and sa == m * ars and sc == m * crs:
            m *= length
            continue
        if axes and all(axes[-1][0] * inner == outer for inner, outer in zip(axes[-1][1:], (sa, sb, sc))):
            axes[-1] = (axes[-1][0] * length, *axes[-1][1:])
            continue
        axes.append((length, sa, sb, sc))
    return m, ars, crs, tuple(reversed(axes))
