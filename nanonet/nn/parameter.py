"""What a module holds: tensors that are trained, and tensors that are not but belong to its state."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanonet.device import copied, writable
from nanonet.tensor import Tensor, as_tensor, dtype_of


def _own(data: Any, dtype: Any) -> np.ndarray:
    """The values as an array that can be changed in place: `data`'s own where it fits, else a copy."""
    array = as_tensor(data, None if dtype is None else dtype_of(dtype)).array
    return array if array.flags.c_contiguous and writable(array) else copied(array)


class Parameter(Tensor):
    """A tensor that a module trains.

    data: numbers, lists, an array or a tensor; an array's floats become float32 unless dtype says otherwise. An array
    or tensor of a fitting dtype is shared, not copied; but what is of the host goes to the default device.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True, dtype: Any = None):
        super().__init__(_own(data, dtype))
        self.requires_grad = requires_grad

    def __repr__(self) -> str:
        return f"Parameter {super().__repr__()}"


class Buffer(Tensor):
    """A tensor that is part of a module's state and is not trained, as a running mean. data: as in `Parameter`."""

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None):
        super().__init__(_own(data, dtype))

    def __repr__(self) -> str:
        return f"Buffer {super().__repr__()}"
