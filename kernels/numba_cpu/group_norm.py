"""The slots `group_norm` and `group_norm_backward`: groups that are runs of memory, and images."""

from functools import cache, lru_cache

import numpy as np

from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.layout import contiguous
from kernels.numba_cpu.reduce import reduce
from kernels.numba_cpu.threads import parts_for
from kernels.plan import empty

#: Elements that are worth a thread of their own.
WORTH = 1 << 15
#: Bytes of a chunk of rows, whose gradients for weight and bias are added one after another.
_CHUNK = 1 << 17
#: Fewer images than this are shared out by groups, too, in pieces of at least so many columns.
_IMAGES, _WIDTH = 16, 32


def group_norm(
    x: np.ndarray,
    groups: int,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    eps: float,
    out: np.ndarray,
    mean: np.ndarray | None,
    scale: np.ndarray,
) -> None:
    """See `kernels.contract.Backend.group_norm`."""
    if not x.size:
        return _of_nothing(x, eps, mean, scale)
    n, s, c = x.shape
    x, parts = _steady(x), parts_for(x.size, WORTH)
    w, b, m = _vector(weight), _vector(bias), 0 if mean is None else mean
    if s == 1:
        kernel = _kernel("rows", x.dtype, mean is not None, weight is not None, bias is not None)
        launch("group_norm", kernel, parts, x, w, b, out, m, scale, n, groups, c // groups, x.strides[0], float(eps))
        return
    together = _together(n, c, groups)
    parts = min(parts, n * -(-groups // together))
    scratch = empty(np, (parts, 6, c), x.dtype)
    sizes = (n, s, c, groups, together, *x.strides[:2])
    launch("group_norm", _kernel("images", x.dtype), parts, x, w, b, out, m, scale, scratch, *sizes, float(eps))


def group_norm_backward(
    g: np.ndarray,
    x: np.ndarray,
    groups: int,
    weight: np.ndarray | None,
    mean: np.ndarray | None,
    scale: np.ndarray,
    out: np.ndarray,
    weight_gradient: np.ndarray | None,
    bias_gradient: np.ndarray | None,
) -> None:
    """See `kernels.contract.Backend.group_norm_backward`."""
    n, s, c = x.shape
    if x.size:
        g, x, parts = _steady(g), _steady(x), parts_for(x.size, WORTH)
        w, m, scale = _vector(weight), 0 if mean is None else contiguous(mean), contiguous(scale)
    if not x.size:
        partial = empty(np, (0, 2, c), x.dtype)
    elif s == 1:
        chunk = _chunk(c, x.itemsize)
        partial = empty(np, (-(-n // chunk), 2, c), x.dtype)
        kernel = _kernel("rows_backward", x.dtype, mean is not None, weight is not None)
        sizes = (n, groups, c // groups, g.strides[0], x.strides[0], chunk)
        launch("group_norm_backward", kernel, parts, g, x, w, m, scale, out, partial, *sizes)
    else:
        together = _together(n, c, groups)
        parts = min(parts, n * -(-groups // together))
        partial, scratch = empty(np, (n, 2, c), x.dtype), empty(np, (parts, 4, c), x.dtype)
        sizes = (n, s, c, groups, together, *g.strides[:2], *x.strides[:2])
        kernel = _kernel("images_backward", x.dtype)
        launch("group_norm_backward", kernel, parts, g, x, w, m, scale, out, partial, scratch, *sizes)
    for i, gradient in enumerate((weight_gradient, bias_gradient)):
        if gradient is not None:
            reduce("sum", partial[:, i], (0,), gradient)


def _steady(x: np.ndarray) -> np.ndarray:
    """x, or a copy, with a contiguous last axis."""
    return x if x.strides[2] == x.itemsize or x.shape[2] == 1 else contiguous(x)


def _vector(x: np.ndarray | None):
    return 0 if x is None else contiguous(x)


def _of_nothing(x: np.ndarray, eps: float, mean: np.ndarray | None, scale: np.ndarray) -> None:
    """The mean of no elements is NaN."""
    from kernels.numba_cpu.copy import copy

    nan = np.full((), np.nan, x.dtype)
    for out in (mean, scale):
        if out is not None and out.size:
            copy(np.broadcast_to(nan, out.shape), out)


def _together(n: int, c: int, groups: int) -> int:
    """Groups in a piece of work."""
    return groups if n >= _IMAGES else min(groups, -(-_WIDTH // (c // groups)))


@lru_cache(maxsize=4096)
def _chunk(c: int, itemsize: int) -> int:
    """Rows of a chunk: fixed by the shape."""
    return max(16, min(512, _CHUNK // (c * itemsize)))


@cache
def _kernel(name: str, dtype: np.dtype, *options: bool) -> int:
    def make():
        from kernels.numba_cpu.jit import group_norm

        return getattr(group_norm, f"make_{name}")(dtype.name, *options)

    return compile_kernel("/".join(("group_norm", name, dtype.name, *(str(option) for option in options))), make)


SLOTS = {"group_norm": group_norm, "group_norm_backward": group_norm_backward}
