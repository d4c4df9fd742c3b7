"""Random numbers inside a step: counter-based, so that a replay draws new ones and a seed always the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels import plan
from kernels.memory import Memory
from kernels.registry import backend_of
from nanonet import random
from nanonet.device import copied, default_memory, memory, memory_of, moved
from nanonet.errors import OptionError
from nanonet.random import key, next_seed
from nanonet.tensor import Tensor, dtype_of, float32, forbid_recording


class Stream:
    """A stream of random numbers: `state` is (seed, stream, step), int64, and step grows by one with each draw.

    Its numbers depend on nothing else, so a stream restored from its state goes on as it would have. It begins on the
    default device.
    """

    def __init__(self, seed: int | None = None, stream: int = 0):
        seed = next_seed() if seed is None else seed
        self.state = moved(np.array([key(seed, bits=64) >> 1, stream, 0], np.int64), default_memory())

    def __deepcopy__(self, memo: dict) -> Stream:
        made = memo[id(self)] = type(self).__new__(type(self))
        made.state = copied(self.state)
        return made

    def to(self, memory: Memory) -> Stream:
        """Go on on another device."""
        self.state = moved(self.state, memory)
        return self

    def draw(
        self,
        kernel: str,
        shape: Sequence[int],
        *constants: float,
        dtype: np.dtype = float32,
        beside: Any = None,
    ) -> Tensor:
        """Numbers from a slot of the contract, on the device of `beside`, an array or a memory, or on the default one.

        The state follows to the device that draws, which a recorded step may not ask of it.
        """
        place = default_memory() if beside is None else beside if isinstance(beside, Memory) else memory_of(beside)
        out = plan.empty_in(place, tuple(shape), dtype)
        backend = backend_of(out)
        if type(self.state) is not backend.memory.kind:
            forbid_recording("a random stream that moves from one device to another")
            self.to(backend.memory)
        getattr(backend, kernel)(self.state, *constants, out=out)
        backend.advance(self.state[2:].reshape(()), 1)
        return Tensor(out)


_default: tuple[object, int, dict[Memory, Stream]] | None = None


def default_stream(memory: Memory) -> Stream:
    """The stream that operations on a device draw from when they are given none; `nanonet.seed` starts it anew.

    Each device has its own, and all begin with the same numbers.
    """
    global _default
    recorder = plan.current()
    if recorder is not None:
        recorder.guard(random, "_default")
    if _default is None or _default[0] is not random._default:
        _default = (random._default, next_seed(), {})
    _, seed, streams = _default
    if memory not in streams:
        streams[memory] = Stream(seed).to(memory)
    return streams[memory]


def rand(*shape: int, rng: Stream | None = None, dtype=float32, device: str | None = None) -> Tensor:
    """Uniform in [0, 1), on the default device unless another is given."""
    return _draw("random_uniform", shape, rng, dtype, device)


def randn(*shape: int, rng: Stream | None = None, dtype=float32, device: str | None = None) -> Tensor:
    """Normal with mean 0 and standard deviation 1, on the default device unless another is given."""
    return _draw("random_normal", shape, rng, dtype, device)


def _draw(kernel: str, shape: Sequence[int], rng: Stream | None, dtype: Any, device: str) -> Tensor:
    place = default_memory() if device is None else memory(device)
    return (rng or default_stream(place)).draw(kernel, shape, dtype=dtype_of(dtype), beside=place)


def dropout(x: Tensor, p: float = 0.5, training: bool = True, rng: Stream | None = None) -> Tensor:
    """x with each element set to zero with probability p, the others times 1 / (1 - p) (Srivastava et al. 2014).

    x itself when not training or p = 0. Raises OptionError unless 0 <= p < 1.
    """
    if not 0 <= p < 1:
        raise OptionError(f"dropout: p is {p}, wanted 0 <= p < 1")
    if not training or p == 0:
        return x
    place = memory_of(x.array)
    return x * (rng or default_stream(place)).draw("dropout_mask", x.shape, p, dtype=x.dtype, beside=place)
