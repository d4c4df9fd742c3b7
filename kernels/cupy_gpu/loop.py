"""Loops over elements: formulas that are computed one after another for each element, by one generated kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from kernels.cupy_gpu.divisor import divisor
from kernels.cupy_gpu.expression import expression
from kernels.cupy_gpu.programs import Program, program
from kernels.cupy_gpu.walk import merged
from kernels.formula import Formula

__all__ = ["COPY", "TYPES", "Loop", "Prepared", "Step", "Steps", "computed", "generated", "prepared"]

#: Threads of a block at most, and packs from which on each thread takes two, so that more loads are in flight.
THREADS, MANY = 256, 1 << 17
#: Bytes that a thread reads or writes at once, and elements up to which places fit in 32 bits.
WIDE, SMALL = 16, 2**31

TYPES = {
    "float32": "float",
    "float64": "double",
    "int64": "int64",
    "int32": "int",
    "bool": "bool",
    "uint8": "unsigned char",
}
COPY = Formula.of("x", "x")
DIVISOR = np.dtype([("divisor", "u4"), ("factor", "u4"), ("shift", "u4")])

#: Strides of an array in elements, along each axis.
Steps = tuple[int, ...]


class Step(NamedTuple):
    """A formula, the dtype of its result, and where its variables come from: the number of an array in memory, or
    -1 - k for the result of step k."""

    formula: Formula
    dtype: str
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Loop:
    """Arrays in memory, by their dtypes; what is computed of their elements; (array, step whose result it takes).

    All arrays are read before any is written, for each element.
    """

    arrays: tuple[str, ...]
    steps: tuple[Step, ...]
    stores: tuple[tuple[int, int], ...]

    @staticmethod
    def of(formula: Formula, out: str, *inputs: str) -> Loop:
        """The loop of one formula, over out and its inputs."""
        return Loop((out, *inputs), (Step(formula, out, tuple(range(1, len(inputs) + 1))),), ((0, 0),))


class Prepared(NamedTuple):
    """How a loop is launched; its arguments are the arrays and then these numbers."""

    program: Program
    grid: int
    block: int
    numbers: tuple[np.generic, ...]


@lru_cache(maxsize=4096)
def prepared(loop: Loop, shape: Steps, strides: tuple[Steps, ...], shifts: Steps) -> Prepared:
    """A loop over arrays of this shape, not empty. shifts: what is left of their addresses when divided by WIDE."""
    main = loop.stores[0][0]
    order = sorted(range(len(shape)), key=lambda axis: -abs(strides[main][axis]))
    shape, strides = merged([shape[i] for i in order], [[steps[i] for i in order] for steps in strides])
    sizes = [np.dtype(name).itemsize for name in loop.arrays]
    pack = WIDE // max(sizes)
    pack = pack if _fits(pack, shape, strides, sizes, shifts) else 1
    letters = "".join(map(_letter, strides))
    count = prod(shape)
    packs = -(-count // pack)
    each = 1 if packs < MANY else 2
    small = all(prod(shape) < SMALL and max(map(abs, steps)) < SMALL for steps in strides)
    sides = [*shape[1:-1], -(-shape[-1] // pack)][: len(shape) - 1]
    number = np.int32 if small else np.int64
    numbers = [(np.uint32 if small else np.int64)(count)]
    numbers += [np.array(divisor(side), DIVISOR)[()] if small else np.int64(side) for side in sides]
    for own, letter in zip(strides, letters, strict=True):
        numbers += [number(step) for step in own[: _counted(letter, len(shape))]]
    block = min(THREADS, -(-packs // 32) * 32)
    made = generated(loop, letters, len(shape), pack, each, small)
    return Prepared(made, -(-packs // (block * each)), block, tuple(numbers))


def _fits(pack: int, shape: Steps, strides: Sequence[Steps], sizes: Sequence[int], shifts: Steps) -> bool:
    """Whether every array can be read or written in packs of that many elements."""
    if len(shape) > 1 and shape[-1] % pack:
        return False
    for (*outer, inner), size, shift in zip(strides, sizes, shifts, strict=True):
        if inner not in (0, 1):
            return False
        if inner and (shift % (pack * size) or any(step % pack for step in outer)):
            return False
    return True


def _letter(strides: Steps) -> str:
    """How an array goes along the last axis: side by side (c), in steps (x), or not at all, but along others (s) or
    none (0)."""
    *_, inner = strides
    return "c" if inner == 1 else "x" if inner else "s" if any(strides) else "0"


def _counted(letter: str, axes: int) -> int:
    """The axes along which an array's steps are told."""
    return {"0": 0, "x": axes}.get(letter, axes - 1)


