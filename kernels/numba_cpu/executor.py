"""Carrying out kernels: one now, or a whole plan many times, in one call that holds no GIL.

An instruction is int64 words, and a plan is instructions back to back in one bytes object:

    [kernel address, words of this instruction, parts, argument 0, argument 1, ...]

A kernel is called with the address of argument 0, once for each part of 0 .. parts - 1, in any order and on any
thread. Denormal floats count as 0 during the call, and only then.
"""

import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from kernels import plan
from kernels.numba_cpu import threads
from kernels.numba_cpu.compiler import can_link, compile_function

#: Arguments that `launch` takes at most.
LIMIT = 60
#: Bytes of an object's header; an array's data pointer follows it.
_HEADER_BYTES = object.__basicsize__


def execute(code: bytes, times: int = 1, stop: int = 0) -> int:
    """Carry out `code` `times` times; the repetitions done.

    `stop` is the address of an int64 word, or 0: nonzero content ends the loop after the present repetition.
    """
    return _execute(code, times, stop, threads.pool())


def replayer(
    code: bytes,
    arrays: Sequence[tuple[np.ndarray, Sequence[tuple[int, int]]]],
    written: Sequence[tuple[int, int]],
) -> Callable[..., int] | None:
    """A function (pool, *arrays) that carries out `code` on other arrays, and says whether they fit; None if not here.

    arrays: for each array that is to be exchanged one like it, and pairs (word of the code, byte of the array whose
    address that word holds). written: (first byte, byte after the last) of memory that the code writes. Arrays fit if
    they have the dtype and shape, are contiguous and overlap nothing that is written.
    """
    if not _KNOWN_FIELDS:
        return None
    words = [0, id(np.ndarray), len(arrays), len(written), 0, len(code) >> 3, *chain.from_iterable(written)]
    for array, places in arrays:
        record = [id(array.dtype), array.nbytes, array.ndim, *array.shape, *chain.from_iterable(places)]
        words += [1 + len(record), *record]
    words[4] = len(words)
    table = np.array([*words, *np.frombuffer(code, np.int64)], np.int64)
    return _native("replay", (pack(_HEADER_BYTES, address(table)), table, [array.dtype for array, _ in arrays]))


def launch(name: str, kernel: int, parts: int, *arguments: Any) -> None:
    """Call a kernel now, and add the call to the plan that this thread records, if it does.

    kernel: address from `compile_kernel`. An argument is an int, a float (the kernel reads it with `float_bits`), an
    array (its address; the plan keeps it alive) or, last, bytes (words that `pack` made of what never changes). At most
    LIMIT words. name: for people who read the plan.
    """
    code = _launch(kernel, parts, threads.pool() if parts > 1 else 0, arguments)
    recorder = plan.current()
    if recorder is not None:
        recorder.code(code, arguments, name)


def emit(kernel: int, parts: int, words: bytes, keep: tuple, name: str = "") -> None:
    """As `launch`, for arguments that are packed already; keep: the arrays whose memory they point to.

    The address of an array of `keep` is among the words, or else in another array, but not in both.
    """
    code = _header(kernel, 3 + (len(words) >> 3), parts) + words
    _execute(code, 1, 0, threads.pool() if parts > 1 else 0)
    recorder = plan.current()
    if recorder is not None:
        arrays = {address(array): array for array in keep}
        arguments = [arrays.pop(word, word) for word in struct.unpack(f"{len(words) >> 3}q", words)]
        recorder.code(code, arguments, name, tuple(arrays.values()))


# ----------------------------------------------------------------------------------------- packing words

_header = struct.Struct("3q").pack


@lru_cache(maxsize=4096)
def packer(count: int) -> Callable[..., bytes]:
    """A function that packs `count` ints into an argument block of int64 words."""
    return struct.Struct(f"{count}q").pack


def pack(*words: int) -> bytes:
    """Argument words as bytes."""
    return packer(len(words))(*words)


def float_word(value: float) -> int:
    """The int64 that holds the bits of a float64."""
    return struct.unpack("q", struct.pack("d", value))[0]


# ------------------------------------------------------------------------------------- where arrays lie


def _slow_address(array: np.ndarray) -> int:
    return array.ctypes.data


_word = ctypes.c_void_p.from_address


def _fast_address(array: np.ndarray) -> int:
    return _word(id(array) + _HEADER_BYTES).value


