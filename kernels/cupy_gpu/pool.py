"""The slots `max_pool2d`, `avg_pool2d` and their backward passes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from kernels.cupy_gpu.columns import power_of_two
from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import THREADS, TYPES, blocks_for
from kernels.cupy_gpu.layout import Layout, steps
from kernels.cupy_gpu.programs import Program, program
from kernels.cupy_gpu.uploads import Uploads

__all__ = ["Pool"]


class Pool:
    """Forward a thread walks its window; backward it walks the windows that hold its place, so that nothing is shared.

    Windows lie on the device, uploaded once for each geometry.
    """

    def __init__(self, device: Device):
        self.device = device
        self.layout = Layout(device)
        self.uploads = Uploads(device)

    def max_pool2d(self, x: Any, rows: np.ndarray, columns: np.ndarray, out: Any, index: Any) -> None:
        """See `kernels.contract.Backend.max_pool2d`."""
        if out.size == 0:
            return
        made, pack = self._program(out.shape[3], out, index, x=x)
        windows = self._windows(rows, columns)
        count, sizes = out.size // pack, _sizes(x.shape[2], *out.shape[1:3], out.shape[3] // pack)
        blocks = blocks_for(self.device, count, 1)
        self.device.launch(made, "max_pool", blocks, THREADS, x, *windows, out, index, count, *sizes, *steps(x))

    def avg_pool2d(self, x: Any, rows: np.ndarray, columns: np.ndarray, out: Any) -> None:
        """See `kernels.contract.Backend.avg_pool2d`."""
        if out.size == 0:
            return
        made, pack = self._program(out.shape[3], out, x=x)
        windows = self._windows(rows, columns)
        count, sizes = out.size // pack, _sizes(*out.shape[1:3], out.shape[3] // pack)
        largest = int((rows[:, 1] - rows[:, 0]).max() * (columns[:, 1] - columns[:, 0]).max())
        down = min(32, power_of_two(-(-largest // 16)))
        across = THREADS // down
        arguments = (x, *windows, out, count, *sizes, *steps(x))
        self.device.launch(made, "avg_pool", -(-count // across), (across, down), *arguments)

    def max_pool2d_backward(self, g: Any, index: Any, rows: np.ndarray, columns: np.ndarray, out: Any) -> None:
        """See `kernels.contract.Backend.max_pool2d_backward`."""
        g, index = self.layout.contiguous(g), self.layout.contiguous(index)
        self._backward("max_pool_backward", (g, index), (), rows, columns, out)

    def avg_pool2d_backward(self, g: Any, rows: np.ndarray, columns: np.ndarray, out: Any) -> None:
        """See `kernels.contract.Backend.avg_pool2d_backward`."""
        if out.size:
            self._backward(
                "avg_pool_backward", (self.layout.contiguous(g),), self._windows(rows, columns), rows, columns, out
            )

    def _backward(
        self, name: str, inputs: tuple, windows: tuple, rows: np.ndarray, columns: np.ndarray, out: Any
    ) -> None:
        if out.size == 0:
            return
        h, w, c = out.shape[1:]
        made, pack = self._program(c, out, *inputs)
        covers = self._windows(cover(rows, h), cover(columns, w))
        sizes = _sizes(h, w, *inputs[0].shape[1:3], c // pack)
        count = out.size // pack
        blocks = blocks_for(self.device, count, 1)
        self.device.launch(made, name, blocks, THREADS, *inputs, *windows, *covers, out, count, *sizes)

    def _windows(self, *tables: np.ndarray) -> tuple[Any, ...]:
        return tuple(self.uploads.copy_of(table) for table in tables)

    def _program(self, channels: int, out: Any, *contiguous: Any, x: Any = None) -> tuple[Program, int]:
        """The program for these arrays, and the channels that it takes together: as many as 16 bytes hold if they lie
        so in each of them."""
        pack = 16 // out.itemsize
        fits = channels % pack == 0
        fits = fits and all(self.device.address(a) % (pack * a.itemsize) == 0 for a in (out, *contiguous))
        if x is not None:
            *outer, inner = steps(x)
            fits = fits and inner == 1 and all(step % pack == 0 for step in outer) and self.device.address(x) % 16 == 0
        pack = pack if fits else 1
        return program("pool.cu", f"REAL={TYPES[out.dtype.name]}", f"PACK={pack}"), pack


def cover(windows: np.ndarray, side: int) -> np.ndarray:
    """For each place along an axis the first window that holds it and the one after the last, (side, 2)."""
    return _cover(windows.tobytes(), side)


@lru_cache(maxsize=256)
def _cover(windows: bytes, side: int) -> np.ndarray:
    found = np.zeros((side, 2), np.int64)
    spans = np.frombuffer(windows, np.int64).reshape(-1, 3)[:, :2].tolist()
    for i, (start, stop) in reversed(list(enumerate(spans))):
        inside = found[start:stop]
        inside[:, 1] = np.where(inside[:, 1] == 0, i + 1, inside[:, 1])
        inside[:, 0] = i
    return found


def _sizes(*sizes: int) -> tuple[np.int32, ...]:
    return tuple(np.int32(size) for size in sizes)
