"""Where good trials lie more densely than bad ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..checks import number, whole
from ..space import Domain, Space
from ..trial import FrozenTrial
from .base import History, Observations, Sampler, keyed_integer
from .parzen import Axes, Kernels, Parzen, bandwidths
from .quasirandom import sobol_point
from .split import Split, split

__all__ = ["TPESampler"]

MOST = 25
NARROWEST = 0.03
"""The least bandwidth, as a share of the range."""
ROUNDS = 4
"""How often candidates are drawn anew, twice as many each time, while all of them were tried already."""


def default_gamma(count: int) -> int:
    """How many of `count` trials are good: n^(3/2) / 50, at most 25.

    Few trials tell little more than which is the best, and many tell a good region: 1 of 10, 8 of 50, 20 of 100.
    """
    return min(math.ceil(count**1.5 / 50), MOST)


class TPESampler(Sampler):
    """The tree-structured Parzen estimator (Bergstra et al. 2011).

        x = argmax l(x) / g(x)      over candidates drawn from l

    l is a kernel density of the good trials, g one of all others; see parzen.py for the kernels. Of the parts that
    Watanabe (2023, "Tree-structured Parzen estimator: understanding its algorithm components") tells apart, these are
    chosen: kernels over all axes at once, weights by improvement, Scott's bandwidths with a least one, a uniform prior.
    Both densities have the bandwidths of l, so that their ratio is the Nadaraya-Watson estimate of the odds to be good.
    A space with conditions is searched as a whole: see parzen.py for what an inactive axis does.

    consider_prior, prior_weight: whether l and g hold a uniform density, and how many kernels it counts as.
    consider_magic_clip: whether bandwidths have a least value, 0.03 of the range.
    n_startup_trials: until so many trials have a value, points are the space's defaults, then scrambled Sobol points.
    n_ei_candidates: how many candidates are drawn.
    gamma: number of trials with a value -> how many of them are good. See `default_gamma` for the usual one.
    weights: number of trials -> weights of the kernels, oldest first, for l and g alike. Unless given, good trials
        weigh by their improvement, see split.py, and others all the same.
    multivariate: False searches each axis by itself.
    group: in a space without declared conditions, as define-by-run gives it, axes that the same trials have form a
        group, which is searched by itself and learns from those trials. False takes all axes together.
    constant_liar: whether trials without a value yet count as bad, so that parallel ones keep apart.
    consider_endpoints, warn_independent_sampling: taken for the sake of programs that give them. Bandwidths do not come
        from neighbours here, and no parameter is left to chance that a trial before had.

    Trials that keep their constraints rank before those that do not; of several objectives see split.py.
    """

    learns = True

    def __init__(
        self,
        *,
        consider_prior: bool = True,
        prior_weight: float = 1.0,
        consider_magic_clip: bool = True,
        consider_endpoints: bool = False,
        n_startup_trials: int = 10,
        n_ei_candidates: int = 24,
        gamma: Callable[[int], int] | None = None,
        weights: Callable[[int], Sequence[float] | np.ndarray] | None = None,
        seed: int | None = None,
        multivariate: bool = True,
        group: bool = True,
        warn_independent_sampling: bool = True,
        constant_liar: bool = True,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
    ):
        super().__init__(seed, constraints_func)
        whole("TPESampler: n_startup_trials", n_startup_trials, 0)
        whole("TPESampler: n_ei_candidates", n_ei_candidates, 1)
        prior_weight = number("TPESampler: prior_weight", prior_weight, "[0, inf)")
        for name, function in (("gamma", gamma), ("weights", weights)):
            if function is not None and not callable(function):
                raise TypeError(f"TPESampler: {name} must be a function of the number of trials, got {function!r}")
        self.prior_weight = float(prior_weight) if consider_prior else 0.0
        self.narrowest = NARROWEST if consider_magic_clip else 1e-6
        self.n_startup_trials, self.n_ei_candidates = int(n_startup_trials), int(n_ei_candidates)
        self.gamma, self.weights = gamma or default_gamma, weights
        self.multivariate, self.group, self.constant_liar = bool(multivariate), bool(group), bool(constant_liar)
        self._axes: tuple[Space | None, dict[tuple[int, ...], Axes]] = (None, {})

    def propose(self, space: Space, history: History, number: int, seed: int) -> np.ndarray:
        if number < len(space.defaults):
            return space.encode(space.decode(np.full(space.dimensions, 0.5), space.defaults[number]))
        seen = history.observations(space)
        values = int(seen.done.sum())
        if values < max(self.n_startup_trials, 1):
            return sobol_point(space.dimensions, number - len(space.defaults), seed)
        parts = split(seen, self._good_count(values), self.constant_liar)
        searches = [self._search(self._chosen(space, group), seen.points, parts) for group in self._groups(space, seen)]
        rng = np.random.default_rng(keyed_integer(seed, number, "tpe"))
        tried = history.keys(space)
        count, best = self.n_ei_candidates, None
        for _ in range(ROUNDS):
            points = rng.random((count, space.dimensions))
            for search in searches:
                search.fill(points, space, rng)
            best = points[0].copy() if best is None else best
            for point in points:
                if space.key(point) not in tried and (not space.constraints or space.allows(space.decode(point))):
                    return point
            count *= 2
        return best

    def coordinate(self, name: str, domain: Domain, position: int, history: History, number: int, seed: int) -> float:
        return float(sobol_point(position + 1, number, seed)[position])

    def _good_count(self, values: int) -> int:
        count = int(self.gamma(values))
        if count < 0:
            raise ValueError(f"TPESampler: gamma({values}) must be at least 0, got {count}")
        return min(max(count, 1), values)

    def _groups(self, space: Space, seen: Observations) -> list[tuple[int, ...]]:
        """Axes to be searched together."""
        every = range(space.dimensions)
        if not self.multivariate:
            return [(axis,) for axis in every]
        if space.conditions or not self.group:
            return [tuple(every)]
        missing = np.isnan(seen.points.T)
        if not missing.any():
            return [tuple(every)]
        groups: dict[bytes, list[int]] = {}
        for axis, had in enumerate(~missing):
            groups.setdefault(had.tobytes(), []).append(axis)
        return [tuple(axes) for axes in groups.values()]

    def _chosen(self, space: Space, group: tuple[int, ...]) -> Axes:
        if self._axes[0] is not space:
            self._axes = space, {}
        known = self._axes[1]
        if group not in known:
            known[group] = Axes(space, group)
        return known[group]

    def _search(self, axes: Axes, points: np.ndarray, parts: Split) -> Search:
        """Of the trials that have some of these axes."""
        good, bad, weights, others = parts.good, parts.bad, parts.good_weights, parts.bad_weights
        if not axes.whole:
            had = ~np.isnan(points[:, axes.chosen]).all(axis=1)
            weights, others = weights[had[good]], others[had[bad]]
            good, bad = good[had[good]], bad[had[bad]]
        if self.weights is not None:
            weights, others = self._given(len(good))[np.argsort(np.argsort(good))], self._given(len(bad))
        widths = bandwidths(axes, points[good], weights, self.narrowest)
        coded = axes.code(points[np.concatenate([good, bad])])
        stray = np.repeat([1 / (1 + math.sqrt(len(good))), 1 / (1 + len(bad))], [len(good), len(bad)])
        kernels = Kernels(axes, coded, widths, stray)
        return Search(kernels, Parzen(kernels, weights, self.prior_weight), Parzen(kernels, others, self.prior_weight))

    def _given(self, count: int) -> np.ndarray:
        """The user's weights for `count` trials."""
        given = np.asarray(self.weights(count), dtype=np.float64) if count else np.empty(0)
        if given.shape != (count,) or not (np.isfinite(given) & (given >= 0)).all() or (count and not given.any()):
            raise ValueError(
                f"TPESampler: weights({count}) must give {count} numbers of at least 0, not all 0, got {given.tolist()}"
            )
        return given


class Search:
    """good, bad: the densities l and g, of the first and of the other ones of the kernels."""

    def __init__(self, kernels: Kernels, good: Parzen, bad: Parzen):
        self.kernels, self.good, self.bad = kernels, good, bad

    def fill(self, points: np.ndarray, space: Space, rng: np.random.Generator) -> None:
        """Write draws from l into the search's axes of `points` (count, dimensions), the largest l / g first."""
        axes, count = self.kernels.axes, len(self.good.weights)
        drawn = space.snap(self.good.sample(len(points), rng))
        together = space.conditions and axes.whole  # the axes of a smaller group are active at the same time
        active = np.where(space.active(drawn), drawn, np.nan) if together else drawn
        logs = self.kernels.logs(axes.code(active))
        ratio = self.good.log_density(logs[:, :count]) - self.bad.log_density(logs[:, count:])
        order = np.argsort(-ratio, kind="stable")
        if axes.whole:
            points[:] = drawn[order]
        else:
            points[:, axes.chosen] = drawn[order][:, axes.chosen]
