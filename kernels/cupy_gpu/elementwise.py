"""The slots `elementwise` and `copy`."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import plan
from kernels.cupy_gpu.device import Device
from kernels.cupy_gpu.loop import COPY, THREADS, TYPES, WIDE, Loop, prepared
from kernels.cupy_gpu.walk import broadcast_strides
from kernels.errors import DtypeError
from kernels.formula import Formula, operations

__all__ = ["THREADS", "TYPES", "Elementwise", "blocks_for"]

#: Elements of each thread where there are enough of them.
EACH = 4


def blocks_for(device: Device, elements: int, each: int = EACH) -> int:
    """Blocks of THREADS threads for a loop over so many elements, at most as many as keep the device busy."""
    return max(1, min(-(-elements // (THREADS * each)), 16 * device.multiprocessors))


class Elementwise:
    """Formulas for each element, by a loop of one step; in a plan, several may become one (`cupy_gpu.fusion`)."""

    def __init__(self, device: Device):
        self.device = device
        self._constants: dict[tuple[np.dtype, bytes], Any] = {}

    def elementwise(self, formula: Formula, *inputs: Any, out: Any) -> None:
        """See `kernels.contract.Backend.elementwise`."""
        inputs = tuple(self._here(x) for x in inputs)
        for name, x in zip(("out", *formula.variables), (out, *inputs), strict=True):
            if x.dtype.name not in ("float32", "float64", "int64", "bool"):
                raise DtypeError(f"elementwise {formula}: {name} is {x.dtype}, want float32, float64, int64 or bool")
        self._run("elementwise", formula, out, *inputs)

    def copy(self, x: Any, out: Any) -> None:
        """See `kernels.contract.Backend.copy`."""
        self._run("copy", COPY, out, self._here(x))

    def advance(self, counter: Any, amount: float) -> None:
        """See `kernels.contract.Backend.advance`."""
        constant = np.array(amount, counter.dtype)
        constant.setflags(write=False)
        self._run("advance", ADVANCE, counter, counter, self._here(constant))

    def _here(self, x: Any) -> Any:
        """x, or where it is a constant of the host its copy on the device."""
        if type(x) is not np.ndarray or self.device.memory.kind is np.ndarray or x.ndim or x.flags.writeable:
            return x
        key = (x.dtype, x.tobytes())
        if key not in self._constants:
            with plan.paused():
                self._constants[key] = self.device.memory.from_host(x)
        return self._constants[key]

    def _run(self, name: str, formula: Formula, *arrays: Any) -> None:
        """The formula into the first of the arrays, of the others."""
        out, *inputs = arrays
        strides = (broadcast_strides(out, out.shape, "out"), *_strides(formula, inputs, out.shape))
        if out.size == 0:
            return
        shifts = tuple([self.device.address(x) % WIDE for x in arrays])
        loop = Loop.of(formula, *[x.dtype.name for x in arrays])
        made = prepared(loop, out.shape, strides, shifts)
        label = plan.Label(name, formula, out.size * operations(formula))
        launched = (made.program, "elementwise", made.grid, made.block)
        self.device.launch(*launched, *arrays, *made.numbers, label=label, effect=EFFECT)


def _strides(formula: Formula, inputs: list[Any], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [broadcast_strides(x, shape, name) for name, x in zip(formula.variables, inputs, strict=True)]


ADVANCE = Formula.of("counter + amount", "counter", "amount")
EFFECT = plan.Effect(writes=(0).__eq__, detail=lambda instruction: instruction.name.formula.text)
