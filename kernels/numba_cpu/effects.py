"""What instructions do: which of their arguments they write, and how much they compute.

One row for each kind of kernel, by the beginning of the name that it was compiled under, and the places of its
arguments. A new kernel gets a row here; without one the plan takes it to write all its arrays, and shows no FLOP. Where
only the slot knows how many operations there are, it launches the kernel under a `plan.Label`.
"""

from collections.abc import Callable, Container
from functools import lru_cache
from math import prod

from kernels import updates
from kernels.formula import Formula, operations
from kernels.numba_cpu.blocking import ACCUMULATE, BIAS, FINISH
from kernels.numba_cpu.compiler import compiled_name
from kernels.plan import Effect, Instruction


def effect(instruction: Instruction) -> Effect:
    """The row of EFFECTS for the kernel of an instruction."""
    name = compiled_name(instruction.kernel)
    if name.startswith("update/"):
        return _update(updates.BY_NAME[instruction.name])
    if name.startswith("gemm/") and instruction.word(14) & ACCUMULATE:
        return _ADDING
    return _row(name)


@lru_cache(maxsize=4096)
def _row(name: str) -> Effect:
    """The row with the longest beginning of a compiled kernel's name."""
    parts = name.split("/")
    rows = (EFFECTS.get("/".join(parts[:n])) for n in range(len(parts), 0, -1))
    return next((row for row in rows if row is not None), UNKNOWN)


#: For a kernel without a row.
UNKNOWN = Effect(writes=lambda place: True, updates=lambda place: True)


def _writes(
    *places: int,
    updates: Container = (),
    scratch: Container = (),
    flop: int | Callable[[Instruction], int] = 0,
    detail: Callable[[Instruction], str] | None = None,
) -> Effect:
    """flop: a number for each element of the first operand, or a function of the instruction."""
    count = flop if callable(flop) else lambda instruction: flop * instruction.operands[0].size
    return Effect(places.__contains__, updates.__contains__, scratch.__contains__, count, detail)


def _elementwise(instruction: Instruction) -> int:
    return instruction.operand(0).size * operations(instruction.name.formula)


def _products(instruction: Instruction) -> int:
    """2 m n k, and m n more for each of a bias and an addition to what is there."""
    out = instruction.operand(2)
    added = (instruction.operand(3) is not None) + (instruction.word(14) & ACCUMULATE)
    return out.size * (2 * instruction.operand(0).shape[-1] + added)


def _epilogue(instruction: Instruction) -> str:
    flags = instruction.word(14)
    return ", ".join(text for bit, text in ((ACCUMULATE, "added"), (BIAS, "+ bias"), (FINISH, "relu")) if flags & bit)


def _reduction(instruction: Instruction) -> str:
    return compiled_name(instruction.kernel).split("/")[2]


def _formula(instruction: Instruction) -> str:
    return instruction.name.formula.text


def _update(rule: updates.Update) -> Effect:
    """After two arguments come for each parameter its size, and the arrays w, g and the states."""
    words = 3 + len(rule.states)

    def written(place: int) -> bool:
        return place >= 2 and (place - 2) % words != 2

    def flop(instruction: Instruction) -> int:
        names = ("w", "g", *rule.states, *rule.values, *(name for name, _ in rule.scalars))
        each = sum(operations(Formula.of(text, *names)) for _, text in rule.statements)
        return each * sum(x.size for x in instruction.operands if x.place >= 2 and (x.place - 2) % words == 1)

    return Effect(written, written, flop=flop)


def _winograd(*words: int) -> Callable[[Instruction], int]:
    """The products between the transforms, for (m + 2)^2 positions of each m x m tile. words: the places of the numbers
    of tiles, input and output channels."""

    def flop(instruction: Instruction) -> int:
        side = int(compiled_name(instruction.kernel).split("/")[2]) + 2
        return 2 * side * side * prod(instruction.word(place) for place in words)

    return flop


_ADDING = _writes(2, 4, updates={2}, scratch={4}, flop=_products, detail=_epilogue)

EFFECTS = {
    "elementwise": _writes(0, flop=_elementwise, detail=_formula),
    "copy": _writes(1),
    "reduce": _writes(1, flop=1, detail=_reduction),
    "reduce/argmax": _writes(1, flop=1),
    "gemm": _writes(2, 4, scratch={4}, flop=_products, detail=_epilogue),
    "softmax": _writes(1, flop=5),
    "log_softmax": _writes(1, flop=5),
    "softmax_backward": _writes(2, flop=4),
    "log_softmax_backward": _writes(2, flop=4),
    "cross_entropy": _writes(3, 4, flop=5),
    "cross_entropy_backward": _writes(4, flop=lambda instruction: 3 * instruction.operand(4).size),
    "take": _writes(2),
    "take_batch": _writes(3),
    "scatter_add": _writes(2, updates={2}, flop=lambda instruction: instruction.operand(1).size),
    "advance": _writes(0, updates={0}, flop=1),
    "random": _writes(1),
    "activation_gradient": _writes(2, 3, flop=3),
    "conv": _writes(1, 4, scratch={4}),
    "conv/packing": _writes(1),
    "conv_weight": _writes(2, 4, scratch={4}),
    "conv_weight_finish": _writes(6),
    "depthwise": _writes(3),
    "depthwise_weight": _writes(2),
    "winograd/filters": _writes(1, 9, scratch={9}),
    "winograd/convolve": _writes(1, 4, updates={4}, flop=_winograd(8, 13, 6)),
    "winograd/spread": _writes(2, 3, 4, updates={2}, scratch={4}),
    "winograd/accumulate": _writes(2, updates={2}, flop=_winograd(3, 4, 5)),
    "winograd/weights": _writes(1),
    "pool/max_forward": _writes(1, 2, flop=1),
    "pool/avg_forward": _writes(1, flop=1),
    "pool/max_backward": _writes(2, flop=1),
    "pool/avg_backward": _writes(2, flop=1),
    "pool/cover": _writes(3),
    "group_norm/rows": _writes(3, 4, 5, flop=7),
    "group_norm/images": _writes(3, 4, 5, 6, scratch={6}, flop=7),
    "group_norm/rows_backward": _writes(5, 6, flop=9),
    "group_norm/images_backward": _writes(5, 6, 7, scratch={7}, flop=9),
    "batch_norm/statistics": _writes(1, flop=4),
    "batch_norm/moments": _writes(3, 4, 5, flop=6),
    "batch_norm/normalize": _writes(3, flop=3),
    "batch_norm/sums": _writes(6, flop=5),
    "batch_norm/totals": _writes(4, 5, 6, flop=6),
    "batch_norm/gradient": _writes(4, flop=5),
}
