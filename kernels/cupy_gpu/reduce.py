"""The slots `reduce` and `argmax`."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from kernels.cupy_gpu.columns import THREADS, columns, power_of_two, split
from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import TYPES
from kernels.cupy_gpu.layout import Layout, pair, steps
from kernels.cupy_gpu.programs import program
from kernels.plan import Effect

__all__ = ["Reduce"]

#: C++ operation, and what is combined, by the name of the reduction.
OPERATIONS = {"sum": ("Sum", "x"), "square_sum": ("Sum", "x * x"), "max": ("Max", "x"), "min": ("Min", "x")}


#: side, outer and inner step of a walk over up to two axes: see `layout.pair`.
Walk = tuple[int, int, int]


class Reduce:
    """Sums in float64, in an order that the shape decides; where there is much to add, in two launches."""

    def __init__(self, device: Device):
        self.device = device
        self.layout = Layout(device)

    def reduce(self, name: str, x: Any, axes: tuple[int, ...], out: Any) -> None:
        """See `kernels.contract.Backend.reduce`."""
        if out.size == 0:
            return
        found = _walks(x, axes)
        if None in found:
            order = [*(i for i in range(x.ndim) if i not in axes), *axes]
            kept = x.ndim - len(axes)
            x, axes = self.layout.copied(x.transpose(order)), tuple(range(kept, x.ndim))
            found = _walks(x, axes)
        count = prod(x.shape[i] for i in axes)
        kept, counted = found
        across = abs(counted[2]) <= abs(kept[2]) if kept[2] and counted[2] else kept[2] == 0
        self._run(name, x, out, count, across, kept, counted)

    def finish(self, partial: Any, out: Any) -> None:
        """out = the sum over the first axis of a C-contiguous float64 array, which is at most a few hundred long."""
        self._rows("sum", partial, out)

    def argmax(self, x: Any, out: Any) -> None:
        """See `kernels.contract.Backend.argmax`."""
        if out.size == 0:
            return
        x, rows, width, row_step, step = self.layout.matrix(x)
        across, down = _block_of_rows(rows, width)
        made = program("argmax.cu", f"REAL={TYPES[x.dtype.name]}")
        self.device.launch(made, "argmax", -(-rows // down), (across, down), x, out, rows, width, row_step, step)

    def _run(self, name: str, x: Any, out: Any, count: int, across: bool, kept: Walk, counted: Walk) -> None:
        outputs = out.size
        if across:
            block = _block_of_rows(outputs, count)
            blocks = -(-outputs // block[1])
            chunk, chunks = split(count, block[0], blocks)
        else:
            (blocks, chunks), block, chunk = columns(count, outputs)
        target = out
        if chunks > 1:
            target = self.device.empty((chunks, outputs), np.float64 if "sum" in name else out.dtype)
        self._launch(name, x, target, (blocks, chunks), block, (outputs, count, chunk, across, *kept, *counted))
        if chunks > 1:
            self._rows("sum" if "sum" in name else name, target, out)

    def _rows(self, name: str, x: Any, out: Any) -> None:
        """The rows of a C-contiguous matrix combined, where they are few."""
        made = columns(len(x), out.size, 8)
        arguments = (out.size, len(x), len(x), False, 0, 0, 1, 0, 0, out.size)
        self._launch(name, x, out, (made.grid[0], 1), made.block, arguments)

    def _launch(self, name: str, x: Any, out: Any, grid: tuple, block: tuple, arguments: tuple) -> None:
        operation, element = OPERATIONS[name]
        source, to = TYPES[x.dtype.name], TYPES[out.dtype.name]
        total = "wide" if operation == "Sum" else source
        macros = (f"REAL={source}", f"FROM={source}", f"TO={to}", f"SUM={total}")
        made = replace(program("reduce.cu", *macros, f"OP={operation}", f"ELEMENT(x)={element}"), contract=False)
        self.device.launch(made, "reduce", grid, block, x, out, *arguments, effect=EFFECT)


EFFECT = Effect(writes=(1).__eq__)


def _walks(x: Any, axes: tuple[int, ...]) -> list[Walk | None]:
    """How the kept axes and the others are walked: see `pair`."""
    strides, kept = steps(x), [i for i in range(x.ndim) if i not in axes]
    return [pair(tuple(x.shape[i] for i in group), tuple(strides[i] for i in group)) for group in (kept, axes)]


def _block_of_rows(rows: int, width: int) -> tuple[int, int]:
    """Threads of a block along a row, and its rows."""
    across = min(THREADS, power_of_two(-(-width // 8)))
    return across, min(THREADS // across, max(power_of_two(rows), 32 // across))
