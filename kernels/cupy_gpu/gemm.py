"""Products of matrices, and of the operands of convolutions, by the kernels in gemm.cu."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from kernels.cupy_gpu.choice import OWN, Choice, Unfit, Way
from kernels.cupy_gpu.cublas import CublasLt, columns
from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import THREADS, blocks_for
from kernels.cupy_gpu.fused import ACTIVATED, number
from kernels.cupy_gpu.hopper import Hopper
from kernels.cupy_gpu.image import NO_IMAGE, Image
from kernels.cupy_gpu.operand import Operand, Product, Target, strides_of
from kernels.cupy_gpu.programs import Program, program
from kernels.cupy_gpu.tiles import Cut, Tile, cut, cuts
from kernels.cupy_gpu.walk import broadcast_strides, merged
from kernels.precision import PRODUCTS as PRECISIONS
from kernels.precision import products

__all__ = ["LIMIT", "PRECISIONS", "WORTH", "Gemm"]

#: struct Task of operands.cuh.
TASK = np.dtype(
    [
        ("operands", "i8", 13),
        ("image", "i8", 4),
        ("window", "i4", 8),
        ("steps", "i8", 6),
        ("sizes", "i4", 10),
        ("divisors", "u4", 12),
    ]
)
LIMIT = 2**31


#: Multiplications from which a choice among kernels is worth it: microseconds for an H100.
WORTH = 2**26
#: Multiplications from which the rule is the library's kernel, by precision; for bf16, operands are rounded before.
LARGE = {"tf32": 2**30, "bf16": 2**32}
#: So many of our own kernels are tried.
ALTERNATIVES = 3
#: The name of the library's way.
LIBRARY = "cublas"


@dataclass(frozen=True)
class Work:
    """What `Gemm.run` is asked for."""

    kind: str
    precision: str
    size: Product
    a: Operand
    b: Operand
    bias: Any
    activation: str | None
    out: Target
    image: Image
    bias_of_inner: bool

    @property
    def key(self) -> str:
        """What speed depends on."""
        size, window = self.size, self.image.window
        layout = "".join("nk"[x.along_k] + "uv"[x.vector] for x in (self.a, self.b))
        more = f"{'bias ' if self.bias is not None else ''}{self.activation or ''}"
        places = "" if self.image is NO_IMAGE else " " + ",".join(map(str, (*self.image.strides, *window)))
        whole = self.out.steps is None and self.out.row == size.n
        apart = "" if whole else f" apart {self.out.steps or self.out.row}"
        return f"{self.kind} {self.precision} {size.outer}x{size.inner}x{size.m}x{size.n}x{size.k} {layout}" + (
            f"{places}{apart} {more}".rstrip()
        )


class Gemm:
    """The slots `matmul` and `linear`.

    precision: one of PRECISIONS, for float32; unless given, what `kernels.precision` says. choice: for large products,
        among our kernels and what `library` gives, if anything; without it ours serve, cut as shapes tell.
    """

    def __init__(
        self,
        device: Device,
        precision: str | None = None,
        choice: Choice | None = None,
        library: Callable[[], CublasLt | None] | None = None,
    ):
        if precision not in (None, *PRECISIONS):
            raise ValueError(f"precision is {precision!r}, want one of {', '.join(PRECISIONS)}")
        self.device = device
        self.precision = precision
        self.choice, self.library = choice, library
        self.hopper = Hopper(device)

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        self._multiply(a, b, None, None, out)

    def linear(self, x: Any, w: Any, bias: Any, activation: str | None, out: Any) -> None:
        self._multiply(x, w, bias, activation, out)

    def _multiply(self, a: Any, b: Any, bias: Any, activation: str | None, out: Any) -> None:
        if out.size == 0:
            return
        *lead, m, n = out.shape
        k = a.shape[-1]
        of_out = strides_of(out)
        of_a = broadcast_strides(a, (*lead, m, k), "a")
        of_b = broadcast_strides(b, (*lead, k, n), "b")
        # Rows of a, and products of the batch that share b, are rows of one product where they step evenly.
        shape, (rows, a_rows, b_rows) = merged((*lead, m), (of_out[:-1], of_a[:-1], (*of_b[:-2], 0)))
        if b_rows[-1] == 0:
            m, row, a_side = shape[-1], rows[-1], a_rows[-1]
            shape, rows, a_rows, b_rows = shape[:-1], rows[:-1], a_rows[:-1], b_rows[:-1]
        else:
            m, row, a_side = 1, 0, 0
        if len(shape) > 2:
            for i in range(lead[0]):
                self._multiply(_item(a, i, out.ndim), _item(b, i, out.ndim), bias, activation, out[i])
            return
        none = (0,) * (2 - len(shape))
        (outer, inner), rows, a_rows, b_rows = (1,) * len(none) + shape, none + rows, none + a_rows, none + b_rows
        self.run(
            "MATRIX",
            Product(m, n, k, outer, inner),
            self.matrix(a, m, k, a_side, of_a[-1], *a_rows),
            self.matrix(b, n, k, of_b[-1], of_b[-2], *b_rows),
            bias,
            activation,
            Target(out, row, *rows),
        )

    def matrix(self, array: Any, sides: int, ks: int, side: int, k: int, outer: int = 0, inner: int = 0) -> Operand:
        """An operand with these strides along a side of `sides` and k of `ks` elements."""
        along_k = k == 1 or (side != 1 and abs(k) <= abs(side))
        near, extent, others = (k, ks, (side, outer, inner)) if along_k else (side, sides, (k, outer, inner))
        return Operand(array, side, k, outer, inner, along_k, near == 1 and self.aligned(array, extent, *others))

    def aligned(self, array: Any, *steps: int) -> bool:
        """Whether all these steps from the first element are whole multiples of 16 bytes, as its address is."""
        wide = 16 // array.itemsize
        return self.device.address(array) % 16 == 0 and all(step % wide == 0 for step in steps)

    def run(
        self,
        kind: str,
        size: Product,
        a: Operand,
        b: Operand,
        bias: Any,
        activation: str | None,
        out: Target,
        image: Image = NO_IMAGE,
        bias_of_inner: bool = False,
    ) -> None:
        """out = activation(a b + bias) for each product; kind: MATRIX, CORRELATION or WEIGHT_GRADIENT.

        bias holds n elements; bias_of_inner: n for each of the inner products, one after another.
        """
        work = Work(kind, self.precision_of(out.array), size, a, b, bias, activation, out, image, bias_of_inner)
        if self.choice is None or size.multiplications < WORTH:
            self._own(work)
        else:
            rule = LIBRARY if self._library_serves(work) else OWN
            self.choice.carry_out(work.key, work.precision, self._ways(work), out.array, rule)

    def _ways(self, work: Work) -> dict[str, Way]:
        """The kernels that make a product, by name; OWN is that one of ours which is expected to be the fastest."""
        size = work.size
        ways: dict[str, Way] = {OWN: partial(self._own, work)}
        for i, tiles in enumerate(cuts(work.precision, size.m, size.n, size.k, size.batch, ALTERNATIVES)):
            ways[f"gemm {i}"] = partial(self._by_gemm, work, tiles.within(work.precision, self.device.shared_memory))
        ways["hopper"] = partial(self._by_hopper, work, float("inf"))
        if self.library is not None and work.kind == "MATRIX":
            ways[LIBRARY] = partial(self._by_library, work)
        return ways

    def _library_serves(self, work: Work) -> bool:
        """The rule where nothing was measured: tensor cores of Hopper give no more than about two thirds of their rate
        to the instructions of our kernels, those of its predecessor."""
        if self.library is None or work.kind != "MATRIX" or self.device.capability < (9, 0):
            return False
        return work.size.multiplications >= LARGE.get(work.precision, float("inf"))

    def _own(self, work: Work) -> None:
        tiles = self.cut(work.precision, work.size)
        try:
            self._by_hopper(work, tiles.cycles)
        except Unfit:
            self._by_gemm(work, tiles)

    def _by_hopper(self, work: Work, cycles: float) -> None:
        """By hopper.cu; raises Unfit if that is not expected to take less than so many cycles, or does not serve."""
        ready = self.hopper.ready(
            *(work.kind, work.precision, work.size, work.a, work.b, work.image, work.activation, cycles)
        )
        if ready is None:
            raise Unfit
        blocks = self._blocks(work.size, ready.cut)
        work = replace(work, a=ready.a, b=ready.b, image=ready.image)
        self._launch(work, *ready.program, "hopper", min(blocks, self.device.multiprocessors), ready.cut)

    def _by_gemm(self, work: Work, tiles: Cut) -> None:
        """By gemm.cu."""
        made, shared = self._program(work.kind, work.a, work.b, work.out.array, tiles.tile)
        self._launch(work, made, shared, "gemm", self._blocks(work.size, tiles), tiles)

    def _blocks(self, size: Product, tiles: Cut) -> int:
        blocks = -(-size.m // tiles.tile.m) * -(-size.n // tiles.tile.n) * size.batch * tiles.splits
        if max(size.m, size.n, size.k, blocks) >= LIMIT:
            raise ValueError(f"{size} is too large: a side or its {blocks} blocks are 2**31 or more")
        return blocks

    def _launch(self, work: Work, made: Program, shared: int, name: str, blocks: int, tiles: Cut) -> None:
        size, out = work.size, work.out
        task = self._task(work, tiles.splits, tiles.span)
        parts = self.device.empty((tiles.splits * size.elements,), out.array.dtype) if tiles.splits > 1 else None
        arguments = (work.a.array, work.b.array, work.bias, out.array, parts, task)
        self.device.launch(made, name, blocks, tiles.tile.threads, *arguments, shared=shared)
        if parts is not None:
            self._finish(work, made, parts, work.bias, task)

    def _by_library(self, work: Work) -> None:
        """Raises Unfit where the library is not there, or does not serve."""
        library = self.library()
        found = columns(work.size, work.a, work.b, work.out)
        more = work.bias is not None or work.activation is not None
        if library is None or found is None or (more and not work.out.array.flags.c_contiguous):
            raise Unfit
        if work.precision == "bf16":
            found = columns(work.size, *self.hopper.rounded("bf16", work.size, work.a, work.b), work.out)
        added = work.bias if work.bias is not None and strides_of(work.bias)[0] == 1 else None
        try:
            library.multiply(work.precision, found, added)
        except Unfit:
            if added is None:
                raise
            added = None
            library.multiply(work.precision, found, None)
        bias = work.bias if added is None else None
        if bias is not None or work.activation is not None:
            self.finish(work.out.array, bias, work.activation)

    def finish(self, out: Any, bias: Any, activation: str | None) -> None:
        """out = activation(out + bias), where out is C-contiguous and bias holds as many elements as its last axis."""
        n = out.shape[-1]
        same = self.matrix(out, out.size // n, n, n, 1)
        size, precision = Product(out.size // n, n, 1), self.precision_of(out)
        work = Work("MATRIX", precision, size, same, same, bias, activation, Target(out, n), NO_IMAGE, False)
        made, _ = self._program(work.kind, same, same, out, self.cut(precision, size).tile)
        self._finish(work, made, out, bias, self._task(work, 1, 0))

    def _finish(self, work: Work, made: Program, parts: Any, bias: Any, task: np.void) -> None:
        """out = activation(the sum of parts + bias)"""
        blocks = blocks_for(self.device, work.size.elements, 1)
        self.device.launch(made, "finish", blocks, THREADS, parts, bias, work.out.array, task)

    def _task(self, work: Work, splits: int, span: int) -> np.void:
        size, a, b, out, image = work.size, work.a, work.b, work.out, work.image
        steps = out.steps or (0, 0, 0)
        wide = self.aligned(out.array, size.n, out.row, out.outer, out.inner, *steps)
        bias_n = 0 if work.bias is None else strides_of(work.bias)[0]
        operands = (a.side, a.k, a.outer, a.inner, b.side, b.k, b.outer, b.inner)
        target = (out.row, out.outer, out.inner, size.n * bias_n if work.bias_of_inner else 0, bias_n)
        sizes = (size.m, size.n, size.k, size.batch, size.inner, splits, span)
        flags = (number(work.activation), wide, out.steps is not None)
        table = (operands + target, image.strides, image.window, image.steps + steps, sizes + flags, image.divisors)
        return np.array(table, TASK)[()]

    def cut(self, precision: str, size: Product) -> Cut:
        """How a product is cut into blocks."""
        found = cut(precision, size.m, size.n, size.k, size.batch)
        return found.within(precision, self.device.shared_memory)

    def precision_of(self, out: Any) -> str:
        """In which precision a result is computed."""
        return (self.precision or products()) if out.dtype.name == "float32" else "float64"

    def _program(self, kind: str, a: Operand, b: Operand, out: Any, tile: Tile) -> tuple[Program, int]:
        """The program, and its bytes of shared memory."""
        precision = self.precision_of(out)
        tensor = precision in ("tf32", "bf16")
        shared = tile.shared(tensor, out.itemsize, a.along_k, b.along_k)
        macros = {
            "REAL": "double" if precision == "float64" else "float",
            "KIND": kind,
            "TENSOR": precision.upper() if tensor else 0,
            "A_ALONG_K": int(a.along_k),
            "B_ALONG_K": int(b.along_k),
            "A_VECTOR": self._vector(a, tensor),
            "B_VECTOR": self._vector(b, tensor),
            "TILE_M": tile.m,
            "TILE_N": tile.n,
            "TILE_K": tile.k,
            "THREADS": tile.threads,
            "BLOCKS": tile.blocks,
            "STAGES": tile.stages,
            "THREAD_M": tile.part[0],
            "THREAD_N": tile.part[1],
            "SLICES": tile.slices,
            "SHARED": shared,
            "ACTIVATED(kind, z)": ACTIVATED,
        }
        return program("gemm.cu", *[f"{name}={value}" for name, value in macros.items()]), shared

    def _vector(self, operand: Operand, tensor: bool) -> int:
        """Elements copied at once. Plain sums read slices that lie as [k][m], which copies along k fill one by one."""
        return 16 // operand.array.itemsize if operand.vector and (tensor or not operand.along_k) else 1


def _item(x: Any, i: int, axes: int) -> Any:
    """x[i] along the first of so many axes that it is broadcast to."""
    return x if x.ndim < axes else x[i if x.shape[0] > 1 else 0]
