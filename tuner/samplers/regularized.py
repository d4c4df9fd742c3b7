"""Evolution in which the oldest die."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..checks import whole
from ..space import Space
from ..trial import FrozenTrial
from .base import History, Sampler, keyed_integer
from .quasirandom import sobol_point
from .ranking import ranks
from .variation import Variation

__all__ = ["RegularizedEvolutionSampler"]

SPREAD = 3.0
"""Of polynomial mutation: a step's standard deviation is about a fifth of the range."""


class RegularizedEvolutionSampler(Sampler):
    """Regularized (aging) evolution (Real et al. 2019, algorithm 1).

    The first `population_size` trials are the space's defaults, then Sobol points. From then on the population is the
    latest `population_size` trials that ended, so that even the best dies of age and one lucky value does not last. The
    best of `tournament_size` of them, drawn at random, gets a child that differs in one active parameter (and in those
    that this one switches on). Failed trials are part of the population, as the worst; with several objectives trials
    are ordered by front and crowding.
    """

    learns = True

    def __init__(
        self,
        population_size: int = 20,
        tournament_size: int = 7,
        *,
        seed: int | None = None,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
    ):
        super().__init__(seed, constraints_func)
        self.population_size = whole("RegularizedEvolutionSampler: population_size", population_size, 1)
        self.tournament_size = whole("RegularizedEvolutionSampler: tournament_size", tournament_size, 1)
        if tournament_size > population_size:
            raise ValueError(
                f"RegularizedEvolutionSampler: tournament_size must be at most population_size, got {tournament_size} "
                f"and {population_size}"
            )

    def propose(self, space: Space, history: History, number: int, seed: int) -> np.ndarray:
        if number < len(space.defaults):
            return space.encode(space.decode(np.full(space.dimensions, 0.5), space.defaults[number]))
        first = sobol_point(space.dimensions, number, seed)
        if number < self.population_size:
            return first
        trials = history.observations(space)
        alive = np.flatnonzero(~trials.pending)[-self.population_size :]
        rng = np.random.default_rng(keyed_integer(seed, number, "regularized evolution"))
        vary = Variation(space, rng, SPREAD)
        if not len(alive) or not len(vary.varied):
            return first
        drawn = rng.choice(alive, min(self.tournament_size, len(alive)), replace=False)
        parent = trials.points[min(drawn, key=ranks(trials).__getitem__)]
        active = vary.varied[~np.isnan(parent[vary.varied])]
        return vary.mutate(vary.whole(parent), rng.choice(active, 1) if len(active) else active)
