"""Elementwise formulas: how operands of any shapes and strides become rows for a compiled loop.

Axes over which all operands walk evenly are merged, so that most calls are one row. What was worked out for a
combination of formula, shapes and strides is kept.
"""

import ast
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kernels.errors import DtypeError, ShapeError
from kernels.formula import Formula
from kernels.numba_cpu import threads
from kernels.numba_cpu.compiler import compile_kernel
from kernels.numba_cpu.executor import LIMIT, address, emit, launch, pack, signature
from kernels.plan import Instruction, Label, Operand

#: Elements that are worth a thread of their own: of a formula of a few instructions, and of others.
LEAST_CHEAP, LEAST = 1 << 15, 1 << 13
#: Functions of a few instructions.
CHEAP = ("abs", "sign", "floor", "max", "min", "where")
#: Calls whose preparation is kept. When there are more, all are forgotten.
_KEPT = 16384

_DTYPES = ("float32", "float64", "int64", "bool")


class _Call(NamedTuple):
    """A prepared call: it needs only the operands."""

    label: Label
    kernel: int
    size: int
    least: int  # elements for each thread
    words: bytes


_calls: dict[tuple, _Call] = {}


def elementwise(formula: Formula, *inputs: np.ndarray, out: np.ndarray) -> None:
    """The value of `formula` for each element; see the contract.

    Raises DtypeError or ShapeError where an input has a dtype that is none of float32, float64, int64 and bool, or
    does not broadcast to out.shape.
    """
    label, kernel, size, least, words = _call(formula, inputs, out)
    if size == 0:
        return
    parts = 1 if size < 2 * least else threads.parts_for(size, least)
    if (len(words) >> 3) + len(inputs) < LIMIT:
        launch(label, kernel, parts, out, *inputs, words)
    else:
        operands = (out, *inputs)
        emit(kernel, parts, pack(*[address(x) for x in operands]) + words, operands, label)


def instruction(formula: Formula, inputs: Sequence[np.ndarray], out: np.ndarray, leases: Sequence[int]) -> Instruction:
    """The call as an instruction, which is not carried out. leases: of out and of each input (see kernels.plan)."""
    label, kernel, size, least, words = _call(formula, tuple(inputs), out)
    arrays = (out, *inputs)
    parts = threads.parts_for(size, least)
    code = pack(kernel, 3 + len(arrays) + (len(words) >> 3), parts, *[address(x) for x in arrays]) + words
    operands = [Operand.of(x, place, lease) for place, (x, lease) in enumerate(zip(arrays, leases, strict=True))]
    return Instruction(label, code, tuple(operands))


def _call(formula: Formula, inputs: tuple[np.ndarray, ...], out: np.ndarray) -> _Call:
    key = formula, signature(out, *inputs)
    call = _calls.get(key)
    if call is None:
        if len(_calls) >= _KEPT:
            _calls.clear()
        call = _calls[key] = _prepare(formula, inputs, out)
    return call


def _prepare(formula: Formula, inputs: Sequence[np.ndarray], out: np.ndarray) -> _Call:
    operands = (out, *inputs)
    for x, name in zip(operands, ("out", *formula.variables), strict=True):
        if x.dtype.name not in _DTYPES or not x.dtype.isnative:
            raise DtypeError(f"elementwise {formula}: {name} is {x.dtype}, want one of {', '.join(_DTYPES)}")
    label = Label("elementwise", formula)
    if out.size == 0:
        return _Call(label, 0, 0, 0, b"")
    starts, axes = _axes(formula, operands)
    n, strides = axes.pop() if axes else (1, tuple(x.itemsize for x in operands))
    layout = "".join(_letter(stride, x) for stride, x in zip(strides, operands, strict=True))
    if axes or "x" in layout or any(starts):
        rows = 1
        for length, _ in axes:
            rows *= length
        table = [word for length, steps in reversed(axes) for word in (length, *steps)]
        kind, words = "rows", (n, rows, len(axes), *starts, *strides, *table)
    else:
        kind, words = "flat", (n,)
    kernel = _kernel(kind, formula, _compute(formula, inputs, out), tuple(x.dtype.name for x in operands), layout)
    return _Call(label, kernel, out.size, LEAST_CHEAP if is_cheap(formula) else LEAST, pack(*words))


def _axes(formula: Formula, operands: Sequence[np.ndarray]) -> tuple[list[int], list[tuple[int, tuple[int, ...]]]]:
    """(byte of each operand's first element, axes): from the outermost, each axis' length and its strides in bytes.

    The axes are in the order of out's strides, which are made positive; neighbours are merged where they can be.
    """
    out = operands[0]
    columns = [_broadcast_strides(formula, x, out.shape) for x in operands]
    starts, axes = [0] * len(operands), []
    for length, *strides in zip(out.shape, *columns, strict=True):
        if length == 1:
            continue
        if strides[0] < 0:
            starts = [start + (length - 1) * stride for start, stride in zip(starts, strides, strict=True)]
            strides = [-stride for stride in strides]
        axes.append((length, tuple(strides)))
    merged: list[tuple[int, tuple[int, ...]]] = []
    for length, strides in sorted(axes, key=lambda axis: -axis[1][0]):
        if merged and merged[-1][1] == tuple(length * stride for stride in strides):
            length *= merged.pop()[0]
        merged.append((length, strides))
    return starts, merged


def _broadcast_strides(formula: Formula, x: np.ndarray, shape: tuple[int, ...]) -> list[int]:
    ahead = len(shape) - x.ndim
    if ahead < 0 or any(side not in (1, wanted) for side, wanted in zip(x.shape, shape[ahead:], strict=True)):
        raise ShapeError(f"elementwise {formula}: an input of shape {x.shape} does not broadcast to out, {shape}")
    return [0] * ahead + [0 if side == 1 else stride for side, stride in zip(x.shape, x.strides, strict=True)]


def _letter(stride: int, x: np.ndarray) -> str:
    """How an operand goes along a row; see jit/elementwise.py."""
    return "c" if stride == x.itemsize else "s" if stride == 0 else "x"


def _compute(formula: Formula, inputs: Sequence[np.ndarray], out: np.ndarray) -> str:
    """The dtype of the computation: out's, or for a comparison the one in which the inputs meet."""
    if out.dtype.kind == "f":
        return out.dtype.name
    floats = {x.dtype.name for x in inputs if x.dtype.kind == "f"}
    if len(floats) == 1 and all(x.dtype.kind != "i" for x in inputs):
        return floats.pop()
    body = formula.tree.body
    plain = isinstance(body, ast.Compare) and all(isinstance(x, ast.Name) for x in (body.left, *body.comparators))
    return "int64" if plain and not floats else "float64"


def is_cheap(formula: Formula) -> bool:
    """Whether the formula is a handful of instructions."""
    nodes = list(ast.walk(formula.tree))
    calls = all(node.func.id in CHEAP for node in nodes if isinstance(node, ast.Call))
    return calls and not any(isinstance(node, ast.Pow | ast.Div) for node in nodes)


def _kernel(kind: str, formula: Formula, compute: str, dtypes: tuple[str, ...], layout: str) -> int:
    def make():
        from kernels.numba_cpu.jit import elementwise as loops

        registers = 1 if "x" in layout else 4 if is_cheap(formula) else 2
        return getattr(loops, kind)(formula, compute, dtypes, layout, registers)

    variables = ",".join(formula.variables)
    return compile_kernel(f"elementwise/{kind}/{formula.text}/{variables}/{compute}/{','.join(dtypes)}/{layout}", make)


SLOTS = {"elementwise": elementwise}
