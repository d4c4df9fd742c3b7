"""Recording kernel calls and replaying them.

While a thread records, every kernel call enters the plan as machine code with its arguments, or, where a backend has
no machine code for it, as a host call. `empty` then takes memory from the plan's arena, in which an array's block is
used again once the last view of it is gone. A replay carries out the same calls on the same memory.
"""

import ctypes
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np


class _Local(threading.local):
    recorder: "Recorder | None" = None


_local = _Local()
_ALIGN = 64


def current() -> "Recorder | None":
    """The recorder of this thread's step, or None."""
    return _local.recorder


@contextmanager
def recording(recorder: "Recorder") -> Iterator["Recorder"]:
    """Kernel calls of this thread enter `recorder` while the context is open. Recordings do not nest."""
    if current() is not None:
        raise RuntimeError("a step is already being recorded in this thread")
    _local.recorder = recorder
    try:
        yield recorder
    finally:
        _local.recorder = None


@contextmanager
def paused() -> Iterator[None]:
    """Kernel calls within are carried out and not recorded."""
    recorder = current()
    _local.recorder = None
    try:
        yield
    finally:
        _local.recorder = recorder


def empty(xp: ModuleType, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array with undefined content: from the arena while recording on the CPU, else a new one."""
    recorder = _local.recorder
    if recorder is None or xp is not np:
        return xp.empty(shape, dtype)
    return recorder.arena.empty(shape, np.dtype(dtype))


class Arena:
    """Memory of one plan. A block is free again once no array over it is left."""

    def __init__(self):
        self.bytes = 0
        self._free: dict[int, list[np.ndarray]] = {}
        self._leases: dict[int, tuple[weakref.ref, np.ndarray]] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        count = 1
        for side in shape:
            count *= side
        need = max(_ALIGN, -(-count * dtype.itemsize // _ALIGN) * _ALIGN)
        block = self._block(need)
        # Views of `owner` have it as their base, because its own base is no ndarray: it lives as long as any of them.
        owner = np.frombuffer((ctypes.c_char * need).from_buffer(block), np.uint8)
        key = id(owner)
        self._leases[key] = (weakref.ref(owner, lambda _: self._release(key)), block)
        return owner[: count * dtype.itemsize].view(dtype).reshape(shape)

    def owns(self, array: np.ndarray) -> bool:
        while isinstance(array.base, np.ndarray):
            array = array.base
        return id(array) in self._leases

    def _block(self, need: int) -> np.ndarray:
        for size in sorted(self._free):
            if need <= size <= 2 * need and self._free[size]:
                return self._free[size].pop()
        self.bytes += need
        raw = np.zeros(need + _ALIGN, np.uint8)
        start = -raw.ctypes.data % _ALIGN
        return raw[start : start + need]

    def _release(self, key: int) -> None:
        _, block = self._leases.pop(key)
        self._free.setdefault(block.size, []).append(block)


class Recorder:
    """Collects the kernel calls of one step, in order."""

    def __init__(self):
        self.arena = Arena()
        self.entries: list[tuple[str, bytes | Callable[[], None]]] = []
        self.keep: list[Any] = []

    def code(self, instruction: bytes, keep: tuple, name: str = "") -> None:
        """One instruction for the compiled executor. `keep` are the arrays whose memory it uses."""
        self.entries.append((name, instruction))
        self.keep.extend(array for array in keep if not self.arena.owns(array))

    def host(self, call: Callable[[], None], name: str) -> None:
        """A call that only Python can carry out."""
        self.entries.append((name, call))

    def plan(self) -> "Plan":
        return Plan(self.entries, self.arena, self.keep)


class Plan:
    """A recorded step. `run(times)` replays it; whole runs of machine code are one call, without the GIL."""

    def __init__(self, entries: list[tuple[str, bytes | Callable[[], None]]], arena: Arena, keep: list[Any]):
        self.names = [name for name, _ in entries]
        self._arena = arena
        self._keep = keep
        self._segments: list[bytes | Callable[[], None]] = []
        for _, entry in entries:
            if isinstance(entry, bytes) and self._segments and isinstance(self._segments[-1], bytes):
                self._segments[-1] += entry
            else:
                self._segments.append(entry)
        if any(isinstance(segment, bytes) for segment in self._segments):
            from kernels.numba_cpu.executor import execute

            self._execute = execute

    def run(self, times: int = 1) -> None:
        if len(self._segments) == 1 and isinstance(self._segments[0], bytes):
            self._execute(self._segments[0], times)
            return
        for _ in range(times):
            for segment in self._segments:
                if isinstance(segment, bytes):
                    self._execute(segment)
                else:
                    segment()

    @property
    def bytes(self) -> int:
        """Bytes of memory that the plan holds for itself."""
        return self._arena.bytes

    def __repr__(self) -> str:
        return f"<Plan of {len(self.names)} instructions, {self.bytes} bytes>"
