"""Clipping of gradients, in place."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kernels import plan
from kernels.formula import Formula
from kernels.registry import backend_of
from nanonet.errors import OptionError
from nanonet.tensor import Tensor, fixed, zeros

_SCALE = Formula.of("g * min(limit / (norm + 1e-06), 1)", "g", "limit", "norm")
_ROOT = Formula.of("sqrt(x)", "x")
_CLIP = Formula.of("min(max(g, low), high)", "g", "low", "high")


def _gradients(params: Tensor | Iterable[Tensor]) -> list[np.ndarray]:
    params = [params] if isinstance(params, Tensor) else params
    return [p.grad.array for p in params if p.grad is not None]


def clip_grad_norm_(params: Tensor | Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients by min(1, max_norm / norm), where norm is that of all of them together (Pascanu et al. 2013).

    Returns the norm from before. Raises OptionError unless max_norm > 0.
    """
    if not max_norm > 0:
        raise OptionError(f"clip_grad_norm_: max_norm is {max_norm!r}, wanted a number > 0")
    gradients = _gradients(params)
    if not gradients:
        return zeros(())
    backend, dtype = backend_of(gradients[0]), gradients[0].dtype
    squares = plan.empty(gradients[0], (len(gradients),), dtype)
    norm = plan.empty(gradients[0], (), dtype)
    for i, g in enumerate(gradients):
        backend.reduce("square_sum", g, tuple(range(g.ndim)), out=squares[i : i + 1].reshape(()))
    backend.reduce("sum", squares, (0,), out=norm)
    backend.elementwise(_ROOT, norm, out=norm)
    limit = fixed(max_norm, dtype)
    for g in gradients:
        backend.elementwise(_SCALE, g, limit, norm, out=g)
    return Tensor(norm)


def clip_grad_value_(params: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bring every entry of the gradients into [-clip_value, clip_value]. Raises OptionError unless clip_value > 0."""
    if not clip_value > 0:
        raise OptionError(f"clip_grad_value_: clip_value is {clip_value!r}, wanted a number > 0")
    for g in _gradients(params):
        low, high = fixed(-clip_value, g.dtype), fixed(clip_value, g.dtype)
        backend_of(g).elementwise(_CLIP, g, low, high, out=g)
