"""A device for the GPU backend on which loops over elements are carried out by NumPy and not compiled.

So that many plans can be tried: what is tested is which launches become one and what they read and write, not the text
that is generated for them. Other kernels are run by the emulator.
"""

from __future__ import annotations

import ctypes

import emulator
import numpy as np

from kernels.cupy_gpu import elementwise, group
from kernels.cupy_gpu.loop import COPY, Loop, Prepared
from kernels.cupy_gpu.programs import Program
from kernels.reference import functions

_FUNCTIONS = functions(np)


def install(monkeypatch) -> None:
    """Loops are interpreted from now on, where they are launched on an `Interpreter`."""
    for module in (elementwise, group):
        monkeypatch.setattr(module, "prepared", _prepared)


class Interpreter(emulator.Emulator):
    """Elements are computed in two parts, so that one which reads what another writes is found out."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(0)

    def function(self, program, name, shared):
        if program not in _loops:
            return super().function(program, name, shared)
        return lambda grid, block, pointers, shared: self._interpret(*_loops[program], pointers)

    def _interpret(self, loop: Loop, shape: tuple[int, ...], strides: tuple, pointers: int) -> None:
        self._launch.ranges = {}
        table = (ctypes.POINTER(ctypes.c_uint64) * len(loop.arrays)).from_address(pointers)
        words = [x[0] for x in table]
        arrays = [_at(word, shape, own, np.dtype(dtype)) for word, own, dtype in zip(words, strides, loop.arrays)]
        first = self.rng.random(shape) < 0.5
        for part in (first, ~first):
            held = [x[part] for x in arrays]
            results: list[np.ndarray] = []
            for formula, dtype, sources in loop.steps:
                values = [held[s] if s >= 0 else results[-1 - s] for s in sources]
                made = values[0] if formula is COPY else formula.evaluate(_FUNCTIONS, *values)
                results.append(np.broadcast_to(made, part[part].shape).astype(dtype))
            for array, step in loop.stores:
                arrays[array][part] = results[step]


_loops: dict[Program, tuple[Loop, tuple, tuple]] = {}


def _prepared(loop: Loop, shape: tuple, strides: tuple, shifts: tuple) -> Prepared:
    program = Program(f"// loop {len(_loops)}")
    _loops[program] = loop, shape, strides
    return Prepared(program, 1, 1, ())


def _at(address: int, shape: tuple, strides: tuple, dtype: np.dtype) -> np.ndarray:
    spans = [(n - 1) * step * dtype.itemsize for n, step in zip(shape, strides, strict=True)]
    low = sum(span for span in spans if span < 0)
    high = sum(span for span in spans if span > 0) + dtype.itemsize
    memory = (ctypes.c_char * (high - low)).from_address(address + low)
    return np.ndarray(shape, dtype, memory, -low, tuple(step * dtype.itemsize for step in strides))
