"""Reductions of a plan that compute the elements which they combine, and what is made of their results.

Only arrays that step evenly through all elements are read and written on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np

from kernels.cupy_gpu.device import Launch
from kernels.cupy_gpu.group import Formulated, Group, among, even, identical, over, source, wanted
from kernels.cupy_gpu.loop import COPY, TYPES, Loop, Step, computed
from kernels.cupy_gpu.programs import program
from kernels.plan import Effect, Instruction, Operand

__all__ = ["Reduction"]

TEXT = program("reduce.cu").text


@dataclass(frozen=True)
class Reduction:
    """A reduction by one launch: of x, which `before` may compute, into out, of which `after` may compute more."""

    plain: Instruction
    before: Group | None = None
    after: Group | None = None

    @staticmethod
    def of(instruction: Instruction) -> Reduction | None:
        """That of an instruction; None for another one."""
        call = instruction.call
        if not isinstance(call, Launch) or call.program.text != TEXT or call.grid[1] > 1:
            return None
        return Reduction(instruction)

    @property
    def x(self) -> Operand:
        return self.plain.operands[0]

    @cached_property
    def out(self) -> Operand:
        return _flat(self.plain.operands[1])

    @cached_property
    def read(self) -> list[Operand]:
        """What it reads from memory."""
        first = self.before.read if self.before else [self.x]
        return [*first, *(x for x in (self.after.read if self.after else ()) if not identical(x, self.out))]

    @cached_property
    def stored(self) -> list[Operand]:
        """What it writes."""
        if self.after is None:
            return [self.out]
        instructions, nothing = (self.plain, *self.after.instructions), replace(self.after, parts=())
        others = [x for x in self.after.stored if not identical(x, self.out)]
        return [self.out] * wanted(self.out, instructions, nothing) + others

    @property
    def operands(self) -> list[Operand]:
        """What it touches in memory."""
        return [*self.read, *self.stored]

    def preceded_by(self, group: Group) -> Reduction | None:
        """With the group that computes nothing but x; None for another one."""
        if self.before or not group.even or not even(self.x) or prod(group.shape) != self.x.size:
            return None
        group = _flattened(group)
        (*_, last), x = group.parts, _flat(self.x)
        contiguous = x.size == 1 or x.strides == (x.dtype.itemsize,)
        if not contiguous or not identical(last.out, x) or [identical(y, x) for y in group.stored] != [True]:
            return None
        if wanted(x, (*group.instructions, self.plain), group):
            return None
        if any(x.overlaps(y) for x in group.read for y in self.stored):
            return None
        return replace(self, before=group)

    def followed_by(self, group: Group) -> Reduction | None:
        """With a group that computes more from each result; None for one that does not."""
        if self.after or not group.even or prod(group.shape) != self.out.size:
            return None
        group = _flattened(group)
        if not among(self.out, group.read):
            return None
        if any(x.overlaps(self.out) and not identical(x, self.out) for x in group.operands):
            return None
        if any(x.overlaps(y) for x in self.read for y in group.stored):
            return None
        return replace(self, after=group)

    def instruction(self) -> Instruction:
        """It as one instruction."""
        if not self.before and not self.after:
            return self.plain
        call, macros = self.plain.call, []
        words, parameters = list(call.values), []
        places = {1: self.out} if among(self.out, self.stored) else {}
        if not self.before:
            places[0] = self.x

        def pass_on(arrays: Sequence[Operand], name: str) -> None:
            """The arrays and their steps, as parameters {name}0, {name}0_step and so on."""
            for i, x in enumerate(arrays):
                constant = "" if among(x, self.stored) else "const "
                parameters.append(f"{constant}{TYPES[x.dtype.name]}* {name}{i}, int64 {name}{i}_step")
                places[len(words)] = x
                words.extend((np.uint64(x.address), np.int64(x.strides[0] // x.dtype.itemsize)))

        if self.before:
            arrays = self.before.read
            pass_on(arrays, "p")
            lines = _lines(self.before.parts, arrays, "p", [])
            macros.append(f"LOAD(i)=[&](int64 at) {{ {' '.join(lines)} return y{len(self.before.parts) - 1}; }}(i)")
        if self.after:
            others = [x for x in (*self.after.stored, *self.after.read) if not identical(x, self.out)]
            arrays = [x for i, x in enumerate(others) if not any(x.same(y) for y in others[:i])]
            pass_on(arrays, "q")
            lines = _lines(self.after.parts, arrays, "q", [self.out])
            results = [self.out, *(part.out for part in self.after.parts)]
            for x in self.stored:
                to = "out[at]" if identical(x, self.out) else _element(arrays, "q", x)
                lines.append(f"{to} = y{-1 - source(x, results, [])};")
            macros.append(f"RESULT(o, total)=int64 at = o; TO y0 = TO(total); {' '.join(lines)}")
        macros.append(f"PARAMETERS=, {', '.join(parameters)}" if parameters else "PARAMETERS=")
        launch = call.of(replace(call.program, macros=(*call.program.macros, *macros)), words)
        operands = tuple([x._replace(place=place) for place, x in sorted(places.items())])
        written = [place for place, x in places.items() if among(x, self.stored)]
        read = [place for place, x in places.items() if among(x, self.read)]
        formulas = "; ".join(part.formula.text for group in (self.before, self.after) if group for part in group.parts)
        effect = Effect(written.__contains__, updates=read.__contains__, detail=lambda instruction: formulas)
        return replace(self.plain, call=launch, operands=operands, known=effect)


def _lines(parts: Sequence[Formulated], arrays: Sequence[Operand], name: str, given: Sequence[Operand]) -> list[str]:
    """C++ that computes y{k} for each of the parts, after the y{k} that are `given`, at element `at`."""
    results, steps = list(given), [Step(COPY, x.dtype.name, ()) for x in given]
    for part in parts:
        steps.append(Step(part.formula, part.out.dtype.name, tuple([source(x, results, arrays) for x in part.inputs])))
        results.append(part.out)
    loop = Loop(tuple([x.dtype.name for x in arrays]), tuple(steps), ())
    used = sorted({s for step in steps for s in step.sources if s >= 0})
    lines = [f"{TYPES[arrays[i].dtype.name]} v{i} = {name}{i}[at * {name}{i}_step];" for i in used]
    values = [f"v{i}" for i in range(len(arrays))]
    return lines + [line for number in range(len(given), len(steps)) for line in computed(loop, number, values)]


def _element(arrays: Sequence[Operand], name: str, x: Operand) -> str:
    i = next(i for i, y in enumerate(arrays) if y.same(x))
    return f"{name}{i}[at * {name}{i}_step]"


def _flat(x: Operand) -> Operand:
    """An even array as a vector."""
    return over(x, (x.size,))


def _flattened(group: Group) -> Group:
    return replace(group, parts=tuple([part.over((prod(group.shape),)) for part in group.parts]))
