"""Bayesian optimisation with Gaussian processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...space import Domain, Space
from ...trial import FrozenTrial
from ..base import History, Sampler
from ..history import Observations
from ..quasirandom import central_point, sobol_point

if TYPE_CHECKING:
    from .proposal import Fits

__all__ = ["GPSampler"]


class GPSampler(Sampler):
    """Tries what a Gaussian process of the trials so far expects to improve most.

    seed: fixes the random numbers; None takes the study's own seed.
    n_startup_trials: the space's defaults and then Sobol points around them are tried until there are so many trials.
    deterministic_objective: whether the same settings always give the same value; else the noise is estimated.
    input_warping: whether each number may be stretched and squeezed along its range by a learned monotone function, as
        where the loss changes fast at one end only. It is done with at most two objectives, where it foretells good
        trials clearly better.
    constraints_func: FrozenTrial -> numbers, at most 0 where the trial is feasible. Each has a process of its own, and
        improvement counts in proportion to the probability that all of them hold.
    independent_sampler: proposes parameters that no earlier trial has asked for; Sobol points unless given.

    One objective: log expected improvement (Ament et al. 2023). Two: the logarithm of the expected gain in hypervolume,
    exactly. More: expected improvement of a random scalarisation (ParEGO, Knowles 2006). Kernel: Matern 5/2 with a
    lengthscale for each parameter, Hamming distance between categories, the arc kernel for parameters that are absent
    at times. The bad half of the losses counts by its ranks alone, unless good trials are clearly better foretold from
    losses as they are. Hyperparameters are the likeliest ones, and at every third trial a draw from their posterior.
    Failed trials count as the worst seen; trials that still run are believed to end as the model expects. One proposal
    depends on nothing but the trials before it.
    """

    learns = True

    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int = 10,
        deterministic_objective: bool = False,
        input_warping: bool = True,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        independent_sampler: Sampler | None = None,
    ):
        super().__init__(seed, constraints_func)
        if isinstance(n_startup_trials, bool) or int(n_startup_trials) != n_startup_trials or n_startup_trials < 0:
            raise ValueError(f"GPSampler: n_startup_trials must be a whole number >= 0, got {n_startup_trials!r}")
        if independent_sampler is not None and not isinstance(independent_sampler, Sampler):
            raise TypeError(f"GPSampler: independent_sampler must be a Sampler, got {independent_sampler!r}")
        self.n_startup_trials = int(n_startup_trials)
        self.deterministic_objective = bool(deterministic_objective)
        self.input_warping = bool(input_warping)
        self.independent_sampler = independent_sampler
        self._fits: Fits | None = None

    def propose(self, space: Space, history: History, number: int, seed: int) -> np.ndarray:
        if number < len(space.defaults):
            return space.encode(space.decode(np.full(space.dimensions, 0.5), space.defaults[number]))
        if all(domain.size == 1 for domain in space.parameters.values()):
            return np.full(space.dimensions, 0.5)
        seen = history.observations(space)
        if len(seen) >= self.n_startup_trials and (seen.done | seen.failed).sum() >= 2:
            from .proposal import Fits, promising_point

            if self._fits is None:
                self._fits = Fits()
            point = promising_point(
                space, seen, _constraints(history, seen), history.keys(space), number, seed,
                self.deterministic_objective, self.input_warping, self._fits,
            )  # fmt: skip
            if point is not None:
                return np.nan_to_num(point, nan=0.5)
        return central_point(space, number, seed)

    def coordinate(self, name: str, domain: Domain, position: int, history: History, number: int, seed: int) -> float:
        if self.independent_sampler is not None:
            return self.independent_sampler.coordinate(name, domain, position, history, number, seed)
        return float(sobol_point(position + 1, number, seed)[position])


def _constraints(history: History, seen: Observations) -> np.ndarray:
    """What the constraints gave for each trial seen, (n, k); NaN where they were not asked."""
    trials = history.trials
    rows = [trials[number].user_attrs.get("constraints") or () for number in seen.numbers]
    table = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table
