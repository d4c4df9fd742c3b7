"""What a sampler is, and the keyed random numbers that all of them draw from."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from ..space import Domain, Space
from ..trial import FrozenTrial
from .history import History, Observations

__all__ = ["History", "Observations", "Sampler", "keyed_integer", "keyed_uniform"]


class Sampler(ABC):
    """Proposes points of the unit cube. It keeps no record of its own: all it knows is in its arguments.

    seed: fixes the study's random numbers; None takes the study's own seed, which is drawn once and stored.
    constraints_func: FrozenTrial -> numbers, which are at most 0 if the trial is feasible. It is called once, when a
        trial ends with values.
    """

    learns = False
    """Whether proposals depend on the values of earlier trials."""
    repeats = False
    """Whether its points are taken as they are. Otherwise one near to it is taken instead of a point that was tried or
    that the space's constraints turn away."""
    constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None

    def __init__(
        self, seed: int | None = None, constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None
    ):
        if constraints_func is not None and not callable(constraints_func):
            raise TypeError(f"{type(self).__name__}: constraints_func must be a function, got {constraints_func!r}")
        self.constraints_func = constraints_func
        if seed is not None and (isinstance(seed, bool) or int(seed) != seed):
            raise ValueError(f"{type(self).__name__}: seed must be a whole number or None, got {seed!r}")
        self.seed = None if seed is None else int(seed)

    @abstractmethod
    def propose(self, space: Space, history: History, number: int, seed: int) -> np.ndarray:
        """The point for trial `number`, float64 of shape (space.dimensions,) in [0, 1].

        The same arguments give the same point, whatever was proposed before.
        """

    def coordinate(self, name: str, domain: Domain, position: int, history: History, number: int, seed: int) -> float:
        """The place in [0, 1] for a parameter outside the proposed space, met as the position-th of this trial."""
        return keyed_uniform(seed, number, name)

    def limit(self, space: Space | None) -> int | None:
        """How many different proposals there are; None if there is no end to them."""
        return None


def keyed_integer(*key: object) -> int:
    """64 random bits that depend on the key alone: the same in every process, version and machine."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")


def keyed_uniform(*key: object) -> float:
    """A random number in [0, 1) that depends on the key alone."""
    return (keyed_integer(*key) >> 11) * 2.0**-53
