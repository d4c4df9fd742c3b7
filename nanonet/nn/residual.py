from __future__ import annotations

from collections.abc import Callable

from nanonet.errors import ShapeError
from nanonet.nn.linear import fused_activation
from nanonet.nn.module import Module
from nanonet.ops.elementwise import add_relu
from nanonet.tensor import Tensor


class Residual(Module):
    """activation(body(x) + shortcut(x)) (He et al. 2016); without a shortcut x itself is added.

    activation: a name of `nn.activation`, a function or None. A sum and its "relu" are one pass. Raises ShapeError
    unless body and shortcut give one shape.
    """

    def __init__(
        self,
        body: Module,
        shortcut: Module | None = None,
        activation: str | Callable[[Tensor], Tensor] | None = None,
    ):
        self.body, self.shortcut = body, shortcut
        self.activation = activation
        self._activate, fused = fused_activation(activation)
        self._relu = fused == "relu"
        if fused is not None and not self._relu:
            self._activate = getattr(Tensor, fused)

    def forward(self, x: Tensor) -> Tensor:
        out, added = self.body(x), x if self.shortcut is None else self.shortcut(x)
        if out.shape != added.shape:
            raise ShapeError(f"Residual: body gives {out.shape}, the shortcut {added.shape}; wanted one shape")
        if self._relu:
            return add_relu(out, added)
        out = out + added
        return out if self._activate is None else self._activate(out)

    def extra_repr(self) -> str:
        return f"activation={getattr(self.activation, '__name__', self.activation)!r}"
