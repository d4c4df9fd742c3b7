"""Whether a GPU can be used here, and what is missing if not."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

__all__ = ["about", "reason"]

#: The least compute capability that the kernels are written for: copies to shared memory that go on by themselves.
LEAST = 8, 0
INSTALL = "pip install 'nanonet[gpu-cuda12]' or 'nanonet[gpu-cuda13]', by the version of CUDA that `nvidia-smi` shows"


@cache
def reason() -> str | None:
    """None, or in words why no GPU can be used."""
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed ({INSTALL})"
    try:
        import cupy
    except ImportError as error:
        return f"CuPy cannot be imported: {error} ({INSTALL})"
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if "cudaErrorInsufficientDriver" in str(error):
            return f"there is no NVIDIA driver, or it is older than CUDA {_text(runtime.runtimeGetVersion())} needs"
        if "cudaErrorNoDevice" in str(error):
            return "there is no GPU"
        return f"CUDA does not start: {error}"
    if not count:
        return "there is no GPU"
    found = runtime.getDeviceProperties(runtime.getDevice())
    if (found["major"], found["minor"]) < LEAST:
        has, want = f"{found['major']}.{found['minor']}", "{}.{}".format(*LEAST)
        return f"{found['name'].decode()} has compute capability {has}, and {want} or later is needed"
    try:
        import cupy_backends.cuda.libs.nvrtc as nvrtc

        nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        return f"CUDA's compiler NVRTC is missing: {error} (pip install 'cupy-cuda12x[ctk]' or 'cupy-cuda13x[ctk]')"
    return None


def about() -> dict[str, Any]:
    """CuPy's current GPU: name, capability, multiprocessors, bytes, free_bytes, and CUDA's versions."""
    import cupy

    runtime = cupy.cuda.runtime
    found = runtime.getDeviceProperties(cupy.cuda.Device().id)
    free, total = runtime.memGetInfo()
    return {
        "name": found["name"].decode(),
        "capability": f"{found['major']}.{found['minor']}",
        "multiprocessors": found["multiProcessorCount"],
        "bytes": total,
        "free_bytes": free,
        "driver": _text(runtime.driverGetVersion()),
        "runtime": _text(runtime.runtimeGetVersion()),
    }


def _text(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
