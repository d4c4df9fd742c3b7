"""Recording kernel calls and replaying them.

While a thread records, every kernel call enters the plan as machine code with its arguments, or, where a backend has
no machine code for it, as a host call. `empty` then takes memory from the plan's arena, in which an array's block is
used again once the last view of it is gone. A replay carries out the same calls on the same memory.
"""

import ctypes
import itertools
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from kernels.formula import Formula
from kernels.memory import ALIGN, HOST, Memory


class _Local(threading.local):
    recorder: "Recorder | None" = None


_local = _Local()


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


def empty(beside: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array with undefined content: from the arena of the step that is recorded, else a new one.

    beside: an array on the same device, or the module that makes such arrays.
    """
    return empty_in(HOST if beside is np or type(beside) is np.ndarray else memory_of(beside), shape, dtype)


def empty_in(memory: Memory, shape: tuple[int, ...], dtype: Any) -> Any:
    """As `empty`, in a memory."""
    recorder = _local.recorder
    if recorder is None:
        return memory.empty(shape, dtype)
    return recorder.arena.empty(shape, np.dtype(dtype), memory)


def memory_of(beside: Any) -> Memory:
    """The memory of an array, or of the arrays that a module makes."""
    if type(beside) is np.ndarray:
        return HOST
    from kernels.registry import backend_of

    return backend_of(beside).memory


class Arena:
    """Memory of one plan. A block is free again once no array over it is left."""

    def __init__(self):
        self.bytes = 0
        self._free: dict[Memory, dict[int, list[Any]]] = {}
        self._leases: dict[int, tuple[weakref.ref, Any, int, Memory]] = {}
        self._numbers = itertools.count(1)
        self._memories: dict[type, Memory] = {np.ndarray: HOST}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, memory: Memory = HOST) -> Any:
        need = max(ALIGN, -(-prod(shape) * dtype.itemsize // ALIGN) * ALIGN)
        self._memories[memory.kind] = memory
        block = self._block(memory, need)
        lent, lease = memory.lend(block)
        array = memory.over(lent, shape, dtype)
        key = memory.key(array)
        this = weakref.ref(self)  # else the arena would keep itself, and its blocks, until garbage is collected

        def gone(_: Any) -> None:
            arena = this()
            if arena is not None:
                arena._release(key)

        self._leases[key] = (weakref.ref(lease, gone), block, next(self._numbers), memory)
        return array

    def owns(self, array: Any) -> bool:
        return self._key(array) in self._leases

    def lease(self, array: Any) -> int:
        """The number of the `empty` that gave the array's memory; 0 if it is not of the arena."""
        found = self._leases.get(self._key(array))
        return found[2] if found is not None else 0

    def holder(self, array: Any) -> weakref.ref:
        """A reference to what lives as long as any view of an array of the arena does."""
        return self._leases[self._key(array)][0]

    def open_leases(self) -> set[int]:
        """Numbers of those whose arrays somebody still has."""
        return {number for _, _, number, _ in self._leases.values()}

    def plain(self, array: Any) -> Any:
        """The memory of a C-contiguous array of the arena as one that does not keep it from being reused."""
        _, block, _, memory = self._leases[self._key(array)]
        return memory.over(block, array.shape, array.dtype)

    def _key(self, array: Any) -> int:
        memory = self._memories.get(type(array))
        return memory.key(array) if memory is not None else 0

    def _block(self, memory: Memory, need: int) -> Any:
        free = self._free.get(memory, {})
        for size in sorted(free):
            if need <= size <= 2 * need and free[size]:
                return free[size].pop()
        self.bytes += need
        return memory.block(need)

    def _release(self, key: int) -> None:
        _, block, _, memory = self._leases.pop(key)
        self._free.setdefault(memory, {}).setdefault(block.nbytes, []).append(block)


class Label(str):
    """The name of an instruction, with what its slot knows about it: a formula that it computes for each element, or
    how many operations it carries out."""

    formula: Formula | None
    flop: int | None

    def __new__(cls, name: str, formula: Formula | None = None, flop: int | None = None) -> "Label":
        label = super().__new__(cls, name)
        label.formula, label.flop = formula, flop
        return label


class Operand(NamedTuple):
    """An array of an instruction. It lies at bytes low .. high - 1; `place` is the argument that holds its address, or
    negative if the address is in another array. lease: of the arena's memory, or 0."""

    place: int
    address: int
    low: int
    high: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype
    lease: int = 0

    @classmethod
    def of(cls, array: Any, place: int, lease: int = 0, address: int | None = None) -> "Operand":
        """address: that of the array, where it is known already; an array of NumPy tells its own."""
        if address is None:
            address = array.ctypes.data
        low, high = address, address + array.nbytes
        if not array.flags.c_contiguous:
            spans = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
            low = address + sum(span for span in spans if span < 0)
            high = address + sum(span for span in spans if span > 0) + array.itemsize
        return cls(place, address, low, high, array.shape, array.strides, array.dtype, lease)

    def array(self) -> np.ndarray:
        """The array; it does not keep the memory alive."""
        memory = (ctypes.c_char * (self.high - self.low)).from_address(self.low)
        return np.ndarray(self.shape, self.dtype, memory, self.address - self.low, self.strides)

    def overlaps(self, other: "Operand") -> bool:
        return self.low < other.high and other.low < self.high

    def same(self, other: "Operand") -> bool:
        """Whether both are one array, element by element."""
        return (self.address, self.shape, self.strides, self.dtype) == (
            *(other.address, other.shape, other.strides, other.dtype),
        )

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of memory that its elements take; what is repeated by a stride of 0 counts once."""
        return self.dtype.itemsize * prod(n for n, stride in zip(self.shape, self.strides, strict=True) if stride)

    def __str__(self) -> str:
        return f"{_SHORT.get(self.dtype.name, self.dtype.name)}[{', '.join(map(str, self.shape))}]"


_SHORT = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64"}


class Launch(ABC):
    """A call on a device whose arguments are known, so that it can be made with others."""

    @abstractmethod
    def __call__(self) -> None:
        """Carry it out."""

    @abstractmethod
    def elsewhere(self, addresses: Mapping[int, int]) -> "Launch":
        """The same with other addresses at these places of its arguments."""


@dataclass(frozen=True)
class Instruction:
    """A kernel call of a plan: machine code with its arguments, or a `call` of a device or of the host.

    graph: for a call of a device, what makes one call of several that follow each other, as a CUDA graph does.
    known: what a call does with its operands; unless given it may read and write all of them.
    code: int64 words: address of the kernel, words, parts, arguments; an argument that is an operand is its address.
    """

    name: str
    code: bytes = b""
    operands: tuple[Operand, ...] = ()
    call: Callable[[], None] | None = None
    graph: Callable[[Sequence[Callable[[], None]]], Callable[[], None]] | None = None
    known: "Effect | None" = None

    @property
    def opaque(self) -> bool:
        """Whether it may touch other memory than its operands, as a call of the host may."""
        return self.call is not None and self.graph is None

    @property
    def movable(self) -> bool:
        """Whether it can be made with other arrays."""
        return bool(self.code) or isinstance(self.call, Launch)

    def elsewhere(self, moves: Mapping[Operand, Operand]) -> "Instruction":
        """The instruction with other arrays in the place of some of its operands; it must be movable."""
        operands = tuple(moves.get(x, x) for x in self.operands)
        addresses = {x.place: x.address for x in moves.values()}
        if not self.code:
            return replace(self, call=self.call.elsewhere(addresses), operands=operands)
        code = bytearray(self.code)
        for place, address in addresses.items():
            code[8 * (HEAD + place) : 8 * (HEAD + place + 1)] = address.to_bytes(8, sys.byteorder)
        return replace(self, code=bytes(code), operands=operands)

    @property
    def kernel(self) -> int:
        """The kernel's address."""
        return self.word(-HEAD)

    @property
    def parts(self) -> int:
        """Into how many parts its work is shared out among threads."""
        return self.word(2 - HEAD) if self.code else 1

    def word(self, place: int) -> int:
        """The argument at a place, as an integer."""
        return int.from_bytes(self.code[8 * (HEAD + place) :][:8], sys.byteorder, signed=True)

    def operand(self, place: int) -> Operand | None:
        """The array at a place of the arguments."""
        return next((x for x in self.operands if x.place == place), None)

    @cached_property
    def effect(self) -> "Effect":
        if not self.code:
            return self.known or Effect(writes=_always, updates=_always)
        from kernels.numba_cpu.effects import effect

        return effect(self)

    @property
    def reads(self) -> list[Operand]:
        """What it reads, scratch memory aside."""
        return [x for x in self.operands if self.effect.reads(x.place)]

    @property
    def writes(self) -> list[Operand]:
        """What it leaves, scratch memory aside."""
        return [x for x in self.operands if self.effect.writes(x.place) and not self.effect.scratch(x.place)]

    @property
    def bytes(self) -> int:
        """Bytes that it reads and writes, if each is moved once."""
        return sum(x.bytes for x in (*self.reads, *self.writes))

    @property
    def title(self) -> str:
        """The name and what else is to be told: a formula, an activation."""
        detail = self.effect.detail(self) if self.effect.detail else ""
        return f"{self.name} {detail}".rstrip()

    @property
    def flop(self) -> int | None:
        """Operations on numbers: additions, multiplications, functions. None if unknown."""
        known = getattr(self.name, "flop", None)
        return self.effect.flop(self) if known is None and self.effect.flop else known


#: Words of an instruction before its arguments.
HEAD = 3


def _never(place: int) -> bool:
    return False


def _always(place: int) -> bool:
    return True


@dataclass(frozen=True)
class Effect:
    """What a kernel does with its arguments, by their places: those it writes (`scratch` among them, which it leaves
    undefined), and those of them that it reads too. flop: its operations in an instruction; detail: more than its name.
    """

    writes: Callable[[int], bool]
    updates: Callable[[int], bool] = _never
    scratch: Callable[[int], bool] = _never
    flop: Callable[[Instruction], int] | None = None
    detail: Callable[[Instruction], str] | None = None

    def reads(self, place: int) -> bool:
        return not self.writes(place) or self.updates(place)


class Recorder:
    """Collects the kernel calls of one step, in order."""

    def __init__(self):
        self.arena = Arena()
        self.instructions: list[Instruction] = []
        self.keep: list[Any] = []

    def code(self, code: bytes, arguments: Sequence[Any], name: str = "", others: Sequence[np.ndarray] = ()) -> None:
        """One instruction for the compiled executor, called with these arguments. `others` are the arrays that it
        uses besides those among them."""
        words = memoryview(code).cast("q")
        operands = []
        for place, array in enumerate(arguments):
            if isinstance(array, np.ndarray):
                operands.append(Operand.of(array, place, self._lease(array), words[HEAD + place]))
        operands += [Operand.of(array, -1, self._lease(array)) for array in others]
        self.instructions.append(Instruction(name, code, tuple(operands)))

    def _lease(self, array: Any) -> int:
        """The number of its lease; an array that is not of the arena has none, and is kept alive."""
        lease = self.arena.lease(array)
        if not lease:
            self.keep.append(array)
        return lease

    def guard(self, thing: Any, attribute: str) -> None:
        """The step depends on this attribute of a thing (see `nanonet.jit`)."""

    def host(self, call: Callable[[], None], name: str) -> None:
        """A call that only Python can carry out."""
        self.instructions.append(Instruction(name, call=call))

    def device(
        self,
        call: Callable[[], None],
        name: str,
        graph: Callable[..., Callable[[], None]],
        arrays: Iterable[tuple[int, Any, int]],
        known: "Effect | None" = None,
    ) -> None:
        """A call of a device, whose `graph` makes one call of many. arrays: (place, array, address) of all that it
        uses; known: what it does with them (see `Instruction`)."""
        operands = tuple(Operand.of(array, place, self._lease(array), address) for place, array, address in arrays)
        self.instructions.append(Instruction(name, call=call, operands=operands, graph=graph, known=known))

    def plan(self) -> "Plan":
        from kernels.fusion import improved

        return Plan(improved(self.instructions, self.arena.open_leases()), self.arena, self.keep)


class Plan:
    """A recorded step. `run(times)` replays it; whole runs of machine code are one call, without the GIL."""

    def __init__(self, instructions: Sequence[Instruction], arena: Arena, keep: list[Any]):
        self.instructions = list(instructions)
        self._arena = arena
        self._keep = keep
        self._segments: list[bytes | Callable[[], None]] = []
        for graph, group in itertools.groupby(instructions, key=lambda i: i.graph or i.call is None):
            members = list(group)
            if graph is True:
                self._segments.append(b"".join(i.code for i in members))
            elif graph:
                self._segments.append(graph([i.call for i in members]))
            else:
                self._segments += [i.call for i in members]
        if any(i.call is None for i in instructions):
            from kernels.numba_cpu.executor import address, execute

            self._execute, self._address = execute, address

    @property
    def names(self) -> list[str]:
        return [instruction.name for instruction in self.instructions]

    def run(self, times: int = 1, stop: np.ndarray | None = None) -> int:
        """Replay up to `times` times; how often it did.

        stop: an array of 8 bytes that the plan may write; content other than zeros ends the run after a repetition,
        where it lies on the host; a device is not waited for, and all repetitions are made.
        """
        if len(self._segments) == 1 and isinstance(self._segments[0], bytes):
            return self._execute(self._segments[0], times, 0 if stop is None else self._address(stop))
        for done in range(1, times + 1):
            for segment in self._segments:
                if isinstance(segment, bytes):
                    self._execute(segment)
                else:
                    segment()
            if type(stop) is np.ndarray and stop.any():
                return done
        return times

    def bound(self, arrays: Sequence[np.ndarray]) -> tuple[Callable[..., int] | None, Callable[[], int] | None]:
        """(run, pool): run(pool(), *others) replays with others in the place of arrays, which the plan only reads.

        It gives 0, and does nothing, if others are not such arrays; see `kernels.numba_cpu.executor.replayer`. run is
        None if the plan cannot run on others, and pool if all it does is done by one thread: then 0 stands for pool().
        """
        if [type(segment) for segment in self._segments] != [bytes]:
            return None, None
        from kernels.numba_cpu.executor import replayer
        from kernels.numba_cpu.threads import pool

        inputs = [Operand.of(array, 0) for array in arrays]
        places: list[list[tuple[int, int]]] = [[] for _ in arrays]
        written, begin = [], 0
        for instruction in self.instructions:
            for x in instruction.operands:
                changed = instruction.effect.writes(x.place)
                if changed:
                    written.append((x.low, x.high))
                for y, found in zip(inputs, places, strict=True):
                    if x.overlaps(y):
                        if x.place < 0 or changed:
                            return None, None
                        found.append((begin + HEAD + x.place, x.address - y.low))
            begin += len(instruction.code) >> 3
        run = replayer(self._segments[0], list(zip(arrays, places, strict=True)), joined(written))
        return run, pool if any(instruction.parts > 1 for instruction in self.instructions) else None

    @property
    def bytes(self) -> int:
        """Bytes of memory that the plan holds for itself."""
        return self._arena.bytes

    @property
    def flop(self) -> int:
        """Operations of all instructions for which they are known."""
        return sum(instruction.flop or 0 for instruction in self.instructions)

    def __str__(self) -> str:
        """A table of what runs: see `kernels.report`."""
        from kernels.report import report

        return report(self)

    def __repr__(self) -> str:
        return f"<Plan of {len(self.names)} instructions, {self.bytes} bytes>"


def joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges low .. high - 1 in order, those that touch each other as one."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1]:
            low, high = result[-1][0], max(high, result.pop()[1])
        result.append((low, high))
    return result
