"""What kernels are launched on: the GPU through CuPy. The tests have another device, which runs them on the host."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from kernels import plan
from kernels.cupy_gpu.arguments import Arguments
from kernels.errors import DeviceError
from kernels.memory import Memory

__all__ = ["Cuda", "Device", "Launch", "Program", "program"]

CUDA = Path(__file__).parent / "cuda"

Three = tuple[int, int, int]
#: function(grid, block, address of the table of the arguments' addresses, bytes of dynamic shared memory).
Function = Callable[[Three, Three, int, int], None]


@dataclass(frozen=True)
class Program:
    """CUDA C++ text and the macros that it is compiled with, as "NAME=value"."""

    text: str
    macros: tuple[str, ...] = ()
    #: The one architecture that it is for, such as "sm_90a"; None: any.
    architecture: str | None = None

    @property
    def source(self) -> str:
        """The whole text: macros, what all programs share, and the program itself."""
        lines = [f"#define {name} {value}" for name, _, value in (macro.partition("=") for macro in self.macros)]
        return "\n".join([*lines, _text("common.cuh"), self.text])

    @property
    def options(self) -> tuple[str, ...]:
        """NVRTC's. The architecture stands beside that of the GPU, which CuPy gives as `-arch`, and is the one that
        counts."""
        return ("--std=c++17", *([f"--gpu-architecture={self.architecture}"] if self.architecture else []))


@cache
def program(file: str, *macros: str, architecture: str | None = None) -> Program:
    """The program in a file of the folder `cuda`, such as "softmax.cu", with macros such as "REAL=float"."""
    return Program(_text(file), macros, architecture)


@cache
def _text(file: str) -> str:
    """The text of a file of the folder `cuda`, with the files that it includes from there in their places."""
    return re.sub(r'#include "([^"]+)"', lambda found: _text(found[1]), (CUDA / file).read_text())


class Trace(Protocol):
    """What a device tells its trace, as it does it."""

    def scratch(self, array: Any) -> None:
        """An array has been made by `empty`."""

    def made(self, call: Callable[[], None], arguments: Sequence[Any]) -> None:
        """A call has been carried out, a Launch or another one, with arrays among its arguments."""


class Tracing(threading.local):
    """The trace of what this thread does on a device, if there is one."""

    trace: Trace | None = None


class Launch:
    """A kernel with its arguments, to be launched by a call."""

    __slots__ = ("_block", "_function", "_grid", "_shared", "arguments")

    def __init__(self, function: Function, grid: Three, block: Three, arguments: Arguments, shared: int):
        self._function, self._grid, self._block, self._shared = function, grid, block, shared
        self.arguments = arguments

    def __call__(self) -> None:
        self._function(self._grid, self._block, self.arguments.pointers, self._shared)


class Device(ABC):
    """Something that runs CUDA kernels on arrays of `xp`."""

    xp: ModuleType
    memory: Memory
    #: Blocks that run side by side; how many blocks a kernel is cut into depends on it, results do not.
    multiprocessors: int
    #: Bytes of shared memory that a block may have; how large tiles are depends on it, results do not.
    shared_memory: int
    #: Compute capability.
    capability: tuple[int, int]

    def __init__(self):
        self.tracing = Tracing()

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
    ) -> None:
        """Run a kernel, and enter it into the plan that is recorded.

        arguments: arrays of `xp`, whose address is given; None, a null pointer; NumPy scalars, given as they are;
        int and float, given as `long long` and `double`; structured
        scalars of NumPy, structs.
        """
        grid, block = _three(grid), _three(block)
        if 0 in grid:
            return
        words = Arguments([self._word(argument, name) for argument in arguments])
        launch = Launch(self.function(program, name, shared), grid, block, words, shared)
        self.carry_out(launch, name, arguments)

    def carry_out(self, call: Callable[[], None], name: str, arguments: Sequence[Any]) -> None:
        """Make a call, and enter it into the plan that is recorded, which keeps the arrays among its arguments."""
        call()
        if self.tracing.trace is not None:
            self.tracing.trace.made(call, arguments)
        recorder = plan.current()
        if recorder is not None:
            for argument in arguments:
                if type(argument) is self.memory.kind and not recorder.arena.owns(argument):
                    recorder.keep.append(argument)
            recorder.device(call, name, self.graph)

    def graph(self, calls: Sequence[Callable[[], None]]) -> Callable[[], None]:
        """One call that makes all of these, in order."""

        def call() -> None:
            for each in calls:
                each()

        return call

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
            kind = "cpu" if isinstance(argument, np.ndarray) else type(argument).__name__
            here = self.memory.device
            raise DeviceError(f"{name}: got an array on {kind}, wanted all on {here}; move it with .to({here!r})")
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
        self.shared_memory = attributes["MaxSharedMemoryPerBlockOptin"]
        self.capability = tuple(attributes[f"ComputeCapability{part}"] for part in ("Major", "Minor"))
        self._modules: dict[Program, Any] = {}
        self._functions: dict[tuple[Program, str, int], Function] = {}

    def address(self, array: Any) -> int:
        return array.data.ptr

    def graph(self, calls: Sequence[Callable[[], None]]) -> Callable[[], None]:
        return Graph(calls)

    def function(self, program: Program, name: str, shared: int) -> Function:
        key = (program, name, shared)
        found = self._functions.get(key)
        if found is None:
            from cupy_backends.cuda.api import driver

            if program not in self._modules:
                text, options = program.source, program.options
                self._modules[program] = self.xp.RawModule(code=text, options=options, backend="nvrtc")
            kernel = self._modules[program].get_function(name)
            if shared > 48 << 10:
                kernel.max_dynamic_shared_size_bytes = shared

            entry, stream, start = kernel.kernel.ptr, self.xp.cuda.get_current_stream, driver.launchKernel

            def found(grid: Three, block: Three, pointers: int, shared: int) -> None:
                start(entry, *grid, *block, shared, stream().ptr, pointers, 0)

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
