"""Evolution strategy with covariance matrix adaptation, for numbers, whole numbers and categories."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..checks import number, whole
from ..space import Domain, Space
from ..trial import FrozenTrial
from .base import History, Observations, Sampler, keyed_integer, keyed_uniform
from .quasirandom import sobol_point
from .ranking import ranks
from .search_distribution import SearchDistribution
from .surrogate import Surrogate, fit, log_expected_improvement, scores

__all__ = ["CmaEsSampler"]

CANDIDATES = 100
DOUBT = 3
"""While a whole population brings nothing better, every so many-th trial does not heed the surrogate."""
ROWS = 128
"""How many trials the surrogate is fitted to at most."""
TOP, WIDTH = 0.1, 0.1
"""Of a warm start: gamma, the share of good trials, and alpha, the deviation around each of them."""
SMALL = 1e-5
"""Deviation of every continuous axis below which a run has converged."""


class CmaEsSampler(Sampler):
    """CMA-ES in the unit cube (Hansen, arXiv 1604.00772) with active updates, margin and a surrogate.

    The search begins as a Gaussian in the middle of the cube, which is the median of every parameter's prior. Whole
    numbers and ordinals are cells of their axis and keep a margin of probability (Hamano et al. 2022); each categorical
    parameter has a probability for each category (CatCMA, Hamano et al. 2024). Every trial takes part in an update,
    whoever proposed it, its step cut short if it lies far outside (Hansen 2011). Beyond the first population, the trial
    is that one of many candidates which a Gaussian process on the trials so far expects to improve most. Failed trials
    count as the worst; with several objectives trials are ordered by front and crowding.

    x0: settings to start from; parameters that are left out start in the middle. None takes the space's first default.
    sigma0: the first standard deviation as a share of each range; 1 / 6 unless given.
    n_startup_trials: how many Sobol points come first; without x0 the search then starts at the best of them.
    popsize: trials per update; 4 + 3 ln n unless given (Hansen's lambda).
    with_margin: keep a chance for every value of discrete parameters.
    surrogate: choose by the Gaussian process, but for a third of the trials while these bring nothing better; False
        tries the candidates as they are drawn.
    restart_strategy: once converged or without progress start anew from a random point, "ipop" with a population that
        is inc_popsize times as large (Auger & Hansen 2005), "bipop" by turns with large and small ones (Hansen 2009),
        or None: go on.
    lr_adapt: shorten the distribution's steps where they are mostly noise (Nomura et al. 2023): for noisy losses, or
        many optima, and budgets of many hundreds of trials; slower elsewhere. Candidates are then tried as they are
        drawn, as the surrogate's choice among them would pass for a signal.
    source_trials: trials of a similar study; the search starts where the best tenth of them lies (Nomura et al. 2021).
    """

    learns = True

    def __init__(
        self,
        x0: Mapping[str, Any] | None = None,
        sigma0: float | None = None,
        n_startup_trials: int = 0,
        *,
        popsize: int | None = None,
        with_margin: bool = True,
        surrogate: bool = True,
        restart_strategy: str | None = "ipop",
        inc_popsize: int = 2,
        lr_adapt: bool = False,
        source_trials: Sequence[FrozenTrial] | None = None,
        seed: int | None = None,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
    ):
        super().__init__(seed, constraints_func)
        if sigma0 is not None:
            number("CmaEsSampler: sigma0", sigma0, "(0, inf)")
        whole("CmaEsSampler: n_startup_trials", n_startup_trials, 0)
        if popsize is not None:
            whole("CmaEsSampler: popsize", popsize, 3)
        if restart_strategy not in (None, "ipop", "bipop"):
            raise ValueError(
                f"CmaEsSampler: restart_strategy must be 'ipop', 'bipop' or None, got {restart_strategy!r}"
            )
        if inc_popsize < 1:
            raise ValueError(f"CmaEsSampler: inc_popsize must be at least 1, got {inc_popsize!r}")
        if source_trials is not None and (x0 is not None or sigma0 is not None):
            raise ValueError("CmaEsSampler: give either source_trials or x0 and sigma0, not both")
        self.x0, self.sigma0 = x0, 1 / 6 if sigma0 is None else float(sigma0)
        self.n_startup_trials, self.popsize = n_startup_trials, popsize
        self.with_margin, self.surrogate = with_margin, surrogate and not lr_adapt
        self.restart_strategy, self.inc_popsize = restart_strategy, inc_popsize
        self.lr_adapt = bool(lr_adapt)
        self.source_trials = None if source_trials is None else list(source_trials)
        self._cache: dict[str, tuple[Any, ...]] = {}

    def propose(self, space: Space, history: History, number: int, seed: int) -> np.ndarray:
        start = self._start(space)
        if number < max(1, len(space.defaults)) and self.x0 is None and self.source_trials is None:
            return self._given(space, space.defaults[number] if space.defaults else {})
        if number == 0:
            return start
        if number < self.n_startup_trials:
            return sobol_point(space.dimensions, number, seed)
        axes = Axes(space)
        if not axes.numeric.size and not axes.categorical.size:
            return start
        trials = history.observations(space)
        done = np.flatnonzero(~trials.pending)
        run = self._run(axes, select(trials, done), seed)
        rng = np.random.default_rng(keyed_integer(seed, number, "cma-es"))
        if number <= max(self.n_startup_trials, run.search.population) or len(done) < 2:
            return axes.join(*run.search.sample(*axes.quasirandom(number, seed)))[0]
        normals = rng.standard_normal((CANDIDATES, axes.numeric.size))
        numbers, categories = run.search.sample(normals, rng.random((CANDIDATES, axes.categorical.size)))
        best = int(np.nanargmin(ranks(trials)[done]))
        stalled = len(done) - best > run.search.population
        if not self.surrogate or (stalled and number % DOUBT == 0):
            return axes.join(numbers[:1], categories[:1])[0]
        order = self._promising(axes, trials, done, run, numbers, categories, rng)
        points = axes.join(numbers, categories)
        tried = history.keys(space)
        return next((points[i] for i in order if self._may_be_tried(space, points[i], tried)), points[order[0]])

    def coordinate(self, name: str, domain: Domain, position: int, history: History, number: int, seed: int) -> float:
        if self.x0 is not None and name in self.x0 and number == 0:
            return domain.encode(self.x0[name])
        return 0.5 if number == 0 else keyed_uniform(seed, number, name)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": {}}

    # ------------------------------------------------------------------------------------- the start

    def _given(self, space: Space, settings: Mapping[str, Any]) -> np.ndarray:
        known = {name: value for name, value in settings.items() if name in space.parameters}
        return space.encode(space.decode(np.full(space.dimensions, 0.5), known))

    def _start(self, space: Space) -> np.ndarray:
        return self._given(space, self.x0 if self.x0 is not None else (space.defaults or [{}])[0])

    def _first(self, axes: Axes, trials: Observations) -> SearchDistribution:
        """The distribution before the first update."""
        population = self.popsize or 4 + int(3 * math.log(max(axes.numeric.size + axes.categorical.size, 1)))
        start, sigma, C = self._start(axes.space), self.sigma0, None
        if self.source_trials is not None:
            start, sigma, C = warm_start(axes, self.source_trials)
        startup = trials.numbers < self.n_startup_trials
        if self.x0 is None and startup.any():
            best = int(np.argmin(np.where(startup, ranks(trials), np.inf)))
            start = np.where(np.isnan(trials.points[best]), start, trials.points[best])
        return SearchDistribution(start[axes.numeric], sigma, axes.shares, max(population, 4), C, self.lr_adapt)

    # ------------------------------------------------------------------------------------ the search

    def _run(self, axes: Axes, trials: Observations, seed: int) -> Run:
        """The search after the whole populations among these trials, all of which are done."""
        run = Run(self._first(axes, trials))
        if self.with_margin:
            run.search.keep_margin(axes.edges)
        known = self._cache.get("run")
        if known is not None and known[:2] == ((axes.space, seed), self._key(trials, known[2].used)):
            run = copy.deepcopy(known[2])
        before = run.used
        while run.used + run.search.population <= len(trials):
            rows = slice(run.used, run.used + run.search.population)
            part = select(trials, rows)
            run.search.update(*axes.split(part.points), ranks(part))
            run.note(part)
            if self.with_margin:
                run.search.keep_margin(axes.edges)
            if self.restart_strategy is not None and run.is_over(axes):
                self._restart(run, axes, seed)
        if run.used > before:
            self._cache["run"] = (axes.space, seed), self._key(trials, run.used), copy.deepcopy(run)
        return run

    def _restart(self, run: Run, axes: Axes, seed: int) -> None:
        run.restarts += 1
        first = run.populations[0]
        large = first * self.inc_popsize ** (run.large_restarts + 1)
        sigma = self.sigma0
        spent_small = sum(t for t, is_small in run.spent if is_small)
        small = self.restart_strategy == "bipop" and spent_small < sum(t for t, is_small in run.spent if not is_small)
        if small:
            u = [keyed_uniform(seed, run.restarts, "bipop", i) for i in range(2)]
            population = int(first * (0.5 * run.search.population / first) ** (u[0] ** 2))
            sigma *= 10 ** (-2 * u[1])
        else:
            population, run.large_restarts = large, run.large_restarts + 1
        start = sobol_point(axes.space.dimensions, run.restarts, seed)
        search = SearchDistribution(start[axes.numeric], sigma, axes.shares, max(population, 4), adaptive=self.lr_adapt)
        run.begin(search, small)

    @staticmethod
    def _key(trials: Observations, count: int) -> tuple[bytes, ...]:
        """What the first `count` trials were."""
        parts = (trials.points, trials.losses, trials.violations, trials.failed)
        return tuple(part[:count].tobytes() for part in parts)

    # --------------------------------------------------------------------------------- the candidates

    def _promising(
        self,
        axes: Axes,
        trials: Observations,
        done: np.ndarray,
        run: Run,
        numbers: np.ndarray,
        categories: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """The candidates' positions, the most promising first."""
        known = select(trials, done)
        known = select(known, run.likely(*axes.split(known.points, 0.5), ROWS))
        points, goodness = axes.split(known.points, 0.5), scores(known)
        theta = self._theta(known, points, run)
        model = Surrogate(*points, goodness, theta)
        waiting = np.setdiff1d(np.arange(len(trials)), done)
        if len(waiting):  # as if they had ended as expected
            others = axes.split(trials.points[waiting], 0.5)
            believed = np.append(goodness, model.predict(*others)[0])
            model = Surrogate(*(np.concatenate(pair) for pair in zip(points, others, strict=True)), believed, theta)
        cells = axes.split(axes.snapped(numbers, categories), 0.5)
        return np.argsort(-log_expected_improvement(*model.predict(*cells), goodness.min()), kind="stable")

    def _theta(self, known: Observations, points: tuple[np.ndarray, np.ndarray], run: Run) -> np.ndarray:
        """The surrogate's lengths, fitted again after every eighth more trials."""
        count = len(known) - len(known) % max(1, min(len(known) // 8, run.search.population))
        key = self._key(known, count)
        found = self._cache.get("theta")
        if found is None or found[0] != key:
            found = key, fit(points[0][:count], points[1][:count], scores(select(known, slice(count))))
            self._cache["theta"] = found
        return found[1]

    @staticmethod
    def _may_be_tried(space: Space, point: np.ndarray, tried: set[bytes]) -> bool:
        return space.key(point) not in tried and (not space.constraints or space.allows(space.decode(point)))


class Run:
    """A search and what its restarts depend on."""

    def __init__(self, search: SearchDistribution):
        self.search = search
        self.used = 0
        """So many of the trials have taken part."""
        self.restarts = self.large_restarts = 0
        self.populations = [search.population]
        self.spent: list[tuple[int, bool]] = []
        """Trials of each earlier run, and whether it was a small one."""
        self._began, self._small = 0, False
        self._best: tuple[int, float] | None = None
        self._progress = 0
        """The generation of the last progress."""

    def begin(self, search: SearchDistribution, small: bool) -> None:
        self.spent.append((self.used - self._began, self._small))
        self.search, self._began, self._small = search, self.used, small
        self.populations.append(search.population)
        self._best, self._progress = None, 0

    def note(self, trials: Observations) -> None:
        """A population took part in an update."""
        self.used += len(trials)
        if trials.losses.shape[1] > 1:
            self._progress = self.search.generation
            return
        row = int(np.argmin(ranks(trials)))
        if trials.failed[row]:
            return
        violation = float(trials.violations[row])
        best = (violation, float(trials.losses[row, 0]))
        if self._best is None or best < self._best:
            self._best, self._progress = best, self.search.generation

    def is_over(self, axes: Axes) -> bool:
        """Whether nothing is to be gained by going on."""
        continuous = np.array([edges is None for edges in axes.edges], dtype=bool)
        if continuous.any() and (self.search.deviations[continuous] < SMALL).all():
            return True
        patience = (10 + 30 * axes.numeric.size / self.search.population) / self.search.rate
        return self.search.generation - self._progress > patience

    def likely(self, numbers: np.ndarray, categories: np.ndarray, count: int) -> np.ndarray:
        """The `count` trials that the search distribution would draw most likely, in their order."""
        if len(numbers) <= count:
            return np.arange(len(numbers))
        far = (((numbers - self.search.mean) / self.search.deviations) ** 2).sum(axis=1)
        for share, column in zip(self.search.shares, categories.T, strict=True):
            far -= 2 * np.log(share[np.maximum(column, 0)])
        return np.sort(np.argsort(far, kind="stable")[:count])


class Axes:
    """The cube's axes as the search has them: those with numbers, those with categories; not those with one value."""

    def __init__(self, space: Space):
        self.space = space
        domains = list(space.parameters.values())
        varied = [axis for axis, domain in enumerate(domains) if domain.size != 1]
        listed = [a for a in varied if domains[a].kind == "categorical" and domains[a].edges is not None]
        self.numeric = np.array([a for a in varied if a not in listed], dtype=np.int64)
        self.categorical = np.array(listed, dtype=np.int64)
        self.edges = [domains[a].edges for a in self.numeric]
        self.sizes = [domains[a].size for a in self.categorical]
        self._cells = [domains[a].edges for a in self.categorical]
        self._places = [domains[a].places for a in self.categorical]
        self.shares = [np.diff(cells) for cells in self._cells]
        """What the categories' priors are."""

    def split(self, points: np.ndarray, missing: float = math.nan) -> tuple[np.ndarray, np.ndarray]:
        """Points (k, dimensions) as numbers (k, p) and categories int64 (k, q); inactive: `missing` and -1."""
        numbers = points[:, self.numeric]
        categories = np.full((len(points), self.categorical.size), -1, dtype=np.int64)
        for i, (axis, cells) in enumerate(zip(self.categorical, self._cells, strict=True)):
            place = points[:, axis]
            found = np.clip(np.searchsorted(cells, place, side="right") - 1, 0, self.sizes[i] - 1)
            categories[:, i] = np.where(np.isnan(place), -1, found)
        return np.where(np.isnan(numbers), missing, numbers), categories

    def join(self, numbers: np.ndarray, categories: np.ndarray) -> np.ndarray:
        """The inverse of `split`; axes with one value stand at 0.5."""
        points = np.full((len(numbers), self.space.dimensions), 0.5)
        points[:, self.numeric] = numbers
        for axis, places, column in zip(self.categorical, self._places, categories.T, strict=True):
            points[:, axis] = places[column]
        return points

    def snapped(self, numbers: np.ndarray, categories: np.ndarray) -> np.ndarray:
        """Points as the history will have them: discrete axes at their value's place, inactive ones NaN."""
        points = self.space.snap(self.join(numbers, categories))
        return np.where(self.space.active(points), points, np.nan) if self.space.conditions else points

    def quasirandom(self, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Standard normal numbers (1, p) and uniform ones (1, q) of the number-th Sobol point."""
        from scipy.special import ndtri

        point = np.clip(sobol_point(self.space.dimensions, number, seed), 1e-6, 1 - 1e-6)
        return ndtri(point[self.numeric])[None], point[self.categorical][None]


def select(trials: Observations, rows: Any) -> Observations:
    """Some of the trials."""
    return Observations(
        trials.numbers[rows],
        trials.points[rows],
        trials.losses[rows],
        trials.violations[rows],
        trials.failed[rows],
        trials.steps[rows],
    )


def warm_start(axes: Axes, trials: Sequence[FrozenTrial]) -> tuple[np.ndarray, float, np.ndarray]:
    """Mean (dimensions,), sigma and C of the Gaussian at the best tenth of the trials (Nomura et al. 2021, section 4).

    Small values are good. ValueError if no trial lies in the space.
    """
    space = axes.space
    inside = [t for t in trials if t.values and all(n in space.parameters for n in t.params)]
    values = np.array([t.values[0] for t in inside])
    if not inside:
        raise ValueError("CmaEsSampler: none of source_trials is complete and has parameters of this space")
    best = np.argsort(values, kind="stable")[: max(1, math.ceil(TOP * len(inside)))]
    points = np.array([space.encode(space.decode(np.full(space.dimensions, 0.5), inside[i].params)) for i in best])
    mean = points.mean(axis=0)
    n = axes.numeric.size
    apart = (points - mean)[:, axes.numeric]
    covariance = WIDTH**2 * np.eye(n) + apart.T @ apart / len(points)
    sigma = math.exp(np.linalg.slogdet(covariance)[1] / (2 * max(n, 1)))
    return mean, sigma, covariance / sigma**2
