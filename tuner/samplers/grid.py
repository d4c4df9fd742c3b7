"""Every combination, once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import SpaceError, SpaceExhausted
from ..space import Domain, Int, Space
from .base import History, Sampler, keyed_integer

__all__ = ["GridSampler"]

MAX_CELLS = 1_000_000


class GridSampler(Sampler):
    """Walks all cells of a grid; the study ends when they are used up.

    search_space: name -> values, as in Optuna; None takes every value of the study's own space.
    seed: shuffles the cells; None walks them in order, the last parameter fastest.
    points: how many evenly spaced values of a continuous range are taken, both ends among them.

    Trial n takes the cell after those of the proposed trials before it, so parallel trials never share one. Cells that
    break a hard constraint are left out; soft ones are not looked at.
    """

    repeats = True

    def __init__(
        self,
        search_space: Mapping[str, Sequence[Any]] | None = None,
        seed: int | None = None,
        *,
        points: int = 5,
    ):
        super().__init__(seed)
        if points < 2:
            raise ValueError(f"GridSampler: points must be at least 2, got {points}")
        self.points = points
        self.search_space = None
        if search_space is not None:
            self.search_space = {name: list(values) for name, values in search_space.items()}
            for name, values in self.search_space.items():
                if not values:
                    raise SpaceError(f"GridSampler: search_space has no values for {name!r}")
        self._known: tuple[Space | None, list[dict[str, Any]]] | None = None

    def propose(self, space: Space, history: History, number: int, seed: int) -> np.ndarray:
        return space.encode(self._cell(space, history, number))

    def coordinate(self, name: str, domain: Domain, position: int, history: History, number: int, seed: int) -> float:
        cell = self._cell(None, history, number)
        if name not in cell:
            raise SpaceError(f"GridSampler: search_space lacks {name!r}; it has {', '.join(cell)}")
        return domain.encode(cell[name])

    def limit(self, space: Space | None) -> int | None:
        return len(self._cells(space))

    def _cell(self, space: Space | None, history: History, number: int) -> dict[str, Any]:
        cells = self._cells(space)
        place = number - sum(trial.enqueued for trial in history.trials)
        if place >= len(cells):
            raise SpaceExhausted(f"GridSampler: all {len(cells)} cells of the grid are used up")
        return cells[place]

    def _cells(self, space: Space | None) -> list[dict[str, Any]]:
        """All settings of the grid, without those that differ in inactive parameters only."""
        if self._known is None or self._known[0] is not space:
            cells = self._walk(space)
            if self.seed is not None:
                cells.sort(key=lambda cell: keyed_integer(self.seed, "grid", repr(cell)))
            self._known = space, cells
        return self._known[1]

    def _walk(self, space: Space | None) -> list[dict[str, Any]]:
        if self.search_space is None and space is None:
            raise SpaceError("GridSampler needs search_space={name: values} in a study without a fixed space")
        values = self.search_space or {}
        if space is not None:
            missing = [name for name in space.parameters if self.search_space is not None and name not in values]
            if missing:
                raise SpaceError(f"GridSampler: search_space lacks {', '.join(map(repr, missing))}")
            if self.search_space is None:
                values = {name: self._values(domain) for name, domain in space.parameters.items()}
        count = math.prod(map(len, values.values()))
        if count > MAX_CELLS:
            raise SpaceError(f"GridSampler: the grid has {count} cells, at most {MAX_CELLS} can be walked")
        every = (dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values()))
        if space is None:
            return list(every)
        active = ({name: v for name, v in cell.items() if space.is_active(name, cell)} for cell in every)
        cells = list({repr(cell): cell for cell in active if space.allows(cell)}.values())
        if not cells:
            raise SpaceError(f"no cell of the grid keeps {', '.join(map(repr, space.constraints))}")
        return cells

    def _values(self, domain: Domain) -> list[Any]:
        if domain.size is None:
            return [domain.decode(i / (self.points - 1)) for i in range(self.points)]
        if domain.size > MAX_CELLS:
            raise SpaceError(f"GridSampler: {domain} has {domain.size} values, at most {MAX_CELLS} can be walked")
        if isinstance(domain, Int):
            return list(range(domain.low, domain.high + 1, domain.step or 1))
        return [domain.decode((i + 0.5) / domain.size) for i in range(domain.size)]
