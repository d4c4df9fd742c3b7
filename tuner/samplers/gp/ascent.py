"""Climbs from several starts at once to local maxima, by a projected quasi-Newton method."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["ascend"]

SUFFICIENT = 1e-4  # Armijo's constant
SHRINK = 0.3
LEAST_STEP = 1e-8


def ascend(
    function: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    starts: np.ndarray,
    low: np.ndarray | float = -np.inf,
    high: np.ndarray | float = np.inf,
    evaluations: int = 40,
    tolerance: float = 1e-3,
    first_step: float = 0.1,
) -> tuple[np.ndarray, np.ndarray]:
    """Where the climbs from `starts` (s, d) end, (s, d), and the values there, (s,).

    function: (points (k, d), which starts they belong to (k,)) -> values (k,), gradients (k, d).
    evaluations: of each climb at most. tolerance: a climb ends once no entry of its projected gradient exceeds it.
    first_step: the largest change of a coordinate in the first step.

    Every climb keeps its own inverse Hessian (BFGS; Nocedal & Wright 2006, 6.17). A step that does not gain enough is
    shortened and taken again in the next round, while others move on. Coordinates at a bound that the gradient points
    out of stay there.
    """
    points = np.clip(np.array(starts, dtype=np.float64), low, high)
    count, dimensions = points.shape
    live = np.arange(count)
    values, gradients = function(points, live)
    best_points, best_values = points.copy(), values.copy()
    inverse = np.tile(np.eye(dimensions), (count, 1, 1))
    fresh = np.ones(count, dtype=bool)
    step = np.ones(count)
    for _ in range(evaluations - 1):
        free = ~(((points <= low) & (gradients <= 0)) | ((points >= high) & (gradients >= 0)))
        slope = np.where(free, gradients, 0.0)
        going = (np.abs(slope) > tolerance).any(axis=1) & (step > LEAST_STEP) & np.isfinite(values)
        if not going.all():
            keep = np.flatnonzero(going)
            live, points, values, gradients = live[keep], points[keep], values[keep], gradients[keep]
            inverse, fresh, step, free, slope = inverse[keep], fresh[keep], step[keep], free[keep], slope[keep]
            if not len(live):
                break
        direction = np.where(free, (inverse @ slope[:, :, None])[:, :, 0], 0.0)
        steepest = ((direction * slope).sum(axis=1) <= 0) | fresh
        if steepest.any():
            scale = first_step / np.maximum(np.abs(slope).max(axis=1, keepdims=True), 1e-300)
            direction[steepest] = (scale * slope)[steepest]
        trial = np.clip(points + step[:, None] * direction, low, high)
        moved = trial - points
        new_values, new_gradients = function(trial, live)
        gain = (moved * gradients).sum(axis=1)
        good = (new_values >= values + SUFFICIENT * np.maximum(gain, 0.0)) & (moved != 0).any(axis=1)
        bent = np.where(free, gradients - new_gradients, 0.0)  # of the negative function, which is minimised
        taken = np.where(free, moved, 0.0)
        curvature = (bent * taken).sum(axis=1)
        update = good & (curvature > 1e-10 * np.sqrt((bent**2).sum(axis=1) * (taken**2).sum(axis=1)))
        if update.any():
            _update(inverse, fresh, np.flatnonzero(update), taken, bent, curvature)
        points[good], values[good], gradients[good] = trial[good], new_values[good], new_gradients[good]
        step = np.where(good, 1.0, step * SHRINK)
        better = good & (values > best_values[live])
        best_points[live[better]], best_values[live[better]] = points[better], values[better]
    return best_points, best_values


def _update(inverse, fresh, rows, taken, bent, curvature) -> None:
    s, y, rho = taken[rows], bent[rows], 1.0 / curvature[rows]
    h = inverse[rows]
    first = fresh[rows]
    if first.any():  # Nocedal & Wright 6.20
        scale = curvature[rows] / np.maximum((y * y).sum(axis=1), 1e-300)
        h[first] *= scale[first, None, None]
        fresh[rows] = False
    hy = (h @ y[:, :, None])[:, :, 0]
    factor = rho * (1 + rho * (y * hy).sum(axis=1))
    outer = s[:, :, None] * hy[:, None, :]
    h += factor[:, None, None] * (s[:, :, None] * s[:, None, :]) - rho[:, None, None] * (outer + outer.swapaxes(1, 2))
    inverse[rows] = h
