"""Where arrays of a kind live: how they are made, filled and read, and how a plan lends blocks of their memory."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

__all__ = ["HOST", "HostMemory", "Memory"]

ALIGN = 64


class Memory(ABC):
    """The memory of one kind of array."""

    device: str
    """What people call it: "cpu", "cuda"."""
    kind: type
    """The type of its arrays."""

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A C-contiguous array with undefined content."""

    @abstractmethod
    def from_host(self, array: np.ndarray) -> Any:
        """A copy here of an array of NumPy."""

    @abstractmethod
    def to_host(self, array: Any) -> np.ndarray:
        """The values of an array of this kind, for reading; on the host it is the array itself."""

    @abstractmethod
    def write(self, array: Any, values: np.ndarray) -> None:
        """array[...] = values, which are NumPy's."""

    @abstractmethod
    def broadcast(self, array: Any, shape: tuple[int, ...]) -> Any:
        """The array as a view of that shape. Raises ValueError if it does not broadcast to it."""

    @abstractmethod
    def view(self, base: Any, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...], offset: int) -> Any:
        """A view of a contiguous array; strides and offset in bytes. It must lie inside."""

    @abstractmethod
    def release(self) -> None:
        """Leave to others what no array needs and is only kept for the next one."""

    # ------------------------------------------------------------------------- blocks, for plans

    @abstractmethod
    def block(self, need: int) -> Any:
        """New memory of `need` bytes, with an attribute `nbytes`."""

    @abstractmethod
    def lend(self, block: Any) -> tuple[Any, object]:
        """(memory, lease) over a block: `lease` can be referred to weakly, and lives while an array of `over(memory)`
        or a view of one does."""

    @abstractmethod
    def over(self, memory: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """A C-contiguous array at the beginning of what `lend` or `block` gave."""

    @abstractmethod
    def key(self, array: Any) -> int:
        """The same number for all views of one memory, lent or not, and for nothing else that lives."""


class HostMemory(Memory):
    """NumPy's."""

    device = "cpu"
    kind = np.ndarray

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.empty(shape, dtype)

    def from_host(self, array: np.ndarray) -> np.ndarray:
        return np.array(array, order="C")

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return array

    def write(self, array: np.ndarray, values: np.ndarray) -> None:
        array[...] = values

    def broadcast(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(array, shape)

    def view(
        self, base: np.ndarray, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...], offset: int
    ) -> np.ndarray:
        return np.ndarray(shape, dtype, base, offset, strides)

    def release(self) -> None:
        pass

    def block(self, need: int) -> np.ndarray:
        raw = np.zeros(need + ALIGN, np.uint8)
        start = -raw.ctypes.data % ALIGN
        return raw[start : start + need]

    def lend(self, block: np.ndarray) -> tuple[np.ndarray, object]:
        # Views of `owner` have it as their base, because its own base is no ndarray: it lives as long as any of them.
        owner = np.frombuffer((ctypes.c_char * block.size).from_buffer(block), np.uint8)
        return owner, owner

    def over(self, memory: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        count = 1
        for side in shape:
            count *= side
        return memory[: count * dtype.itemsize].view(dtype).reshape(shape)

    def key(self, array: np.ndarray) -> int:
        return id(owner(array))


def owner(array: np.ndarray) -> np.ndarray:
    """The array that `array` is a view of, or itself."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


HOST = HostMemory()
