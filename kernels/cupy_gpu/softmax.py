"""Softmax, its logarithm, cross entropy and their backward passes: a group of threads for each row."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import TYPES
from kernels.cupy_gpu.layout import Layout, first_step
from kernels.cupy_gpu.programs import Program, program

__all__ = ["RowGroups", "Softmax", "row_groups"]


#: (threads, elements of each) for a row, the shortest rows first.
GROUPS = [(4, 1), (8, 1), (16, 1), (32, 1), (32, 2), (32, 4), (32, 8), (128, 4), (128, 8), (256, 8), (512, 8)]


class RowGroups(NamedTuple):
    """How threads are shared out among rows: see cuda/row.cuh."""

    group: int
    each: int

    @property
    def block(self) -> int:
        """Threads of a block."""
        return max(128, self.group)

    def grid(self, rows: int) -> int:
        """Blocks for so many rows."""
        return -(-rows * self.group // self.block)

    def program(self, file: str, dtype: np.dtype, *macros: str) -> Program:
        """The program in a file that includes row.cuh."""
        return program(file, f"REAL={TYPES[dtype.name]}", f"GROUP={self.group}", f"EACH={self.each}", *macros)


@cache
def row_groups(columns: int) -> RowGroups:
    """Few threads for short rows, a warp, and then a block; rows that registers do not hold are read again."""
    for group, each in GROUPS:
        if columns <= group * each:
            return RowGroups(group, each)
    return RowGroups(1024, 0)


class Softmax:
    """The slots of softmax and of its loss."""

    def __init__(self, device: Device):
        self.device = device
        self.layout = Layout(device)

    def softmax(self, x: Any, out: Any) -> None:
        """See `kernels.contract.Backend.softmax`."""
        self._forward("softmax", x, out)

    def log_softmax(self, x: Any, out: Any) -> None:
        """See `kernels.contract.Backend.log_softmax`."""
        self._forward("log_softmax", x, out)

    def softmax_backward(self, g: Any, y: Any, out: Any) -> None:
        """See `kernels.contract.Backend.softmax_backward`."""
        self._backward("softmax_backward", g, y, out)

    def log_softmax_backward(self, g: Any, y: Any, out: Any) -> None:
        """See `kernels.contract.Backend.log_softmax_backward`."""
        self._backward("log_softmax_backward", g, y, out)

    def cross_entropy(
        self, x: Any, target: Any, weight: Any | None, smoothing: float, loss: Any, probabilities: Any
    ) -> None:
        """See `kernels.contract.Backend.cross_entropy`."""
        x, rows, columns, row_step, step = self.layout.matrix(x)
        sizes = (rows, columns, row_step, step, first_step(target), first_step(weight))
        arguments = (x, target, weight, float(smoothing), loss, probabilities, *sizes)
        self._launch("cross_entropy", probabilities, arguments)

    def cross_entropy_backward(
        self, g: Any, probabilities: Any, target: Any, weight: Any | None, smoothing: float, out: Any
    ) -> None:
        """See `kernels.contract.Backend.cross_entropy_backward`."""
        p, rows, columns, row_step, step = self.layout.matrix(probabilities)
        sizes = (rows, columns, row_step, step, first_step(g), first_step(target), first_step(weight))
        self._launch("cross_entropy_backward", out, (g, p, target, weight, float(smoothing), out, *sizes))

    def _forward(self, name: str, x: Any, out: Any) -> None:
        x, *sizes = self.layout.matrix(x)
        self._launch(name, out, (x, out, *sizes))

    def _backward(self, name: str, g: Any, y: Any, out: Any) -> None:
        g, rows, columns, *g_steps = self.layout.matrix(g)
        y, _, _, *y_steps = self.layout.matrix(y)
        self._launch(name, out, (g, y, out, rows, columns, *g_steps, *y_steps))

    def _launch(self, name: str, out: Any, arguments: tuple) -> None:
        if out.size:
            groups, rows = row_groups(out.shape[-1]), out.size // out.shape[-1]
            made = groups.program("softmax.cu", out.dtype)
            self.device.launch(made, name, groups.grid(rows), groups.block, *arguments)
