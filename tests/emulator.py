"""A device for the GPU backend that runs CUDA kernels on the host, so that they are tested where there is no GPU.

A program is compiled by the C++ compiler behind `emulator.h`, which stands in for CUDA: threads, barriers, shuffles,
shared memory. What is tested is what a kernel computes and how it is launched; speed, and what hardware does in its
own way (caches, the order in which warps run, rounding of its functions), are not.

What is undefined is made to show: new memory, shared memory and local variables start as NaN or nonsense, and kernels
see arrays that end or begin at a page that nobody may touch: an access beyond them ends the process.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import mmap
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from kernels.cupy_gpu.device import Device, Function
from kernels.cupy_gpu.programs import Program
from kernels.memory import HOST, Memory

HEADER = Path(__file__).with_name("emulator.h")
HOPPER = Path(__file__).with_name("emulator_hopper.h")
COMPILER = shutil.which("g++") or shutil.which("clang++")
#: A wide access to an address that it is not aligned to ends the process, as it ends a kernel.
ALIGNMENT = ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
#: Local variables start as nonsense, where the compiler can do that.
UNSET = "-ftrivial-auto-var-init=pattern"
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-w", *ALIGNMENT]
#: Threads of a block that have registers, however many the compiler takes where no bound is declared.
UNBOUND = 256
KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\(([^,)]*)[^)]*\)\s*)?(\w+)\s*\(')
SHARED = re.compile(r"__shared__ ([^;=]*?(\w+)(?:\[[^\]]*\])*);")


PAGE = mmap.PAGESIZE
#: Pages between two that nobody may touch, by their number: where they begin, of those that are free.
_fences: dict[int, list[int]] = {}
#: The emulator has but one GPU, which carries out one launch at a time.
_running = threading.Lock()
_late = itertools.cycle((False, True))


@contextmanager
def fenced(given: dict[int, tuple[int, int]]) -> Iterator[Callable[[int], int]]:
    """A function from an address among those given to that of a copy which begins or ends at a page that nobody may
    touch, and is aligned to 16 bytes where the array is. What is written there is brought back.

    given: addresses with the first byte of what may be reached from there, and that after the last.
    """
    ranges: list[tuple[int, int]] = []
    for low, high in sorted(given.values()):
        if ranges and low < ranges[-1][1]:
            low, high = ranges[-1][0], max(high, ranges.pop()[1])
        ranges.append((low, high))
    with _running:
        late, copies = next(_late), []
        for low, high in ranges:
            pages = -(-(high - low + 16) // PAGE)
            free = _fences.setdefault(pages, [])
            first = free.pop() if free else _fence(pages)
            start = first + low % 16
            if late:
                start += (pages * PAGE - low % 16 - (high - low)) // 16 * 16
            ctypes.memset(first, 0xFF, pages * PAGE)
            ctypes.memmove(start, low, high - low)
            copies.append((low, high, start, first, pages))
        yield lambda address: next(start + address - low for low, high, start, *_ in copies if low <= address < high)
        for low, high, start, first, pages in copies:
            if ctypes.string_at(low, high - low) != ctypes.string_at(start, high - low):
                ctypes.memmove(low, start, high - low)
            _fences[pages].append(first)


def _fence(pages: int) -> int:
    """The first of so many new pages between two that nobody may touch."""
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))  # which keeps the memory from being closed
    for page in (begin, begin + (pages + 1) * PAGE):
        if ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0):
            raise OSError("memory cannot be protected")
    _kept.append(memory)
    return begin + PAGE


_kept: list[mmap.mmap] = []


class Emulator(Device):
    """Runs kernels on NumPy arrays. `multiprocessors` is small, so that small arrays take several blocks; the memory of
    a block is that of an H100."""

    xp = np
    memory: Memory = HOST
    multiprocessors = 4
    capability = (8, 0)
    shared_memory = 227 << 10

    def __init__(self):
        super().__init__()
        self._launch = _Launch()

    def values(self, array: Any) -> np.ndarray:
        """An array of the device as NumPy's, over the same memory."""
        return array

    def address(self, array: Any) -> int:
        return self.values(array).ctypes.data

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        made = super().empty(shape, dtype)
        ctypes.memset(self.address(made), 0xFF, made.nbytes)
        return made

    def function(self, program: Program, name: str, shared: int) -> Function:
        library = _library(program)
        start, count = getattr(library, f"emulate_{name}"), getattr(library, f"parameters_{name}")()

        def function(grid: tuple[int, ...], block: tuple[int, ...], pointers: int, shared: int) -> None:
            given, self._launch.ranges = self._launch.ranges, {}
            table = (ctypes.POINTER(ctypes.c_uint64) * count).from_address(pointers)
            with fenced(given) as moved:
                cells = [ctypes.c_uint64(moved(x[0])) if x[0] in given else x.contents for x in table]
                made = (ctypes.c_void_p * count)(*map(ctypes.addressof, cells))
                start((ctypes.c_uint * 7)(*grid, *block, shared), made)

        return function

    def _word(self, argument: Any, name: str) -> np.generic:
        word = super()._word(argument, name)
        if type(argument) is self.memory.kind and argument.size:
            self._launch.ranges[int(word)] = byte_bounds(self.values(argument))
        return word


