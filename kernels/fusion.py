"""Passes over what was recorded, before it becomes a plan. A replay gives the bits of the calls as they were.

They know of each instruction which memory it reads and writes, and of each array of the arena who touches it. `held`
are the leases of arrays that are looked at from outside the plan.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from kernels.plan import Instruction, Operand

#: What kernels that take several bytes at once find out about an address holds for all addresses so many bytes apart.
ALIGNED = 16


def improved(instructions: Sequence[Instruction], held: set[int]) -> Sequence[Instruction]:
    """The instructions after all passes that are made for them."""
    passes = [without_copies]
    if any(instruction.code for instruction in instructions):
        from kernels.numba_cpu.fusion import finished, fused

        passes += [finished, fused]
    if any(instruction.graph for instruction in instructions):
        from kernels.cupy_gpu.fusion import together

        passes.append(together)
    for improve in passes:
        instructions = improve(instructions, held)
    return instructions


def without_copies(instructions: Sequence[Instruction], held: set[int]) -> list[Instruction]:
    """The instructions without needless copies: what reads a copy reads the original, where that stays as it was."""
    result: list[Instruction | None] = list(instructions)
    for i, copy in enumerate(instructions):
        if copy.name != "copy" or not copy.movable:
            continue
        copy = result[i]
        (source,), (target,) = copy.reads, copy.writes
        if (source.shape, source.strides, source.dtype) != (target.shape, target.strides, target.dtype):
            continue
        users = [j for j in users_of(result)[target.lease] if j != i]
        if not target.lease or target.lease in held or not users or min(users) < i:
            continue
        after = [x for x in result[i + 1 : max(users) + 1] if x is not None]
        touched = [(instruction, x) for instruction in after for x in instruction.operands]
        if any(x.overlaps(source) or x.lease == target.lease for x in written(after)):
            continue
        if any(x.opaque for x in after) or any(x.lease == target.lease and x.place < 0 for _, x in touched):
            continue
        if not all(_takes(result[j], source, target) for j in users):
            continue
        result[i] = None
        for j in set(users):
            reads = [x for x in result[j].operands if x.lease == target.lease]
            result[j] = result[j].elsewhere({x: _shifted(x, source, target) for x in reads})
    return [instruction for instruction in result if instruction is not None]


def _takes(instruction: Instruction, source: Operand, target: Operand) -> bool:
    """Whether the instruction can read the source in the place of the target."""
    return bool(instruction.code) or (instruction.movable and (source.address - target.address) % ALIGNED == 0)


def _shifted(x: Operand, source: Operand, target: Operand) -> Operand:
    """The part of the source that is where x is in the target."""
    by = source.address - target.address
    return x._replace(address=x.address + by, low=x.low + by, high=x.high + by, lease=source.lease)


def users_of(instructions: Iterable[Instruction | None]) -> dict[int, list[int]]:
    """lease -> the instructions that touch its memory, once for each operand."""
    users: dict[int, list[int]] = defaultdict(list)
    for i, instruction in enumerate(instructions):
        for x in instruction.operands if instruction is not None else ():
            users[x.lease].append(i)
    return users


def written(instructions: Iterable[Instruction]) -> list[Operand]:
    """What these write, scratch memory included."""
    return [x for instruction in instructions for x in instruction.operands if instruction.effect.writes(x.place)]
