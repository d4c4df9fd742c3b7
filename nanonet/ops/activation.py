"""The derivative of an activation that a layer's kernel has applied."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels import plan
from kernels.elementwise import BY_NAME, FUSABLE
from kernels.registry import backend_of
from nanonet.errors import OptionError
from nanonet.ops.elementwise import differentiate
from nanonet.ops.shape import contiguous
from nanonet.tensor import Tensor, mode


def check_activation(name: str, activation: str | None, known: tuple[str, ...] = FUSABLE) -> None:
    """Raise OptionError unless the activation is None or one that the kernel can apply."""
    if activation is not None and activation not in known:
        raise OptionError(f"{name}: activation {activation!r}, wanted None or one of {', '.join(known)}")


def before(
    g: Tensor, y: Tensor, activation: str | None, bias: Tensor | None
) -> tuple[Tensor, Callable[[], Tensor] | None]:
    """The gradient for z, and a function that gives the one for the bias in it, where y = activation(z).

    g, y (..., m). Both are computed in one pass over g, unless they are to be differentiated again.
    """
    summed = bias is not None and bias._requires_grad
    if mode.grad or not summed:
        if activation is not None:
            g = differentiate(BY_NAME[activation], "x", g, y, {})
        return g, (lambda: g.sum(tuple(range(g.ndim - 1)))) if summed else None
    sums = plan.empty(g.array, g.array.shape[-1:], g.array.dtype)
    kernel = backend_of(sums).activation_gradient
    if activation is None:

        def gradient() -> Tensor:
            kernel(_rows(g), None, None, None, sums)
            return Tensor(sums)

        return g, gradient
    out = plan.empty(g.array, g.array.shape, g.array.dtype)
    kernel(_rows(g), _rows(y), activation, _rows(Tensor(out)), sums)
    return Tensor(out), lambda: Tensor(sums)


def _rows(x: Tensor) -> np.ndarray:
    """(..., m) as (n, m)."""
    shape = x.array.shape
    if len(shape) == 2:
        return x.array
    count = 1
    for side in shape[:-1]:
        count *= side
    return contiguous(x).array.reshape(count, shape[-1])
