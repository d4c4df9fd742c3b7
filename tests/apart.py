"""The device "cuda" of the tests: the emulator, with arrays that can be used in no other way than those of a GPU.

NumPy neither takes an `ApartArray` nor makes one, so that whatever nanonet does with one goes through the kernels or is
asked for by name. It has less than CuPy's arrays have: what would compute by a kernel of CuPy's, which no plan records,
is not there.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from emulator import Emulator

from kernels.memory import HostMemory, Memory, owner

_host = HostMemory()


class ApartArray:
    """An array of the emulated device."""

    __slots__ = ("__weakref__", "_values")
    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, values: np.ndarray):
        self._values = values

    shape = property(lambda self: self._values.shape)
    dtype = property(lambda self: self._values.dtype)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    strides = property(lambda self: self._values.strides)
    itemsize = property(lambda self: self._values.itemsize)
    nbytes = property(lambda self: self._values.nbytes)

    @property
    def T(self) -> ApartArray:
        return self.transpose()

    @property
    def flags(self) -> Any:
        flags = self._values.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: Any) -> ApartArray:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(part is None or part is ... or isinstance(part, (int, np.integer, slice)) for part in parts):
            raise TypeError(f"a view of a device's array by {key!r}")
        parts = parts if ... in parts else (*parts, ...)  # so that a single value is a view too
        return ApartArray(self._values[parts])

    def reshape(self, *shape: Any) -> ApartArray:
        return ApartArray(self._values.reshape(*shape))

    def transpose(self, *axes: Any) -> ApartArray:
        return ApartArray(self._values.transpose(*axes))

    def swapaxes(self, first: int, second: int) -> ApartArray:
        return ApartArray(self._values.swapaxes(first, second))

    def squeeze(self, axis: Any = None) -> ApartArray:
        return ApartArray(self._values.squeeze(axis))

    def view(self, dtype: Any) -> ApartArray:
        return ApartArray(self._values.view(dtype))

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("an array of a device is made one of NumPy without being asked for; use nanonet.device.host")

    def __array_function__(self, function: Any, *_: Any, **__: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} of an array of a device")

    def __bool__(self) -> bool:
        raise TypeError("the truth of an array of a device: a hidden transfer")


class ApartMemory(Memory):
    """The memory of `ApartArray`s."""

    device = "cuda"
    kind = ApartArray

    def empty(self, shape: tuple[int, ...], dtype: Any) -> ApartArray:
        return ApartArray(np.empty(shape, dtype))

    def from_host(self, array: np.ndarray) -> ApartArray:
        assert type(array) is np.ndarray
        return ApartArray(np.array(array, order="C"))

    def to_host(self, array: ApartArray) -> np.ndarray:
        return array._values.copy()

    def write(self, array: ApartArray, values: np.ndarray) -> None:
        assert isinstance(values, (np.ndarray, np.generic))
        array._values[...] = values

    def broadcast(self, array: ApartArray, shape: tuple[int, ...]) -> ApartArray:
        return ApartArray(np.broadcast_to(array._values, shape))

    def view(
        self, base: ApartArray, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...], offset: int
    ) -> ApartArray:
        return ApartArray(np.ndarray(shape, dtype, base._values, offset, strides))

    def release(self) -> None:
        pass

    def block(self, need: int) -> np.ndarray:
        return _host.block(need)

    def lend(self, block: np.ndarray) -> tuple[np.ndarray, object]:
        return _host.lend(block)

    def over(self, memory: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> ApartArray:
        return ApartArray(_host.over(memory, shape, dtype))

    def key(self, array: ApartArray) -> int:
        return id(owner(array._values))


class _Nothing(ModuleType):
    """Stands for the module that makes the arrays; the functions of it cannot be called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: Any, **__: Any) -> Any:
            raise TypeError(f"{name} of the module of a device's arrays: no plan records it")

        return refuse


class ApartEmulator(Emulator):
    """Runs kernels on `ApartArray`s: with it, what nanonet does with a GPU is tested without one."""

    memory = ApartMemory()
    xp = _Nothing("apart")

    def values(self, array: ApartArray) -> np.ndarray:
        return array._values
