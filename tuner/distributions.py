"""Frozen distributions of scipy.stats as domains: even points of the unit interval are draws from the distribution."""

from __future__ import annotations

from typing import Any

from .errors import SpaceError
from .space import Domain, Float, Int

__all__ = ["frozen"]


def frozen(distribution: Any) -> Domain:
    """The domain of a frozen distribution of scipy.stats. SpaceError if it has no counterpart."""
    name = distribution.dist.name
    low, high = map(float, distribution.support())
    if name == "uniform":
        return Float(low, high)
    if name in ("loguniform", "reciprocal"):
        return Float(low, high, log=True)
    if name == "randint":
        return Int(int(low), int(high))
    raise SpaceError(f"{name}: no domain for this distribution")
