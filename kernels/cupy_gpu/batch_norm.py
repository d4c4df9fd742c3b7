"""The slots `batch_norm` and `batch_norm_backward`."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import plan
from kernels.cupy_gpu.columns import Columns, columns
from kernels.cupy_gpu.device import Device, program
from kernels.cupy_gpu.elementwise import TYPES
from kernels.cupy_gpu.layout import Layout, first_step

__all__ = ["BatchNorm"]


class BatchNorm:
    """One launch where a block holds all rows of its columns; else sums of chunks, their totals, and the result."""

    def __init__(self, device: Device):
        self.device = device
        self.layout = Layout(device)

    def batch_norm(
        self,
        x: Any,
        weight: Any | None,
        bias: Any | None,
        eps: float,
        activation: str | None,
        out: Any,
        mean: Any,
        variance: Any,
    ) -> None:
        """See `kernels.contract.Backend.batch_norm`."""
        x, rows, width, row_step, step = self.layout.matrix(x)
        made = columns(rows, width)
        partial = self._partial(made, width)
        sizes = (rows, width, made.chunk, row_step, step, first_step(weight), first_step(bias))
        arguments = (x, weight, bias, float(eps), out, mean, variance, partial, *sizes)
        totals = ("batch_moments", (x, partial, mean, variance, rows, width, made.chunks, step))
        names = "batch_norm", "batch_statistics", "batch_normalize"
        self._launch(made, width, names, arguments, totals, x.dtype, activation)

    def batch_norm_backward(
        self,
        g: Any,
        x: Any,
        weight: Any | None,
        bias: Any | None,
        mean: Any,
        variance: Any,
        eps: float,
        activation: str | None,
        out: Any,
        weight_gradient: Any,
        bias_gradient: Any,
    ) -> None:
        """See `kernels.contract.Backend.batch_norm_backward`."""
        x, rows, width, *steps = self.layout.matrix(x)
        g, _, _, *g_steps = self.layout.matrix(g)
        mean, variance = self.layout.contiguous(mean), self.layout.contiguous(variance)
        made = columns(rows, width)
        partial = self._partial(made, width)
        sizes = (rows, width, made.chunk, *g_steps, *steps, first_step(weight), first_step(bias))
        outs = (out, weight_gradient, bias_gradient)
        arguments = (g, x, weight, bias, mean, variance, float(eps), *outs, partial, *sizes)
        totals = ("gradient_totals", (partial, weight_gradient, bias_gradient, width, made.chunks))
        names = "batch_norm_backward", "batch_sums", "batch_gradient"
        self._launch(made, width, names, arguments, totals, x.dtype, activation)

    def _partial(self, made: Columns, width: int) -> Any | None:
        return plan.empty(self.device.xp, (made.chunks, width, 2), np.float64) if made.chunks > 1 else None

    def _launch(
        self,
        made: Columns,
        width: int,
        names: tuple[str, str, str],
        arguments: tuple,
        totals: tuple[str, tuple],
        dtype: np.dtype,
        activation: str | None,
    ) -> None:
        """The first of the kernels alone, or the others with `totals` between them."""
        launch = self.device.launch
        source = program("batch_norm.cu", f"REAL={TYPES[dtype.name]}", f"RELU={int(activation is not None)}")
        whole, sums, last = names
        if made.chunks == 1:
            launch(source, whole, made.grid, made.block, *arguments)
            return
        launch(source, sums, made.grid, made.block, *arguments)
        few = columns(made.chunks, width, 8)
        launch(source, totals[0], few.grid[0], few.block, *totals[1])
        launch(source, last, made.grid, made.block, *arguments)