def _data_follows_header() -> bool:
    try:
        block = np.zeros((3, 4))
        arrays = [block, block[1:, ::-1], np.zeros((), np.float32), np.zeros(1, np.int64)]
        return all(_fast_address(array) == array.ctypes.data for array in arrays)
    except Exception:
        return False


_KNOWN_LAYOUT = np.ndarray.__basicsize__ >= _HEADER_BYTES + 8 and _data_follows_header()
address = _fast_address if _KNOWN_LAYOUT else _slow_address
address.__doc__ = "address(array): where the array's element [0, 0, ...] lies, an int."


#: Where in a dtype its kind, letter, byte order, flags and number lie, eight bytes in all.
_DTYPE_CODE = _HEADER_BYTES + 8


def _known_fields() -> bool:
    """Whether an array's header goes on as NumPy's C interface has it: jit/python.py reads it so."""
    codes = set()
    for array in (
        np.zeros((3, 4), np.float32),
        np.zeros((4, 3, 2))[:, ::-1],
        np.zeros((), np.int64),
        np.zeros(1, ">f4"),
    ):
        code = (ctypes.c_char * 8).from_address(id(array.dtype) + _DTYPE_CODE).raw
        codes.add(code)
        if code[:3] != f"{array.dtype.kind}{array.dtype.char}{array.dtype.byteorder}".encode():
            return False
        words = (ctypes.c_int64 * 7).from_address(id(array) + _HEADER_BYTES)
        shape = (ctypes.c_int64 * array.ndim).from_address(words[2]) if array.ndim else ()
        plain = words[6] & 0x0101 == 0x0101
        found = (words[1] & 0xFFFFFFFF, tuple(shape), words[5], plain)
        if found != (array.ndim, array.shape, id(array.dtype), array.flags.c_contiguous):
            return False
    return len(codes) == 4


_KNOWN_FIELDS = _KNOWN_LAYOUT and np.ndarray.__basicsize__ >= _HEADER_BYTES + 56 and _known_fields()


def _slow_signature(*arguments: Any) -> tuple:
    return tuple((x.dtype, x.shape, x.strides) if isinstance(x, np.ndarray) else x for x in arguments)


# --------------------------------------------------------------- the compiled loop, as Python functions


def _native(name: str, state: Any) -> Callable | None:
    """A function of jit/python.py as a built-in function, or None where Python's own symbols cannot be linked to."""
    if not _KNOWN_LAYOUT or not can_link("PyEval_SaveThread"):
        return None
    definition = _method(name)
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    return new(ctypes.addressof(definition), state, None)


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


#: Functions point to their definitions, so each name has one, which lasts. Threads may ask for the first at once.
_methods: dict[str, _Method] = {}


def _method(name: str) -> _Method:
    def make():
        from kernels.numba_cpu.jit import python

        return getattr(python, name)()

    found = _methods.get(name)
    if found is None:
        code = compile_function(f"python/{name}", make, "iii", True, True)
        found = _methods.setdefault(name, _Method(name.encode(), code, 0x80, None))
    return found


def _foreign_execute() -> Callable:
    """`execute` through ctypes."""

    def make():
        from kernels.numba_cpu.jit import executor

        return executor.execute()

    address = compile_function("executor/execute", make, "piiii", result=True)
    words = [ctypes.c_int64] * 4
    run = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p, *words)(address)
    return lambda code, times, stop, pool: run(code, len(code) >> 3, times, stop, pool)


def _packed_launch(kernel: int, parts: int, pool: int, arguments: tuple) -> bytes:
    """`launch` in Python."""
    words = b"".join(a if isinstance(a, bytes) else pack(_as_word(a)) for a in arguments)
    code = pack(kernel, 3 + (len(words) >> 3), parts) + words
    _execute(code, 1, 0, pool)
    return code


def _as_word(a: Any) -> int:
    return address(a) if isinstance(a, np.ndarray) else float_word(a) if isinstance(a, float) else a


_execute = _native("execute", b"") or _foreign_execute()
_launch = _native("launch", pack(id(np.ndarray), id(float), id(bytes), _HEADER_BYTES)) or _packed_launch
_state = pack(id(np.ndarray), _HEADER_BYTES, _DTYPE_CODE)
signature = (_native("signature", _state) if _KNOWN_FIELDS else None) or _slow_signature
"""signature(*arguments): a key that is equal where dtypes, shapes and strides of arrays, and ints, are."""
