"""Points that fill the cube more evenly than random ones."""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np

from ..errors import SpaceError
from ..space import Domain, Space
from .base import History, Sampler, keyed_integer

__all__ = ["QMCSampler", "sobol_point"]

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


@lru_cache(maxsize=32)
def _sobol(dimensions: int, log2_count: int) -> np.ndarray:
    """The first 2 ** log2_count points in order, as 32 bits behind the point, uint32 (count, dimensions)."""
    from scipy.stats import qmc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about counts that are no power of two
        points = qmc.Sobol(dimensions, scramble=False, bits=32).random_base2(log2_count)
    return (points * 2.0**32).astype(np.uint32)


@lru_cache(maxsize=8)
def _seeds(seed: int, dimensions: int) -> np.ndarray:
    return np.array([keyed_integer(seed, "sobol", axis) & 0xFFFFFFFF for axis in range(dimensions)], dtype=np.uint32)


def _scramble(bits: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Owen's nested scrambling by a hash: each bit is flipped depending on the bits above it (Laine & Karras 2011).

    On the reversed word a bit may then depend on lower ones only: sums do that, and products with even numbers.
    """
    x = _reverse(bits) + seeds
    for multiplier in (0x9E3779B2, 0x7FEB352C, 0x846CA68A, 0x5BD1E994):
        x = x ^ (x * np.uint32(multiplier))
        x = x + (seeds ^ np.uint32(multiplier))
    return _reverse(x)


def _reverse(x: np.ndarray) -> np.ndarray:
    """The 32 bits of each word in reverse."""
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF)):
        s, m = np.uint32(shift), np.uint32(mask)
        x = ((x >> s) & m) | ((x & m) << s)
    return x
