"""Trials as a table: what was set, in cells of the unit interval, and what came of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..space import Categorical, Domain, Float, Int, Ordinal

__all__ = ["CELLS", "Axis", "Table", "estimated_finals", "merged"]

CELLS = 48  # of one parameter at most: a 48th of the trials in each is finer than any forest can tell


@dataclass(frozen=True)
class Axis:
    """One parameter, its range cut into cells.

    edges (cells + 1,): where the cells end in [0, 1]; a categorical parameter's cells are its choices, in their order.
    choices: those that have a cell of their own, of an Ordinal or Categorical; the other ones share the last cell.
    """

    name: str
    domain: Domain
    edges: np.ndarray
    choices: tuple[Any, ...] | None = None

    @property
    def categorical(self) -> bool:
        return isinstance(self.domain, Categorical)

    @property
    def cells(self) -> int:
        return len(self.edges) - 1

    @property
    def widths(self) -> np.ndarray:
        """The share of each cell in the parameter's range, (cells,)."""
        return np.diff(self.edges)

    def cell(self, value: Any) -> int:
        """The cell that holds `value`, which the domain holds."""
        if self.choices is not None:
            index = Categorical(self.choices).index(value)
            return self.cells - 1 if index is None else index
        return int(np.clip(np.searchsorted(self.edges, self.domain.encode(value), "right") - 1, 0, self.cells - 1))

    def value(self, u: float) -> Any:
        """The value at u in [0, 1]; None in the cell of choices that share one."""
        if self.choices is None:
            return self.domain.decode(u)
        index = min(int(np.searchsorted(self.edges, u, "right")) - 1, self.cells - 1)
        return self.choices[index] if index < len(self.choices) else None


@dataclass(frozen=True)
class Table:
    """axes: the parameters. cells (n, d): the cell of each trial's value, -1 where the parameter was inactive.
    places (n, d): their place in [0, 1], NaN where inactive. losses (n,): what came of it, small values are good."""

    axes: list[Axis]
    cells: np.ndarray
    places: np.ndarray
    losses: np.ndarray

    @property
    def names(self) -> list[str]:
        return [axis.name for axis in self.axes]

    @classmethod
    def of(
        cls,
        params: Sequence[dict[str, Any]],
        distributions: Sequence[dict[str, Domain]],
        losses: Sequence[float],
        names: Sequence[str] | None = None,
    ) -> Table:
        """From trials' settings, their domains, and their losses (n,). A parameter that a trial lacks is inactive.

        A parameter whose range changed from trial to trial gets the smallest range that holds all of them.
        """
        if names is None:
            names = list(dict.fromkeys(name for row in params for name in row))
        axes, places = [], np.full((len(params), len(names)), np.nan)
        for j, name in enumerate(names):
            rows = [i for i, row in enumerate(params) if name in row]
            domain = merged([distributions[i][name] for i in rows])
            values = [params[i][name] for i in rows]
            if isinstance(domain, (Ordinal, Categorical)):
                axis = _listed(name, domain, values)
                places[rows, j] = [(axis.edges[c] + axis.edges[c + 1]) / 2 for c in map(axis.cell, values)]
            else:
                places[rows, j] = [domain.encode(value) for value in values]
                axis = Axis(name, domain, _edges(domain, places[rows, j]))
            axes.append(axis)
        cells = np.full(places.shape, -1, np.int64)
        for j, axis in enumerate(axes):
            active = ~np.isnan(places[:, j])
            found = np.searchsorted(axis.edges, places[active, j], "right") - 1
            cells[active, j] = np.clip(found, 0, axis.cells - 1)
        return cls(axes, cells, places, np.asarray(losses, np.float64))


def merged(domains: Sequence[Domain]) -> Domain:
    """The smallest domain that holds every one of these, which are of one parameter. ValueError if there is none."""
    different: list[Domain] = []
    for domain in domains:
        if domain not in different:
            different.append(domain)
    first, last = different[0], different[-1]
    if len(different) == 1:
        return first
    if all(isinstance(d, (Ordinal, Categorical)) for d in different):
        choices: list[Any] = []
        for domain in different:
            choices += [c for c in domain.choices if not choices or Categorical(choices).index(c) is None]
        return type(last)(choices)
    if any(isinstance(d, (Ordinal, Categorical)) for d in different):
        raise ValueError(f"a parameter was numeric in some trials and listed in others: {first}, {last}")
    low, high = min(d.low for d in different), max(d.high for d in different)
    log = all(d.log for d in different)
    return (Int if all(isinstance(d, Int) for d in different) else Float)(low, high, log=log)


def _listed(name: str, domain: Ordinal | Categorical, values: Sequence[Any]) -> Axis:
    """An axis of listed values. Of very many, those seen most often have cells of their own."""
    choices = domain.choices
    if len(choices) > CELLS:
        counts = np.bincount([domain.index(value) for value in values], minlength=len(choices))
        kept = np.sort(np.argsort(-counts, kind="stable")[: CELLS - 1])
        choices = tuple(choices[i] for i in kept)
    widths = np.full(len(choices), 1 / domain.size)
    edges = np.concatenate([[0.0], np.cumsum(widths)])
    if len(choices) < domain.size:
        edges = np.append(edges, 1.0)
    edges[-1] = 1.0
    return Axis(name, domain, edges, choices)


def _edges(domain: Float | Int, places: np.ndarray) -> np.ndarray:
    """Where the cells of a numeric parameter end: one for each value if those are few, else between quantiles."""
    if domain.size is not None and domain.size <= CELLS:
        if not domain.log or domain.size == 1:
            return np.linspace(0, 1, domain.size + 1)
        ends = np.log(np.arange(domain.low, domain.high + 2) - 0.5)
        return (ends - ends[0]) / (ends[-1] - ends[0])
    distinct = np.unique(places)
    between = (distinct[1:] + distinct[:-1]) / 2
    if len(between) >= CELLS:
        counts = np.searchsorted(np.sort(places), between) / len(places)
        picks = np.searchsorted(counts, np.arange(1, CELLS) / CELLS)
        between = between[np.unique(np.minimum(picks, len(between) - 1))]
    return np.concatenate([[0.0], between[(between > 0) & (between < 1)], [1.0]])


def estimated_finals(curves: Sequence[dict[int, float]]) -> np.ndarray:
    """What trials that were ended early would have come to, (n,), from all curves step -> value; NaN for an empty one.

    From the last step of such a trial on, it is taken to gain what the others gained in the median: those that went on
    from there to the next step at which some trial ended, and so on to the longest curve's end. Ended early or not,
    all trials can then be compared; without this, one that was ended early would look bad for that alone.
    """
    last = np.array([max(curve, default=-1) for curve in curves])
    ends = np.unique(last[last >= 0])
    gains = []
    for here, there in itertools.pairwise(ends):
        steps = [curve[there] - curve[here] for curve in curves if here in curve and there in curve]
        steps = [step for step in steps if math.isfinite(step)]
        gains.append(float(np.median(steps)) if steps else 0.0)
    to_come = np.concatenate([np.cumsum(gains[::-1])[::-1], [0.0]])
    values = [curve[end] if end >= 0 else np.nan for curve, end in zip(curves, last, strict=True)]
    places = np.searchsorted(ends, np.maximum(last, ends[0] if len(ends) else 0))
    return np.array(values) + (to_come[places] if len(ends) else 0.0)
