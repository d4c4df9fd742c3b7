"""Memory of the GPU, as CuPy arrays."""

from __future__ import annotations

import gc
from math import prod
from typing import Any

import cupy
import numpy as np

from kernels.errors import OutOfMemory
from kernels.memory import Memory

__all__ = ["CudaMemory"]


class CudaMemory(Memory):
    """CuPy's, from its pool."""

    device = "cuda"
    kind = cupy.ndarray

    def empty(self, shape: tuple[int, ...], dtype: Any) -> cupy.ndarray:
        try:
            return cupy.empty(shape, dtype)
        except cupy.cuda.memory.OutOfMemoryError:
            self.release()
        try:
            return cupy.empty(shape, dtype)
        except cupy.cuda.memory.OutOfMemoryError as error:
            raise self._out_of_memory(prod(shape) * np.dtype(dtype).itemsize) from error

    def from_host(self, array: np.ndarray) -> cupy.ndarray:
        made = self.empty(array.shape, array.dtype)
        self.write(made, array)
        return made

    def to_host(self, array: cupy.ndarray) -> np.ndarray:
        return cupy.asnumpy(array)

    def write(self, array: cupy.ndarray, values: np.ndarray) -> None:
        values = np.ascontiguousarray(np.broadcast_to(np.asarray(values, array.dtype), array.shape))
        if array.flags.c_contiguous:
            array.set(values.reshape(array.shape))
        else:
            array[...] = cupy.asarray(values)

    def broadcast(self, array: cupy.ndarray, shape: tuple[int, ...]) -> cupy.ndarray:
        return cupy.broadcast_to(array, shape)

    def view(
        self, base: cupy.ndarray, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...], offset: int
    ) -> cupy.ndarray:
        return cupy.ndarray(shape, dtype, base.data + offset, strides)

    def release(self) -> None:
        gc.collect()
        cupy.get_default_memory_pool().free_all_blocks()

    def block(self, need: int) -> cupy.ndarray:
        return self.empty((need,), np.uint8)

    def lend(self, block: cupy.ndarray) -> tuple[cupy.cuda.MemoryPointer, object]:
        lease = _Lease(block)
        memory = cupy.cuda.UnownedMemory(block.data.ptr, block.nbytes, lease, block.device.id)
        return cupy.cuda.MemoryPointer(memory, 0), lease

    def over(self, memory: Any, shape: tuple[int, ...], dtype: np.dtype) -> cupy.ndarray:
        return cupy.ndarray(shape, dtype, getattr(memory, "data", memory))

    def key(self, array: cupy.ndarray) -> int:
        return id(array.data.mem)

    @staticmethod
    def _out_of_memory(need: int) -> OutOfMemory:
        free, total = cupy.cuda.runtime.memGetInfo()
        held = cupy.get_default_memory_pool().free_bytes()
        return OutOfMemory(
            f"{need:,} bytes are wanted on the GPU; {free + held:,} of {total:,} are free. A smaller batch or model "
            "needs less"
        )


class _Lease:
    """What the arrays over a block of memory hold together."""

    def __init__(self, block: cupy.ndarray):
        self.block = block
