from __future__ import annotations

from nanonet.nn.module import Module
from nanonet.ops.shape import flatten
from nanonet.tensor import Tensor, as_tensor


class Flatten(Module):
    """The axes start_dim..end_dim as one: (n, 8, 8) -> (n, 64). input_shape, that of one row, is Keras's."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1, *, input_shape: tuple[int, ...] | None = None):
        self.start_dim, self.end_dim = start_dim, end_dim
        self.input_shape = input_shape

    def forward(self, x: Tensor) -> Tensor:
        return flatten(as_tensor(x), self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
