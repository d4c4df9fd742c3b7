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
    """Arguments of the two kernels in jit/conv.py for one layer and batch; memory sizes in bytes.

    description: HEAD words, four for each panel, PHASE for each phase, then the tables of the phases. The words are
    named where jit/conv.py reads them.
    """

    description: np.ndarray
    packing: np.ndarray | None
    packed: int
    scratch: int
    parts: int


#: Words of the description before the panels, and for each phase.
HEAD, PHASE = 29, 13


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
    out_pixel = out_shape[3] * size
    out_row = out_shape[2] * out_pixel
    # The columns and, relative to those of the result, the rows that are met.
    left = min((dx for phase in phases for dx, _ in phase.columns), default=0)
    right = max(((p.size[1] - 1) * step[1] + dx + 1 for p in phases for dx, _ in p.columns), default=0)
    top = min((dy for phase in phases for dy, _ in phase.rows), default=0)
    bottom = max((dy for phase in phases for dy, _ in phase.rows), default=0)
    tall, wide = (max(phase.size[axis] for phase in phases) for axis in (0, 1))
    padded = left < 0 or right > width
    row = (right - left) * pixel if padded else x_strides[1]
    last = min(max(right, 0), width)
    first = min(max(left, 0), last)

    vectors = -(-weights.outer // lanes)
    panels, w_row = _panels(weights.outer, wide, lanes), weights.input
    if weights.dots:
        panels = [(0, weights.outer, weights.inner % lanes, most_dots(host())[weights.outer])]
        w_row = weights.inner // lanes
    units = _units(n, tall, wide, (right - left) * pixel, bottom - top, step[0], len(panels) * weights.groups, parts)
    images, band, _, shares = units
    kept = min(height, (band - 1) * step[0] + bottom - top + 1) if padded else 0
    tiles = sum(-(-wide // panel[3]) for panel in panels) * len(phases) * weights.groups
    words = [
        *(n, height, x_strides[0], x_strides[1], out_shape[1] * out_row, step[0], step[1] * pixel, row),
        *(int(padded), first * pixel, (first - left) * pixel, (last - first) * pixel, (right - left) * pixel),
        *(*units, weights.groups, len(panels), weights.inner * size, weights.outer * size),
        *(vectors * lanes * size, int(weights.in_place), w_row, weights.group, top, bottom, len(phases)),
        max(1, images * band * tiles // shares),
        *(word for panel in panels for word in panel),
    ]
    tables = len(words) + PHASE * len(phases)
    table: list[int] = []
    packing: list[int] = []
    packed = 0
    for phase in phases:
        taps = len(phase.rows) * len(phase.columns)
        shared = 0 if weights.dots else _shared(phase, step, vectors)
        k_row = len(phase.columns) * (1 if weights.dots else weights.inner)
        most = most_pixels(host(), shared) if shared > 1 else 0
        place = phase.start[0] * out_row + phase.start[1] * out_pixel
        words += [place, *phase.size, every[0] * out_row, every[1] * out_pixel, len(phase.rows), k_row, packed]
        words += [tables + len(table), tables + len(table) + len(phase.rows), shared, tile(shared), most]
        w_bytes = weights.input if weights.in_place else lanes * size
        steps = _steps(phase, weights, shared, row, pixel, left if padded else 0, size, w_bytes)
        table += [dy for dy, _ in phase.rows] + steps
        sources = [i * weights.taps[0] + j * weights.taps[1] for _, i in phase.rows for _, j in phase.columns]
        for number, source in enumerate(sources):
            packing += [source, packed, taps * weights.inner, number * weights.inner]
        packed += weights.groups * vectors * lanes * size * taps * weights.inner
    description, scratch = np.array([*words, *table], np.int64), -(-images * kept * row // 64) * 64
    if weights.in_place:
        return Correlation(description, None, 0, scratch, parts)
    words = [
        *(len(packing) // 4, weights.groups, len(panels), vectors * lanes * size, weights.inner),
        *(weights.input, weights.output, weights.group, *(word for panel in panels for word in panel), *packing),
    ]
    return Correlation(description, np.array(words, np.int64), -(-packed // 64) * 64, scratch, parts)


def _units(
    n: int, tall: int, wide: int, row: int, around: int, step: int, panels: int, parts: int
) -> tuple[int, int, int, int]:
    """(images, rows of the result, bands of so many rows, shares of the panels): what is worked on together.

    row: bytes of a row of the image; around: rows that are met beside those of the result, which are `step` apart.
    """
    fitting = max(1, (BAND // max(1, row) - around) // step)
    bands = -(-tall // fitting)
    images = 1 if bands > 1 else min(n, -(-PIXELS // (tall * wide)), max(1, n // (UNITS * parts)))
    if parts > 1 and -(-n // images) * bands < UNITS * parts:
        bands = min(max(bands, tall // 2), -(-UNITS * parts // n))
    band = -(-tall // bands)
    bands = -(-tall // band)
    few = parts > 1 and -(-n // images) * bands < 2 * parts
    return images, band, bands, min(panels, 2 * parts) if few else 1


def _steps(
    phase: Phase, weights: Weights, shared: int, row: int, pixel: int, left: int, size: int, w_bytes: int
) -> list[int]:
    """The micro-kernel's table: where in the image, and for some where among the weights, each step of k begins.

    row, pixel: bytes of the image's rows and pixels; left: its first column; w_bytes: those of a row of a panel.
    """
    columns = [(dx - left) * pixel for dx, _ in phase.columns]
    if shared == 1:
        return [dy * row + at + c * size for dy, _ in phase.rows for at in columns for c in range(weights.inner)]
    if shared == 0:
        return [
            word
            for dy, i in phase.rows
            for at, (_, j) in zip(columns, phase.columns, strict=True)
            for word in (dy * row + at, i * weights.taps[0] + j * weights.taps[1])
        ]
    return [
        word
        for number, (dy, _) in enumerate(phase.rows)
        for c in range(weights.inner)
        for word in (dy * row + columns[0] + c * size, (number * shared * weights.inner + c) * w_bytes)
    ]


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
