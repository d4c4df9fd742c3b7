"""What kernels are launched on: the GPU through CuPy. The tests have another device, which runs them on the host."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kernels import plan
from kernels.errors import DeviceError
from kernels.memory import Memory

__all__ = ["Cuda", "Device", "Program", "program"]

CUDA = Path(__file__).parent / "cuda"

#: function(grid, block, arguments, bytes of dynamic shared memory); arguments are NumPy scalars, addresses np.uint64.
Function = Callable[[tuple[int, ...], tuple[int, ...], Sequence[np.generic], int], None]


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


class Device(ABC):
    """Something that runs CUDA kernels on arrays of `xp`."""

    xp: ModuleType
    memory: Memory
    #: Blocks that run side by side; how many blocks a kernel is cut into depends on it, results do not.
    multiprocessors: int
    #: Compute capability.
    capability: tuple[int, int]

    @abstractmethod
    def function(self, program: Program, name: str, shared: int) -> Function:
        """The compiled kernel of that name, to be launched with up to `shared` bytes of dynamic shared memory."""

    @abstractmethod
    def address(self, array: Any) -> int:
        """Where the first element of an array of `xp` lies."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array with undefined content; while a step is recorded, in the plan's memory."""
        return plan.empty_in(self.memory, shape, dtype)

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
        grid = (grid,) if isinstance(grid, int) else grid
        block = (block,) if isinstance(block, int) else block
        if 0 in grid:
            return
        function = self.function(program, name, shared)
        words = [self._word(argument, name) for argument in arguments]
        self.carry_out(partial(function, grid, block, words, shared), name, arguments)

    def carry_out(self, call: Callable[[], None], name: str, arguments: Sequence[Any]) -> None:
        """Make a call, and enter it into the plan that is recorded, which keeps the arrays among its arguments."""
        call()
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


class Cuda(Device):
    """The GPU that is CuPy's current device."""

    def __init__(self):
        import cupy

        from kernels.cupy_gpu.memory import CudaMemory

        self.xp, self.memory = cupy, CudaMemory()
        attributes = cupy.cuda.Device().attributes
        self.multiprocessors = attributes["MultiProcessorCount"]
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
            if program not in self._modules:
                text, options = program.source, program.options
                self._modules[program] = self.xp.RawModule(code=text, options=options, backend="nvrtc")
            kernel = self._modules[program].get_function(name)
            if shared > 48 << 10:
                kernel.max_dynamic_shared_size_bytes = shared

            def found(grid, block, words, shared):
                kernel(grid, block, tuple(words), shared_mem=shared)

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
