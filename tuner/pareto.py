"""Comparing by several objectives: dominance, crowding, hypervolume, and one order from best to worst.

Points are float arrays of shape (n, objectives), small values being good in every objective. A point dominates
another if it is nowhere worse and somewhere better. A point with a NaN counts as infinitely bad.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

__all__ = [
    "HUGE",
    "best",
    "bounded",
    "crowding",
    "hypervolume",
    "losses",
    "non_dominated_ranks",
    "order",
    "pareto_front",
]


HUGE = 1e150
"""Larger values tell no more than this one, and its square is still a number."""


def bounded(values: np.ndarray) -> np.ndarray:
    """The values, finite ones at most `HUGE` in size; infinite ones and NaN as they are."""
    return np.where(np.isfinite(values), np.clip(values, -HUGE, HUGE), values)


def pareto_front(points: np.ndarray) -> np.ndarray:
    """Which points no other one dominates, bool of shape (n,). Points that are equal are on the front together."""
    return non_dominated_ranks(points) == 0


def non_dominated_ranks(points: np.ndarray) -> np.ndarray:
    """The front that each point lies on, int64 of shape (n,): 0 for those that none dominates, 1 for those that only
    points of front 0 dominate, and so on (Goldberg 1989).

    In lexicographic order a point comes after all that dominate it, so one pass is enough: O(n log n) with two
    objectives (Jensen 2003), O(n^2) in vectorised rows with more.
    """
    distinct, place = np.unique(_clean(points), axis=0, return_inverse=True)
    ranks = np.zeros(len(distinct), np.int64)
    if distinct.shape[1] == 1:
        ranks = np.arange(len(distinct))
    elif distinct.shape[1] == 2:
        lowest: list[float] = []  # the smallest second value on each front so far, which rises from front to front
        for i, second in enumerate(distinct[:, 1].tolist()):
            ranks[i] = front = bisect_right(lowest, second)
            lowest[front : front + 1] = [second]
    else:
        for i in range(1, len(distinct)):
            above = (distinct[:i] <= distinct[i]).all(axis=1)
            ranks[i] = ranks[:i][above].max(initial=-1) + 1
    return ranks[place.reshape(-1)]


def crowding(points: np.ndarray, ranks: np.ndarray | None = None) -> np.ndarray:
    """How far apart each point's neighbours on its front are, float64 of shape (n,) (Deb et al. 2002, section III B).

    The sum over the objectives of the gap between the next smaller and the next larger value, as a share of the
    front's range; infinite at the ends. ranks: the points' fronts; None takes all points as one front.
    """
    points = _clean(points)
    ranks = np.zeros(len(points), np.int64) if ranks is None else np.asarray(ranks)
    distances = np.zeros(len(points))
    for column in points.T:
        by_value = np.lexsort((column, ranks))
        value, front = column[by_value], ranks[by_value]
        first = np.r_[True, front[1:] != front[:-1]][: len(front)]
        last = np.r_[front[1:] != front[:-1], True][: len(front)]
        begins = np.flatnonzero(first)
        lengths = np.diff(np.r_[begins, len(front)])
        with np.errstate(invalid="ignore"):
            span = np.repeat(value[last] - value[first], lengths)
            gap = (np.r_[value[1:], 0.0] - np.r_[0.0, value[:-1]])[: len(front)] / np.where(span > 0, span, 1.0)
        gap = np.nan_to_num(gap, nan=0.0, posinf=0.0)  # between infinitely bad values there is no telling
        gap[first | last] = np.inf
        distances[by_value] += gap
    return distances


def order(points: np.ndarray) -> np.ndarray:
    """Positions of the points from best to worst, int64 of shape (n,): by front, then the least crowded first, then as
    they came."""
    ranks = non_dominated_ranks(points)
    return np.lexsort((-crowding(points, ranks), ranks))


def losses(values: Sequence[float] | Sequence[Sequence[float]], signs: int | Sequence[int]) -> np.ndarray:
    """One number for each of n results, float64 of shape (n,), the smaller the better.

    values: n numbers, or n sequences with a number for each objective. signs: +1 if small values are good, -1 if large
    ones are, for each objective. With one objective a loss is the value times its sign, a NaN infinity. With several
    it is the place in `order`, so it tells only which of these n are better than which.
    """
    if len(values) == 0:
        return np.empty(0)
    points = _clean(_points(values, signs))
    if points.shape[1] == 1:
        return points[:, 0]
    places = np.empty(len(points))
    places[order(points)] = np.arange(len(points))
    return places


def best(values: Sequence[float] | Sequence[Sequence[float]], signs: int | Sequence[int]) -> int:
    """The position of the best of at least one result: with several objectives, the last one that none dominates."""
    sign = np.ravel(signs)
    if len(sign) == 1 and isinstance(values[0], float):  # the common case, and a hundred times faster
        clean = [value for value in values if value == value]
        best_value = (min(clean) if sign[0] > 0 else max(clean)) if clean else values[0]
        return max((i for i, value in enumerate(values) if value == best_value), default=len(values) - 1)
    return int(np.flatnonzero(pareto_front(_points(values, signs)))[-1])


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """The volume of what the points dominate within the box below `reference`, which has one number per objective.

    With three and more objectives, as a sum over the points of what each adds to those after it (While et al. 2012).
    """
    points, corner = _clean(points), np.asarray(reference, np.float64)
    if corner.shape != points.shape[1:]:
        raise ValueError(f"reference must have one number per objective, {points.shape[1:]}, got shape {corner.shape}")
    points = points[(points < corner).all(axis=1)]
    return _volume(points[pareto_front(points)], corner)


def _volume(front: np.ndarray, corner: np.ndarray) -> float:
    """The hypervolume of points that do not dominate each other."""
    front = np.unique(front, axis=0)
    if len(front) == 0:
        return 0.0
    if front.shape[1] == 1:
        return float(corner[0] - front[0, 0])
    if front.shape[1] == 2:
        widths = np.diff(np.r_[front[:, 0], corner[0]])
        return float(widths @ (corner[1] - front[:, 1]))
    volume = 0.0
    front = front[np.argsort(-front[:, -1], kind="stable")]
    for i, point in enumerate(front):
        inside = np.maximum(front[i + 1 :], point)  # what later points dominate of this one's box
        volume += float(np.prod(corner - point)) - _volume(inside[pareto_front(inside)], corner)
    return volume


def _points(values: Sequence[float] | Sequence[Sequence[float]], signs: int | Sequence[int]) -> np.ndarray:
    return np.asarray(values, np.float64).reshape(len(values), -1) * np.asarray(signs, np.float64)


def _clean(points: np.ndarray) -> np.ndarray:
    points = np.array(points, np.float64)
    if points.ndim != 2:
        raise ValueError(f"points must have the shape (n, objectives), got {points.shape}")
    points[np.isnan(points).any(axis=1)] = np.inf
    return points
