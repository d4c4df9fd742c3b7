"""What instructions do: which of their arguments they write, and how much they compute.

One row for each name that a kernel is launched under. A plan is taken to write all that an unknown instruction touches.
"""

from collections.abc import Callable
from dataclasses import dataclass

from kernels import updates
from kernels.plan import Instruction, Operand


@dataclass(frozen=True)
class Effect:
    """writes(place): whether the argument at that place is written."""

    writes: Callable[[int], bool]


def _at(*places: int) -> Effect:
    return Effect(lambda place: place in places)


def _update(rule: updates.Update) -> Effect:
    """After two arguments come for each parameter its size, and the arrays w, g and the states."""
    words = 3 + len(rule.states)
    return Effect(lambda place: place >= 2 and (place - 2) % words != 2)


EFFECTS = {
    "elementwise": _at(0),
    "copy": _at(1),
    "reduce": _at(1),
    "argmax": _at(1),
    "matmul": _at(2, 4),
    "conv2d": _at(1, 4),
    "conv2d_transpose": _at(1, 4),
    "conv2d weights": _at(1),
    "softmax": _at(1),
    "log_softmax": _at(1),
    "softmax_backward": _at(2),
    "log_softmax_backward": _at(2),
    "cross_entropy": _at(3, 4),
    "cross_entropy_backward": _at(4),
    "take": _at(2),
    "take_batch": _at(3),
    "scatter_add": _at(2),
    "advance": _at(0),
    "uniform": _at(1),
    "normal": _at(1),
    "dropout_mask": _at(1),
    **{rule.name: _update(rule) for rule in updates.TABLE},
}


def writes(instruction: Instruction, operand: Operand) -> bool:
    """Whether the instruction may write the operand."""
    effect = EFFECTS.get(instruction.name)
    return effect is None or effect.writes(operand.place)
