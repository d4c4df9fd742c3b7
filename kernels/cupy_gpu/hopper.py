"""Products of float32 by the tensor cores of compute capability 9.0, in hopper.cu."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.divisor import divisor
from kernels.cupy_gpu.elementwise import THREADS, blocks_for
from kernels.cupy_gpu.fused import ACTIVATED, number
from kernels.cupy_gpu.image import Image
from kernels.cupy_gpu.operand import Operand, Product
from kernels.cupy_gpu.programs import Program, program
from kernels.cupy_gpu.tiles import Cut, cut_for_hopper
from kernels.cupy_gpu.walk import merged

__all__ = ["Hopper", "Ready"]

ARCHITECTURE = "sm_90a"
#: Elements of a rounded operand, less than which an `int` counts.
NEAR = 2**31
#: Registers of a thread that copies, and of one that multiplies: 128 of these and 256 of those make a block.
FEW, MANY = 96, 200
#: Bytes of shared memory beside the stages: they begin at a multiple of so many.
APART = 1024
#: struct Axes of rounded.cu.
AXES = np.dtype(
    [("from", "i8", 5), ("to", "i8", 5), ("divisors", "u4", 15), ("sizes", "i4", 5), ("width", "i4"), ("blocks", "i4")]
)

#: Axes of an array, from the outermost to the innermost, each with its step.
Axes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Ready:
    """A product whose operands have been rounded; program: with its bytes of shared memory."""

    program: tuple[Program, int]
    a: Operand
    b: Operand
    image: Image
    cut: Cut


@dataclass(frozen=True)
class Lying:
    """An operand as it is to lie: its axes in this order, k innermost or not."""

    array: Any
    axes: Axes
    k_inside: bool
    precision: str

    @property
    def width(self) -> int:
        """Of the last axis, in whole pieces of 16 bytes."""
        whole = _whole(self.precision)
        return -(-self.axes[-1][0] // whole) * whole

    @property
    def elements(self) -> int:
        return prod(size for size, _ in self.axes[:-1]) * self.width


class Hopper:
    """Makes the operands of large products ready for hopper.cu.

    They are rounded into scratch arrays: tensor cores read shared memory, where bf16 has to be bf16, and of float32
    they take tf32 by cutting it off, and only with k inside. That moves 6 or 8 bytes for each element, once, which
    counts in the choice between hopper.cu and gemm.cu: for m n k multiplications it is worth it where m and n are
    hundreds. In tf32, a first operand with k inside, such as the image of a convolution, is left as it is: it passes
    through registers, and is rounded there.
    """

    #: Multiplications from which it is asked what this takes.
    large = 2**24

    def __init__(self, device: Device):
        self.device = device

    def ready(
        self,
        kind: str,
        precision: str,
        size: Product,
        a: Operand,
        b: Operand,
        image: Image,
        activation: str | None,
        cycles: float,
    ) -> Ready | None:
        """The product, if that is expected to take less than so many cycles. None, with nothing launched, if not, or
        where there is no such kernel for it: other GPUs, other precisions, and gathered channels, or places of a weight
        gradient, that are no whole multiple of 16 bytes."""
        if self.device.capability != (9, 0) or precision not in ("tf32", "bf16") or size.k == 0:
            return None
        if size.multiplications < self.large or not _gathered_here(kind, precision, image):
            return None
        if kind == "MATRIX":
            first, second = (_matrix(precision, size, x, sides) for x, sides in ((a, size.m), (b, size.n)))
        else:
            first, second = _image(kind, precision, a, image), _other(kind, precision, size, b, image)
        if second is None or first.elements == 0:
            return None
        as_it_is = precision == "tf32" and kind != "WEIGHT_GRADIENT" and _near(a, first)
        cut = self.cut(precision, size, second.elements + (0 if as_it_is else first.elements))
        if cut.cycles >= cycles or max(first.elements, second.elements) >= NEAR:
            return None
        if not as_it_is:
            a, image = self._first_rounded(kind, first, a, image)
        rounded, steps = self._rounded(second)
        if kind == "MATRIX":
            b = _matrix_operand(rounded, steps, b, second.k_inside)
        else:
            side, k = (steps[1], 1) if second.k_inside else (1, steps[-2])
            b = Operand(rounded, side, k, 0, steps[0], second.k_inside, True)
        return Ready(self._program(kind, precision, a, b, as_it_is, activation, cut), a, b, image, cut)

    def rounded(self, precision: str, size: Product, a: Operand, b: Operand) -> tuple[Operand, Operand]:
        """The operands of a product of matrices, rounded into scratch arrays, bf16 as uint16."""
        made = []
        for x, sides in ((a, size.m), (b, size.n)):
            lying = _matrix(precision, size, x, sides)
            made.append(_matrix_operand(*self._rounded(lying), x, lying.k_inside))
        return made[0], made[1]

    def _first_rounded(self, kind: str, x: Lying, a: Operand, image: Image) -> tuple[Operand, Image]:
        rounded, steps = self._rounded(x)
        if kind == "MATRIX":
            return _matrix_operand(rounded, steps, a, x.k_inside), image
        strides = _image_strides(kind, x.precision, steps)
        a = Operand(rounded, 0, 0, 0, image.divisors[6] * strides[3], x.k_inside, True)
        return a, replace(image, strides=strides)

    def cut(self, precision: str, size: Product, elements: int) -> Cut:
        """How a product is cut; elements: of its operands."""
        return cut_for_hopper(precision, size.m, size.n, size.k, size.batch, elements)

    def _rounded(self, x: Lying) -> tuple[Any, tuple[int, ...]]:
        """A scratch array, without gaps but for zeros that make the last axis a multiple of 16 bytes, and the steps of
        the axes in it."""
        last, width = x.axes[-1][0], x.width
        steps = _dense([size for size, _ in x.axes[:-1]] + [width])
        scratch = self.device.empty((steps[0] * x.axes[0][0],), "u2" if x.precision == "bf16" else "f4")
        shape, (source,) = merged(*_apart(x.axes if width == last else x.axes[:-1]))
        if width == last:
            width = shape[-1]
        else:
            shape, source = (*shape, last), (*source, x.axes[-1][1])
        target = _dense([*shape[:-1], width])
        inner = next((i for i in range(len(shape) - 1) if source[i] == 1), None) if source[-1] != 1 else None
        if inner is not None:
            order = [i for i in range(len(shape)) if i not in (inner, len(shape) - 1)] + [inner, len(shape) - 1]
            shape, source, target = (tuple(y[i] for i in order) for y in (shape, source, target))
        none = (0,) * (5 - len(shape))
        shape, source, target = (1,) * len(none) + shape, none + source, none + target
        tiles = prod(shape[:3]) * -(-shape[3] // 32) * -(-width // 32)
        divisors = [n for side in (*shape[:4], width // 4) for n in divisor(side)]
        axes = np.array((source, target, divisors, shape, width, tiles), AXES)[()]
        aligned = self.device.address(x.array) % 16 == 0 and all(step % 4 == 0 for step in source[:4])
        made = program(
            "rounded.cu", f"TENSOR={x.precision.upper()}", f"VECTOR={int(inner is None and source[4] == 1 and aligned)}"
        )
        if inner is None:
            fours = prod(shape[:4]) * width // 4
            blocks = blocks_for(self.device, fours, 1)
            self.device.launch(made, "rounded", blocks, THREADS, x.array, scratch, fours, axes)
        else:
            blocks = min(tiles, 16 * self.device.multiprocessors)
            self.device.launch(made, "turned", blocks, (32, 8), x.array, scratch, axes)
        return scratch, steps

    def _program(
        self, kind: str, precision: str, a: Operand, b: Operand, as_it_is: bool, activation: str | None, cut: Cut
    ) -> tuple[Program, int]:
        tile = cut.tile
        shared = tile.stages * (tile.m + tile.n) * 128 + APART
        macros = {
            "KIND": kind,
            "TENSOR": precision.upper(),
            "A_K_INSIDE": int(a.along_k),
            "B_K_INSIDE": int(b.along_k),
            "A_IN_REGISTERS": int(as_it_is),
            "TILE_M": tile.m,
            "TILE_N": tile.n,
            "STAGES": tile.stages,
            "SHARED": shared,
            "FEW": FEW,
            "MANY": MANY,
            "MULTIPLY": _instruction(precision, tile.n, a.along_k, b.along_k, as_it_is),
            "MULTIPLY_SUMS": ", ".join(f'"+f"(d[{i}])' for i in range(tile.n // 2)),
            "ACTIVATED(kind, z)": ACTIVATED,
            "ACTIVATION": number(activation),
            "SPLIT": int(cut.splits > 1),
        }
        lines = [f"{name}={value}" for name, value in macros.items()]
        return program("hopper.cu", *lines, architecture=ARCHITECTURE), shared


def _whole(precision: str) -> int:
    """Elements of 16 bytes."""
    return 8 if precision == "bf16" else 4


def _gathered_here(kind: str, precision: str, image: Image) -> bool:
    """Whether there is a kernel that gathers this operand: from images of less than 2^15 a side, and 16 bytes at a time
    but for places of tf32."""
    if kind == "MATRIX":
        return True
    per_image, columns, channels = image.divisors[0], image.divisors[3], image.divisors[6]
    places = (per_image // columns, columns)
    farthest = max(abs(first) + size * step for size, step, first in zip(places, image.window[2:4], image.window[4:6]))
    near = max(farthest, *image.window[:2]) < 2**15
    return near and (channels % _whole(precision) == 0 or _one_by_one(kind, precision))


def _one_by_one(kind: str, precision: str) -> bool:
    """Whether single numbers are gathered: k, which counts places, has to be inside."""
    return (kind, precision) == ("WEIGHT_GRADIENT", "tf32")


def _matrix(precision: str, size: Product, x: Operand, sides: int) -> Lying:
    k_inside = precision == "tf32" or x.along_k
    batch = [(n if step else 1, step) for n, step in ((size.outer, x.outer), (size.inner, x.inner))]
    side, k = (sides, x.side), (size.k, x.k)
    return Lying(x.array, [*batch, side, k] if k_inside else [*batch, k, side], k_inside, precision)


def _matrix_operand(rounded: Any, steps: tuple[int, ...], x: Operand, k_inside: bool) -> Operand:
    """The operand that x has become."""
    outer, inner = steps[0] if x.outer else 0, steps[1] if x.inner else 0
    side, k = (steps[2], 1) if k_inside else (1, steps[2])
    return Operand(rounded, side, k, outer, inner, k_inside, True)


def _image(kind: str, precision: str, x: Operand, image: Image) -> Lying:
    """All of the image. Channels are innermost, along k or along the taps of a weight gradient; or outermost."""
    n, h, w, c = zip(x.array.shape, image.strides, strict=True)
    axes = [c, n, h, w] if _one_by_one(kind, precision) else [n, h, w, c]
    return Lying(x.array, axes, kind == "CORRELATION" or _one_by_one(kind, precision), precision)


def _image_strides(kind: str, precision: str, steps: tuple[int, ...]) -> tuple[int, ...]:
    """(n, h, w, c) of the image that lies so."""
    return (*steps[1:], steps[0]) if _one_by_one(kind, precision) else steps


def _other(kind: str, precision: str, size: Product, x: Operand, image: Image) -> Lying | None:
    """The operand that the image meets, a matrix for each group: k is (tap row, tap column, channel) or a place. None
    where places would have to be inside and cannot be."""
    if kind == "CORRELATION":
        inner, middle = image.divisors[6], image.divisors[9]
        sides = (size.k // (inner * middle), middle, inner)
    else:
        per_image, inner = image.divisors[0], image.divisors[3]
        sides = (size.k // per_image, per_image // inner, inner)
    sides, (steps,) = merged(sides, (image.steps,))
    k_inside = precision == "tf32" or (kind == "CORRELATION" and x.along_k)
    if k_inside and len(sides) > 1 and sides[-1] % _whole(precision):
        return None
    group, side, k = (size.inner, x.inner), (size.n, x.side), list(zip(sides, steps, strict=True))
    return Lying(x.array, [group, side, *k] if k_inside else [group, *k, side], k_inside, precision)


def _near(a: Operand, x: Lying) -> bool:
    """Whether the first operand can be copied from where it lies, k inside: 16 bytes at a time, and forwards only."""
    steps = [step for _, step in x.axes]
    last = sum((size - 1) * step for size, step in x.axes)
    return a.along_k and a.vector and min(*steps, a.outer, a.inner) >= 0 and last < NEAR


def _dense(sides: Sequence[int]) -> tuple[int, ...]:
    """Steps of axes without gaps."""
    return tuple(prod(sides[i + 1 :]) for i in range(len(sides)))


def _apart(axes: Axes) -> tuple[tuple[int, ...], tuple[tuple[int, ...]]]:
    """(sides, (steps,))."""
    return tuple(size for size, _ in axes), (tuple(step for _, step in axes),)


def _instruction(precision: str, n: int, a_k_inside: bool, b_k_inside: bool, a_in_registers: bool) -> str:
    """wgmma of sums 64 x n in %0, %1, ..., then two operands, the first of them in 4 registers if it is in registers,
    then whether the sums go on."""
    of = {"bf16": "k16.f32.bf16.bf16", "tf32": "k8.f32.tf32.tf32"}[precision]
    turned = f", {int(not a_k_inside)}, {int(not b_k_inside)}" if precision == "bf16" else ""
    names = [f"%{i}" for i in range(n // 2 + 6)]
    sums, rest = names[: n // 2], names[n // 2 :]
    if a_in_registers:
        a, b, add = f"{{{', '.join(rest[:4])}}}", *rest[4:]
    else:
        a, b, add = rest[:3]
    return (
        f'"{{ .reg .pred add; setp.ne.b32 add, {add}, 0; '
        f'wgmma.mma_async.sync.aligned.m64n{n}{of} {{{", ".join(sums)}}}, {a}, {b}, add, 1, 1{turned}; }}"'
    )
