"""What kernels are launched on: the GPU through CuPy. The tests have another device, which runs them on the host."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kernels import plan
from kernels.cupy_gpu.signature import written
from kernels.errors import DeviceError
from kernels.memory import Memory
from kernels.plan import Effect

__all__ = ["Cuda", "Device", "Launch", "Program", "program"]

CUDA = Path(__file__).parent / "cuda"

#: Places of arrays whose addresses are not among the arguments.
READ, WRITTEN = -1, -2

#: function(grid, block, arguments, bytes of dynamic shared memory); arguments are NumPy scalars, addresses np.uint64.
Function = Callable[[tuple[int, ...], tuple[int, ...], Sequence[np.generic], int], None]


@dataclass(frozen=True)
class Program:
    """CUDA C++ text and the macros that it is compiled with, as "NAME=value".

    contract: whether a product and a sum may be rounded once, as one operation.
    """

    text: str
    macros: tuple[str, ...] = ()
    contract: bool = True

    @property
    def source(self) -> str:
        """The whole text: macros, what all programs share, and the program itself."""
        lines = [f"#define {name} {value}" for name, _, value in (macro.partition("=") for macro in self.macros)]
        return "\n".join([*lines, _text("common.cuh"), self.text])

    @property
    def options(self) -> tuple[str, ...]:
        """What NVRTC is told."""
        return ("--std=c++17",) if self.contract else ("--std=c++17", "--fmad=false")


@cache
def program(file: str, *macros: str) -> Program:
    """The program in a file of the folder `cuda`, such as "softmax.cu", with macros such as "REAL=float"."""
    return Program(_text(file), macros)


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


@dataclass(frozen=True)
class Launch(plan.Launch):
    """A kernel of a program with its arguments. It keeps no array alive."""

    device: Device
    program: Program
    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    words: tuple[np.generic, ...]
    shared: int = 0

    def __call__(self) -> None:
        self.device.function(self.program, self.name, self.shared)(self.grid, self.block, self.words, self.shared)

    def elsewhere(self, addresses: Mapping[int, int]) -> Launch:
        words = list(self.words)
        for place, address in addresses.items():
            words[place] = np.uint64(address)
        return replace(self, words=tuple(words))


class Device(ABC):
    """Something that runs CUDA kernels on arrays of `xp`."""

    xp: ModuleType
    memory: Memory
    #: Blocks that run side by side; how many blocks a kernel is cut into depends on it, results do not.
    multiprocessors: int

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
        grid = (grid,) if isinstance(grid, int) else grid
        block = (block,) if isinstance(block, int) else block
        if 0 in grid:
            return
        words = tuple([self._word(argument, name) for argument in arguments])
        call = Launch(self, program, name, grid, block, words, shared)
        call()
        if plan.current() is not None:
            effect = effect or may_write(_written(program, name))
            self._record(call, label or name, [*enumerate(arguments), *hidden(reads, writes)], effect)

    def carry_out(self, call: Callable[[], None], name: str, arguments: Sequence[Any]) -> None:
        """Make a call, and enter it into the plan that is recorded. All arrays that it uses are among its arguments;
        it may write each of them."""
        call()
        if plan.current() is not None:
            self._record(call, name, enumerate(arguments), may_write(None))

    def _record(self, call: Callable[[], None], name: str, given: Iterable[tuple[int, Any]], effect: Effect) -> None:
        arrays = [(place, x, self.address(x)) for place, x in given if type(x) is self.memory.kind]
        plan.current().device(call, name, self.graph, arrays, effect)

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
        self.multiprocessors = cupy.cuda.Device().attributes["MultiProcessorCount"]
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
                text = program.source
                self._modules[program] = self.xp.RawModule(code=text, options=program.options, backend="nvrtc")
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
