"""A GPU without a GPU: CuPy and NVRTC are the real ones, CUDA's runtime and driver are ours, and the emulator runs
the kernels.

CuPy carries a copy of CUDA's runtime in one of its modules. `install` sends that copy's functions to ours, each by a
jump in the place of its first instructions, and loads our driver under the name that CuPy asks for. So everything
that nanonet says to CuPy, and CuPy to CUDA, is said as on a GPU, and the fake answers as CUDA does: see device.h.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import mmap
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import emulator

FOLDER = Path(__file__).parent
NAME = "libcuda.so.1"
#: They only look something up, and need no GPU.
KEPT = {"cudaGetErrorName", "cudaGetErrorString", "cudaRuntimeGetVersion"}


def reason() -> str | None:
    """None, or in words why the fake cannot be used here."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "the fake CUDA is for Linux on x86-64"
    if shutil.which("g++") is None:
        return "no g++"
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    if _headers() is None:
        return "CUDA's headers are not installed (nvidia-cuda-runtime-cu12)"
    from cupy.cuda import nvrtc

    try:
        nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        return f"no NVRTC: {error}"
    from cupy_backends.cuda.api import runtime

    if "cudaMalloc" not in _symbols(Path(runtime.__file__)):
        return "this CuPy has no copy of CUDA's runtime whose functions can be found"
    return None


@functools.cache
def install() -> ctypes.CDLL:
    """Make the fake the GPU of this process, before anything asks for one. `fake_limit` bounds its memory."""
    # Kernels that CuPy has compiled for a real GPU are not to be mixed with those of the fake; CUB brings a runtime
    # of its own.
    os.environ.setdefault("CUPY_CACHE_DIR", str(_folder() / "cubins"))
    os.environ["CUPY_ACCELERATORS"] = ""
    library = ctypes.CDLL(str(_library()), ctypes.RTLD_GLOBAL)
    library.fake_limit.argtypes = [ctypes.c_size_t]
    from cupy_backends.cuda.api import runtime

    _redirect(Path(runtime.__file__), library)
    _hand_over_sources(library)
    _check_arguments(library)
    _launch_what_is_emulated()
    return library


# --------------------------------------------------------------------------------------------- the library


@functools.cache
def _headers() -> Path | None:
    found = importlib.util.find_spec("nvidia")
    for place in found.submodule_search_locations if found else ():
        for path in Path(place).glob("*/include/cuda_runtime_api.h"):
            return path.parent
    return None


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"nanonet-fake-cuda-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    return folder


def _library() -> Path:
    sources = sorted([*FOLDER.glob("*.cpp"), *FOLDER.glob("**/*.h")])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    target = _folder() / digest / NAME
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        flags = ["-std=c++17", "-O1", "-fPIC", "-shared", f"-Wl,-soname,{NAME}", f"-I{FOLDER}", f"-I{_headers()}"]
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            made = Path(work) / NAME
            sources = [str(path) for path in FOLDER.glob("*.cpp")]
            done = subprocess.run(["g++", *flags, *sources, "-o", str(made), "-ldl"], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr[:4000])
            os.replace(made, target)
    return target


# ------------------------------------------------------------------------------------ CuPy's copy of the runtime


def _symbols(path: Path) -> dict[str, tuple[int, int]]:
    """(value, size) of each symbol of a library, those that it keeps to itself too."""
    data = path.read_bytes()
    (table,) = struct.unpack_from("<Q", data, 0x28)
    width, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * width) for i in range(count)]
    found = {}
    for _, kind, _, _, offset, size, link, _, _, each in sections:
        if kind != 2:  # SHT_SYMTAB
            continue
        names = sections[link][4]
        for at in range(offset, offset + size, each):
            name, _, _, _, value, length = struct.unpack_from("<IBBHQQ", data, at)
            end = data.index(b"\0", names + name)
            found[data[names + name : end].decode()] = (value, length)
    return found


def _redirect(module: Path, library: ctypes.CDLL) -> None:
    """Each function of CUDA's runtime in the module jumps to the library's, or to one that says it is not supported."""
    symbols = _symbols(module)
    begin = ctypes.CDLL(str(module)).PyInit_runtime
    base = ctypes.cast(begin, ctypes.c_void_p).value - symbols["PyInit_runtime"][0]
    wanted = {name: value for name, (value, size) in symbols.items() if name.startswith("cuda") and size >= 16}
    for name in wanted.keys() - KEPT:
        target = getattr(library, name, library.fake_unsupported)
        jump = b"\x48\xb8" + struct.pack("<Q", ctypes.cast(target, ctypes.c_void_p).value) + b"\xff\xe0"
        _write_code(base + wanted[name], jump)


def _write_code(address: int, code: bytes) -> None:
    page = address // mmap.PAGESIZE * mmap.PAGESIZE
    everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    length = ctypes.c_size_t(address + len(code) - page)
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), length, everything):
        raise OSError("code of this process cannot be changed")
    ctypes.memmove(address, code, len(code))


# ------------------------------------------------------------------------------------------------- kernels


def _hand_over_sources(library: ctypes.CDLL) -> None:
    """The driver is given a cubin; it is told what the emulator has made of the same source."""
    from cupy.cuda import compiler

    compile_ = compiler._compile_with_cache_cuda

    @functools.wraps(compile_)
    def compiled(source: str, *arguments: Any, **named: Any) -> Any:
        try:
            made = str(emulator.built(source))
        except RuntimeError:  # kernels of CuPy's own: the driver refuses to launch them
            made = ""
        library.fake_next_module(made.encode())
        return compile_(source, *arguments, **named)

    compiler._compile_with_cache_cuda = compiled


def _check_arguments(library: ctypes.CDLL) -> None:
    """Every launch has as many arguments as the kernel has parameters, each with its parameter's size."""
    from kernels.cupy_gpu.device import Launch

    begin = Launch.__init__
    known: dict[tuple[Any, str], list[int]] = {}

    def checked(self: Launch, device: Any, program: Any, name: str, grid: Any, block: Any, values: Any, *more: Any):
        if (program, name) not in known:
            sizes = (ctypes.c_size_t * 256)()
            count = library.fake_parameters(ctypes.c_void_p(_kernel(program, name).ptr), 256, sizes)
            known[program, name] = sizes[:count]
        given, wanted = [value.nbytes for value in values], known[program, name]
        assert given == wanted, f"{name} has parameters of {wanted} bytes, and was given {given}"
        begin(self, device, program, name, grid, block, values, *more)

    Launch.__init__ = checked


@functools.cache
def _cuda() -> Any:
    from kernels.cupy_gpu.gpu import Cuda

    return Cuda()


def _kernel(program: Any, name: str) -> Any:
    cuda = _cuda()
    cuda.function(program, name, 0)
    return cuda._modules[program].get_function(name).kernel


def _launch_what_is_emulated() -> None:
    """The emulator's device launches its kernels through CuPy too. (Here kernels can use memory of the host.)"""

    def function(self: Any, program: Any, name: str, shared: int) -> Any:
        launch, wait = _cuda().function(program, name, shared), _cuda().xp.cuda.Stream.null.synchronize

        def call(*arguments: Any) -> None:
            launch(*arguments)
            wait()

        return call

    emulator.Emulator.function = function
