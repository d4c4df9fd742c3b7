"""Slots that remember what they launched for arguments of a kind, so that Python decides it only once.

Two calls are of a kind if their arguments differ in the contents and addresses of arrays alone. The second one repeats
the launches of the first with its own addresses, and with scratch memory of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from kernels import plan, precision
from kernels.cupy_gpu.device import Device, Launch
from kernels.determinism import mode as choice

__all__ = ["traced"]

#: Kinds of arguments that a slot remembers in each thread, before it begins anew.
MOST = 2048


def traced(device: Device, slot: Callable[..., None]) -> Callable[..., None]:
    """The slot, which does nothing but launch kernels on memory of its arguments and of `device.empty`, as one that
    remembers. Calls that are recorded in a plan take the slot itself."""
    cache = _Cache()
    kind = device.memory.kind

    @wraps(slot)
    def call(*arguments: Any, **named: Any) -> None:
        if plan.current() is not None or device.tracing.trace is not None:
            slot(*arguments, **named)
            return
        arrays: list[Any] = []
        addresses: list[int] = []
        key: list[Any] = [precision.mode.products, choice.deterministic, choice.benchmark, len(arguments), *named]
        for x in (*arguments, *named.values()):
            if type(x) is kind:
                address = device.address(x)
                same = addresses.index(address) if address in addresses else -1
                key += (x.shape, x.strides, x.dtype.num, address % 16, same)
                arrays.append(x)
                addresses.append(address)
            elif type(x) is np.ndarray:
                key += (x.shape, x.dtype.num, x.tobytes())
            else:
                key += (type(x), x)
        known = tuple(key)
        try:
            trace = cache.traces.get(known)
        except TypeError:  # an argument is a list
            slot(*arguments, **named)
            return
        if trace is not None:
            trace.repeat(addresses)
            return
        trace = device.tracing.trace = Trace(device, arrays)
        try:
            slot(*arguments, **named)
        finally:
            device.tracing.trace = None
        if len(cache.traces) >= MOST:
            cache.traces.clear()
        if trace.forget_arguments():
            cache.traces[known] = trace

    return call


class _Cache(threading.local):
    """The traces of a slot; a thread writes its own addresses into their launches."""

    def __init__(self):
        self.traces: dict[tuple, Trace] = {}


class Trace:
    """The launches of one call of a slot, with where their arrays come from."""

    def __init__(self, device: Device, arrays: Sequence[Any]):
        self._device = device
        self._sources: list[Any] = list(arrays)
        self._scratch: list[tuple[tuple[int, ...], Any]] = []
        self._steps: list[tuple[Launch, list[tuple[int, int, int]]]] = []
        self._keep: list[Any] = []
        self._good = True  # as long as the launches are known by the kind of the arguments
        self._ranges = [_range(device, x) for x in arrays]
        places = [(device.address(x), *ends) for x, ends in zip(arrays, self._ranges)]
        self._apart = not any(a != b and a[1] < b[2] and b[1] < a[2] for i, a in enumerate(places) for b in places[:i])

    def scratch(self, array: Any) -> None:
        self._scratch.append((array.shape, array.dtype))
        self._sources.append(array)
        self._ranges.append(_range(self._device, array))

    def made(self, call: Callable[[], None], arguments: Sequence[Any]) -> None:
        if not isinstance(call, Launch):
            self._good = False
            return
        places = []
        for start, x in zip(call.arguments.starts, arguments, strict=True):
            if type(x) is self._device.memory.kind:
                found = self._place(x)
                if found is None:
                    self._keep.append(x)  # a constant of the slot
                else:
                    places.append((start, *found))
        self._steps.append((call, places))

    def _place(self, x: Any) -> tuple[int, int] | None:
        """(source, bytes from its first element) of an array; None if it is in none of them."""
        for i, source in enumerate(self._sources):
            if x is source:
                return i, 0
        low, high = _range(self._device, x)
        for i, (start, end) in enumerate(self._ranges):
            if start <= low and high <= end:
                self._good &= self._apart
                return i, self._device.address(x) - self._device.address(self._sources[i])
        return None

    def forget_arguments(self) -> bool:
        """Whether the trace can be repeated; it keeps none of the arrays of the call."""
        self._sources = self._ranges = []
        return self._good

    def repeat(self, addresses: Sequence[int]) -> None:
        """Launch the same on arrays that lie there."""
        if self._scratch:
            scratch = [self._device.empty(shape, dtype) for shape, dtype in self._scratch]
            addresses = [*addresses, *map(self._device.address, scratch)]
        for launch, places in self._steps:
            words = launch.arguments.words
            for word, source, offset in places:
                words[word] = addresses[source] + offset
            launch()


def _range(device: Device, x: Any) -> tuple[int, int]:
    """(first byte, byte after the last) of an array."""
    first = device.address(x)
    if x.size == 0:
        return first, first
    ends = [(side - 1) * stride for side, stride in zip(x.shape, x.strides)]
    return first + sum(e for e in ends if e < 0), first + sum(e for e in ends if e > 0) + x.itemsize
