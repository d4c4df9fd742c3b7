"""Convolution and its transpose in NHWC: the micro-kernel over the places of an image that a kernel meets."""

from functools import lru_cache, partial

import numpy as np

from kernels.elementwise import BY_NAME
from kernels.numba_cpu import depthwise, scratch, threads, winograd
from kernels.numba_cpu.blocking import BIAS, FINISH, most_dots
from kernels.numba_cpu.compiler import compile_function, compile_kernel
from kernels.numba_cpu.correlation import Correlation, Weights, convolution_phases, correlation, transpose_phases
from kernels.numba_cpu.elementwise import elementwise
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.gemm import LEAST, linear
from kernels.numba_cpu.host import host
from kernels.numba_cpu.layout import contiguous
from kernels.plan import Label

#: Elements of the weights that are worth a thread when they are packed.
_PACKING = 1 << 16
_NONE = ((0, 0), (0, 0))


def conv2d(x, w, bias, stride, padding, dilation, groups, activation, out) -> None:
    """See `kernels.contract.Backend.conv2d`."""
    _convolve(False, x, w, bias, stride, padding, dilation, groups, activation, out)


def conv2d_transpose(x, w, bias, stride, padding, dilation, groups, activation, out) -> None:
    """See `kernels.contract.Backend.conv2d_transpose`."""
    _convolve(True, x, w, bias, stride, padding, dilation, groups, activation, out)


def _convolve(transposed, x, w, bias, stride, padding, dilation, groups, activation, out) -> None:
    if out.size == 0:
        return
    if depthwise.fits(w.shape, groups):
        convolve = depthwise.conv2d_transpose if transposed else depthwise.conv2d
        convolve(x, w, bias, stride, padding, dilation, groups, activation, out)
        return
    stride, padding, dilation = tuple(stride), tuple(map(tuple, padding)), tuple(dilation)
    fused = activation if activation == "relu" else None
    if w.shape[:2] == (1, 1) and groups == 1 and stride == (1, 1) and padding == _NONE:
        # Pixels are rows of a matrix.
        linear(_matrix(x), w[0, 0].T if transposed else w[0, 0], bias, fused, _matrix(out))
    elif tile := winograd.wanted(x.itemsize, w.shape[:2], stride, dilation, groups, out.shape, x.shape[3]):
        (winograd.conv2d_transpose if transposed else winograd.conv2d)(x, w, bias, padding, fused, out, tile)
    else:
        _correlate(transposed, x, w, bias, stride, padding, dilation, groups, fused, out)
    if activation != fused:
        elementwise(BY_NAME[activation].forward, out, out=out)


def _matrix(x: np.ndarray) -> np.ndarray:
    return contiguous(x).reshape(-1, x.shape[-1])


def _correlate(transposed, x, w, bias, stride, padding, dilation, groups, fused, out) -> None:
    size = x.itemsize
    if (x.strides[3] != size and x.shape[3] > 1) or (x.strides[2] != x.shape[3] * size and x.shape[2] > 1):
        x = contiguous(x)
    dots = groups == 1 and _few(*w.shape[2:], size, transposed)
    if dots:
        w = contiguous(w if transposed else w.transpose(0, 1, 3, 2))
    plan, label, kernel, packer = _plan(
        *(transposed, dots, size, x.shape, x.strides, w.shape, w.strides, out.shape),
        *(stride, padding, dilation, groups, threads.get_num_threads()),
    )
    flags = 0 if fused is None else FINISH
    if bias is None:
        bias = 0
    else:
        flags |= BIAS
        if bias.strides[0] != size:
            bias = contiguous(bias)
    memory = scratch.memory(plan.packed + plan.parts * plan.scratch)
    if plan.packing is not None:
        launch("conv2d weights", packer, threads.parts_for(w.size, _PACKING), w, memory, plan.packing)
        w = memory
    memory = (memory, plan.packed, plan.scratch)
    launch(label, kernel, plan.parts, x, out, w, bias, *memory, plan.description, flags)


@lru_cache(maxsize=4096)
def _few(inner: int, outer: int, size: int, transposed: bool) -> bool:
    """Whether sums along the inputs use the vectors better than one vector of output channels does."""
    if transposed:
        inner, outer = outer, inner
    lanes = host().lanes("float32" if size == 4 else "float64")
    if inner % lanes and not host().has_masked_load:
        return False
    return outer in most_dots(host()) and 2 * outer * -(-inner // lanes) <= inner


@lru_cache(maxsize=4096)
def _plan(
    transposed,
    dots,
    size,
    x_shape,
    x_strides,
    w_shape,
    w_strides,
    out_shape,
    stride,
    padding,
    dilation,
    groups,
    available,
) -> tuple[Correlation, Label, int, int]:
    """The arguments for these shapes, the instruction's label, and the addresses of the two kernels."""
    kh, kw, inner, outer = w_shape
    if dots and not transposed:
        inner, outer = outer, inner
    outer //= groups
    taps, group = (w_strides[0], w_strides[1]), outer * w_strides[3]
    dtype = "float32" if size == 4 else "float64"
    lanes = host().lanes(dtype)
    if transposed:
        phases = transpose_phases((kh, kw), out_shape[1:3], stride, padding, dilation)
        weights = Weights(taps, w_strides[3], w_strides[2], group, outer, inner, groups, dots, dots)
        step, every = (1, 1), stride
    else:
        phases = convolution_phases((kh, kw), out_shape[1:3], padding, dilation)
        natural = (kw * inner * outer * size, inner * outer * size, outer * size, size)
        whole = outer % lanes == 0 or host().has_masked_load
        in_place = groups == 1 and w_strides == natural and outer <= 2 * lanes and whole
        weights = Weights(taps, w_strides[2], w_strides[3], group, inner, outer, groups, in_place or dots, dots)
        step, every = stride, (1, 1)
    work = out_shape[0] * sum(
        p.size[0] * p.size[1] * len(p.rows) * len(p.columns) * inner * outer * groups for p in phases
    )
    parts = min(available, max(1, work // LEAST))
    plan = correlation(size, x_shape, x_strides, out_shape, weights, phases, step, every, parts, partial(_tile, dtype))
    kernel = compile_kernel(f"conv/{dtype}", lambda: _kernel("correlation", dtype))
    packer = 0
    if plan.packing is not None:
        packer = compile_kernel(f"conv/packing/{dtype}", lambda: _kernel("packing", dtype))
    label = Label("conv2d_transpose" if transposed else "conv2d", flop=2 * work)
    return plan, label, kernel, packer


def _kernel(name: str, dtype: str):
    from kernels.numba_cpu.jit import conv, vector

    return getattr(conv, name)(getattr(vector, dtype))


def _tile(dtype: str, taps: int) -> int:
    """Address of the micro-kernel."""

    def make():
        from kernels.numba_cpu.jit import dots, tile, vector

        if taps == 0:
            return dots.dots(getattr(vector, dtype), "relu")
        return tile.tile(getattr(vector, dtype), "relu", taps)

    return compile_function(f"tile/{dtype}/relu/{taps}", make, "i" * 13)
