"""Formulas of a plan over the same elements, to be one launch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np

from kernels.cupy_gpu.device import Device, Launch
from kernels.cupy_gpu.loop import WIDE, Loop, Step, prepared
from kernels.cupy_gpu.walk import merged
from kernels.formula import Formula, operations
from kernels.plan import Effect, Instruction, Label, Operand

__all__ = ["Formulated", "Group", "among", "even", "identical", "over", "source", "wanted"]

#: Arrays and operations of a loop at most: they shall stay in registers.
ARRAYS, OPERATIONS = 16, 64
#: Elements up to which a launch is worth saving even where the two have no array in common.
FEW = 1 << 14


@dataclass(frozen=True)
class Formulated:
    """A formula over arrays of the same shape as its result, some of them with steps of 0."""

    formula: Formula
    out: Operand
    inputs: tuple[Operand, ...]

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.out, *self.inputs)

    def over(self, shape: tuple[int, ...]) -> Formulated:
        """The same over another shape of as many elements; all arrays must be `even`."""
        return Formulated(self.formula, over(self.out, shape), tuple(over(x, shape) for x in self.inputs))


@dataclass(frozen=True)
class Group:
    """Formulas over one shape, one after another. outside: how many operands of instructions have each lease."""

    instructions: tuple[Instruction, ...]
    parts: tuple[Formulated, ...]
    outside: dict[int, int]
    held: set[int]

    @staticmethod
    def of(instruction: Instruction, outside: dict[int, int], held: set[int]) -> Group | None:
        """The group of one elementwise launch; None for another instruction."""
        formula = getattr(instruction.name, "formula", None)
        if formula is None or not isinstance(instruction.call, Launch):
            return None
        out, *inputs = instruction.operands
        part = Formulated(formula, _spread(out, out.shape), tuple([_spread(x, out.shape) for x in inputs]))
        return Group((instruction,), (part,), outside, held)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parts[0].out.shape

    @cached_property
    def even(self) -> bool:
        """Whether every array steps evenly through all elements, in their order."""
        return all(even(x) for part in self.parts for x in part.operands)

    @cached_property
    def device(self) -> Device:
        return self.instructions[0].call.device

    @cached_property
    def read(self) -> list[Operand]:
        """What it reads from memory, each once."""
        found: list[Operand] = []
        written: list[Operand] = []
        for part in self.parts:
            for x in part.inputs:
                if not among(x, (*written, *found)):
                    found.append(x)
            written.append(part.out)
        return found

    @cached_property
    def stored(self) -> list[Operand]:
        """What it writes, each once: all but what nobody else reads."""
        found: list[Operand] = []
        for part in self.parts:
            if not among(part.out, found) and wanted(part.out, self.instructions, self):
                found.append(part.out)
        return found

    @property
    def operands(self) -> list[Operand]:
        """What it touches in memory."""
        return [*self.read, *self.stored]

    def followed_by(self, other: Group) -> Group | None:
        """Both as one; None if they are not to be joined."""
        if self.device is not other.device:
            return None
        first, second = self.parts, other.parts
        if self.shape != other.shape:
            if prod(self.shape) != prod(other.shape):
                return None
            if other.even:
                second = tuple(part.over(self.shape) for part in second)
            elif self.even:
                first = tuple(part.over(other.shape) for part in first)
            else:
                return None
        before, after = [x for p in first for x in p.operands], [x for p in second for x in p.operands]
        if prod(self.shape) > FEW and not any(among(x, after) for x in before):
            return None
        one = replace(self, instructions=self.instructions + other.instructions, parts=first + second)
        if len(one.operands) > ARRAYS or sum(operations(part.formula) for part in one.parts) > OPERATIONS:
            return None
        return one if all(one._in_order(p, q) for p in first for q in second) else None

    def _in_order(self, first: Formulated, second: Formulated) -> bool:
        """Whether these two of its parts find in memory what they would find one after the other, if each element is
        read before any is written."""
        one, two = ([part.out] if among(part.out, self.stored) else [] for part in (first, second))
        loaded = [x for x in first.inputs if among(x, self.read)]
        return not (
            any(x.overlaps(y) and not identical(x, y) for x in second.operands for y in one)
            or any(x.overlaps(y) and not x.same(y) for x in loaded for y in two)
        )

    def instruction(self) -> Instruction:
        """The group as one instruction."""
        if len(self.instructions) == 1:
            return self.instructions[0]
        stored = self.stored
        arrays = [*stored, *(x for x in self.read if not any(x.same(y) for y in stored))]
        steps: list[Step] = []
        results: list[Operand] = []
        for part in self.parts:
            sources = tuple([source(x, results, arrays) for x in part.inputs])
            steps.append(Step(part.formula, part.out.dtype.name, sources))
            results.append(part.out)
        stores = tuple([(i, -1 - source(x, results, [])) for i, x in enumerate(stored)])
        loop = Loop(tuple([x.dtype.name for x in arrays]), tuple(steps), stores)
        strides = tuple([tuple([step // x.dtype.itemsize for step in x.strides]) for x in arrays])
        made = prepared(loop, self.shape, strides, tuple([x.address % WIDE for x in arrays]))
        words = (*(np.uint64(x.address) for x in arrays), *made.numbers)
        call = Launch(self.device, made.program, "elementwise", (made.grid, 1, 1), (made.block, 1, 1), words)
        self.device.function(call.program, call.name, 0)
        flop = prod(self.shape) * sum(operations(part.formula) for part in self.parts)
        operands = tuple([x._replace(place=i) for i, x in enumerate(arrays)])
        return Instruction(
            Label("elementwise", flop=flop),
            operands=operands,
            call=call,
            graph=self.device.graph,
            known=_effect(self, operands),
        )


def _effect(group: Group, operands: Sequence[Operand]) -> Effect:
    count, read = len(group.stored), [x.place for x in operands if any(x.same(y) for y in group.read)]
    text = "; ".join(part.formula.text for part in group.parts)
    return Effect(lambda place: place < count, updates=read.__contains__, detail=lambda instruction: text)


def source(x: Operand, results: Sequence[Operand], arrays: Sequence[Operand]) -> int:
    """Where an element of x is found: -1 - k for the last of the results that is x, else its number in memory."""
    for k in reversed(range(len(results))):
        if identical(results[k], x):
            return -1 - k
    return next(i for i, y in enumerate(arrays) if y.same(x))


def wanted(out: Operand, instructions: Iterable[Instruction], group: Group) -> bool:
    """Whether others than these instructions read a result of theirs, or these read it from memory."""
    if not out.lease or out.lease in group.held:
        return True
    own = sum(x.lease == out.lease for one in instructions for x in one.operands)
    return own < group.outside[out.lease] or any(x.lease == out.lease for x in group.read)


def identical(x: Operand, y: Operand) -> bool:
    """Whether both are one array, and not only its memory used again."""
    return x.lease == y.lease and x.same(y)


def among(x: Operand, others: Iterable[Operand]) -> bool:
    return any(identical(x, y) for y in others)


def _spread(x: Operand, shape: tuple[int, ...]) -> Operand:
    """x as it is broadcast to a shape; along axes of one element its step is 0."""
    own = [0 if side == 1 else step for side, step in zip(x.shape, x.strides, strict=True)]
    return x._replace(shape=shape, strides=(*(0,) * (len(shape) - len(own)), *own))


def even(x: Operand) -> bool:
    return len(merged(x.shape, [x.strides])[0]) == 1


def over(x: Operand, shape: tuple[int, ...]) -> Operand:
    """An even array over another shape."""
    (_,), ((step,),) = merged(x.shape, [x.strides])
    strides, around = [], step
    for side in reversed(shape):
        strides.append(0 if side == 1 else around)
        around *= side
    return x._replace(shape=shape, strides=tuple(reversed(strides)))
