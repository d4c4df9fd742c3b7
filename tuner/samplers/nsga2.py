"""The non-dominated sorting genetic algorithm, for one objective and for several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..checks import number, whole
from ..space import Space
from ..trial import FrozenTrial
from .base import History, Sampler, keyed_integer
from .quasirandom import sobol_point
from .ranking import ranks
from .variation import Variation

__all__ = ["NSGAIISampler"]

CROSSOVERS = ("uniform", "sbx")


class NSGAIISampler(Sampler):
    """NSGA-II (Deb et al. 2002) with a steady population.

    The first `population_size` trials are the space's defaults, then Sobol points. From then on the parents of each
    trial are the best `population_size` of all trials that ended, by front and crowding, with feasible ones before
    infeasible ones; so nothing but the history says who they are, in whatever order parallel trials end, and a good
    child may be a parent at once (steady state: Durillo et al. 2009). Each of two parents is the better of two drawn at
    random.

    mutation_prob: of each parameter; 1 / the number of parameters unless given. Mutation is polynomial for numbers, at
        least one value away for whole numbers and ordinals, another category for categories.
    crossover: "uniform", each parameter as one of the parents has it, or "sbx", simulated binary crossover.
    crossover_prob: how often a child has two parents. swapping_prob: of each parameter to come from the second one.
    """

    learns = True

    def __init__(
        self,
        *,
        population_size: int = 50,
        mutation_prob: float | None = None,
        crossover: str = "uniform",
        crossover_prob: float = 0.9,
        swapping_prob: float = 0.5,
        seed: int | None = None,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
    ):
        super().__init__(seed, constraints_func)
        self.population_size = whole("NSGAIISampler: population_size", population_size, 2)
        if crossover not in CROSSOVERS:
            raise ValueError(f"NSGAIISampler: crossover must be one of {', '.join(CROSSOVERS)}, got {crossover!r}")
        self.crossover, self.mutation_prob = crossover, mutation_prob
        if mutation_prob is not None:
            self.mutation_prob = number("NSGAIISampler: mutation_prob", mutation_prob, "[0, 1]")
        self.crossover_prob = number("NSGAIISampler: crossover_prob", crossover_prob, "[0, 1]")
        self.swapping_prob = number("NSGAIISampler: swapping_prob", swapping_prob, "[0, 1]")

    def propose(self, space: Space, history: History, number: int, seed: int) -> np.ndarray:
        if number < len(space.defaults):
            return space.encode(space.decode(np.full(space.dimensions, 0.5), space.defaults[number]))
        first = sobol_point(space.dimensions, number, seed)
        if number < self.population_size:
            return first
        trials = history.observations(space)
        places = ranks(trials)
        order = np.argsort(places, kind="stable")  # NaN, that is pending, comes last
        population = trials.points[order[: min(self.population_size, int(np.sum(~np.isnan(places))))]]
        if not len(population) or not space.dimensions:
            return first
        rng = np.random.default_rng(keyed_integer(seed, number, "nsga2"))
        vary = Variation(space, rng)
        mother, father = population[rng.integers(len(population), size=(2, 2)).min(axis=1)]
        if rng.random() >= self.crossover_prob:
            child = vary.whole(mother)
        elif self.crossover == "sbx":
            child = vary.simulated_binary(mother, father, self.swapping_prob)
        else:
            child = vary.uniform(mother, father, self.swapping_prob)
        share = 1 / max(len(vary.varied), 1) if self.mutation_prob is None else self.mutation_prob
        return vary.mutate(child, vary.varied[rng.random(len(vary.varied)) < share])
