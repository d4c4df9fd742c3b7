"""Launches of a plan that become one: elementwise ones over the same elements, and those beside reductions.

Each result is rounded to its dtype as it would be in memory, so that no bit changes; what only the kernel itself reads
is not written. A launch may change places with those between it and the one that it joins, where nothing is written
that the other touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kernels.cupy_gpu.group import Group
from kernels.cupy_gpu.reduction import Reduction
from kernels.fusion import users_of
from kernels.plan import Instruction, Operand

__all__ = ["together"]

#: How many instructions a launch may pass.
FAR = 64

#: What is still to be an instruction; None where it became part of another.
Parts = list[Instruction | Group | Reduction | None]


def together(instructions: Sequence[Instruction], held: set[int]) -> list[Instruction]:
    """The instructions with elementwise launches joined, and taken into reductions."""
    outside = {lease: len(found) for lease, found in users_of(instructions).items()}
    result: Parts = []
    for instruction in instructions:
        one = Group.of(instruction, outside, held) or Reduction.of(instruction) or instruction
        result.append(one)
        while isinstance(one, Group):
            one = _joined(result, one, Group, Group.followed_by)
    for one in list(result):
        if isinstance(one, Reduction):
            _joined(result, one, Group, lambda group, reduction: reduction.preceded_by(group))
    for one in list(result):
        if isinstance(one, Group):
            _joined(result, one, Reduction, Reduction.followed_by)
    return [one if isinstance(one, Instruction) else one.instruction() for one in result if one is not None]


def _joined(result: Parts, one: Group | Reduction, kind: type, join: Callable) -> Group | Reduction | None:
    """One of the parts joined with the nearest of a kind before it that `join(other, one)` gives something for, and put
    in the place of either; None if there is none."""
    place = next(i for i, part in enumerate(result) if part is one)
    between: Parts = []
    up = True
    for i in range(place - 1, max(-1, place - 1 - FAR), -1):
        other = result[i]
        if other is None:
            continue
        both = join(other, one) if isinstance(other, kind) else None
        if both is not None and (up or not any(_conflict(other, x) for x in between)):
            result[place] = result[i] = None
            result[i if up else place] = both
            return both
        if isinstance(other, Instruction) and other.opaque:
            return None
        up = up and not _conflict(one, other)
        between.append(other)
    return None


def _conflict(a: Instruction | Group | Reduction, b: Instruction | Group | Reduction) -> bool:
    """Whether one writes what the other touches."""
    return any(x.overlaps(y) for x in _written(a) for y in b.operands) or any(
        x.overlaps(y) for x in _written(b) for y in a.operands
    )


def _written(one: Instruction | Group | Reduction) -> Iterable[Operand]:
    if isinstance(one, Instruction):
        return [x for x in one.operands if one.effect.writes(x.place)]
    return one.stored
