"""A study explained: shares of the variance, interactions, partial dependence, and a summary in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .surrogate import Surrogate
from .table import Axis
from .trials import Target, table_of

if TYPE_CHECKING:
    from ..study import Study

__all__ = ["Analysis", "PartialDependence"]

POINTS = 50


@dataclass(frozen=True)
class PartialDependence:
    """The expected value over all other parameters, for one parameter or two.

    names: the parameters. values: for each, where; in its own unit, an array of floats or ints, or a list of choices.
    places: the same in [0, 1]. mean, spread: of shape (len(values[0]),) or (len(values[0]), len(values[1])): the value,
    and the standard deviation of it from tree to tree.
    """

    names: tuple[str, ...]
    values: tuple[Any, ...]
    places: tuple[np.ndarray, ...]
    mean: np.ndarray
    spread: np.ndarray


class Analysis:
    """What a study's trials tell about its parameters.

    target: what to explain, small values taken as good; by default the study's one objective. objective: of several,
    the number of the one to explain.
    quantile: values worse than this quantile count as if they were at it. seed: of the forest.
    Raises ValueError if fewer than 2 trials have a value, or if the study has several objectives and neither is given.
    """

    def __init__(
        self,
        study: Study,
        *,
        target: Target | None = None,
        objective: int | None = None,
        quantile: float = 1.0,
        n_trees: int = 64,
        seed: int | None = 0,
    ):
        table, self.sign = table_of(study, None, target, objective)
        if len(table.losses) < 2 or not table.axes:
            raise ValueError(f"there are {len(table.losses)} trials with a value and {len(table.axes)} parameters; "
                             "at least 2 and 1 are wanted")  # fmt: skip
        self.surrogate = Surrogate(table, trees=n_trees, quantile=quantile, seed=seed)
        self.axes: dict[str, Axis] = {axis.name: axis for axis in table.axes}
        self.trials = len(table.losses)

    @property
    def r2(self) -> float:
        """How much of the differences is explained in trials that were not looked at: 1 is all, 0 or less nothing."""
        return self.surrogate.r2

    @cached_property
    def importances(self) -> dict[str, float]:
        """name -> the share of the variance that the parameter explains alone, largest first."""
        shares = dict(zip(self.axes, map(float, self.surrogate.main), strict=True))
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    @cached_property
    def interactions(self) -> dict[tuple[str, str], float]:
        """(name, name) -> the share that both explain together and neither does alone, largest first."""
        names, pairs = list(self.axes), self.surrogate.pairs
        shares = {(a, b): float(pairs[i, j]) for j, b in enumerate(names) for i, a in enumerate(names[:j])}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def dependence(self, *names: str, points: int = POINTS) -> PartialDependence:
        """The partial dependence on one or two parameters, at every value if these are few, else at `points` places.

        Where a parameter is active only under a condition, the mean is over where that holds.
        """
        unknown = [name for name in names if name not in self.axes]
        if unknown or len(names) not in (1, 2) or len(set(names)) < len(names):
            raise ValueError(f"wanted one or two different parameters of {', '.join(self.axes)}, got {names!r}")
        numbers = [list(self.axes).index(name) for name in names]
        trees = self.sign * self.surrogate.marginal(numbers)
        places, values = zip(*(_places(self.axes[name], points) for name in names), strict=True)
        cells = [np.clip(np.searchsorted(self.axes[n].edges, u, "right") - 1, 0, self.axes[n].cells - 1)
                 for n, u in zip(names, places, strict=True)]  # fmt: skip
        mean, spread = trees.mean(axis=0), trees.std(axis=0)
        return PartialDependence(tuple(names), values, places, mean[np.ix_(*cells)], spread[np.ix_(*cells)])


def _places(axis: Axis, points: int) -> tuple[np.ndarray, Any]:
    """(places in [0, 1], the values there)."""
    centres = (axis.edges[1:] + axis.edges[:-1]) / 2
    if axis.choices is not None:
        return centres[: len(axis.choices)], list(axis.choices)
    if axis.domain.size is not None and axis.domain.size <= axis.cells:
        return centres, np.array([axis.domain.decode(u) for u in centres])
    places = np.linspace(0, 1, points)
    return places, np.array([axis.domain.decode(u) for u in places])
