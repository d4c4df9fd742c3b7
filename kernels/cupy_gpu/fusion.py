"""Elementwise launches of a plan that are over the same elements, as one.

Each result is rounded to its dtype as it would be in memory, so that no bit changes; what only the loop itself reads is
not written. A launch may change places with those between it and the one that it joins, where nothing is written that
the other touches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kernels.cupy_gpu.group import Group
from kernels.fusion import users_of
from kernels.plan import Instruction, Operand

__all__ = ["together"]

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
