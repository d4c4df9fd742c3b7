"""Depthwise convolution (as many groups as input channels) in NHWC: forward, transpose and weight gradient.

Each output pixel takes a list of taps (row of x, column of x, place in the kernel), the same for all pixels of a phase.
The forward has one phase; a transpose with stride s has s along an axis, the pixels y with equal y % s. Where each
channel has several outputs, x is first repeated for each.

Taps beside the image are left out.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kernels import plan
from kernels.elementwise import BY_NAME
from kernels.numba_cpu import threads
from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.copy import copy
from kernels.numba_cpu.elementwise import elementwise
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.host import host
from kernels.numba_cpu.layout import contiguous, rows
from kernels.numba_cpu.reduce import reduce
from kernels.plan import Label

#: Multiplications that are worth a thread.
LEAST = 1 << 17
#: Chunks of rows with sums of their own, at most; bytes of x that are packed at a time.
CHUNKS, BAND = 16, 1 << 16


def fits(w_shape: tuple[int, ...], groups: int) -> bool:
    """Whether weights of this shape make a depthwise convolution, of which there is more than one channel."""
    return groups > 1 and w_shape[2] == 1 and _rows(w_shape[:2]) > 0


def conv2d(x, w, bias, stride, padding, dilation, groups, activation, out) -> None:
    """As `kernels.contract.Backend.conv2d`, for weights that fit."""
    _correlate(False, _repeated(x, w.shape[3] // groups), w, bias, stride, padding, dilation, activation, out)


def conv2d_transpose(x, w, bias, stride, padding, dilation, groups, activation, out) -> None:
    """As `kernels.contract.Backend.conv2d_transpose`, for weights that fit."""
    multiplier = w.shape[3] // groups
    if multiplier == 1:
        _correlate(True, x, w, bias, stride, padding, dilation, activation, out)
        return
    n, h, width, c = out.shape
    wide = plan.empty(np, (n, h, width, c * multiplier), out.dtype)
    _correlate(True, x, w, None, stride, padding, dilation, None, wide)
    reduce("sum", wide.reshape(n, h, width, c, multiplier), (4,), out)
    if bias is not None:
        elementwise(BY_NAME["add"].forward, out, bias, out=out)
    if activation is not None:
        elementwise(BY_NAME[activation].forward, out, out=out)


def conv2d_weight_gradient(x, g, stride, padding, dilation, groups, out) -> None:
    """As `kernels.contract.Backend.conv2d_weight_gradient`, for an `out` that fits."""
    if out.size == 0:
        return
    if g.size == 0:
        copy(np.zeros((), out.dtype), out)
        return
    x = _pixels_contiguous(_repeated(x, out.shape[3] // groups))
    g, _, _, g_step = rows(g)
    p = _weight_plan(
        *(x.itemsize, x.shape, x.strides, g.shape, g_step, out.shape[:2]),
        *(stride, padding[0][0], padding[1][0], dilation, threads.get_num_threads()),
    )
    results = plan.empty(np, (p.results,), np.uint8)
    launch(p.label, p.kernel, p.parts, x, g, results, *p.words)
    launch("conv2d_weight_gradient", p.finish, 1, results, 64, *p.sizes, out)


def _repeated(x: np.ndarray, times: int) -> np.ndarray:
    """x with each channel `times` times."""
    if times == 1:
        return x
    n, h, w, c = x.shape
    out = plan.empty(np, (n, h, w, c, times), x.dtype)
    copy(x[..., None], out)
    return out.reshape(n, h, w, c * times)


def _pixels_contiguous(x: np.ndarray) -> np.ndarray:
    return x if x.strides[3] == x.itemsize else contiguous(x)


def _correlate(transposed, x, w, bias, stride, padding, dilation, activation, out) -> None:
    if out.size == 0:
        return
    x, w = _pixels_contiguous(x), contiguous(w)
    fused = activation in (None, "relu")
    p = _plan(
        *(transposed, x.itemsize, x.shape, x.strides, w.shape[:2], out.shape),
        *(stride, padding[0][0], padding[1][0], dilation, threads.get_num_threads()),
    )
    bias = 0 if bias is None else contiguous(bias)
    finish = int(activation == "relu")
    launch(p.label, p.kernel, p.parts, x, w, bias, out, p.table, finish, *p.words)
    if not fused:
        elementwise(BY_NAME[activation].forward, out, out=out)


class _Plan(NamedTuple):
    label: Label
    kernel: int
    parts: int
    words: tuple[int, ...]
    table: np.ndarray


@lru_cache(maxsize=1024)
def _plan(transposed, size, x_shape, x_strides, kernel, out_shape, stride, top, left, dilation, available) -> _Plan:
    dtype = "float32" if size == 4 else "float64"
    (n, oh, ow, c), (_, h, w, _) = out_shape, x_shape
    phases = stride if transposed else (1, 1)
    every = (1, 1) if transposed else stride
    lists = []
    for phase in np.ndindex(*phases):
        axes = []
        for axis, before in ((0, top), (1, left)):
            steps = range(0, kernel[axis] * dilation[axis], dilation[axis])
            if transposed:
                # Pixel phase + a * stride takes from row (phase + before - i * dilation) / stride + a, where whole.
                found = [(i, phase[axis] + before - step) for i, step in enumerate(steps)]
                axes.append([(i, way // stride[axis]) for i, way in found if way % stride[axis] == 0])
            else:
                axes.append([(i, step - before) for i, step in enumerate(steps)])
        # In the order of rows, so that those within x are one after the other.
        taps = [(dy, dx, (i * kernel[1] + j) * c * size) for i, dy in axes[0] for j, dx in axes[1]]
        taps.sort(key=lambda tap: tap[0])
        lists.append([(dy * x_strides[1] + dx * x_strides[2], place, dy, dx) for dy, dx, place in taps])
    heads, at = [], 4 * len(lists)
    for phase, taps in zip(np.ndindex(*phases), lists, strict=True):
        # From pixel `low` to before `high`, no tap lies beside x.
        columns, pixels = [tap[3] for tap in taps] or [0], -(-(ow - phase[1]) // phases[1])
        low = min(pixels, max(0, -(min(columns) // every[1])))
        high = max(low, min(pixels, (w - 1 - max(columns)) // every[1] + 1))
        heads += [at, len(taps), low, high]
        at += 4 * len(taps)
    table = np.array(heads + [word for taps in lists for tap in taps for word in tap], np.int64)
    work = n * oh * ow * c * kernel[0] * kernel[1] // (phases[0] * phases[1])
    words = (n, h, w, *x_strides[:3], c, oh, ow, *every, *phases)
    address = compile_kernel(f"depthwise/{dtype}", lambda: _make("correlate", dtype))
    parts = min(available, n * oh, max(1, work // LEAST))
    label = Label("conv2d_transpose" if transposed else "conv2d", flop=2 * work)
    return _Plan(label, address, parts, words, table)


class _WeightPlan(NamedTuple):
    label: Label
    kernel: int
    parts: int
    words: tuple[int, ...]
    results: int
    finish: int
    sizes: tuple[int, ...]


@lru_cache(maxsize=1024)
def _weight_plan(size, x_shape, x_strides, g_shape, g_step, kernel, stride, top, left, dilation, available):
    dtype = "float32" if size == 4 else "float64"
    (n, h, w, _), (_, oh, ow, c), (kh, kw) = x_shape, g_shape, kernel
    together = _rows(kernel)
    passes = -(-kh // together)
    lanes = host().lanes(dtype)
    line = ((ow - 1) * stride[1] + (kw - 1) * dilation[1] + 1) * lanes * size
    band = max(1, min(oh, BAND // (line * stride[0])))
    packed = (band - 1) * stride[0] + (passes * together - 1) * dilation[0] + 1
    scratch = (packed * line + 127) // 64 * 64
    units = n * -(-oh // band)
    result = (passes * together * kw * c * size + 63) // 64 * 64
    chunks, allowed = 1, min(units, CHUNKS, n * oh * ow * c * size // (8 * result))
    while 2 * chunks <= allowed:
        chunks *= 2
    address = compile_kernel(
        f"depthwise_weight/{dtype}/{together}x{kw}", lambda: _make("weight_gradient", dtype, together, kw)
    )
    finish = compile_kernel(f"conv_weight_finish/{dtype}", lambda: _finish(dtype))
    words = (
        *(chunks * result, scratch, h, w, *x_strides[:3], c, oh, ow, g_step, kh, *stride, *dilation, top, left),
        *(band, units, chunks, result),
    )
    work = n * oh * ow * c * kh * kw
    parts = min(available, chunks, max(1, work // LEAST))
    memory = chunks * result + parts * scratch + 64
    label = Label("conv2d_weight_gradient", flop=2 * work)
    return _WeightPlan(label, address, parts, words, memory, finish, (result, chunks, kh * kw * c, 0))


@lru_cache(maxsize=64)
def _rows(kernel: tuple[int, int]) -> int:
    """Rows of a kernel whose sums fit the registers together; 0 if not even one does."""
    registers = host().vector_registers
    most = (registers - (4 if registers > 16 else 2)) // kernel[1]
    return -(-kernel[0] // -(-kernel[0] // most)) if most else 0


def _make(name: str, dtype: str, *sizes: int):
    from kernels.numba_cpu.jit import depthwise, vector

    return getattr(depthwise, name)(getattr(vector, dtype), *sizes)


def _finish(dtype: str):
    from kernels.numba_cpu.jit import conv_weight, vector

    return conv_weight.finish(getattr(vector, dtype))
