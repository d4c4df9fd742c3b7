"""CuPy's arrays over memory that a plan lends. No GPU is needed: nothing looks at what the addresses hold."""

import gc

import numpy as np
import pytest

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
