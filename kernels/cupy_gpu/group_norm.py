"""The slots `group_norm` and `group_norm_backward`: groups that are runs of memory, and of channels of images."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.cupy_gpu.batch_norm import gradient_totals
from kernels.cupy_gpu.columns import BLOCKS, THREADS, columns, power_of_two
from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import TYPES
from kernels.cupy_gpu.layout import Layout, first_step, steps
from kernels.cupy_gpu.programs import program
from kernels.cupy_gpu.softmax import row_groups

__all__ = ["GroupNorm"]

#: Channels side by side that are worth a block: 32 bytes of them.
CHANNELS = 8


class GroupNorm:
    """Rows (s = 1) are normalized in registers; of images, a block takes a few channels at all places."""

    def __init__(self, device: Device):
        self.device = device
        self.layout = Layout(device)

    def group_norm(
        self,
        x: Any,
        groups: int,
        weight: Any | None,
        bias: Any | None,
        eps: float,
        out: Any,
        mean: Any | None,
        scale: Any,
    ) -> None:
        """See `kernels.contract.Backend.group_norm`."""
        if scale.size == 0:
            return
        operands, weights = (x, weight, bias, float(eps), out, mean, scale), (first_step(weight), first_step(bias))
        image_step, row_step, step = steps(x)
        if x.shape[1] == 1:
            self._rows("layer_norm", operands, x.shape, groups, (image_step, step, *weights))
        else:
            self._images("group_norm", operands, x.shape, groups, (image_step, row_step, step, *weights))

    def group_norm_backward(
        self,
        g: Any,
        x: Any,
        groups: int,
        weight: Any | None,
        mean: Any | None,
        scale: Any,
        out: Any,
        weight_gradient: Any | None,
        bias_gradient: Any | None,
    ) -> None:
        """See `kernels.contract.Backend.group_norm_backward`."""
        mean = None if mean is None else self.layout.contiguous(mean)
        operands = (g, x, weight, mean, self.layout.contiguous(scale), out)
        gradients = (weight_gradient, bias_gradient)
        wanted = any(gradient is not None for gradient in gradients)
        if x.shape[1] == 1 and x.size:
            strides = (*steps(g)[::2], *steps(x)[::2], first_step(weight))
            if wanted and groups == 1 and row_groups(x.shape[2]).each:
                self._rows_and_sums(operands, x.shape, strides, gradients)
                return
            self._rows("layer_norm_backward", (*operands, None), x.shape, groups, strides)
        elif x.size:
            self._images("group_norm_backward", operands, x.shape, groups, (*steps(g), *steps(x), first_step(weight)))
        if wanted:
            self._sums(operands, groups, gradients)

    def _rows(self, name: str, operands: tuple, shape: tuple, groups: int, strides: tuple) -> None:
        runs, size = shape[0] * groups, shape[2] // groups
        made = row_groups(size)
        source = made.program("layer_norm.cu", operands[0].dtype)
        self.device.launch(source, name, made.grid(runs), made.block, *operands, runs, groups, size, *strides)

    def _rows_and_sums(self, operands: tuple, shape: tuple, strides: tuple, gradients: tuple) -> None:
        """The gradient for x and, on the way, sums for the gradients of weight and bias; of rows that are one group."""
        (rows, _, size), dtype = shape, operands[0].dtype
        made = row_groups(size)
        blocks = min(made.grid(rows), BLOCKS)
        partial = self.device.empty((blocks, size, 2), np.float64)
        source, sizes = made.program("layer_norm.cu", dtype, "SUMS=1"), (rows, 1, size)
        self.device.launch(source, "layer_norm_backward", blocks, made.block, *operands, partial, *sizes, *strides)
        gradient_totals(self.device, partial, dtype, *gradients)

    def _images(self, name: str, operands: tuple, shape: tuple, groups: int, strides: tuple) -> None:
        images, places, channels = shape
        size = channels // groups
        together = max(1, min(groups, CHANNELS // size)) if size else 1
        across = min(32, power_of_two(together * size))
        block = across, min(THREADS // across, power_of_two(-(-places // 4)))
        sizes = (np.int32(n) for n in (places, groups, size, together))
        source = program("group_norm.cu", f"REAL={TYPES[operands[0].dtype.name]}")
        self.device.launch(source, name, images * -(-groups // together), block, *operands, *sizes, *strides)

    def _sums(self, operands: tuple, groups: int, gradients: tuple) -> None:
        g, x, _, mean, scale, _ = operands
        images, places, channels = x.shape
        if channels == 0:
            return
        made = columns(images * places, channels)
        partial = self.device.empty((made.chunks, channels, 2), np.float64)
        source = program("group_norm.cu", f"REAL={TYPES[x.dtype.name]}")
        sizes = (images * places, channels, made.chunk, max(1, places), groups, channels // groups)
        arguments = (g, x, mean, scale, partial, *sizes, *steps(g), *steps(x))
        self.device.launch(source, "group_sums", made.grid, made.block, *arguments)
        gradient_totals(self.device, partial, x.dtype, *gradients)
