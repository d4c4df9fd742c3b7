"""What kernels are launched on: the GPU through CuPy. The tests have another device, which runs them on the host."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from kernels import plan
from kernels.cupy_gpu.arguments import Arguments
from kernels.cupy_gpu.signature import written
from kernels.errors import DeviceError
from kernels.memory import Memory
from kernels.plan import Effect

__all__ = ["Cuda", "Device", "Launch", "Program", "program"]

CUDA = Path(__file__).parent / "cuda"

#: Places of arrays whose addresses are not among the arguments.
READ, WRITTEN = -1, -2

Three = tuple[int, int, int]
#: function(grid, block, address of the table of the arguments' addresses, bytes of dynamic shared memory).
Function = Callable[[Three, Three, int, int], None]


@dataclass(frozen=True)
class Program:
    """CUDA C++ text and the macros that it is compiled with, as "NAME=value".

    contract: whether a product and a sum may be rounded once, as one operation.
    """

    text: str
    macros: tuple[str, ...] = ()
    contract: bool = True
    #: The one architecture that it is for, such as "sm_90a"; None: any.
    architecture: str | None = None

    @property
    def source(self) -> str:
        """The whole text: macros, what all programs share, and the program itself."""
        lines = [f"#define {name} {value}" for name, _, value in (macro.partition("=") for macro in self.macros)]
        return "\n".join([*lines, _text("common.cuh"), self.text])

    @property
    def options(self) -> tuple[str, ...]:
        """What NVRTC is told. The architecture stands beside that of the GPU, which CuPy gives as `-arch`, and is the
        one that counts."""
        whole = [] if self.contract else ["--fmad=false"]
        return "--std=c++17", *whole, *([f"--gpu-architecture={self.architecture}"] if self.architecture else [])


@cache
def program(file: str, *macros: str, architecture: str | None = None) -> Program:
    """The program in a file of the folder `cuda`, such as "softmax.cu", with macros such as "REAL=float"."""
    return Program(_text(file), macros, architecture=architecture)


@cache
def _text(file: str) -> str:
    """The text of a file of the folder `cuda`, with the files that it includes from there in their places."""
    return re.sub(r'#include "([^"]+)"', lambda found: _text(found[1]), (CUDA / file).read_text())


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


class Cuda(Device):
    """The GPU that is CuPy's current device."""

    def __init__(self):
        import cupy

        from kernels.cupy_gpu.memory import CudaMemory

        super().__init__()
        self.xp, self.memory = cupy, CudaMemory()
        attributes = cupy.cuda.Device().attributes
        self.multiprocessors = attributes["MultiProcessorCount"]
        digits = cupy.cuda.Device().compute_capability  # such as "90" and "121"
        self.capability = int(digits[:-1]), int(digits[-1])
        self.shared_memory = attributes["MaxSharedMemoryPerBlockOptin"]
        self._modules: dict[Program, Any] = {}
        self._functions: dict[tuple[Program, str, int], Function] = {}

    @property
    def capturing(self) -> bool:
        return self.xp.cuda.get_current_stream().is_capturing()

    def address(self, array: Any) -> int:
        try:
            return array.data.ptr
        except AttributeError:
            raise self.stranger(array) from None

    def graph(self, calls: Sequence[Callable[[], None]]) -> Callable[[], None]:
        return Graph(calls)

    def function(self, program: Program, name: str, shared: int) -> Function:
        key = (program, name, shared)
        found = self._functions.get(key)
        if found is None:
            from cupy_backends.cuda.api import driver

            if program not in self._modules:
                text = program.source
                self._modules[program] = self.xp.RawModule(code=text, options=program.options, backend="nvrtc")
            kernel = self._modules[program].get_function(name)
            if shared > 48 << 10:
                kernel.max_dynamic_shared_size_bytes = shared
            _ = kernel.num_regs  # loads it, which cannot be done while launches are captured

            entry = kernel.kernel  # its module is unloaded with it
            _ = kernel.num_regs  # loads it now, and not while a graph is captured
            stream, start, context = self.xp.cuda.get_current_stream, driver.launchKernel, driver.ctxGetCurrent

            def found(grid: Three, block: Three, pointers: int, shared: int) -> None:
                if not context():  # the first that this thread asks of CUDA
                    self.xp.cuda.Device().use()
                start(entry.ptr, *grid, *block, shared, stream().ptr, pointers, 0)

            self._functions[key] = found
        return found


class Graph:
    """Launches captured as a CUDA graph, when it is called for the first time."""

    def __init__(self, calls: Sequence[Callable[[], None]]):
        self._calls = calls
        self._graph: Any = None

    def __call__(self) -> None:
        import cupy

        current = cupy.cuda.get_current_stream()
        if self._graph is None:
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                stream.begin_capture()
                for call in self._calls:
                    call()
                self._graph = stream.end_capture()
        self._graph.launch(current)
