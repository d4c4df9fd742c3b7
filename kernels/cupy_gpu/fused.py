"""Activations that kernels of products apply to what they write."""

from __future__ import annotations

from collections.abc import Sequence

from kernels.cupy_gpu.expression import expression
from kernels.elementwise import BY_NAME, FUSABLE

__all__ = ["ACTIVATED", "number"]


def number(activation: str | None) -> int:
    """How gemm.cu knows an activation: 0 is none."""
    return 0 if activation is None else FUSABLE.index(activation) + 1


def _activated(names: Sequence[str]) -> str:
    """C++ for the activation number `kind` of z."""
    text = "z"
    for i, name in enumerate(names):
        text = f"kind == {i + 1} ? {expression(BY_NAME[name].forward.tree, {'x': '(z)'})} : {text}"
    return f"({text})"


ACTIVATED = _activated(FUSABLE)
