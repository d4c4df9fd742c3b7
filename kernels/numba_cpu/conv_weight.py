"""The weight gradient of a convolution.

For each place (i, j) of the kernel it is a product of matrices over the pixels of the output,

    out[i, j] (c x o) = sum over pixels p of  x[pixel that (i, j) meets at p] (c)  g[p] (o)

and the micro-kernel's k runs over pixels. These go in bands, some rows of an image or some whole images, so that both
factors stay in the second cache. A band of x is copied with its padding, `width` channels at a time:

    subgroup 0:  [images][rows][columns][width]      The `width` x kw elements that a row of the kernel meets are
    subgroup 1:  [images][rows][columns][width]      side by side: the rows of a tile are a part of them, or all.
    ...                                              For every tile of the band, k goes through the same offsets.

A fixed number of chunks of bands, given by the shapes, have results of their own, which are then added in their order.
"""

from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np

from kernels import plan
from kernels.numba_cpu import depthwise, threads, winograd
from kernels.numba_cpu.blocking import most_rows
from kernels.numba_cpu.compiler import compile_function, compile_kernel
from kernels.numba_cpu.copy import copy
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.host import host
from kernels.numba_cpu.layout import contiguous, rows
from kernels.plan import Label

#: Words of the table for each tile: offset in the packed band, rows, offset in the result.
TABLE = 3
#: Pixels of a band, about.
BAND = 384
#: Multiplications that are worth a thread.
LEAST = 1 << 18
#: Bytes that the results of chunks may take, as a share of the bytes of x and g.
SHARE = 0.25
#: Chunks at most; a power of two.
CHUNKS = 16
#: Channels that are packed side by side, at most.
TOGETHER = 128


def conv2d_weight_gradient(
    x: np.ndarray,
    g: np.ndarray,
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    groups: int,
    out: np.ndarray,
) -> None:
    """See `kernels.contract.Backend.conv2d_weight_gradient`."""
    if depthwise.fits(out.shape, groups):
        depthwise.conv2d_weight_gradient(x, g, stride, padding, dilation, groups, out)
        return
    if out.size == 0:
        return
    if g.size == 0:
        copy(np.zeros((), out.dtype), out)
        return
    if tile := winograd.wanted(x.itemsize, out.shape[:2], stride, dilation, groups, g.shape, x.shape[3]):
        winograd.weight_gradient(x, g, padding, out, tile)
        return
    if x.strides[3] != x.itemsize:
        x = contiguous(x)
    g, _, _, g_step = rows(g)
    shapes = x.itemsize, x.shape, x.strides, g.shape, g_step, out.shape
    p = _plan(*shapes, stride, padding[0][0], padding[1][0], dilation, groups, threads.get_num_threads())
    scratch = plan.empty(np, (p.scratch,), np.uint8)
    results = out if p.direct else plan.empty(np, (p.results,), np.uint8)
    align = 1 if p.direct else 64
    words = (*p.words[:2], p.table, *p.words[2:])
    launch(p.label, p.kernel, p.parts, x, g, results, align, scratch, *words)
    if not p.direct:
        launch("conv2d_weight_gradient", p.finish, p.finish_parts, results, align, *p.sizes, out)


class _Plan(NamedTuple):
    label: Label
    kernel: int
    parts: int
    words: tuple[int, ...]
    table: np.ndarray
    direct: bool  # the only chunk's result is out
    scratch: int
    results: int
    finish: int
    finish_parts: int
    sizes: tuple[int, ...]


