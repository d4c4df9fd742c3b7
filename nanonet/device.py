"""Devices: where a tensor's values lie, and how they get elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import plan, registry
from kernels.memory import HOST, Memory
from kernels.plan import memory_of
from nanonet.errors import BackendUnavailable, DeviceError

__all__ = ["assign", "copied", "host", "memory", "memory_of", "moved", "same_device", "writable", "write"]


def memory(device: Any) -> Memory:
    """The memory of a device: "cpu"; "cuda" or "cuda:0", the GPU.

    Raises DeviceError for another name, BackendUnavailable with the reason where there is no GPU.
    """
    if device == "cpu":
        return HOST
    if device in ("cuda", "cuda:0"):
        try:
            return registry.gpu().memory
        except BackendUnavailable as error:
            raise BackendUnavailable(f"device: {device!r} is not available here: {error}") from None
    raise DeviceError(f"device is {device!r}; wanted 'cpu' or 'cuda'")


def host(array: Any) -> np.ndarray:
    """The values of an array of any device, for reading."""
    return array if type(array) is np.ndarray else memory_of(array).to_host(array)


def moved(array: Any, to: Memory) -> Any:
    """The array itself if it lies there, else a copy."""
    return array if type(array) is to.kind else to.from_host(host(array))


def write(array: Any, values: Any) -> None:
    """array[...] = values, which are of the host, on any device."""
    memory_of(array).write(array, np.asarray(values))


def assign(out: Any, x: Any) -> None:
    """out[...] = x, both on one device; never recorded."""
    if type(out) is np.ndarray:
        out[...] = x
    else:
        with plan.paused():
            registry.backend_of(out).copy(x, out=out)


def copied(array: Any, dtype: Any = None) -> Any:
    """A copy on the same device, C-contiguous there; never recorded."""
    if type(array) is np.ndarray:
        return np.array(array, dtype, order="C")
    made = memory_of(array).empty(array.shape, array.dtype if dtype is None else dtype)
    assign(made, array)
    return made


def writable(array: Any) -> bool:
    """Whether an array may be changed in place. Arrays of a device know nothing that forbids it."""
    return type(array) is not np.ndarray or array.flags.writeable


def same_device(name: str, arrays: list[Any]) -> Any:
    """The array beside which the result of an operation belongs. Raises DeviceError if the devices differ.

    Constants of the host (read-only, without axes) go with any device.
    """
    first = None
    for array in arrays:
        if type(array) is type(first) or (type(array) is np.ndarray and not array.ndim and not array.flags.writeable):
            continue
        if first is None:
            first = array
        else:
            devices = " and ".join(f"{memory_of(a).device} (shape {a.shape})" for a in (first, array))
            raise DeviceError(f"{name}: got tensors on {devices}; move one with .to(device)")
    return arrays[0] if first is None else first
