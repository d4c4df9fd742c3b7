"""How much each parameter matters: evaluators with Optuna's names."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from ..checks import number
from .surrogate import Surrogate
from .table import Axis, Table
from .trials import Target, table_of

if TYPE_CHECKING:
    from ..study import Study

__all__ = ["FanovaImportanceEvaluator", "ImportanceEvaluator", "PedAnovaImportanceEvaluator"]

GRID = 64  # cells of a continuous parameter in PED-ANOVA


class ImportanceEvaluator(ABC):
    """Tells how much each parameter of a study matters."""

    def evaluate(
        self, study: Study, params: list[str] | None = None, *, target: Target | None = None
    ) -> dict[str, float]:
        """name -> importance, 0 or more, not normalised. `params` and `target` as in `get_param_importances`."""
        table, _ = table_of(study, params, target)
        shares = self.shares(table)
        names = table.names if params is None else params
        return {name: float(shares[table.names.index(name)]) for name in names}

    @abstractmethod
    def shares(self, table: Table) -> np.ndarray:
        """The importance of each parameter of the table, (d,)."""


class FanovaImportanceEvaluator(ImportanceEvaluator):
    """fANOVA (Hutter, Hoos & Leyton-Brown 2014): the share of the objective's variance over the whole space that a
    parameter explains alone, by exact integrals over a forest that is fitted to the trials. (See `Surrogate`.)

    n_trees, max_depth: of the forest. seed: of its randomness; None takes a new one each time.
    quantile: losses worse than this quantile count as if they were at it, so that the good region counts.
    """

    def __init__(self, *, n_trees: int = 64, max_depth: int = 64, seed: int | None = None, quantile: float = 1.0):
        for name, value in (("n_trees", n_trees), ("max_depth", max_depth)):
            if isinstance(value, bool) or int(value) != value or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        number("quantile", quantile, "(0, 1]")
        self.n_trees, self.max_depth, self.seed, self.quantile = int(n_trees), int(max_depth), seed, quantile

    def shares(self, table: Table) -> np.ndarray:
        if not table.axes or len(table.losses) < 2:
            return np.zeros(len(table.axes))
        forest = Surrogate(table, trees=self.n_trees, max_depth=self.max_depth, quantile=self.quantile, seed=self.seed)
        return forest.main


class PedAnovaImportanceEvaluator(ImportanceEvaluator):
    r"""PED-ANOVA (Watanabe, Bansal & Hutter 2023): how much a parameter decides whether a trial is among the best.

    With p the density of all trials along a parameter and q that of the best ones, the importance is

        gamma^2 * integral of (q / p - 1)^2 p

    the variance along that parameter of the chance to be among the best (their equation 7, local form). A parameter
    that is inactive in some trials is judged among those where it is active, times their share.

    target_quantile: which share of the trials are the best; baseline_quantile is its older name.
    region_quantile: look only at the best trials of that share. evaluate_on_local=False compares with the whole
    space instead of with where the trials were.
    """

    def __init__(
        self,
        *,
        target_quantile: float = 0.1,
        region_quantile: float = 1.0,
        evaluate_on_local: bool = True,
        baseline_quantile: float | None = None,
    ):
        target_quantile = target_quantile if baseline_quantile is None else baseline_quantile
        number("target_quantile", target_quantile, "(0, 1]")
        number("region_quantile", region_quantile, "(0, 1]")
        if target_quantile >= region_quantile:
            raise ValueError(
                f"target_quantile must be below region_quantile, got {target_quantile!r} and {region_quantile!r}"
            )
        self.target_quantile, self.region_quantile = target_quantile, region_quantile
        self.evaluate_on_local = bool(evaluate_on_local)

    def shares(self, table: Table) -> np.ndarray:
        order = np.argsort(table.losses, kind="stable")
        region = order[: _count(self.region_quantile, order)]
        best = np.zeros(len(order), bool)
        best[order[: _count(self.target_quantile, order)]] = True
        result = np.zeros(len(table.axes))
        for j, axis in enumerate(table.axes):
            active = region[~np.isnan(table.places[region, j])]
            top = active[best[active]]
            if len(top) == 0 or len(top) == len(active) or axis.cells == 1:
                continue
            cells = _fine(axis)
            q = _density(axis, cells, table.places[top, j])
            p = _density(axis, cells, table.places[active, j]) if self.evaluate_on_local else np.diff(cells)
            divergence = float(np.sum((q / p - 1) ** 2 * p))
            result[j] = len(active) / len(region) * (len(top) / len(active)) ** 2 * divergence
        return result


def _count(quantile: float, rows: np.ndarray) -> int:
    return min(len(rows), max(1, math.ceil(quantile * len(rows) - 1e-9)))


def _fine(axis: Axis) -> np.ndarray:
    """Edges of cells along a parameter: its values if they are few."""
    discrete = axis.choices is not None or (axis.domain.size is not None and axis.domain.size <= axis.cells)
    return axis.edges if discrete else np.linspace(0, 1, GRID + 1)


def _density(axis: Axis, edges: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The probability of each cell, (cells,), from places (n,) in [0, 1] and, as one place more, the uniform density.

    A Gaussian kernel for numbers, its width by Scott's rule and at least a cell; choices are counted.
    """
    widths = np.diff(edges)
    if axis.categorical:
        found = np.clip(np.searchsorted(edges, places, "right") - 1, 0, len(widths) - 1)
        return (np.bincount(found, minlength=len(widths)) + widths) / (len(places) + 1)
    low, high = np.percentile(places, [25, 75])
    spread = min(float(places.std()), (high - low) / 1.34) or float(places.std())
    width = max(1.06 * spread * len(places) ** -0.2, 1 / min(GRID, len(widths)) / 2, 1e-3)
    centres = (edges[1:] + edges[:-1]) / 2
    kernels = np.exp(-0.5 * ((centres - places[:, None]) / width) ** 2) * widths
    kernels /= kernels.sum(axis=1, keepdims=True)
    return (kernels.sum(axis=0) + widths) / (len(places) + 1)
