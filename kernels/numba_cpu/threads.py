"""Threads that share the work of large kernels. How many there are never changes a result.

The pool belongs to one caller at a time. A second caller, and a forked child, carry out all parts themselves.
Workers are Python daemon threads that stay in machine code without the GIL; idle ones sleep.
"""

import atexit
import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kernels.numba_cpu.compiler import compile_function


class _Local(threading.local):
    single = 0  # open `single_thread` contexts


_lock = threading.Lock()
_local = _Local()
_pool: "Pool | None" = None
_threads = 0  # 0: not decided yet
#: Address of the running pool, 0 if there is none. The executor reads it at every call.
pool_address = 0


class Pool:
    """`workers` threads around one block of words (see jit/executor.py)."""

    def __init__(self, workers: int):
        self._raw = ctypes.create_string_buffer(64 * 9)
        self.address = -(-ctypes.addressof(self._raw) // 64) * 64
        work = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(_function("work"))
        self._stop = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(_function("stop"))
        self._threads = [
            threading.Thread(target=work, args=(self.address,), name=f"nanonet worker {i}", daemon=True)
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Make the workers leave, and wait for them."""
        self._stop(self.address)
        for thread in self._threads:
            thread.join(timeout=5)


def _function(name: str) -> int:
    def make():
        from kernels.numba_cpu.jit import executor

        return getattr(executor, name)()

    return compile_function(f"executor/{name}", make, "i", result=True)


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_num_threads() -> int:
    """Threads that one kernel may use in the calling thread: 1 within `single_thread`."""
    if _local.single:
        return 1
    return _threads or _decide()


def _decide() -> int:
    global _threads
    text = os.environ.get("NANONET_NUM_THREADS", "")
    if text and not (text.isdigit() and int(text) > 0):
        raise ValueError(f"NANONET_NUM_THREADS: got {text!r}, want a whole number of at least 1")
    _threads = int(text) if text else usable_cores()
    return _threads


def set_num_threads(threads: int) -> None:
    """Let one kernel use up to `threads` threads. Raises ValueError if it is not a whole number of at least 1."""
    global _threads
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"threads: got {threads!r}, want a whole number of at least 1")
    with _lock:
        if threads != _threads:
            _threads = threads
            _leave()


def parts_for(work: int, least: int = 1 << 16) -> int:
    """Into how many parts a kernel's work shall go: one thread gets at least `least` units."""
    if work < 2 * least:
        return 1
    return max(1, min(get_num_threads(), work // least))


@contextmanager
def single_thread() -> Iterator[None]:
    """Kernels called from this Python thread use no other thread: for many trials side by side."""
    _local.single += 1
    try:
        yield
    finally:
        _local.single -= 1


def pool() -> int:
    """Address of the pool for the calling thread, started if need be; 0 if it shall work alone."""
    if _local.single:
        return 0
    return pool_address or _start()


def _start() -> int:
    global _pool, pool_address
    if get_num_threads() == 1:
        return 0
    with _lock:
        if _pool is None and _threads > 1:
            try:
                _pool = Pool(_threads - 1)
                pool_address = _pool.address
            except RuntimeError:  # no more threads, or the interpreter is about to leave
                return 0
    return pool_address


def _leave() -> None:
    """End the pool; a later call starts a new one."""
    global _pool, pool_address
    if _pool is not None:
        ended, _pool, pool_address = _pool, None, 0
        ended.stop()
        _ended.append(ended)


_ended: list[Pool] = []  # their memory stays: a caller may still be on its way out of it


def _forget() -> None:
    """In a forked child no worker lives on."""
    global _pool, pool_address, _lock
    if _pool is not None:
        _ended.append(_pool)
    _pool, pool_address, _lock = None, 0, threading.Lock()


@atexit.register
def _exit() -> None:
    with _lock:
        _leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
