"""Matrix products: which kernel, how blocked, packed or not, by how many threads.

Argument block of the kernel (strides in bytes):

    0 a  1 b  2 c  3 bias  4 scratch  5 bytes of scratch per part  6 m  7 n  8 k
    9 stride of a for i  10 of a for k  11 of b for k  12 of b for j  13 of c for i
    14 flags  15 pack a  16 pack b  17 row blocks  18 column blocks  19 batch axes
    20 ... for each batch axis: length, stride of a, of b, of c
"""

import threading
from functools import lru_cache

import numpy as np

from kernels import plan
from kernels.numba_cpu import threads
from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.host import host

#: Words of the argument block before the batch axes.
ARGUMENTS = 20
#: k goes in blocks of at most KC: a panel of B, KC x 2 vectors of 32 bytes, fills half of a 32 KiB cache.
KC = 256
#: Columns of packed B, which lies in the last cache.
NC = 2048


def rows_of_block(rows: int) -> int:
    """Rows of A that are worked through per panel, so that KC of their columns stay in the second cache."""
    return 24 * rows if rows <= 6 else 12 * rows


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray, accumulate: bool = False) -> None:
    """out = a @ b, or out += a @ b. a (..., m, k), b (..., k, n) of any strides; the last axis of out is contiguous.

    Leading axes broadcast. k = 0 gives zeros. The bits do not depend on the number of threads.
    """
    _multiply(a, b, None, None, out, int(accumulate))


def linear(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, activation: str | None, out: np.ndarray) -> None:
    """out = activation(x @ w + bias). x (..., k), w (k, n), bias (n,) or None, out (..., n); activation None or "relu"."""
    _multiply(x, w, bias, activation, out, 0)


def _multiply(a, b, bias, activation, out, flags) -> None:
    if out.size == 0:
        return
    call = _call(
        out.dtype.name, a.shape, a.strides, b.shape, b.strides, out.shape, out.strides, activation, threads.get_num_threads()
    )
    kernel, parts, scratch, words, first, rest = call
    memory = _scratch(parts * scratch)
    if bias is not None:
        if bias.strides[0] != bias.itemsize:
            bias = np.ascontiguousarray(bias)
        flags |= 2
    launch("matmul", kernel, parts, a, b, out, 0 if bias is None else bias, memory, scratch, *first, flags | 4, *rest)


@lru_cache(maxsize=8192)
def _call(dtype, a_shape, a_strides, b_shape, b_strides, c_shape, c_strides, activation, available):
    raise NotImplementedError
