"""CuPy's arrays over memory that a plan lends. No GPU is needed: nothing looks at what the addresses hold."""

import gc

import numpy as np
import pytest

from kernels.errors import OutOfMemory
from kernels.plan import Arena

cupy = pytest.importorskip("cupy", reason="CuPy is not installed")


@pytest.fixture
def memory(monkeypatch):
    """CudaMemory whose blocks have addresses that nobody has allocated."""
    from kernels.cupy_gpu.memory import CudaMemory

    taken = iter(range(1 << 20, 1 << 30, 1 << 20))

    def block(self, need):
        there = cupy.cuda.UnownedMemory(next(taken), need, None, 0)
        return cupy.ndarray((need,), np.uint8, cupy.cuda.MemoryPointer(there, 0))

    monkeypatch.setattr(CudaMemory, "block", block)
    return CudaMemory()


def test_a_block_is_free_again_when_its_last_view_is_gone(memory):
    arena = Arena()
    first = arena.empty((4, 8), np.dtype(np.float32), memory)
    address, view = first.data.ptr, first[1:].T
    assert arena.owns(view) and arena.lease(view) == arena.lease(first)
    assert arena.plain(first).data.ptr == address and not arena.owns(arena.plain(first))
    del first
    second = arena.empty((4, 8), np.dtype(np.float32), memory)
    assert second.data.ptr != address  # a view of the first is still there
    del view
    gc.collect()
    third = arena.empty((32,), np.dtype(np.float32), memory)
    assert third.data.ptr == address and arena.bytes == 2 * 128
    assert len(arena.open_leases()) == 2


def test_blocks_of_two_memories_are_not_mixed_up(memory):
    arena = Arena()
    here, there = arena.empty((16,), np.dtype(np.float32)), arena.empty((16,), np.dtype(np.float32), memory)
    assert type(here) is np.ndarray and type(there) is cupy.ndarray
    del here, there
    gc.collect()
    assert type(arena.empty((16,), np.dtype(np.float32), memory)) is cupy.ndarray
    assert type(arena.empty((16,), np.dtype(np.float32))) is np.ndarray


def test_views_have_the_strides_that_were_asked_for(memory):
    base = memory.block(400)
    view = memory.view(base, (3, 4), np.float32, (-16, 4), 100)
    assert (view.shape, view.strides, view.data.ptr) == ((3, 4), (-16, 4), base.data.ptr + 100)
    assert memory.broadcast(view[:1], (5, 4)).strides == (0, 4)


class Full:
    """CuPy's `empty` on a GPU that is full until `free_all_blocks` has been called so many times."""

    def __init__(self, monkeypatch, releases):
        self.releases, self.asked = releases, 0
        monkeypatch.setattr(cupy, "empty", self.empty)
        monkeypatch.setattr(cupy, "get_default_memory_pool", lambda: self)
        monkeypatch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (1000, 80_000))

    def empty(self, shape, dtype):
        self.asked += 1
        if self.releases:
            raise cupy.cuda.memory.OutOfMemoryError(4096, 79_000)
        return "an array"

    def free_all_blocks(self):
        self.releases -= 1

    def free_bytes(self):
        return 500


def test_what_is_full_is_tried_once_more_after_a_release(memory, monkeypatch):
    full = Full(monkeypatch, 1)
    assert memory.empty((32, 32), np.float32) == "an array" and full.asked == 2


def test_out_of_memory_tells_what_is_wanted_and_what_is_free(memory, monkeypatch):
    full = Full(monkeypatch, 2)
    with pytest.raises(OutOfMemory, match=r"4,096 bytes are wanted on the GPU; 1,500 of 80,000 are free"):
        memory.empty((32, 32), np.float32)
    assert full.asked == 2 and full.releases == 1
