"""Elementwise launches of a plan that are over the same elements, as one.

Each result is rounded to its dtype as it would be in memory, so that no bit changes; what only the loop itself reads is
not written. A launch may change places with those between it and the one that it joins, where nothing is written that
the other touches.
"""

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
from kernels.fusion import users_of
from kernels.plan import Effect, Instruction, Label, Operand

__all__ = ["together"]

#: Arrays and operations of a loop at most: they shall stay in registers.
ARRAYS, OPERATIONS = 16, 64
#: Elements up to which a launch is worth saving even where the two have no array in common.
FEW = 1 << 14
#: How many instructions a launch may pass.
FAR = 64


def together(instructions: Sequence[Instruction], held: set[int]) -> list[Instruction]:
    """The instructions with elementwise launches joined."""
    users = users_of(instructions)
    outside = {lease: len(found) for lease, found in users.items()}
    result: list[Instruction | Group | None] = []
    for instruction in instructions:
        group = Group.of(instruction, outside, held)
        result.append(group or instruction)
        while group is not None:
            group = _joined(result, group)
    return [one.instruction() if isinstance(one, Group) else one for one in result if one is not None]


def _joined(result: list[Instruction | Group | None], group: Group) -> Group | None:
    """The group with the nearest one before it that it can join, put in the place of one of them; None if there is
    none."""
    place = next(i for i, one in enumerate(result) if one is group)
    between: list[Instruction | Group] = []
    up = True
    for i in range(place - 1, max(-1, place - 1 - FAR), -1):
        other = result[i]
        if other is None:
            continue
        one = other.followed_by(group) if isinstance(other, Group) else None
        if one is not None and (up or not any(_conflict(other, x) for x in between)):
            result[place] = result[i] = None
            result[i if up else place] = one
            return one
        if not isinstance(other, Group) and other.opaque:
            return None
        up = up and not _conflict(group, other)
        between.append(other)
    return None


def _conflict(a: Instruction | Group, b: Instruction | Group) -> bool:
    """Whether one writes what the other touches."""
    a_writes, b_writes = _writes(a), _writes(b)
    return any(x.overlaps(y) for x in a_writes for y in b.operands) or any(
        x.overlaps(y) for x in b_writes for y in a.operands
    )


def _writes(one: Instruction | Group) -> Iterable[Operand]:
    if isinstance(one, Group):
        return one.stored
    return [x for x in one.operands if one.effect.writes(x.place)]


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
        return Formulated(self.formula, _over(self.out, shape), tuple(_over(x, shape) for x in self.inputs))


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
        return all(_even(x) for part in self.parts for x in part.operands)

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
                if not _among(x, (*written, *found)):
                    found.append(x)
            written.append(part.out)
        return found

    @cached_property
    def stored(self) -> list[Operand]:
        """What it writes, each once: all but what nobody else reads."""
        found: list[Operand] = []
        for part in self.parts:
            if not _among(part.out, found) and self._wanted(part.out):
                found.append(part.out)
        return found

    def _wanted(self, out: Operand) -> bool:
        if not out.lease or out.lease in self.held:
            return True
        own = sum(x.lease == out.lease for one in self.instructions for x in one.operands)
        return own < self.outside[out.lease] or any(x.lease == out.lease for x in self.read)

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
        if prod(self.shape) > FEW and not any(_among(x, after) for x in before):
            return None
        one = replace(self, instructions=self.instructions + other.instructions, parts=first + second)
        if len(one.operands) > ARRAYS or sum(operations(part.formula) for part in one.parts) > OPERATIONS:
            return None
        return one if all(one._in_order(p, q) for p in first for q in second) else None

    def _in_order(self, first: Formulated, second: Formulated) -> bool:
        """Whether these two of its parts find in memory what they would find one after the other, if each element is
        read before any is written."""
        one, two = ([part.out] if _among(part.out, self.stored) else [] for part in (first, second))
        loaded = [x for x in first.inputs if _among(x, self.read)]
        return not (
            any(x.overlaps(y) and not _identical(x, y) for x in second.operands for y in one)
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
            sources = tuple([_source(x, results, arrays) for x in part.inputs])
            steps.append(Step(part.formula, part.out.dtype.name, sources))
            results.append(part.out)
        stores = tuple([(i, -1 - _source(x, results, [])) for i, x in enumerate(stored)])
        loop = Loop(tuple([x.dtype.name for x in arrays]), tuple(steps), stores)
        strides = tuple([tuple([step // x.dtype.itemsize for step in x.strides]) for x in arrays])
        made = prepared(loop, self.shape, strides, tuple([x.address % WIDE for x in arrays]))
        words = (*(np.uint64(x.address) for x in arrays), *made.numbers)
        call = Launch(self.device, made.program, "elementwise", (made.grid,), (made.block,), words)
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


def _source(x: Operand, results: Sequence[Operand], arrays: Sequence[Operand]) -> int:
    """Where an element of x is found: -1 - k for the last of the results that is x, else its number in memory."""
    for k in reversed(range(len(results))):
        if _identical(results[k], x):
            return -1 - k
    return next(i for i, y in enumerate(arrays) if y.same(x))


def _identical(x: Operand, y: Operand) -> bool:
    """Whether both are one array, and not only its memory used again."""
    return x.lease == y.lease and x.same(y)


def _among(x: Operand, others: Iterable[Operand]) -> bool:
    return any(_identical(x, y) for y in others)


def _spread(x: Operand, shape: tuple[int, ...]) -> Operand:
    """x as it is broadcast to a shape; along axes of one element its step is 0."""
    own = [0 if side == 1 else step for side, step in zip(x.shape, x.strides, strict=True)]
    return x._replace(shape=shape, strides=(*(0,) * (len(shape) - len(own)), *own))


def _even(x: Operand) -> bool:
    return len(merged(x.shape, [x.strides])[0]) == 1


def _over(x: Operand, shape: tuple[int, ...]) -> Operand:
    """An even array over another shape."""
    (_,), ((step,),) = merged(x.shape, [x.strides])
    strides, around = [], step
    for side in reversed(shape):
        strides.append(0 if side == 1 else around)
        around *= side
    return x._replace(shape=shape, strides=tuple(reversed(strides)))
