"""A device for the GPU backend that runs CUDA kernels on the host, so that they are tested where there is no GPU.

A program is compiled by the C++ compiler behind `emulator.h`, which stands in for CUDA: threads, barriers, shuffles,
shared memory. What is tested is what a kernel computes and how it is launched; speed, and what hardware does in its
own way (caches, the order in which warps run, rounding of its functions), are not.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kernels.cupy_gpu.device import Device, Function, Program
from kernels.memory import HOST, HostMemory, Memory

HEADER = Path(__file__).with_name("emulator.h")
HOPPER = Path(__file__).with_name("emulator_hopper.h")
COMPILER = shutil.which("g++") or shutil.which("clang++")
#: A wide access to an address that it is not aligned to ends the process, as it ends a kernel.
ALIGNMENT = ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-w", *ALIGNMENT]
KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')


class Emulator(Device):
    """Runs kernels on NumPy arrays. `multiprocessors` is small, so that small arrays take several blocks."""

    xp = np
    memory: Memory = HOST
    multiprocessors = 4
    capability = (8, 0)

    def address(self, array: np.ndarray) -> int:
        return array.ctypes.data

    def function(self, program: Program, name: str, shared: int) -> Function:
        start = getattr(_library(program), f"emulate_{name}")

        def function(grid: tuple[int, ...], block: tuple[int, ...], words: Any, shared: int) -> None:
            cells = [np.array(word) for word in words]
            pointers = (ctypes.c_void_p * len(cells))(*[cell.ctypes.data for cell in cells])
            sizes = [*grid, *(1,) * (3 - len(grid)), *block, *(1,) * (3 - len(block))]
            start((ctypes.c_uint * 6)(*sizes), pointers)

        return function


class HostArray(np.ndarray):
    """An array of NumPy that passes for one of the GPU."""


class ApartMemory(HostMemory):
    """The host's memory as that of another device, "cuda"."""

    device = "cuda"
    kind = HostArray

    def empty(self, shape, dtype):
        return np.empty(shape, dtype).view(HostArray)

    def from_host(self, array):
        return np.array(array, order="C").view(HostArray)

    def to_host(self, array):
        return np.array(array)

    def broadcast(self, array, shape):
        return np.broadcast_to(array, shape, subok=True)

    def view(self, base, shape, dtype, strides, offset):
        return np.ndarray(shape, dtype, base, offset, strides).view(HostArray)

    def over(self, memory, shape, dtype):
        return super().over(memory, shape, dtype).view(HostArray)


class _Apart(ModuleType):
    """NumPy, but for functions that make arrays."""

    def __getattr__(self, name):
        return getattr(np, name)


def _apart(function):
    return lambda *arguments, **options: function(*arguments, **options).view(HostArray)


class ApartEmulator(Emulator):
    """Runs kernels on `HostArray`s: with it, what nanonet does with a GPU is tested without one."""

    memory = ApartMemory()
    xp = _Apart("apart")


for _name in ("empty", "zeros", "full", "ones", "arange"):
    setattr(ApartEmulator.xp, _name, _apart(getattr(np, _name)))


@cache
def _library(program: Program) -> ctypes.CDLL:
    wrappers = [
        f'extern "C" void emulate_{name}(const unsigned* n, void** arguments) {{\n'
        "    emulator::run({n[0], n[1], n[2]}, {n[3], n[4], n[5]}, [=] { emulator::call("
        f"{name}, arguments); }});\n}}"
        for name in KERNEL.findall(program.source)
    ]
    text = "\n".join(['#include "emulator.h"', program.source, *wrappers])
    header = _header()
    library = header.parent / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.so"
    _make(library, text, ["-shared", f"-I{header.parent}"], ".cpp")
    return ctypes.CDLL(str(library))


@cache
def _header() -> Path:
    """The header, in a folder of its own together with what the compiler has made of it."""
    text = HEADER.read_text().replace('#include "emulator_hopper.h"', HOPPER.read_text())
    digest = hashlib.sha256(" ".join([*FLAGS, text]).encode()).hexdigest()[:12]
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
        command = [COMPILER, *FLAGS, *flags, str(source), "-o", str(made)]
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode:
            raise RuntimeError(found.stderr[:4000])
        os.replace(made, target)
