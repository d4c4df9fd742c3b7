"""Winograd's convolution for 3 x 3 kernels: fewer multiplications than the sum over taps has.

F(m x m, 3 x 3) of Lavin & Gray 2016 (arXiv 1509.09308) computes m x m outputs from (m + 2)^2 products for each pair of
channels instead of 9 m^2: 2.25 times fewer for m = 2, 4 times fewer for m = 4 (jit/lines.py has the transforms). The
gradient for the input is the same with the flipped, transposed kernel; that for the weights is the transpose,

    dw = G^T [sum over tiles of (B^T x B) * (A g A^T)] G

The price is rounding. An output inherits errors from all inputs of its tile, also where its own sum is small. With

    S = sum over channels of  max |x| over the inputs of the tile * sum |w| over the taps
        (for the weight gradient: sum over tiles of  max |x| over the inputs * sum |g| over the tile)

of so many terms, and eps = 2^-23,

    |error| <= (terms + 32) * AMPLIFICATION[m] * eps / 2 * S

for all inputs; what happens is far less. On random normals the error is at most 4 (m = 2) or 16 (m = 4) times
eps * conv2d(|x|, |w|), where the sum over taps has 1. A NaN or an infinity may make all of its tile NaN. float64 is
always computed directly.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from kernels.elementwise import BY_NAME
from kernels.numba_cpu import scratch, threads
from kernels.numba_cpu.blocking import ACCUMULATE
from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.elementwise import elementwise
from kernels.numba_cpu.executor import launch
from kernels.numba_cpu.gemm import LEAST, micro_kernel
from kernels.numba_cpu.host import host
from kernels.numba_cpu.layout import contiguous
from kernels.plan import Label

Padding = tuple[tuple[int, int], tuple[int, int]]

#: Bytes of V of a block of tiles, which stay in the second cache.
V_BYTES = 1 << 20
#: Tiles of a block at least and at most: few of them read all of U too often.
LEAST_TILES, MOST_TILES = 24, 96
#: Panels of a group, that read a position of V one after the other.
GROUP = 4
#: Bytes of U that stay in the last cache: where there are more, the columns go in chunks.
U_BYTES = 8 << 20
#: Bytes of V of all tiles that are kept for the next chunk of columns; where there are more, they are computed again.
KEPT_BYTES = 16 << 20
#: Bytes of U of a chunk of columns of the weight gradient.
SUM_BYTES = 12 << 20
#: Bytes of V and M of a block of its tiles, and how many they are: few of them read and write U too often.
SPREAD_BYTES = 8 << 20
LEAST_SPREAD, MOST_SPREAD = 128, 256

#: By how much the transforms together can enlarge: the largest element of |A^T| (|B^T| 1 * |G|), squared.
AMPLIFICATION = {2: 16.0, 4: 176.0}

#: What transforms cost, in multiplications that the micro-kernel does in the same time: of a tile and channel of the
#: input or output, and of a pair of channels of the kernel. Measured with AVX-512; half as many lanes do half as many.
_TILE_COST = {2: 320, 4: 700}
_FILTER_COST = {2: 300, 4: 800}
#: The share of the peak that the sum over taps reaches, less a margin.
_GAIN = 0.85

_enabled = os.environ.get("NANONET_WINOGRAD", "1") != "0"

_SIZE = 4  # bytes of an element
_LINE = 64  # bytes of a cache line


def set_winograd(enabled: bool) -> None:
    """Allow or forbid it for the kernel calls to come. Without a call $NANONET_WINOGRAD=0 forbids it."""
    global _enabled
    if not isinstance(enabled, bool):
        raise ValueError(f"enabled: got {enabled!r}, want True or False")
    _enabled = enabled


def winograd_enabled() -> bool:
    """Whether kernels may use it."""
    return _enabled


def wanted(
    itemsize: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    images: tuple[int, ...],
    channels: int,
) -> int:
    """The size of the tiles, 2 or 4, with which a convolution or a gradient of it is fastest; 0: the sum over taps is.

    images (n, rows, columns, channels) is what tiles are cut from: the result of conv2d or conv2d_transpose, or g for
    the weight gradient; channels: those of the other images.
    """
    if not _enabled or kernel != (3, 3) or itemsize != _SIZE or groups != 1 or (*stride, *dilation) != (1, 1, 1, 1):
        return 0
    return _fastest(images, channels)


@lru_cache(maxsize=4096)
def _fastest(images: tuple[int, ...], channels: int) -> int:
    """Measured (one core, AVX-512, 235 GFLOP/s, 32 images; speed as a multiple of the direct peak, tiles of 2 and 4):

        channels   16 at 28 x 28   32 at 28 x 28   64 at 28 x 28   128 at 14 x 14   256 at 14 x 14   512 at 7 x 7
        2               0.7             1.2             1.6              1.9
        4               1.2             1.7             2.7              2.2              2.2             1.7

    The cost is a sum of products, which run at the peak, of the transforms, which weigh the more the fewer channels
    share them, and of the kernel's transform, which weighs with few images. Tiles that reach beyond the image count
    whole: 7 x 7 outputs are 4 tiles of 4 x 4. Tiles of 2 win for 1 x 1 or 2 x 2 outputs and for few images.
    """
    n, rows, columns, o = images
    c, direct = channels, _GAIN * 9 * n * rows * columns * channels * o
    costs = {0: direct}
    for m in (4, 2):
        tiles = n * -(-rows // m) * -(-columns // m)
        costs[m] = (m + 2) ** 2 * tiles * c * o + _TILE_COST[m] * tiles * (c + o) + _FILTER_COST[m] * c * o
    return min(costs, key=costs.get)


def conv2d(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    padding: Padding,
    activation: str | None,
    out: np.ndarray,
    tile: int = 4,
) -> None:
    """`kernels.contract.Backend.conv2d` of float32 with a 3 x 3 kernel, stride 1, dilation 1, one group."""
    (top, _), (left, _) = padding
    _convolve(x, w, bias, top, left, activation, out, tile, False)


def conv2d_transpose(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    padding: Padding,
    activation: str | None,
    out: np.ndarray,
    tile: int = 4,
) -> None:
    """`kernels.contract.Backend.conv2d_transpose`, as `conv2d` here: the flipped, transposed kernel, padding 2 - p."""
    (top, _), (left, _) = padding
    _convolve(x, w, bias, 2 - top, 2 - left, activation, out, tile, True)


def weight_gradient(x: np.ndarray, g: np.ndarray, padding: Padding, out: np.ndarray, tile: int = 4) -> None:
    """`kernels.contract.Backend.conv2d_weight_gradient`, as `conv2d` here."""
    if out.size == 0:
        return
    (top, _), (left, _) = padding
    x, g = _rows(x), _rows(g)
    plan = _weight(x.shape, x.strides, g.shape, g.strides, top, left, tile, threads.get_num_threads())
    memory = scratch.memory(plan.bytes)
    v, m, u, rest = (memory[start:stop] for start, stop in pairwise(plan.starts))
    taps = out.reshape(9, *out.shape[2:])
    for first, last in plan.chunks:
        columns = last - first
        for start, stop in plan.blocks:
            count = stop - start
            launch(
                *("winograd spread", plan.spread, plan.parts, x, g[..., first:last], v, m, rest, plan.part_bytes),
                *(columns, start, count, *plan.words, 0 if first and len(plan.blocks) == 1 else x.shape[3]),
            )
            label = Label("winograd accumulate", flop=2 * (tile + 2) ** 2 * count * x.shape[3] * columns)
            launch(
                *(label, plan.accumulate, plan.parts, v, m, u, count, x.shape[3], columns),
                *(*plan.steps, ACCUMULATE if start else 0, plan.micro_kernel),
            )
        launch(
            *("winograd weights", plan.weights, plan.parts, u, taps[:, :, first:last], x.shape[3], columns),
            *plan.weight_steps,
        )


def _convolve(x, w, bias, top, left, activation, out, tile, transposed) -> None:
    if out.size == 0:
        return
    x, w = _rows(x), contiguous(w)
    plan = _forward(x.shape, x.strides, out.shape, top, left, tile, transposed, threads.get_num_threads())
    if bias is not None and bias.strides[0] != _SIZE:
        bias = contiguous(bias)
    memory = scratch.memory(plan.bytes)
    u, work, rest = (memory[start:stop] for start, stop in pairwise(plan.starts))
    relu = int(activation == "relu")
    for first, last in plan.chunks:
        part = w[2, 2, first:last] if transposed else w[0, 0, :, first:last]
        launch(
            *("winograd filter", plan.filter, plan.filter_parts, part, u, x.shape[3], last - first),
            *(*plan.filter_steps, work, plan.filter_bytes),
        )
        label = Label("winograd", flop=plan.flop * (last - first))
        launch(
            *(label, plan.convolve, plan.parts, x, out[..., first:last], u),
            *(0 if bias is None else bias[first:last], rest, plan.part_bytes, last - first, relu, *plan.words),
            0 if first and plan.kept else x.shape[3],
        )
    if activation is not None and not relu:
        elementwise(BY_NAME[activation].forward, out, out=out)


def _rows(x: np.ndarray) -> np.ndarray:
    """x, or a copy, with its channels side by side."""
    return x if x.strides[3] == _SIZE or x.shape[3] == 1 else contiguous(x)


# ------------------------------------------------------------------------------------------ plans of shapes


@dataclass(frozen=True)
class _Forward:
    flop: int  # for each channel of the result
    bytes: int
    starts: tuple[int, ...]
    kept: bool
    chunks: list[tuple[int, int]]
    filter: int
    filter_parts: int
    filter_steps: tuple[int, ...]
    filter_bytes: int
    convolve: int
    parts: int
    part_bytes: int
    words: tuple[int, ...]


@dataclass(frozen=True)
class _Weight:
    bytes: int
    starts: tuple[int, ...]
    chunks: list[tuple[int, int]]
    blocks: list[tuple[int, int]]
    parts: int
    part_bytes: int
    spread: int
    words: tuple[int, ...]
    accumulate: int
    steps: tuple[int, ...]
    micro_kernel: int
    weights: int
    weight_steps: tuple[int, ...]


@lru_cache(maxsize=1024)
def _forward(x_shape, x_strides, out_shape, top, left, tile, transposed, available) -> _Forward:
    (n, h, w, c), (_, oh, ow, o) = x_shape, out_shape
    lanes, places = host().lanes("float32"), (tile + 2) ** 2
    panel_bytes = 2 * lanes * _SIZE
    down, across = -(-oh // tile), -(-ow // tile)
    tiles = n * down * across

    u_panel = _up(c, lanes) * panel_bytes
    chunks = _chunks(o, max(1, U_BYTES // (places * u_panel)), 2 * lanes)
    u_position = _odd(-(-chunks[0][1] // (2 * lanes)) * u_panel)

    v_tile = _odd(_up(c, lanes) * _SIZE)
    most = min(MOST_TILES, max(LEAST_TILES, V_BYTES // (places * v_tile)))
    parts = min(available, max(1, places * tiles * c * o // LEAST), -(-tiles // 12))
    blocks = -(-tiles // most)
    blocks = max(1, -(-blocks // parts) * parts)
    most = -(-tiles // blocks)
    v_position = _odd(most * v_tile)
    m_tile = _odd(min(GROUP, -(-o // (2 * lanes))) * panel_bytes)
    m_position = _odd(most * m_tile)

    kept = len(chunks) > 1 and blocks * places * v_position <= KEPT_BYTES
    v_bytes = places * v_position

    wide = _up(max(c, o), 2 * lanes)
    part_bytes = 2 * wide * _SIZE + _up(16 * places, _LINE) + places * m_position
    part_bytes = _up(part_bytes + v_bytes * (-(-blocks // parts) if kept else 1), 4096) + _LINE
    filter_bytes = places * lanes * lanes * _SIZE + _LINE
    filter_parts = threads.parts_for(c * o, 1 << 13)
    u_bytes = _up(places * u_position, 4096) + _LINE
    starts = (0, u_bytes, u_bytes + filter_parts * filter_bytes + _LINE)
    end = starts[-1] + parts * part_bytes + _LINE
    return _Forward(
        flop=2 * places * tiles * c,
        bytes=end,
        starts=(*starts, end),
        kept=kept,
        chunks=chunks,
        filter=_kernel("filters", tile),
        filter_parts=filter_parts,
        filter_steps=(
            *((-c * o * _SIZE, _SIZE, c * _SIZE) if transposed else (c * o * _SIZE, o * _SIZE, _SIZE)),
            *(u_position, u_panel),
        ),
        filter_bytes=filter_bytes,
        convolve=_kernel("convolve", tile),
        parts=parts,
        part_bytes=part_bytes,
        words=(
            *(tiles, down, across, h, w, c, oh, ow, top, left, *x_strides[:3]),
            *(oh * ow * o * _SIZE, ow * o * _SIZE, o * _SIZE, u_position, u_panel, blocks, GROUP),
            *(v_tile, v_position, m_tile, m_position, wide, micro_kernel("float32"), v_bytes if kept else 0),
        ),
    )


@lru_cache(maxsize=1024)
def _weight(x_shape, x_strides, g_shape, g_strides, top, left, tile, available) -> _Weight:
    (n, h, w, c), (_, oh, ow, o) = x_shape, g_shape
    lanes, places = host().lanes("float32"), (tile + 2) ** 2
    panel_bytes = 2 * lanes * _SIZE
    down, across = -(-oh // tile), -(-ow // tile)
    tiles = n * down * across

    u_panel = c * panel_bytes
    chunks = _chunks(o, max(1, SUM_BYTES // (places * u_panel)), 2 * lanes)
    panels = -(-chunks[0][1] // (2 * lanes))
    u_position = _odd(panels * u_panel)

    v_tile = _odd(_up(c, lanes) * _SIZE)
    most = SPREAD_BYTES // (places * (v_tile + panels * panel_bytes))
    count = max(1, -(-tiles // min(MOST_SPREAD, max(LEAST_SPREAD, most))))
    most = -(-tiles // count)
    blocks = [(tiles * i // count, tiles * (i + 1) // count) for i in range(count)]
    v_position = _odd(most * v_tile)
    m_panel = most * panel_bytes
    m_position = _odd(panels * m_panel)

    wide = _up(max(c, o), 2 * lanes)
    parts = min(available, max(1, places * tiles * c * o // LEAST))
    part_bytes = wide * _SIZE + _up(16 * places, _LINE) + _LINE
    sizes = [places * v_position, places * m_position, places * u_position, parts * part_bytes]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + _up(size, 4096) + _LINE)
    return _Weight(
        bytes=starts[-1],
        starts=tuple(starts),
        chunks=chunks,
        blocks=blocks,
        parts=parts,
        part_bytes=part_bytes,
        spread=_kernel("spread", tile),
        words=(
            *(down, across, h, w, c, oh, ow, top, left, *x_strides[:3], *g_strides[:3]),
            *(v_tile, v_position, m_panel, m_position, wide),
        ),
        accumulate=_kernel("accumulate", tile),
        steps=(v_tile, v_position, m_panel, m_position, u_panel, u_position),
        micro_kernel=micro_kernel("float32"),
        weights=_kernel("weights", tile),
        weight_steps=(u_panel, u_position, c * o * _SIZE, o * _SIZE),
    )


def _chunks(columns: int, panels: int, width: int) -> list[tuple[int, int]]:
    """Columns in even chunks of at most `panels` panels, the first the longest."""
    total = -(-columns // width)
    count = -(-total // panels)
    step = -(-total // count) * width
    return [(first, min(columns, first + step)) for first in range(0, columns, step)]


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


def _odd(size: int) -> int:
    """`size` bytes in an odd number of cache lines: many of them in a row fall into all sets of a cache."""
    return (-(-size // _LINE) | 1) * _LINE


def _kernel(name: str, tile: int) -> int:
    def make():
        from kernels.numba_cpu.jit import vector, winograd

        return getattr(winograd, name)(vector.float32, tile)

    return compile_kernel(f"winograd/{name}/{tile}", make)
