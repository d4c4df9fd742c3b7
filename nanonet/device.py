"""Devices: where a tensor's values lie, and how they get elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kernels import plan, registry
from kernels.memory import HOST, Memory
from kernels.plan import memory_of
from nanonet.errors import BackendUnavailable, DeviceError

__all__ = [
    "assign",
    "chosen",
    "copied",
    "default_device",
    "default_memory",
    "get_default_device",
    "host",
    "memory",
    "memory_of",
    "moved",
    "same_device",
    "set_default_device",
    "share_memory",
    "writable",
    "write",
]


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


class Default(threading.local):
    """Where this thread makes tensors."""

    memory: Memory = HOST


default = Default()


def default_memory() -> Memory:
    """The memory of the default device; a step that is being recorded then depends on it."""
    recorder = plan.current()
    if recorder is not None:
        recorder.guard(default, "memory")
    return default.memory


def set_default_device(device: str) -> None:
    """Make tensors on a device ("cpu", "cuda") wherever none is asked for, in this thread, as in PyTorch.

    What numbers, lists and arrays of the host are made to goes there: by `tensor`, `as_tensor`, `zeros`, `ones`,
    `full`, `arange`, `eye`, `rand`, `randn`, parameters and buffers of layers, random streams, and arrays that are
    given to operations and to recorded steps in the place of tensors; `Run` and `tune` train there, and `fit` where the
    model is. Left where they are: tensors and arrays that lie on some device, `from_dlpack`, and `Tensor(array)`, which
    shares the array's memory. `nanonet.data` gives arrays of the host. What has been made before is not moved.

    Other threads have their own default, which is "cpu" at first. Raises DeviceError for another name, and
    BackendUnavailable with the reason where there is no GPU.
    """
    default.memory = memory(device)


def get_default_device() -> str:
    """Where this thread makes tensors for which no device is given: "cpu" or "cuda"."""
    return default.memory.device


def chosen(device: str | None) -> str:
    """The device that is asked for; for None the default one."""
    return get_default_device() if device is None else device


@contextmanager
def default_device(device: str) -> Iterator[None]:
    """Within this context (or decorated function) the default device is another one; see `set_default_device`."""
    before = default.memory
    set_default_device(device)
    try:
        yield
    finally:
        default.memory = before


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


def share_memory(array: Any, other: Any) -> bool:
    """Whether two arrays are views of the same memory, be it of different parts."""
    return type(array) is type(other) and memory_of(array).key(array) == memory_of(other).key(other)


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