def _up(count: int) -> int:
    return -(-count // 64) * 64


@lru_cache(maxsize=1024)
def _plan(size, x_shape, x_strides, g_shape, g_step, out_shape, stride, top, left, dilation, groups, available):
    dtype = "float32" if size == 4 else "float64"
    lanes, most = host().lanes(dtype), most_rows(host())
    (n, h, w, _), (_, oh, ow, all_o), (kh, kw, c, _) = x_shape, g_shape, out_shape
    o = all_o // groups

    # Channels that lie side by side, and the runs of elements that a kernel row meets: (column, elements).
    subgroups = -(-c // TOGETHER)
    width = -(-c // subgroups)
    joined = dilation[1] == 1 and subgroups == 1
    runs = [(0, kw * c)] if joined else [(j, width) for j in range(kw)]

    # Bands.
    pixels = oh * ow
    images, bands = 1, 1
    if pixels > BAND:
        bands = -(-oh // max(1, BAND // ow))
    else:
        images = min(n, max(1, round(BAND / pixels)))
    band_rows = -(-oh // bands)
    reach, columns = (kh - 1) * dilation[0] + 1, (ow - 1) * stride[1] + (kw - 1) * dilation[1] + 1
    plane_rows = ((band_rows - 1) * stride[0] + reach) * columns * width * size
    plane = _up(images * plane_rows + lanes * size)

    # g is read in vectors and x element by element, or the other way round where g has but one vector.
    wide = -(-o // lanes)
    swapped = wide == 1 and runs[0][1] > lanes
    if swapped:
        wide = -(-runs[0][1] // lanes)
        widest = max(vectors for vectors, rows in most.items() if rows >= min(o, most[3]))
    else:
        tallest = max(-(-length // -(-length // most[2])) for _, length in runs)
        widest = max(vectors for vectors, rows in most.items() if rows >= tallest)
    panel = -(-wide // -(-wide // widest))
    step = panel * lanes if swapped else most[2]

    # Offset in the band, elements, offset in the result: of the tiles for a panel of g, or of the panels of x.
    pieces_of_x = []
    for subgroup in range(subgroups):
        live = min(width, c - subgroup * width)
        for i in range(kh):
            for j, length in runs:
                length = length if joined else live
                base = subgroup * plane + (i * dilation[0] * columns + j * dilation[1]) * width * size
                row = (i * kw + j) * c + subgroup * width
                pieces = -(-length // step)
                for piece in range(pieces):
                    low, high = length * piece // pieces, length * (piece + 1) // pieces
                    if swapped:
                        low, high = min(length, piece * step), min(length, (piece + 1) * step)
                    to = (row + low) * size * (1 if swapped else all_o)
                    pieces_of_x.append((base + low * size, high - low, to))
    taps = np.arange(images)[:, None, None] * plane_rows + (
        np.arange(band_rows)[:, None] * stride[0] * columns + np.arange(ow) * stride[1]
    ) * (width * size)
    table = np.concatenate([np.array(pieces_of_x, np.int64).ravel(), taps.ravel()])
    count = len(pieces_of_x)
    if swapped:
        pieces, panels, pack_g = -(-o // most[panel]), count, False
    else:
        pieces, panels = 0, -(-wide // panel)
        pack_g = (panels > 1 and count >= 8) or (o % lanes > 0 and not host().has_masked_load)

    # Chunks and threads.
    work = n * pixels * kh * kw * c * all_o
    size_out = kh * kw * c * all_o
    result = _up(size_out * size)
    blocks = -(-n // images)
    allowed = min(blocks * bands, SHARE * n * (h * w * x_shape[3] + pixels * all_o) * size / result)
    chunks = 1
    while 2 * chunks <= min(allowed, CHUNKS):
        chunks *= 2
    threads_now = min(available, max(1, work // LEAST))
    splits = min(groups * panels, threads_now // gcd(chunks, threads_now))
    parts = min(threads_now, chunks * splits)
    planes = _up(groups * subgroups * plane)
    scratch = planes + _up((images * band_rows * ow * panel * lanes) * size)

    direct = chunks == 1 and not swapped
    kernel = compile_kernel(f"conv_weight/{dtype}", lambda: _loops("sums", dtype))
    finish = compile_kernel(f"conv_weight_finish/{dtype}", lambda: _loops("finish", dtype))
    name = f"tile/{dtype}/rows" if swapped else f"tile/{dtype}/relu/1"
    tile = compile_function(name, lambda: _tile(dtype, swapped), "i" * 13)
    words = (
        *(scratch, tile, n, h, w, *x_strides[:3], groups, c, o, g_step, oh, ow, stride[0], top, left),
        *(reach, columns, width, subgroups, images, bands, blocks, chunks, splits),
        *(result, panel, int(pack_g), count, plane_rows, plane, TABLE * count, planes),
        *(pieces, (kh * kw * c if swapped else all_o) * size),
    )
    finish_parts = min(available, max(1, chunks * size_out >> 16))
    sizes = (result, chunks, size_out, all_o if swapped else 0)
    label = Label("conv2d_weight_gradient", flop=2 * work)
    memory = parts * scratch + 64, chunks * result + 64
    return _Plan(label, kernel, parts, words, table, direct, *memory, finish, finish_parts, sizes)


def _loops(name: str, dtype: str):
    from kernels.numba_cpu.jit import conv_weight, vector

    return getattr(conv_weight, name)(getattr(vector, dtype))


def _tile(dtype: str, swapped: bool):
    from kernels.numba_cpu.jit import tile, vector

    if swapped:
        return tile.tile(getattr(vector, dtype), None, row_taps=True)
    return tile.tile(getattr(vector, dtype), "relu", taps=1)
