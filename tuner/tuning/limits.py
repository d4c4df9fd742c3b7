"""Constraints on what is measured: {"parameters": "<= 50000", "latency": "<= 1e-4"}."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nanonet.errors import OptionError

from ..trial import FrozenTrial
from .objectives import Objective, make
from .runs import TrainingRuns

__all__ = ["Limits"]


class Limits:
    """Bounds on objectives.

    constraints: name -> "<= number" or ">= number". A name is that of one of the search's objectives, or of what
    depends on the settings alone: "parameters", "latency". Raises OptionError.
    """

    def __init__(self, constraints: Mapping[str, str], objectives: Sequence[Objective], task: str, outputs: int):
        names = [o.name for o in objectives]
        self.bounds: list[tuple[int, Objective, int, float]] = []  # place among the objectives or -1, sign, bound
        for name, text in constraints.items():
            found = re.fullmatch(r"\s*(<=|>=)\s*(\S+)\s*", text) if isinstance(text, str) else None
            try:
                bound = float(found[2]) if found else None
            except ValueError:
                bound = None
            if bound is None or bound != bound:
                raise OptionError(f"constraints: {name!r} is {text!r}; wanted '<= number' or '>= number'")
            if name in names:
                place, objective = names.index(name), objectives[names.index(name)]
            else:
                place, objective = -1, make(name, None, task, outputs)
                if not objective.of_settings:
                    raise OptionError(
                        f"constraints: {name!r} is not among the objectives, {', '.join(names)}; wanted one of them, "
                        "'parameters' or 'latency'"
                    )
            self.bounds.append((place, objective, 1 if found[1] == "<=" else -1, bound))

    def excess(self, work: TrainingRuns) -> Callable[[FrozenTrial], list[float]]:
        """A study's constraints_func: by how much a trial breaks each bound, as a share of it; 0 or less if it does
        not."""

        def of(trial: FrozenTrial) -> list[float]:
            excess = []
            for place, objective, sign, bound in self.bounds:
                value = self._of_settings(objective, work, trial.params) if place < 0 else trial.values[place]
                excess.append(sign * (value - bound) / (abs(bound) or 1.0))
            return excess

        return of

    def hopeless(self, work: TrainingRuns, params: Mapping[str, Any]) -> bool:
        """Whether the settings break a bound whatever the training brings."""
        return any(
            sign * (self._of_settings(objective, work, params) - bound) > 0
            for _, objective, sign, bound in self.bounds
            if objective.of_settings
        )

    @staticmethod
    def _of_settings(objective: Objective, work: TrainingRuns, params: Mapping[str, Any]) -> float:
        part = work.parts[0]
        fold = part.folds[0]
        outputs = part.classes or (1 if fold.y.ndim == 1 else fold.y.shape[1])
        return objective.of(work.settings(dict(params)), fold.x.shape[1:], outputs)