@cache
def generated(loop: Loop, letters: str, axes: int, pack: int, each: int, small: bool) -> Program:
    """The kernel for arrays that go along the last axis like this.

    Its arguments: the arrays, the number of elements, sides of all axes but the first (of the last one in packs), and
    the steps of each array, see `_counted`. small: all of these fit in 32 bits.
    """
    packed, stored = [letter == "c" for letter in letters], {array for array, _ in loop.stores}
    read = sorted({source for step in loop.steps for source in step.sources if source >= 0})
    index, side, step = ("uint32", "Divisor", "int") if small else ("int64", "int64", "int64")
    parameters = [
        *(f"{'' if i in stored else 'const '}{TYPES[name]}* p{i}" for i, name in enumerate(loop.arrays)),
        f"{index} n",
        *(f"{side} side{a}" for a in range(1, axes)),
        *(f"{step} s{i}_{a}" for i, letter in enumerate(letters) for a in range(_counted(letter, axes))),
    ]
    divide = "side{0}.quotient(rest)" if small else "rest / side{0}"
    width = "side{0}.divisor" if small else "side{0}"
    places = [f"{index} rest = at;"]
    for a in range(axes - 1, 0, -1):
        quotient, whole = divide.format(a), width.format(a)
        places.append(f"{index} q{a} = {quotient}, c{a} = rest - q{a} * {whole}; rest = q{a};")
    places.append(f"{index} c0 = rest;")
    for i, letter in enumerate(letters):
        terms = [f"int64(c{a}) * s{i}_{a}" for a in range(_counted(letter, axes))]
        terms += [f"int64(c{axes - 1}) * {pack}"] if letter == "c" else []
        places.append(f"at{i}[k] = {' + '.join(terms) or '0'};")
    left = f"int64(n) - int64(at) * {pack}" if axes == 1 else str(pack)
    declared = [f"int64 at{i}[{each}];" for i in range(len(letters))]
    for i in read:
        kind = TYPES[loop.arrays[i]]
        declared.append(f"{f'Pack<{kind}>' if letters[i] == 'c' else kind} v{i}[{each}];")
    loads = [f"v{i}[k] = {f'read(p{i} + at{i}[k], left)' if letters[i] == 'c' else f'p{i}[at{i}[k]]'};" for i in read]
    results = [f"Pack<{TYPES[loop.arrays[i]]}> r{i};" for i in sorted(stored)]
    values = [f"v{i}[k]{'.v[j]' * side_by_side}" for i, side_by_side in enumerate(packed)]
    elements = [line for number in range(len(loop.steps)) for line in computed(loop, number, values)]
    elements += [f"r{array}.v[j] = y{number};" for array, number in loop.stores]
    stores = [
        f"write(p{i} + at{i}[k], r{i}, left);" if packed[i] else f"p{i}[at{i}[k]] = r{i}.v[0];" for i in sorted(stored)
    ]
    text = f"""
#define PACK {pack}
{program("elementwise.cuh").text}
extern "C" __global__ void __launch_bounds__({THREADS})
elementwise({", ".join(parameters)}) {{
    {index} packs = (n + {pack - 1}) / {pack}, first = {index}(blockIdx.x) * (blockDim.x * {each}) + threadIdx.x;
    {" ".join(declared)}
#pragma unroll
    for (int k = 0; k < {each}; k++) {{
        {index} at = first + k * blockDim.x;
        if (at >= packs) break;
        int64 left = {left};
        {" ".join(places)}
        {" ".join(loads)}
    }}
#pragma unroll
    for (int k = 0; k < {each}; k++) {{
        {index} at = first + k * blockDim.x;
        if (at >= packs) break;
        int64 left = {left};
        {" ".join(results)}
#pragma unroll
        for (int j = 0; j < {pack}; j++) {{
            {" ".join(elements)}
        }}
        {" ".join(stores)}
    }}
}}
"""
    wide = "float64" in (*loop.arrays, *(one.dtype for one in loop.steps))
    return Program(text, (f"REAL={'double' if wide else 'float'}",), contract=False)


def computed(loop: Loop, number: int, values: Sequence[str]) -> list[str]:
    """C++ for y{number}, the result of a step, from those of the steps before and the values of arrays.

    A formula is computed in the type of a floating result, else in that of its inputs, or double if they differ.
    """
    step = loop.steps[number]
    out, names, lines = TYPES[step.dtype], {}, []
    kinds = [TYPES[loop.arrays[s] if s >= 0 else loop.steps[-1 - s].dtype] for s in step.sources]
    if out in ("float", "double") or step.formula is COPY:
        real = out
    else:
        real = "double" if len(set(kinds)) > 1 else kinds[0] if kinds else "float"
    for i, (name, source, kind) in enumerate(zip(step.formula.variables, step.sources, kinds, strict=True)):
        names[name] = f"x{number}_{i}"
        value = f"y{-1 - source}" if source < 0 else values[source]
        lines.append(f"{kind if kind == 'bool' else real} {names[name]} = {value};")
    body = names["x"] if step.formula is COPY else expression(step.formula.tree, names, real)
    return [*lines, f"{out} y{number} = static_cast<{out}>({body});"]