class _Launch(threading.local):
    """What is known of a launch that is being prepared: where arrays among its arguments begin and end, by the address
    of their first element."""

    def __init__(self):
        self.ranges: dict[int, tuple[int, int]] = {}


@cache
def _library(program: Program) -> ctypes.CDLL:
    return ctypes.CDLL(str(built(program.source)))


def built(source: str) -> Path:
    """A library with emulate_NAME(sizes of grid and block, shared bytes, arguments) for each kernel of a source."""
    wrappers = [
        f'extern "C" void emulate_{name}(const unsigned* n, void** arguments) {{\n'
        f"    emulator::Flushing flushing(sizeof(real) == 4);\n"
        f"    emulator::run({{n[0], n[1], n[2]}}, {{n[3], n[4], n[5]}}, n[6], {most or UNBOUND},\n"
        f"                  [=] {{ emulator::call({name}, arguments); }});\n}}\n"
        f'extern "C" int parameters_{name}() {{ return emulator::parameters({name}); }}'
        for most, name in KERNEL.findall(source)
    ]
    source = SHARED.sub(r"static \1; static long of_\2; emulator::undefined(&\2, sizeof \2, of_\2);", source)
    text = "\n".join(['#include "emulator.h"', source, *wrappers])
    header = _header()
    library = header.parent / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.so"
    _make(library, text, ["-shared", f"-I{header.parent}"], ".cpp")
    return library


@cache
def _flags() -> list[str]:
    tried = subprocess.run([COMPILER, UNSET, "-E", "-x", "c++", os.devnull], capture_output=True)
    return FLAGS if tried.returncode else [*FLAGS, UNSET]


@cache
def _header() -> Path:
    """The header, in a folder of its own together with what the compiler has made of it."""
    text = HEADER.read_text().replace('#include "emulator_hopper.h"', HOPPER.read_text())
    digest = hashlib.sha256(" ".join([*_flags(), text]).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"nanonet-emulator-{os.getuid()}-{digest}"
    folder.mkdir(exist_ok=True)
    header = folder / "emulator.h"
    if not header.exists():
        header.write_text(text)
    _make(folder / "emulator.h.gch", text, ["-x", "c++-header"], ".h")
    return header


def _make(target: Path, text: str, flags: list[str], suffix: str) -> None:
    if target.exists():
        return
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        source, made = Path(work) / f"program{suffix}", Path(work) / "made"
        source.write_text(text)
        command = [COMPILER, *_flags(), *flags, str(source), "-o", str(made)]
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode:
            raise RuntimeError(found.stderr[:4000])
        os.replace(made, target)
