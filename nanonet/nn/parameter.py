"""What a module holds: tensors that are trained, and tensors that are not but belong to its state."""

from __future__ import annotations

from typing import Any

from nanonet.tensor import Tensor, as_tensor, dtype_of


class Parameter(Tensor):
    """A tensor that a module trains. data: numbers, lists, an array or a tensor; floats become float32 unless dtype is given.

    An array or tensor of a fitting dtype is shared, not copied.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True, dtype: Any = None):
        super().__init__(as_tensor(data, None if dtype is None else dtype_of(dtype)).array)
        self.requires_grad = requires_grad

    def __repr__(self) -> str:
        return f"Parameter {super().__repr__()}"


class Buffer(Tensor):
    """A tensor that is part of a module's state and is not trained, as a running mean. data: as in `Parameter`."""

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None):
        super().__init__(as_tensor(data, None if dtype is None else dtype_of(dtype)).array)

    def __repr__(self) -> str:
        return f"Buffer {super().__repr__()}"
