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
from typing import NamedTuple

import numpy as np

from kernels import plan
from kernels.numba_cpu import threads
from kernels.numba_cpu.blocking import most_rows
from kernels.numba_cpu.compiler import compile_function, compile_kernel
from kernels.numba_cpu.copy import copy
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.host import host
from kernels.numba_cpu.layout import contiguous, rows

#: Words of the table for each tile: offset in the packed band, rows, offset in the result.
COLUMN_TABLE = 3
#: Pixels of a band, about.
BAND = 256
#: Multiplications that are worth a thread.
LEAST = 1 << 18
#: Bytes that the results of chunks may take, as a share of the bytes of x and g.
SHARE = 0.25
#: Chunks at most; a power of two.
CHUNKS = 16
#: Channels up to which all of them are packed side by side.
TOGETHER = 16


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
    if out.size == 0:
        return
    if g.size == 0:
        copy(np.zeros((), out.dtype), out)
        return
    if x.strides[3] != x.itemsize:
        x = contiguous(x)
    g, _, _, g_step = rows(g)
    shapes = x.itemsize, x.shape, x.strides, g.shape, g_step, out.shape
    p = _plan(*shapes, stride, padding[0][0], padding[1][0], dilation, groups, threads.get_num_threads())
    scratch = plan.empty(np, (p.scratch,), np.uint8)
    results = out if p.direct else plan.empty(np, (p.results,), np.uint8)
    align = 1 if p.direct else 64
    launch(
        "conv2d_weight_gradient", p.kernel, p.parts, x, g, results, align, scratch, *p.words[:2], p.table, *p.words[2:]
    )
    if not p.direct:
        launch("conv2d_weight_gradient", p.finish, p.finish_parts, results, align, *p.sizes, p.order, *p.counts, out)


class _Plan(NamedTuple):
    kernel: int
    parts: int
    scratch: int
    words: tuple[int, ...]
    table: np.ndarray
    direct: bool
    results: int
    finish: int
    finish_parts: int
    sizes: tuple[int, int]
    order: np.ndarray
    counts: tuple[int, int]


def _up(count: int) -> int:
    return -(-count // 64) * 64


@lru_cache(maxsize=1024)
def _plan(size, x_shape, x_strides, g_shape, g_step, out_shape, stride, top, left, dilation, groups, available):
    dtype = "float32" if size == 4 else "float64"
    lanes, most = host().lanes(dtype), most_rows(host())
    (n, h, w, _), (_, oh, ow, all_o), (kh, kw, c, _) = x_shape, g_shape, out_shape
    o = all_o // groups

    # How many channels lie side by side, and how many rows of the result a run of elements is.
    together = dilation[1] == 1
    if c <= most[2]:
        width = c
    elif together and groups == 1 and c <= TOGETHER:
        width = c
    elif together and kw > 1:
        width = max(1, most[2] // kw)
    else:
        width = -(-c // -(-c // most[2]))
    subgroups = -(-c // width)
    runs = (
        [(j * width, kw * width) for j in (0,)] if together else [(j * dilation[1] * width, width) for j in range(kw)]
    )

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

    # Tiles: offset in the band, rows, offset in the result, whose rows are (subgroup, kernel row, run).
    tiles, row = [], 0
    order = np.zeros((kh, kw, c), np.int64)
    for subgroup in range(subgroups):
        live = min(width, c - subgroup * width)
        for i in range(kh):
            base = subgroup * plane + i * dilation[0] * columns * width * size
            for j in range(kw):
                order[i, j, subgroup * width : subgroup * width + live] = row + j * width + np.arange(live)
            for start, length in runs:
                pieces = -(-length // most[2])
                for piece in range(pieces):
                    low, high = length * piece // pieces, length * (piece + 1) // pieces
                    tiles.append((base + (start + low) * size, high - low, (row + low) * all_o * size))
                row += length
    natural = bool((order.ravel() == np.arange(order.size)).all()) and row == order.size
    taps = np.arange(images)[:, None, None] * plane_rows + (
        np.arange(band_rows)[:, None] * stride[0] * columns + np.arange(ow) * stride[1]
    ) * (width * size)
    table = np.concatenate([np.array(tiles, np.int64).ravel(), taps.ravel()])

    # Panels of g: as many vectors as registers allow.
    wide = -(-o // lanes)
    tallest = max(rows for _, rows, _ in tiles)
    widest = max(vectors for vectors, rows in most.items() if rows >= tallest)
    panel = -(-wide // -(-wide // widest))
    pack_g = wide > panel and len(tiles) >= 8 or (o % lanes > 0 and not host().has_masked_load)

    # Chunks and threads.
    work = n * pixels * kh * kw * c * all_o
    result = _up(row * all_o * size)
    blocks = -(-n // images)
    allowed = min(blocks * bands, SHARE * n * (h * w * x_shape[3] + pixels * all_o) * size / result)
    chunks = 1
    while 2 * chunks <= min(allowed, CHUNKS):
        chunks *= 2
    threads_now = min(available, max(1, work // LEAST))
    splits = min(groups * -(-wide // panel), threads_now // np.gcd(chunks, threads_now))
    parts = min(threads_now, chunks * splits)
    planes = _up(groups * subgroups * plane)
    scratch = planes + _up((images * band_rows * ow * panel * lanes) * size)

    direct = natural and chunks == 1
    kernel = compile_kernel(f"conv_weight/{dtype}", lambda: _loops("sums", dtype))
    finish = compile_kernel(f"conv_weight_finish/{dtype}", lambda: _loops("finish", dtype))
    tile = compile_function(f"tile/{dtype}/relu/taps", lambda: _tile(dtype), "i" * 13)
    words = (
        *(scratch, tile, n, h, w, *x_strides[:3], groups, c, o, g_step, oh, ow, stride[0], top, left),
        *(reach, columns, width, subgroups, images, bands, blocks, chunks, int(splits)),
        *(result, panel, int(pack_g), len(tiles), plane_rows, plane, COLUMN_TABLE * len(tiles), planes),
    )
    finish_parts = min(available, max(1, chunks * row * all_o >> 16))
    return _Plan(
        *(kernel, int(parts), int(parts) * scratch + 64, words, table, direct, chunks * result + 64),
        *(finish, finish_parts, (result, chunks), order.ravel() * (all_o * size), (order.size, all_o)),
    )


def _loops(name: str, dtype: str):
    from kernels.numba_cpu.jit import conv_weight, vector

    return getattr(conv_weight, name)(getattr(vector, dtype))


def _tile(dtype: str):
    from kernels.numba_cpu.jit import tile, vector

    return tile.tile(getattr(vector, dtype), "relu", taps=True)
