"""Points that fill the cube more evenly than random ones."""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np

from ..errors import SpaceError
from ..space import Domain, Space
from .base import History, Sampler, keyed_integer
from .sobol import AXES, sobol_bits

__all__ = ["QMCSampler", "central_point", "sobol_point"]

SPREAD = 1 / 6  # of central points: a deviation, as a share of the range
LOW = 3  # dimensions in which even points see enough of the middle
MAX_DIMENSIONS = 21201  # the table of Joe & Kuo


class QMCSampler(Sampler):
    """Sobol points (Joe & Kuo 2008), scrambled by the study's seed (Owen 1998).

    Without a fixed space, the n-th parameter that a trial asks for takes the n-th axis: branches that never meet in
    one trial share axes, and what is proposed depends on nothing but the trial's number.
    """

    def propose(self, space: Space, history: History, number: int, seed: int) -> np.ndarray:
        return sobol_point(space.dimensions, number, seed)

    def coordinate(self, name: str, domain: Domain, position: int, history: History, number: int, seed: int) -> float:
        return float(sobol_point(position + 1, number, seed)[position])


def sobol_point(dimensions: int, number: int, seed: int) -> np.ndarray:
    """The number-th scrambled Sobol point, shape (dimensions,), in [0, 1). A prefix of that with more dimensions."""
    if dimensions == 0:
        return np.empty(0)
    if dimensions > MAX_DIMENSIONS:
        raise SpaceError(f"Sobol points have at most {MAX_DIMENSIONS} dimensions, the space has {dimensions}")
    block = min(1 << (dimensions - 1).bit_length(), MAX_DIMENSIONS)
    bits = _sobol(block, max(number.bit_length(), 6))[number, :dimensions]
    return _scramble(bits, _seeds(seed, dimensions)) * 2.0**-32


def central_point(space: Space, number: int, seed: int) -> np.ndarray:
    """Where to look before anything is known, shape (dimensions,): the number-th point around the first default.

    Without defaults, around the middle, which is the median of every prior. Point 0 is the middle itself; the others
    are scrambled Sobol points, in more than `LOW` dimensions turned into a normal distribution for what has an order:
    nearly all uniform points of such a cube lie at its rim, far from most places where the best one may be.
    """
    from scipy.special import ndtri

    centre = np.full(space.dimensions, 0.5)
    if space.defaults:
        centre = space.encode(space.decode(centre, space.defaults[0]))
    if number == 0:
        return centre
    point = sobol_point(space.dimensions, number, seed)
    if space.dimensions <= LOW:
        return point
    ordered = np.array([domain.kind != "categorical" for domain in space.parameters.values()], dtype=bool)
    moved = np.abs(centre + SPREAD * ndtri(np.clip(point, 1e-6, 1 - 1e-6)))  # what leaves the cube is folded back
    return np.where(ordered, np.clip(np.where(moved > 1, 2 - moved, moved), 0.0, 1.0), point)


@lru_cache(maxsize=32)
def _sobol(dimensions: int, log2_count: int) -> np.ndarray:
    """The first 2 ** log2_count points in order, as 32 bits behind the point, uint64 (count, dimensions)."""
    if dimensions <= AXES:
        return sobol_bits(dimensions, log2_count)
    from scipy.stats import qmc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about counts that are no power of two
        points = qmc.Sobol(dimensions, scramble=False, bits=32).random_base2(log2_count)
    return (points * 2.0**32).astype(np.uint64)


@lru_cache(maxsize=8)
def _seeds(seed: int, dimensions: int) -> np.ndarray:
    return np.array([keyed_integer(seed, "sobol", axis) for axis in range(dimensions)], dtype=np.uint64)


_LEVELS = np.arange(32, dtype=np.uint64)


def _scramble(bits: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Nested uniform scrambling: each bit is flipped or not depending on the bits above it. uint64 (dimensions,).

    A bit's place in the binary tree of prefixes is node = 2 ** level + the bits above it; a random bit that belongs
    to (axis, node) says whether to flip.
    """
    nodes = (bits[:, None] + np.uint64(1 << 32)) >> (np.uint64(32) - _LEVELS)
    flips = _mix(_mix(nodes) ^ seeds[:, None]) >> np.uint64(63)
    return bits ^ (flips << (np.uint64(31) - _LEVELS)).sum(axis=1, dtype=np.uint64)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al. 2014): every bit depends on every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
