"""Carrying out kernels: one now, or a whole plan many times, in one call that holds no GIL.

An instruction is int64 words, and a plan is instructions back to back in one bytes object:

    [kernel address, words of this instruction, parts, argument 0, argument 1, ...]

A kernel is called with the address of argument 0, once for each part of 0 .. parts - 1, in any order and on any
thread. Denormal floats count as 0 during the call, and only then.
"""

import ctypes
import struct
from functools import lru_cache

import numpy as np

from kernels import plan
from kernels.numba_cpu import threads
from kernels.numba_cpu.compiler import compile_function


def _make():
    from kernels.numba_cpu.jit import executor

    return executor.execute()


def _bind(address: int):
    return ctypes.CFUNCTYPE(
        ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64
    )(address)


_run = _bind(compile_function("executor/execute", _make, "piiii", result=True))


def execute(code: bytes, times: int = 1, stop: int = 0) -> int:
    """Carry out `code` `times` times; the repetitions done.

    `stop` is the address of an int64 word, or 0: nonzero content ends the loop after the present repetition.
    """
    return _run(code, len(code) >> 3, times, stop, threads.pool())


@lru_cache(maxsize=4096)
def packer(count: int):
    """A function that packs `count` ints into an argument block of int64 words."""
    return struct.Struct(f"{count}q").pack


def pack(*words: int) -> bytes:
    """Argument words as bytes. Faster: keep `packer(count)`."""
    return packer(len(words))(*words)


_header = struct.Struct("3q").pack


def emit(kernel: int, parts: int, words: bytes, keep: tuple, name: str = "") -> None:
    """Carry out one instruction now, and add it to the plan that this thread records, if it does.

    kernel: address from `compile_kernel`; words: the packed arguments; keep: the arrays whose memory they point to.
    """
    code = _header(kernel, 3 + (len(words) >> 3), parts) + words
    _run(code, len(code) >> 3, 1, 0, threads.pool() if parts > 1 else 0)
    recorder = plan.current()
    if recorder is not None:
        recorder.code(code, keep, name)


# ------------------------------------------------------------------------------------- where arrays lie


def _slow_address(array: np.ndarray) -> int:
    return array.ctypes.data


_DATA = object.__basicsize__  # `data` is the first field of NumPy's array object
_word = ctypes.c_void_p.from_address


def _fast_address(array: np.ndarray) -> int:
    return _word(id(array) + _DATA).value


def _works() -> bool:
    """Whether reading the field gives what NumPy says."""
    try:
        block = np.zeros((3, 4))
        arrays = [block, block[1:, ::-1], np.zeros((), np.float32), np.zeros(1, np.int64)]
        return all(_fast_address(array) == array.ctypes.data for array in arrays)
    except Exception:
        return False


address = _fast_address if np.ndarray.__basicsize__ >= _DATA + 8 and _works() else _slow_address
address.__doc__ = "address(array): where the array's element [0, 0, ...] lies, an int."
