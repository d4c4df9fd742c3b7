"""Random numbers inside a step: counter-based, so that a replay draws new ones and a seed always the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels import plan
from kernels.memory import Memory
from kernels.registry import backend_of
from nanonet import random
from nanonet.device import copied, memory, moved
from nanonet.errors import OptionError
from nanonet.random import key, next_seed
from nanonet.tensor import Tensor, dtype_of, float32, forbid_recording


class Stream:
    """A stream of random numbers: `state` is (seed, stream, step), int64, and step grows by one with each draw.

    Its numbers depend on nothing else, so a stream restored from its state goes on as it would have.
    """

    def __init__(self, seed: int | None = None, stream: int = 0):
        seed = next_seed() if seed is None else seed
        self.state = np.array([key(seed, bits=64) >> 1, stream, 0], np.int64)

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
        beside: np.ndarray | None = None,
    ) -> Tensor:
        """Numbers from a slot of the contract, on the device of the array `beside` (the CPU without it).

        The state follows to the device that draws, which a recorded step may not ask of it.
        """
        out = plan.empty(np if beside is None else beside, tuple(shape), dtype)
        backend = backend_of(out)
        if type(self.state) is not backend.memory.kind:
            forbid_recording("a random stream that moves from one device to another")
            self.to(backend.memory)
        getattr(backend, kernel)(self.state, *constants, out=out)
        backend.advance(self.state[2:].reshape(()), 1)
        return Tensor(out)


_default: tuple[object, Stream] | None = None


def default_stream() -> Stream:
    """The stream that operations draw from when they are given none; `nanonet.seed` starts it anew."""
    global _default
    recorder = plan.current()
    if recorder is not None:
        recorder.guard(random, "_default")
    if _default is None or _default[0] is not random._default:
        _default = (random._default, Stream())
    return _default[1]


def rand(*shape: int, rng: Stream | None = None, dtype=float32, device: str = "cpu") -> Tensor:
    """Uniform in [0, 1)."""
    return _draw("random_uniform", shape, rng, dtype, device)


def randn(*shape: int, rng: Stream | None = None, dtype=float32, device: str = "cpu") -> Tensor:
    """Normal with mean 0 and standard deviation 1."""
    return _draw("random_normal", shape, rng, dtype, device)


def _draw(kernel: str, shape: Sequence[int], rng: Stream | None, dtype: Any, device: str) -> Tensor:
    beside = None if device == "cpu" else memory(device).empty((0,), np.float32)
    return (rng or default_stream()).draw(kernel, shape, dtype=dtype_of(dtype), beside=beside)


def dropout(x: Tensor, p: float = 0.5, training: bool = True, rng: Stream | None = None) -> Tensor:
    """x with each element set to zero with probability p, the others times 1 / (1 - p) (Srivastava et al. 2014).

    x itself when not training or p = 0. Raises OptionError unless 0 <= p < 1.
    """
    if not 0 <= p < 1:
        raise OptionError(f"dropout: p is {p}, wanted 0 <= p < 1")
    if not training or p == 0:
        return x
    return x * (rng or default_stream()).draw("dropout_mask", x.shape, p, dtype=x.dtype, beside=x.array)
