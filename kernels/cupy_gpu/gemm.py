"""Products of matrices, and of the operands of convolutions, by the kernels in gemm.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.cupy_gpu.cublas import Cublas, columns
from kernels.cupy_gpu.device import Device, Program, program
from kernels.cupy_gpu.elementwise import THREADS, blocks_for
from kernels.cupy_gpu.fused import ACTIVATED, number
from kernels.cupy_gpu.hopper import Hopper
from kernels.cupy_gpu.image import NO_IMAGE, Image, divisor
from kernels.cupy_gpu.operand import Operand, Product, Target, strides_of
from kernels.cupy_gpu.tiles import Cut, Tile, cut
from kernels.cupy_gpu.walk import broadcast_strides, merged
from kernels.precision import PRODUCTS as PRECISIONS
from kernels.precision import products

__all__ = ["ACTIVATED", "LIMIT", "PRECISIONS", "Gemm", "Image", "divisor", "number"]

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


class Gemm:
    """The slots `matmul` and `linear`.

    precision: one of PRECISIONS, for float32; unless given, what `kernels.precision` says. library: makes the products
        that `cublas.columns` finds fit for it.
    """

    def __init__(self, device: Device, precision: str | None = None, library: Cublas | None = None):
        if precision not in (None, *PRECISIONS):
            raise ValueError(f"precision is {precision!r}, want one of {', '.join(PRECISIONS)}")
        self.device = device
        self.precision = precision
        self.library = library
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
        precision = self._precision(out.array)
        tiles = self.cut(precision, size)
        large = columns(size, a, b, out) if self.library is not None and kind == "MATRIX" else None
        ready = None
        if large is None:
            ready = self.hopper.ready(kind, precision, size, a, b, image, activation, tiles.cycles)
        if ready is not None:
            a, b, image, tiles = ready.a, ready.b, ready.image, ready.cut
        blocks = -(-size.m // tiles.tile.m) * -(-size.n // tiles.tile.n) * size.batch * tiles.splits
        if max(size.m, size.n, size.k, blocks) >= LIMIT:
            raise ValueError(f"{size} is too large: a side or its {blocks} blocks are 2**31 or more")
        made, shared = self._program(kind, a, b, out.array, tiles.tile) if ready is None else ready.program
        steps = out.steps or (0, 0, 0)
        wide = self.aligned(out.array, size.n, out.row, out.outer, out.inner, *steps)
        bias_n = 0 if bias is None else strides_of(bias)[0]
        operands = (a.side, a.k, a.outer, a.inner, b.side, b.k, b.outer, b.inner)
        target = (out.row, out.outer, out.inner, size.n * bias_n if bias_of_inner else 0, bias_n)
        splits = tiles.splits if large is None else 1
        sizes = (size.m, size.n, size.k, size.batch, size.inner, splits, tiles.span)
        flags = (number(activation), wide, out.steps is not None)
        table = (operands + target, image.strides, image.window, image.steps + steps, sizes + flags, image.divisors)
        task = np.array(table, TASK)[()]
        if large is not None:
            library, arrays = self.library, (a.array, b.array, out.array)
            self.device.carry_out(lambda: library.multiply(precision, large), "cublas", arrays)
            parts = out.array if bias is not None or activation is not None else None
        else:
            parts = self.device.empty((splits * size.elements,), out.array.dtype) if splits > 1 else None
            arguments = (a.array, b.array, bias, out.array, parts, task)
            name, grid = ("gemm", blocks) if ready is None else ("hopper", min(blocks, self.device.multiprocessors))
            self.device.launch(made, name, grid, tiles.tile.threads, *arguments, shared=shared)
        if parts is not None:
            blocks = blocks_for(self.device, size.elements, 1)
            self.device.launch(made, "finish", blocks, THREADS, parts, bias, out.array, task)

    def cut(self, precision: str, size: Product) -> Cut:
        """How a product is cut into blocks."""
        found = cut(precision, size.m, size.n, size.k, size.batch)
        return found.within(precision, self.device.shared_memory)

    def _precision(self, out: Any) -> str:
        return (self.precision or products()) if out.dtype.name == "float32" else "float64"

    def _program(self, kind: str, a: Operand, b: Operand, out: Any, tile: Tile) -> tuple[Program, int]:
        """The program, and its bytes of shared memory."""
        precision = self._precision(out)
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
