"""Memory that a kernel works in and that nobody reads afterwards."""

import mmap
import threading
from contextlib import suppress

import numpy as np

from kernels import plan

_local = threading.local()


def memory(count: int) -> np.ndarray:
    """`count` bytes from some cache line on: the plan's while recording, else this thread's own, which its next call
    uses again."""
    if plan.current() is not None:
        return plan.empty(np, (count + 64,), np.uint8)
    kept = getattr(_local, "kept", None)
    if kept is None or kept.size < count + 64:
        kept = _local.kept = _pages(count + 64)
    return kept


def _pages(count: int) -> np.ndarray:
    """Memory of at least `count` bytes, where the system can in large pages, which spare the processor look-ups."""
    if count < 1 << 18 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.empty(count, np.uint8)
    large = 2 << 20
    block = mmap.mmap(-1, (count + 2 * large - 1) // large * large)
    with suppress(OSError):
        block.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(block, np.uint8)
    return whole[-whole.ctypes.data % large :]
