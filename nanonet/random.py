"""Randomness by name: every stream of random numbers is keyed by a seed and the stream's name.

`generator(seed, "batches", epoch)` gives the same numbers on every machine and in every process, whatever
other streams were drawn before. Philox (Salmon et al. 2011) is counter-based, so a key is all it takes.
"""

from __future__ import annotations

import itertools
import operator

import numpy as np

from nanonet.errors import OptionError

__all__ = ["as_generator", "generator", "key", "next_seed", "seed"]

Stream = int | str


def key(seed: int, *stream: Stream, bits: int = 128) -> int:
    """The Philox key of a stream: `bits` bits (a multiple of 8) of BLAKE2b over the seed and the names.

    Raises OptionError when the seed is no integer or a name neither integer nor text.
    """
    from hashlib import blake2b

    parts = (_integer("seed", seed), *(_name(part) for part in stream))
    digest = blake2b(ascii(parts).encode(), digest_size=bits // 8).digest()
    return int.from_bytes(digest, "little")


def generator(seed: int, *stream: Stream) -> np.random.Generator:
    """A generator whose numbers depend on nothing but `seed` and the names of the stream, in order."""
    return np.random.Generator(np.random.Philox(key=key(seed, *stream)))


def as_generator(rng: np.random.Generator | int | None) -> np.random.Generator:
    """A generator as it is, one for an integer seed, or for None the next of the process."""
    if isinstance(rng, np.random.Generator):
        return rng
    return generator(next_seed() if rng is None else rng)


# The process's default: (seed, how many were taken). One tuple, replaced whole, and a counter that steps
# atomically: threads need no lock, and a fork cannot inherit a held one.
_default = (0, itertools.count())


def seed(value: int) -> None:
    """Start the process's default randomness anew. Without a call the seed is 0."""
    global _default
    _default = (_integer("seed", value), itertools.count())


def next_seed() -> int:
    """A fresh seed in [0, 2^63) for whoever was given none. Thread-safe; repeats after `seed(n)`."""
    start, taken = _default
    return key(start, "next seed", next(taken), bits=64) >> 1


def _integer(argument: str, value: object) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise OptionError(f"{argument} is {value!r}; wanted an integer") from None


def _name(part: object) -> Stream:
    return str(part) if isinstance(part, str) else _integer("a stream's name", part)
