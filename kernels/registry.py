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
    return {name: reason(name) for name in NAMES}


def reason(name: str) -> str | None:
    """None if the backend works here, else why it does not. (That of the GPU imports CuPy to find out.)"""
    if name == "reference":
        return None
    if name == "cupy_gpu":
        from kernels.cupy_gpu.check import reason

        return reason()
    for package in ("numba", "llvmlite"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed (pip install {package})"
    return None


@cache
def get(name: str) -> Backend:
    """The backend of that name. Raises BackendUnavailable with the reason."""
    if name not in NAMES:
        raise BackendUnavailable(f"no backend is called {name!r}; there are {', '.join(NAMES)}")
    missing = reason(name)
    if missing is not None:
        raise BackendUnavailable(f"backend {name}: {missing}")
    if name == "numba_cpu":
        from kernels.numba_cpu.backend import backend

        return backend()
    if name == "cupy_gpu":
        from kernels.cupy_gpu.backend import cuda

        return cuda()
    from kernels.reference import reference

    return reference(np)


_cpu: Backend | None = None


def cpu() -> Backend:
    """The backend for NumPy arrays: $NANONET_BACKEND, else Numba where it works, else the reference."""
    global _cpu
    if _cpu is None:
        wanted = os.environ.get("NANONET_BACKEND")
        _cpu = get(wanted) if wanted else get("numba_cpu" if reason("numba_cpu") is None else "reference")
    return _cpu


def use(backend: str | Backend) -> Backend:
    """Make a backend, or the one of that name, the one for NumPy arrays, and return it."""
    global _cpu
    _cpu = backend if isinstance(backend, Backend) else get(backend)
    return _cpu


#: Backends of arrays that are not on the host, by the type of array; those that are in use.
others: dict[type, Backend] = {}


def gpu() -> Backend:
    """The backend for arrays on the GPU. Raises BackendUnavailable with the reason."""
    found = next((backend for backend in others.values() if backend.memory.device == "cuda"), None)
    return found or register(get("cupy_gpu"))


def register(backend: Backend) -> Backend:
    """Make a backend the one for its own kind of arrays, which are not NumPy's, and return it."""
    others[backend.memory.kind] = backend
    return backend


def elsewhere(thing: Any) -> bool:
    """Whether it is an array that is not on the host."""
    kind = type(thing)
    return kind in others or (kind.__module__.partition(".")[0] == "cupy" and hasattr(thing, "shape"))


def backend_of(beside: Any) -> Backend:
    """The backend that computes on an array, or on the arrays that a module makes."""
    kind = type(beside)
    if kind is np.ndarray or beside is np:
        return cpu()
    found = others.get(kind)
    if found is not None:
        return found
    if isinstance(beside, np.ndarray):
        return cpu()
    for backend in others.values():
        if beside is backend.xp:
            return backend
    if "cupy" in (kind.__module__.partition(".")[0], getattr(beside, "__name__", "")):
        return gpu()
    raise TypeError(f"no backend computes on {kind.__name__}")
