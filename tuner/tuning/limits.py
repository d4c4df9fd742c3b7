"""Constraints on what is measured: {"parameters": "<= 50000", "mae": "<= 0.1", "noise(0.5)": ">= 0.9"}."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanonet.errors import OptionError

from ..trial import FrozenTrial
from .objectives import Objective, Score, make
from .runs import TrainingRuns

__all__ = ["Bound", "Limits"]


@dataclass(frozen=True)
class Bound:
    """At most (sign 1) or at least (sign -1) so much."""

    objective: Objective
    sign: int
    bound: float

    def excess(self, value: float) -> float:
        """By how much the value breaks it, as a share of the bound; 0 or less if it does not."""
        return self.sign * (value - self.bound) / (abs(self.bound) or 1.0)


class Limits:
    """Bounds on what the search's objectives can be, be they among them or not.

    constraints: name -> "<= number" or ">= number". What depends on the settings alone, "parameters" and "latency", is
    known before a trial begins. The rest is measured with the objectives, in the data's own unit, and kept with the
    trial (`TrainingRuns.watched`). Raises OptionError.
    """

    def __init__(
        self, constraints: Mapping[str, str], objectives: Sequence[Objective], task: str, outputs: int, seed: int = 0
    ):
        own = {o.name: o for o in objectives}
        self.bounds = []
        for name, text in constraints.items():
            found = re.fullmatch(r"\s*(<=|>=)\s*(\S+)\s*", text) if isinstance(text, str) else None
            try:
                bound = float(found[2]) if found else math.nan
            except ValueError:
                bound = math.nan
            if found is None or math.isnan(bound):
                raise OptionError(f"constraints: {name!r} is {text!r}; wanted '<= number' or '>= number'")
            try:
                objective = own[name] if name in own else make(name, None, task, outputs, seed)
            except OptionError as error:
                raise OptionError(f"constraints: {error}") from None
            if isinstance(objective, Score):  # as it is, without a hair for the loss
                objective = Score(objective.name, objective.direction, tie=0.0)
            self.bounds.append(Bound(objective, 1 if found[1] == "<=" else -1, bound))

    @property
    def watched(self) -> list[Objective]:
        """What must be measured in the course of training."""
        return [b.objective for b in self.bounds if not b.objective.of_settings]

    def excess(self, work: TrainingRuns) -> Callable[[FrozenTrial], list[float]]:
        """A study's constraints_func: by how much a trial breaks each bound, as a share of it; 0 or less if it does
        not. NaN where it was not measured."""

        def of(trial: FrozenTrial) -> list[float]:
            return [
                b.excess(
                    self._of_settings(b.objective, work, trial.params)
                    if b.objective.of_settings
                    else trial.user_attrs.get(b.objective.name, math.nan)
                )
                for b in self.bounds
            ]

        return of

    def kept(self, work: TrainingRuns, trial: FrozenTrial) -> bool:
        """Whether the trial, as far as it has come, keeps every bound."""
        return all(excess <= 0 for excess in self.excess(work)(trial))

    def hopeless(self, work: TrainingRuns, params: Mapping[str, Any]) -> bool:
        """Whether the settings break a bound whatever the training brings."""
        return any(
            b.excess(self._of_settings(b.objective, work, params)) > 0 for b in self.bounds if b.objective.of_settings
        )

    @staticmethod
    def _of_settings(objective: Objective, work: TrainingRuns, params: Mapping[str, Any]) -> float:
        part = work.parts[0]
        fold = part.folds[0]
        outputs = part.classes or (1 if fold.y.ndim == 1 else fold.y.shape[1])
        return objective.of(work.settings(dict(params)), fold.x.shape[1:], outputs)
