"""Which coordinates of a point count, also where no condition was declared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...space import Space

__all__ = ["activity"]

FEW = 32
"""Only parameters of at most so many values are held for the parent of others."""


def activity(space: Space, points: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function of points (m, dimensions) in the cube: which coordinates count, bool of that shape.

    points: the earlier ones, (n, dimensions), snapped, NaN where inactive. The space's own conditions hold. A parameter
    without one that some trials lack (an objective may ask for it in one branch only) is taken to depend on the first
    parameter before it whose values tell its presence in all earlier trials; if there is none, it always counts.
    """
    learned = {}
    for axis in np.flatnonzero(np.isnan(points).any(axis=0)):
        if space.names[axis] not in space.conditions:
            rule = _rule(space, points, axis)
            if rule is not None:
                learned[int(axis)] = rule
    if not learned:
        return space.active

    def active(others: np.ndarray) -> np.ndarray:
        result = space.active(others)
        for axis, (parent, rule) in learned.items():
            result[:, axis] &= rule(np.where(result[:, parent], others[:, parent], -1.0))
        return result

    return active


def _rule(space: Space, points: np.ndarray, axis: int) -> tuple[int, Callable[[np.ndarray], np.ndarray]] | None:
    present = ~np.isnan(points[:, axis])
    for parent, domain in enumerate(list(space.parameters.values())[:axis]):
        if domain.size is None or domain.size > FEW:
            continue
        values, which = np.unique(np.nan_to_num(points[:, parent], nan=-1.0), return_inverse=True)
        share = np.bincount(which, weights=present) / np.bincount(which)
        if len(values) > 1 and np.isin(share, (0.0, 1.0)).all():
            return parent, _lookup(values, share > 0, domain.kind != "categorical")
    return None


def _lookup(values: np.ndarray, flags: np.ndarray, ordered: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Unseen values: as the nearest seen one if they are ordered, else true."""

    def look(at: np.ndarray) -> np.ndarray:
        gaps = np.abs(at[:, None] - values)
        nearest = gaps.argmin(axis=1)
        known = flags[nearest]
        return known if ordered else known | (gaps[np.arange(len(at)), nearest] > 1e-9)

    return look
