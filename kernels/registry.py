"""Which backends there are, and which one serves an array."""

import importlib.util
import os
from functools import cache
from typing import Any

import numpy as np

from kernels.contract import Backend
from kernels.errors import BackendUnavailable

NAMES = ("numba_cpu", "reference", "cupy_gpu")


def available() -> dict[str, str | None]:
    """For each backend None if it works here, else the reason why it does not."""
    return {name: _reason(name) for name in NAMES}


def _reason(name: str) -> str | None:
    if name == "reference":
        return None
    if name == "cupy_gpu":
        return "the GPU backend is not part of this release"
    for package in ("numba", "llvmlite"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed (pip install {package})"
    return None


@cache
def get(name: str) -> Backend:
    """The backend of that name. Raises BackendUnavailable with the reason."""
    if name not in NAMES:
        raise BackendUnavailable(f"no backend is called {name!r}; there are {', '.join(NAMES)}")
    reason = _reason(name)
    if reason is not None:
        raise BackendUnavailable(f"backend {name}: {reason}")
    if name == "numba_cpu":
        from kernels.numba_cpu.backend import backend

        return backend()
    from kernels.reference import reference

    return reference(np)


_cpu: Backend | None = None


def cpu() -> Backend:
    """The backend for NumPy arrays: $NANONET_BACKEND, else Numba where it works, else the reference."""
    global _cpu
    if _cpu is None:
        wanted = os.environ.get("NANONET_BACKEND")
        _cpu = get(wanted) if wanted else get("numba_cpu" if _reason("numba_cpu") is None else "reference")
    return _cpu


def use(backend: str | Backend) -> Backend:
    """Make a backend, or the one of that name, the one for NumPy arrays, and return it."""
    global _cpu
    _cpu = backend if isinstance(backend, Backend) else get(backend)
    return _cpu


def backend_of(array: Any) -> Backend:
    """The backend that computes on this kind of array."""
    return cpu()
