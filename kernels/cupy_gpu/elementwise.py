"""Elementwise formulas: one generated kernel for each formula, number of axes and dtypes."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import numpy as np

from kernels import plan
from kernels.cupy_gpu.device import Device, Program
from kernels.cupy_gpu.expression import expression
from kernels.cupy_gpu.walk import broadcast_strides, merged
from kernels.errors import DtypeError
from kernels.formula import Formula

__all__ = ["Elementwise", "blocks_for"]

THREADS = 256
#: Elements of each thread where there are enough of them.
EACH = 4

TYPES = {
    "float32": "float",
    "float64": "double",
    "int64": "int64",
    "int32": "int",
    "bool": "bool",
    "uint8": "unsigned char",
}


def blocks_for(device: Device, elements: int, each: int = EACH) -> int:
    """Blocks of THREADS threads for a loop over so many elements, at most as many as keep the device busy."""
    return max(1, min(-(-elements // (THREADS * each)), 16 * device.multiprocessors))


class Elementwise:
    """The slots `elementwise` and `copy`."""

    def __init__(self, device: Device):
        self.device = device
        self._constants: dict[tuple[np.dtype, bytes], Any] = {}

    def elementwise(self, formula: Formula, *inputs: Any, out: Any) -> None:
        inputs = tuple(self._here(x) for x in inputs)
        operands = (out, *inputs)
        for name, x in zip(("out", *formula.variables), operands, strict=True):
            if x.dtype.name not in ("float32", "float64", "int64", "bool"):
                raise DtypeError(f"elementwise {formula}: {name} is {x.dtype}, want float32, float64, int64 or bool")
        strides = [broadcast_strides(x, out.shape, name) for name, x in zip(formula.variables, inputs)]
        self._walk(formula, operands, strides)

    def copy(self, x: Any, out: Any) -> None:
        x = self._here(x)
        self._walk(COPY, (out, x), [broadcast_strides(x, out.shape, "x")])

    def _here(self, x: Any) -> Any:
        """x, or where it is a constant of the host its copy on the device."""
        if type(x) is not np.ndarray or self.device.memory.kind is np.ndarray or x.ndim or x.flags.writeable:
            return x
        key = (x.dtype, x.tobytes())
        if key not in self._constants:
            with plan.paused():
                self._constants[key] = self.device.memory.from_host(x)
        return self._constants[key]

    def _walk(self, formula: Formula, operands: tuple[Any, ...], strides: list[tuple[int, ...]]) -> None:
        out = operands[0]
        if out.size == 0:
            return
        shape, steps = merged(out.shape, [broadcast_strides(out, out.shape, "out"), *strides])
        names = tuple(TYPES[x.dtype.name] for x in operands)
        made = generated(formula, names, len(shape))
        numbers = [n for axis in zip(shape, *steps) for n in axis]
        blocks = blocks_for(self.device, out.size)
        self.device.launch(made, "elementwise", blocks, THREADS, *operands, prod(shape), *numbers)


COPY = Formula.of("x", "x")


@cache
def generated(formula: Formula, types: tuple[str, ...], axes: int) -> Program:
    """The kernel over `axes` axes for operands of these C++ types, out first.

    Its arguments: the operands, the number of elements, and for each axis its side and the operands' strides.
    """
    out, *inputs = types
    floats = [name for name in types if name in ("float", "double")]
    real = out if out in ("float", "double") else "double" if len(set(inputs)) > 1 else inputs[0] if inputs else "float"
    if formula is COPY:
        real = out
    pointers = [f"{out}* out", *[f"const {t}* in{i}" for i, t in enumerate(inputs)]]
    walk = [
        f"int64 n{a}, int64 out{a}" + "".join(f", int64 in{i}_{a}" for i in range(len(inputs))) for a in range(axes)
    ]
    values = {}
    for i, name in enumerate(formula.variables):
        values[name] = f"v{i}"
    convert = [f"{t if t == 'bool' or t == real else real} v{i} = in{i}[at{i}];" for i, t in enumerate(inputs)]
    places = ["int64 rest = at, to = 0" + "".join(f", at{i} = 0" for i in range(len(inputs))) + ";"]
    for a in reversed(range(axes)):
        places.append(f"{{ int64 c = {f'rest % n{a}' if a else 'rest'};" + (f" rest /= n{a};" if a else ""))
        places.append(f"  to += c * out{a};" + "".join(f" at{i} += c * in{i}_{a};" for i in range(len(inputs))) + " }")
    body = expression(formula.tree, values, real) if formula is not COPY else "v0"
    text = f"""
extern "C" __global__ void elementwise({", ".join([*pointers, "int64 n", *walk])}) {{
    int64 step = int64(gridDim.x) * blockDim.x;
    for (int64 at = int64(blockIdx.x) * blockDim.x + threadIdx.x; at < n; at += step) {{
        {" ".join(places)}
        {" ".join(convert)}
        out[to] = ({out})({body});
    }}
}}
"""
    return Program(text, (f"REAL={'double' if 'double' in floats else 'float'}",))
