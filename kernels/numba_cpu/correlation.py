"""Correlations of images with a kernel, as the micro-kernel takes them: the arithmetic of strides, bands and panels.

The result's pixels fall into phases. In each of them

    out[q, p] = sum over (dy, dx), c of  x[q * step_h + dy, p * step_w + dx, c] * w[tap of (dy, dx), c]

where x is 0 outside the image. A convolution is one phase. The transpose of one with stride s has s_h * s_w phases of
step 1: the pixels with the same remainders by s see the same taps of the kernel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kernels.numba_cpu.blocking import most_dots, most_pixels, most_rows
from kernels.numba_cpu.host import host

Pair = tuple[int, int]

#: Bytes of input that are worked on together: they and a panel of weights stay in the second cache.
BAND = 1 << 18
#: Pixels that a panel of weights serves at least each time it is fetched, where there are as many.
PIXELS = 192
#: Work is cut into at least so many units for each thread, if it can be.
UNITS = 4


@dataclass(frozen=True)
class Phase:
    """Pixels start[0], start[0] + every[0], ... of the result's rows (columns likewise), size[0] * size[1] of them.

    rows: (dy, i) with dy ascending, where row i of the kernel meets row q * step + dy of the image; columns likewise.
    """

    start: Pair
    size: Pair
    rows: tuple[Pair, ...]
    columns: tuple[Pair, ...]


def convolution_phases(kernel: Pair, size: Pair, padding: tuple[Pair, Pair], dilation: Pair) -> list[Phase]:
    """The single phase of a convolution whose result has `size` pixels."""
    rows, columns = (tuple((i * dilation[axis] - padding[axis][0], i) for i in range(kernel[axis])) for axis in (0, 1))
    return [Phase((0, 0), size, rows, columns)]


def transpose_phases(kernel: Pair, size: Pair, stride: Pair, padding: tuple[Pair, Pair], dilation: Pair) -> list[Phase]:
    """The phases of a transposed convolution whose result has `size` pixels."""

    def axis_phases(axis: int) -> list[tuple[int, int, tuple[Pair, ...]]]:
        step, before = stride[axis], padding[axis][0]
        result = []
        for start in range(min(step, size[axis])):
            places = [(start + before - i * dilation[axis], i) for i in range(kernel[axis])]
            taps = sorted((place // step, i) for place, i in places if place % step == 0)
            result.append((start, -(-(size[axis] - start) // step), tuple(taps)))
        return result

    return [
        Phase((top, left), (tall, wide), rows, columns)
        for top, tall, rows in axis_phases(0)
        for left, wide, columns in axis_phases(1)
    ]


@dataclass(frozen=True)
class Weights:
    """How a weight array w (kh, kw, c / groups, o) is read: bytes from tap to tap, for an input channel, for an output
    channel, and from group to group; `inner` input and `outer` output channels of a group.

    in_place: the micro-kernel reads them there; dots: and it is that of jit/dots.py, which wants unit stride for the
    inputs and the output channels one after the other.
    """

    taps: Pair
    input: int
    output: int
    group: int
    inner: int
    outer: int
    groups: int
    in_place: bool
    dots: bool = False


@dataclass(frozen=True)
class Correlation:
    """Arguments of the two kernels in jit/conv.py for one layer and batch; memory sizes in bytes."""

    description: np.ndarray
    packing: np.ndarray | None
    packed: int
    scratch: int
    parts: int


def correlation(
    size: int,
    x_shape: Sequence[int],
    x_strides: Sequence[int],
    out_shape: Sequence[int],
    weights: Weights,
    phases: list[Phase],
    step: Pair,
    every: Pair,
    parts: int,
    tile: Callable[[int], int],
) -> Correlation:
    """step: pixels of x from one pixel of a phase to the next; every: those of the result. size: bytes of an element.

    tile: the address of the micro-kernel of jit/tile.py for a number of taps, of that of jit/dots.py for 0.
    Pixels of x have their channels side by side and follow each other without gaps within a row.
    """
    n, height, width, channels = x_shape
    pixel, lanes = channels * size, host().lanes("float32" if size == 4 else "float64")
    left = min((dx for phase in phases for dx, _ in phase.columns), default=0)
    right = max(((p.size[1] - 1) * step[1] + dx + 1 for p in phases for dx, _ in p.columns), default=0)
    top = min((dy for phase in phases for dy, _ in phase.rows), default=0)
    bottom = max((dy for phase in phases for dy, _ in phase.rows), default=0)
    tall, wide = (max(phase.size[axis] for phase in phases) for axis in (0, 1))
    padded = left < 0 or right > width
    row = (right - left) * pixel if padded else x_strides[1]
    first, last = min(max(left, 0), width), min(max(right, 0), width)
    first = min(first, last)

    # Units: a few images, a band of rows, a share of the panels.
    vectors = -(-weights.outer // lanes)
    panels, w_row = _panels(weights.outer, wide, lanes), weights.input
    if weights.dots:
        panels = [(0, weights.outer, weights.inner % lanes, most_dots(host())[weights.outer])]
        w_row = weights.inner // lanes
    per_row = max(1, (right - left) * pixel)
    fitting = max(1, (BAND // per_row - (bottom - top)) // step[0])
    bands = -(-tall // fitting)
    images = 1 if bands > 1 else min(n, -(-PIXELS // (tall * wide)), max(1, n // (UNITS * parts)))
    if -(-n // images) * bands < UNITS * parts and parts > 1:
        bands = min(max(bands, tall // 2), -(-UNITS * parts // n))
    band = -(-tall // bands)
    bands = -(-tall // band)
    shares = 1
    if -(-n // images) * bands < 2 * parts and parts > 1:
        shares = min(len(panels) * weights.groups, 2 * parts)
    kept = min(height, (band - 1) * step[0] + bottom - top + 1) if padded else 0
    scratch = -(-images * kept * row // 64) * 64

    head = [
        *(n, height, x_strides[0], x_strides[1], int(np.prod(out_shape[1:])) * size, step[0], step[1] * pixel, row),
        *(int(padded), first * pixel, (first - left) * pixel, (last - first) * pixel, (right - left) * pixel),
        *(images, band, bands, shares, weights.groups, len(panels), weights.inner * size, weights.outer * size),
        *(vectors * lanes * size, int(weights.in_place), w_row, weights.group, top, bottom, len(phases)),
    ]
    words = [*head, *(word for panel in panels for word in panel)]
    tables = len(words) + PHASE * len(phases)
    table: list[int] = []
    blocks: list[int] = []
    packing: list[int] = []
    packed = 0
    for phase in phases:
        k = len(phase.rows) * len(phase.columns) * weights.inner
        pixels = [(dx - left if padded else dx) * pixel for dx, _ in phase.columns]
        shared, k_row, most = _shared(phase, step, vectors), len(phase.columns) * weights.inner, 0
        if weights.dots:
            shared, k_row = 0, len(phase.columns)
            taps = [
                word
                for dy, i in phase.rows
                for at, (_, j) in zip(pixels, phase.columns, strict=True)
                for word in (dy * row + at, i * weights.taps[0] + j * weights.taps[1])
            ]
        elif shared > 1:
            most = most_pixels(host(), shared)
            row_of_w = weights.input if weights.in_place else lanes * size
            taps = [
                word
                for number, (dy, _) in enumerate(phase.rows)
                for c in range(weights.inner)
                for word in (dy * row + pixels[0] + c * size, (number * k_row + c) * row_of_w)
            ]
        else:
            taps = [dy * row + at + c * size for dy, _ in phase.rows for at in pixels for c in range(weights.inner)]
        place = (phase.start[0] * out_shape[2] + phase.start[1]) * out_shape[3] * size
        out_row, out_pixel = every[0] * out_shape[2] * out_shape[3] * size, every[1] * out_shape[3] * size
        blocks += [place, *phase.size, out_row, out_pixel, len(phase.rows), k_row, packed]
        blocks += [tables + len(table), tables + len(table) + len(phase.rows), shared, tile(shared), most]
        table += [dy for dy, _ in phase.rows] + taps
        sources = [i * weights.taps[0] + j * weights.taps[1] for _, i in phase.rows for _, j in phase.columns]
        for number, source in enumerate(sources):
            packing += [source, packed, k, number * weights.inner]
        packed += weights.groups * vectors * lanes * k * size
    description = np.array([*words, *blocks, *table], np.int64)
    if weights.in_place:
        return Correlation(description, None, 0, scratch, parts)
    head = [len(packing) // 4, weights.groups, len(panels), vectors * lanes * size, weights.inner]
    head += [weights.input, weights.output, weights.group]
    words = [*head, *(word for panel in panels for word in panel), *packing]
    return Correlation(description, np.array(words, np.int64), -(-packed // 64) * 64, scratch, parts)


#: Words of the description before the panels, and for each phase.
HEAD, PHASE = 28, 13


def _shared(phase: Phase, step: Pair, vectors: int) -> int:
    """How many taps the micro-kernel takes at a time: those of a row of the kernel where one vector holds all output
    channels and neighbouring pixels share their inputs, as loads would otherwise take longer than the arithmetic."""
    first = phase.columns[0][0] if phase.columns else 0
    neighbours = step[1] == 1 and all(dx == first + i for i, (dx, _) in enumerate(phase.columns))
    taps = len(phase.columns)
    return taps if vectors == 1 and neighbours and taps > 1 and most_pixels(host(), taps) > 2 else 1


def _panels(columns: int, pixels: int, lanes: int) -> list[tuple[int, int, int, int]]:
    """(first vector, vectors, columns in the last vector, most rows of a tile) of each panel of output channels.

    Few pixels in a row leave registers free for more vectors.
    """
    most = most_rows(host())
    vectors = -(-columns // lanes)
    widest = next((v for v in (6, 4, 3) if pixels <= most[v]), 3 if vectors == 3 else 2)
    count = -(-vectors // widest)
    panels = []
    for number in range(count):
        start, stop = (-(-vectors * i // count) for i in (number, number + 1))
        panels.append((start, stop - start, min(columns - (stop - 1) * lanes, lanes), most[stop - start]))
    return panels
