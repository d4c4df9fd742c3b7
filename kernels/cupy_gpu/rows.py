"""The slots `take`, `take_batch` and `scatter_add`."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import THREADS, TYPES, blocks_for
from kernels.cupy_gpu.layout import Layout, steps
from kernels.cupy_gpu.programs import program

__all__ = ["Rows"]

#: Words in which rows are copied, the widest first: bytes and C++ type.
WORDS = ((16, "uint4"), (8, "uint2"), (4, "uint32"), (2, "unsigned short"), (1, "unsigned char"))
#: Places that one block sorts; places of a block, and bits of the index, in a pass of the sort of more (scatter.cu).
FEW, TILE, DIGIT = 1024, 2048, 8


class Rows:
    """Gathering rows, and adding into rows in the order of the index."""

    def __init__(self, device: Device):
        self.device = device
        self.layout = Layout(device)

    def take(self, x: Any, index: Any, out: Any) -> None:
        """See `kernels.contract.Backend.take`."""
        self._take("take", x, (index,), out, steps(index))

    def take_batch(self, x: Any, order: Any, cursor: Any, out: Any) -> None:
        """See `kernels.contract.Backend.take_batch`."""
        self._take("take_batch", x, (order, cursor), out, (*steps(order), order.size))

    def _take(self, name: str, x: Any, indices: tuple, out: Any, sizes: tuple[int, ...]) -> None:
        if out.size == 0:
            return
        size = out.itemsize * (out.size // len(out))
        places = size | self.device.address(x) | self.device.address(out)
        width, word = next((width, word) for width, word in WORDS if places % width == 0)
        words = size // width
        blocks = blocks_for(self.device, len(out) * words, 1)
        arguments = (x, *indices, out, len(out), words, *sizes)
        self.device.launch(program("take.cu", f"WORD={word}"), name, blocks, THREADS, *arguments)

    def scatter_add(self, index: Any, source: Any, out: Any) -> None:
        """See `kernels.contract.Backend.scatter_add`."""
        if source.size == 0:
            return
        keys, places = self._sorted(index, len(out))
        source, *sizes = self.layout.flat_rows(source)
        blocks = blocks_for(self.device, source.size, 1)
        made = program("scatter.cu", f"REAL={TYPES[out.dtype.name]}")
        self.device.launch(made, "add_sorted", blocks, THREADS, keys, places, source, out, *sizes)

    def _sorted(self, index: Any, rows: int) -> tuple[Any, Any]:
        """(the indices in ascending order, their places), equal ones in their order."""
        n, step, made = len(index), steps(index)[0], program("scatter.cu")
        keys, places = self._places(n), self._places(n)
        if n <= FEW:
            block = -(-n // 32) * 32
            self.device.launch(made, "sort_few", 1, block, index, keys, places, n, step)
            return keys, places
        blocks = -(-n // TILE)
        counts = self._places(blocks << DIGIT)
        before, before_step, at = index, step, None
        for shift in range(0, max(1, (rows - 1).bit_length()), DIGIT):
            keys, places = self._places(n), self._places(n)
            self.device.launch(made, "count_digits", blocks, 256, before, counts, n, before_step, shift)
            self.device.launch(made, "sum_counts", 1, 1024, counts, counts.size)
            arguments = (before, at, counts, keys, places, n, before_step, shift)
            self.device.launch(made, "place_digits", blocks, 256, *arguments)
            before, before_step, at = keys, 1, places
        return keys, places

    def _places(self, n: int) -> Any:
        return self.device.empty((n,), np.int64)
