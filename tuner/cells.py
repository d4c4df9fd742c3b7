"""Which cell of an axis a place lies in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["Ruler"]


class Ruler:
    """Finds the cells on several axes with one search: their edges stand one after the other, 2 apart.

    edges: of each axis, rising from 0 to 1, float64 (cells + 1,).
    """

    def __init__(self, edges: Sequence[np.ndarray]):
        self._shift = 2.0 * np.arange(len(edges))
        self._edges = np.concatenate([e + shift for e, shift in zip(edges, self._shift, strict=True)] or [np.empty(0)])
        self._last = np.array([len(e) - 2 for e in edges], dtype=np.intp)
        self._begins = np.cumsum([0, *(len(e) for e in edges)])[:-1].astype(np.intp)

    def cells(self, places: np.ndarray) -> np.ndarray:
        """The cells of places in [0, 1], (..., axes): whole numbers from 0 on. Some cell for NaN."""
        found = np.searchsorted(self._edges, places + self._shift, side="right") - 1 - self._begins
        return np.minimum(np.maximum(found, 0), self._last)
