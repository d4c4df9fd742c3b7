"""The GPU, through CuPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kernels.cupy_gpu.device import Device, Function, Three
from kernels.cupy_gpu.programs import Program

__all__ = ["Cuda"]


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
