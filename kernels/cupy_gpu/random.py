"""The slots random_uniform, random_normal and dropout_mask."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import THREADS, TYPES, blocks_for
from kernels.cupy_gpu.layout import first_step
from kernels.cupy_gpu.programs import program

__all__ = ["Random"]


class Random:
    """Numbers that depend on the state and on their place alone."""

    def __init__(self, device: Device):
        self.device = device

    def random_uniform(self, state: Any, out: Any) -> None:
        """See `kernels.contract.Backend.random_uniform`."""
        self._draw("uniform", state, out)

    def random_normal(self, state: Any, out: Any) -> None:
        """See `kernels.contract.Backend.random_normal`."""
        self._draw("normal", state, out)

    def dropout_mask(self, state: Any, rate: float, out: Any) -> None:
        """See `kernels.contract.Backend.dropout_mask`."""
        self._draw("dropout_mask", state, out, np.float32(rate), 1 / (1 - rate))

    def _draw(self, name: str, state: Any, out: Any, *constants: Any) -> None:
        if out.size:
            made = program("random.cu", f"REAL={TYPES[out.dtype.name]}")
            blocks = blocks_for(self.device, out.size, 16 // out.itemsize)
            self.device.launch(made, name, blocks, THREADS, state, first_step(state), out, out.size, *constants)
