"""The slot `activation_gradient`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from kernels.cupy_gpu.columns import columns
from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import TYPES
from kernels.cupy_gpu.expression import expression
from kernels.cupy_gpu.layout import Layout
from kernels.cupy_gpu.programs import Program, program
from kernels.cupy_gpu.reduce import Reduce
from kernels.elementwise import BY_NAME

__all__ = ["Activation"]


class Activation:
    """The gradient and its sums in one pass over memory."""

    def __init__(self, device: Device):
        self.device = device
        self.layout = Layout(device)
        self.sums = Reduce(device)

    def activation_gradient(self, g: Any, y: Any | None, activation: str | None, out: Any | None, sums: Any) -> None:
        """See `kernels.contract.Backend.activation_gradient`."""
        if activation is None:
            return self.sums.reduce("sum", g, (0,), sums)
        g, rows, width, *g_steps = self.layout.matrix(g)
        y, _, _, *y_steps = self.layout.matrix(y)
        if width == 0:
            return
        made = columns(rows, width)
        partial = sums if made.chunks == 1 else self.device.empty((made.chunks, width), np.float64)
        arguments = (g, y, out, partial, rows, width, made.chunk, *g_steps, *y_steps)
        kernel = _program(activation, g.dtype.name, partial.dtype.name)
        self.device.launch(kernel, "activation_gradient", made.grid, made.block, *arguments)
        if made.chunks > 1:
            self.sums.finish(partial, sums)


@cache
def _program(activation: str, dtype: str, sums: str) -> Program:
    derivative = expression(BY_NAME[activation].backward["x"].tree, {"g": "g", "y": "y"})
    return program("activation_gradient.cu", f"REAL={TYPES[dtype]}", f"TO={TYPES[sums]}", f"DERIVATIVE={derivative}")
