"""The slots `batch_norm` and `batch_norm_backward`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kernels.cupy_gpu.columns import Columns, columns
from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import TYPES
from kernels.cupy_gpu.layout import Layout, first_step
from kernels.cupy_gpu.programs import Program, program

__all__ = ["BatchNorm", "gradient_totals"]


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
        launch = self._launcher(made, x.dtype, activation, arguments)
        if made.chunks == 1:
            return launch("batch_norm")
        launch("batch_statistics")
        few = columns(made.chunks, width, 8)
        sizes = (rows, width, made.chunks, step)
        source = _program(x.dtype, activation)
        self.device.launch(source, "batch_moments", few.grid[0], few.block, x, partial, mean, variance, *sizes)
        launch("batch_normalize")

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
        launch = self._launcher(made, x.dtype, activation, arguments)
        if made.chunks == 1:
            return launch("batch_norm_backward")
        launch("batch_sums")
        gradient_totals(self.device, partial, x.dtype, weight_gradient, bias_gradient)
        launch("batch_gradient")

    def _partial(self, made: Columns, width: int) -> Any | None:
        return self.device.empty((made.chunks, width, 2), np.float64) if made.chunks > 1 else None

    def _launcher(self, made: Columns, dtype: np.dtype, activation: str | None, arguments: tuple) -> Callable:
        """Launches the kernel of a name."""

        def launch(name: str) -> None:
            self.device.launch(_program(dtype, activation), name, made.grid, made.block, *arguments)

        return launch


def gradient_totals(
    device: Device, partial: Any, dtype: np.dtype, weight_gradient: Any | None, bias_gradient: Any | None
) -> None:
    """The gradients for weight and bias, of this dtype, from sums over chunks, (chunks, c, 2), the bias's first."""
    chunks, width, _ = partial.shape
    made = columns(chunks, width, 8)
    arguments = (partial, weight_gradient, bias_gradient, width, chunks)
    source = program("gradient_totals.cu", f"REAL={TYPES[dtype.name]}")
    device.launch(source, "gradient_totals", made.grid[0], made.block, *arguments)


def _program(dtype: np.dtype, activation: str | None) -> Program:
    return program("batch_norm.cu", f"REAL={TYPES[dtype.name]}", f"RELU={int(activation is not None)}")
