"""Convolutions in groups of few channels, by the kernels in direct.cu."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.elementwise import THREADS, blocks_for
from kernels.cupy_gpu.fused import ACTIVATED, number
from kernels.cupy_gpu.gemm import LIMIT
from kernels.cupy_gpu.image import Image
from kernels.cupy_gpu.operand import strides_of
from kernels.cupy_gpu.programs import Program, program

__all__ = ["Direct"]

#: struct Direct of direct.cu.
DIRECT = np.dtype(
    [
        ("image", "i8", 4),
        ("window", "i4", 8),
        ("steps", "i8", 6),
        ("strides", "i8", 3),
        ("sizes", "i4", 10),
        ("divisors", "u4", 6),
    ]
)
#: Of a block of the weight gradient: results, places at a time, and at most so many taps of a row of the kernel.
LANES, ROWS, TAPS = 32, 8, 8
#: Places that a thread of the weight gradient sums, and the most parts that are added up then.
SUMMED, PARTS = 64, 256


class Direct:
    """Convolutions that are read straight from the image."""

    def __init__(self, device: Device):
        self.device = device

    def correlate(
        self,
        x: Any,
        w: Any,
        bias: Any,
        activation: str | None,
        out: Any,
        image: Image,
        by_result: int,
        by_group: int,
        groups: int,
    ) -> None:
        """out = activation(x correlated with the taps w + bias). Weights of results of one group are by_result apart,
        those of groups by_group."""
        results, places = out.shape[3], prod(out.shape[:3])
        ins, outs = x.shape[3] // groups, results // groups
        wide = 16 // out.itemsize
        arrays = (x, out, w)
        steps = [n for array in arrays for n in strides_of(array)[:3]] if w.size else [1]
        lone = ins == outs == 1 and image.strides[3] == by_group == strides_of(out)[3] == 1
        vector = wide if lone and self._aligned(arrays, (results, *steps)) else 1
        task = self._task(
            *(
                image,
                image.steps,
                strides_of(out)[:3],
                (by_result, by_group, 0 if bias is None else strides_of(bias)[0]),
            ),
            *(places, results, ins, outs, *w.shape[:2], number(activation), 1, places),
        )
        lanes = min(THREADS, 1 << (-(-results // vector) - 1).bit_length())
        rows = THREADS // lanes
        made = self._program(out, vector, 1)
        self.device.launch(made, "correlate", -(-places // rows), (lanes, rows), x, w, bias, out, task)

    def weight_gradient(self, x: Any, g: Any, image: Image, out: Any) -> None:
        """out = the gradient of sum(g * conv2d(x, w)) for w; image.steps are those of g."""
        kh, kw, ins, results = out.shape
        places, groups = prod(g.shape[:3]), x.shape[3] // ins
        parts = max(1, min(PARTS, places // (ROWS * SUMMED)))
        span = -(-places // parts)
        task = self._task(
            *(image, (0, 0, 0), image.steps, (strides_of(g)[3], 0, 0)),
            *(places, results, ins, results // groups, kh, kw, 0, parts, span),
        )
        taps = min(kw, TAPS)
        made = self._program(out, 1, taps)
        sums = out if parts == 1 else self.device.empty((parts, *out.shape), out.dtype)
        blocks = -(-results // LANES) * ins * -(-kw // taps) * kh * parts
        self.device.launch(made, "weight_gradient", blocks, (LANES, ROWS), x, g, sums, task)
        if parts > 1:
            blocks = blocks_for(self.device, out.size, 1)
            self.device.launch(made, "add_parts", blocks, THREADS, sums, out, out.size, parts)

    def _task(self, image: Image, by: Any, to: Any, strides: tuple[int, ...], places: int, *sizes: int) -> np.void:
        if places >= LIMIT:
            raise ValueError(f"a convolution of {places} places is too large: 2**31 or more")
        table = (image.strides, image.window, (*by, *to), strides, (places, *sizes, 0), image.divisors[:6])
        return np.array(table, DIRECT)[()]

    def _aligned(self, arrays: tuple[Any, ...], steps: tuple[int, ...]) -> bool:
        wide = 16 // arrays[0].itemsize
        return all(self.device.address(x) % 16 == 0 for x in arrays) and all(step % wide == 0 for step in steps)

    def _program(self, out: Any, vector: int, taps: int) -> Program:
        real = "double" if out.dtype.name == "float64" else "float"
        macros = {"REAL": real, "VECTOR": vector, "TAPS_X": taps, "ACTIVATED(kind, z)": ACTIVATED}
        return program("direct.cu", *[f"{name}={value}" for name, value in macros.items()])
