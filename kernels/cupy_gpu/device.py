"""What kernels are launched on: the GPU (gpu.py). The tests have another device, which runs them on the host."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from kernels import plan
from kernels.cupy_gpu.arguments import Arguments
from kernels.cupy_gpu.programs import Program
from kernels.cupy_gpu.signature import written
from kernels.errors import DeviceError
from kernels.memory import Memory
from kernels.plan import Effect

__all__ = ["Device", "Function", "Launch", "Three"]

#: Places of arrays whose addresses are not among the arguments.
READ, WRITTEN = -1, -2

Three = tuple[int, int, int]
#: function(grid, block, address of the table of the arguments' addresses, bytes of dynamic shared memory).
Function = Callable[[Three, Three, int, int], None]


def hidden(reads: Iterable[Any], writes: Iterable[Any]) -> list[tuple[int, Any]]:
    """(place, array) of those whose addresses are not among the arguments."""
    return [*((READ, x) for x in reads), *((WRITTEN, x) for x in writes)]


def may_write(written: Container[int] | None) -> Effect:
    """Of a kernel that reads all its arrays, and may write those at these places; all if that is not known."""

    def writes(place: int) -> bool:
        return place == WRITTEN or (place != READ and (written is None or place in written))

    return Effect(writes, updates=writes)


@lru_cache(maxsize=4096)
def _written(program: Program, name: str) -> frozenset[int] | None:
    return written(program.source, name)


class Trace(Protocol):
    """What a device tells its trace, as it does it."""

    def scratch(self, array: Any) -> None:
        """An array has been made by `empty`."""

    def made(self, call: Callable[[], None], arguments: Sequence[Any]) -> None:
        """A call has been carried out, a Launch or another one, with arrays among its arguments."""


class Tracing(threading.local):
    """The trace of what this thread does on a device, if there is one."""

    trace: Trace | None = None


class Launch(plan.Launch):
    """A kernel with its arguments, to be launched by a call. It keeps no array alive."""

    __slots__ = ("_function", "arguments", "block", "device", "grid", "name", "program", "shared", "values")

    def __init__(
        self,
        device: Device,
        program: Program,
        name: str,
        grid: Three,
        block: Three,
        values: Sequence[np.generic],
        shared: int = 0,
    ):
        self.device, self.program, self.name, self.shared = device, program, name, shared
        self.grid, self.block, self.values = grid, block, values
        self.arguments = Arguments(values)
        self._function = device.function(program, name, shared)

    def __call__(self) -> None:
        self._function(self.grid, self.block, self.arguments.pointers, self.shared)

    def elsewhere(self, addresses: Mapping[int, int]) -> Launch:
        values = [np.uint64(addresses[i]) if i in addresses else value for i, value in enumerate(self.values)]
        return self.of(self.program, values)

    def of(self, program: Program, values: Sequence[np.generic]) -> Launch:
        """The launch of another program in the same way."""
        return Launch(self.device, program, self.name, self.grid, self.block, values, self.shared)


class Device(ABC):
    """Something that runs CUDA kernels on arrays of `xp`."""

    xp: ModuleType
    memory: Memory
    #: Blocks that run side by side; how many blocks a kernel is cut into depends on it, results do not.
    multiprocessors: int
    #: Compute capability.
    capability: tuple[int, int]
    #: Bytes of shared memory that a block may have; how large tiles are depends on it, results do not.
    shared_memory: int

    def __init__(self):
        self.tracing = Tracing()

    @property
    def capturing(self) -> bool:
        """Whether launches are captured now, as for a CUDA graph, and not carried out."""
        return False

    @abstractmethod
    def function(self, program: Program, name: str, shared: int) -> Function:
        """The compiled kernel of that name, to be launched with up to `shared` bytes of dynamic shared memory."""

    @abstractmethod
    def address(self, array: Any) -> int:
        """Where the first element of an array of `xp` lies."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array with undefined content; while a step is recorded, in the plan's memory."""
        array = plan.empty_in(self.memory, shape, dtype)
        if self.tracing.trace is not None:
            self.tracing.trace.scratch(array)
        return array

    def launch(
        self,
        program: Program,
        name: str,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        *arguments: Any,
        shared: int = 0,
        label: str = "",
        effect: Effect | None = None,
        reads: Sequence[Any] = (),
        writes: Sequence[Any] = (),
    ) -> None:
        """Run a kernel, and enter it into the plan that is recorded.

        arguments: arrays of `xp`, whose address is given; None, a null pointer; NumPy scalars, given as they are;
        int and float, given as `long long` and `double`; structured scalars of NumPy, structs. The kernel may write
        those that it does not declare as pointers to const. reads, writes: arrays whose addresses it finds elsewhere,
        as in a table. label: what the plan calls it, if not by its name; effect: what it does, if more is known.
        """
        grid, block = _three(grid), _three(block)
        if 0 in grid:
            return
        values = [self._word(argument, name) for argument in arguments]
        call = Launch(self, program, name, grid, block, values, shared)
        self._carry_out(call, arguments)
        if plan.current() is not None:
            effect = effect or may_write(_written(program, name))
            self._record(call, label or name, [*enumerate(arguments), *hidden(reads, writes)], effect)

    def carry_out(self, call: Callable[[], None], name: str, arguments: Sequence[Any]) -> None:
        """Make a call, and enter it into the plan that is recorded. All arrays that it uses are among its arguments;
        it may write each of them."""
        self._carry_out(call, arguments)
        if plan.current() is not None:
            self._record(call, name, enumerate(arguments), may_write(None))

    def _carry_out(self, call: Callable[[], None], arguments: Sequence[Any]) -> None:
        call()
        if self.tracing.trace is not None:
            self.tracing.trace.made(call, arguments)

    def _record(self, call: Callable[[], None], name: str, given: Iterable[tuple[int, Any]], effect: Effect) -> None:
        arrays = [(place, x, self.address(x)) for place, x in given if type(x) is self.memory.kind]
        plan.current().device(call, name, self.graph, arrays, effect)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is launched within is carried out, and entered into no plan and no trace."""
        trace, self.tracing.trace = self.tracing.trace, None
        try:
            with plan.paused():
                yield
        finally:
            self.tracing.trace = trace

    def graph(self, calls: Sequence[Callable[[], None]]) -> Callable[[], None]:
        """One call that makes all of these, in order."""

        def call() -> None:
            for each in calls:
                each()

        return call

    def stranger(self, argument: Any, where: str = "") -> DeviceError:
        """The error to raise for an array that is not one of this device."""
        kind = "cpu" if isinstance(argument, np.ndarray) else type(argument).__name__
        here = self.memory.device
        return DeviceError(f"{where}got an array on {kind}, wanted all on {here}; move it with .to({here!r})")

    def _word(self, argument: Any, name: str) -> np.generic:
        if isinstance(argument, np.void):
            return np.asarray(argument)
        if isinstance(argument, np.generic):
            return argument
        if isinstance(argument, int):
            return np.int64(argument)
        if isinstance(argument, float):
            return np.float64(argument)
        if argument is not None and type(argument) is not self.memory.kind:
            raise self.stranger(argument, f"{name}: ")
        return np.uint64(0 if argument is None else self.address(argument))


def _three(sizes: int | tuple[int, ...]) -> Three:
    sizes = (sizes,) if isinstance(sizes, int) else sizes
    return (*sizes, *(1,) * (3 - len(sizes)))  # type: ignore[return-value]
