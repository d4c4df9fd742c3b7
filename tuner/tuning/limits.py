"""Constraints on what is measured: {"parameters": "<= 50000", "mae": "<= 0.1", "noise(0.5)": ">= 0.9"}."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanonet.errors import OptionError
from nanonet.settings import Settings

from ..trial import FrozenTrial
from .objectives import Objective, Score, make
from .runs import TrainingRuns

__all__ = ["Bound", "Excess", "Limits"]


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

    def excess(self, work: TrainingRuns) -> Excess:
        """A study's constraints_func."""
        part = work.parts[0]
        fold = part.folds[0]
        outputs = part.classes or (1 if fold.y.ndim == 1 else fold.y.shape[1])
        return Excess(self.bounds, work.base, fold.x.shape[1:], outputs)

    def kept(self, work: TrainingRuns, trial: FrozenTrial) -> bool:
        """Whether the trial, as far as it has come, keeps every bound."""
        return all(excess <= 0 for excess in self.excess(work)(trial))

    def hopeless(self, work: TrainingRuns, params: Mapping[str, Any]) -> bool:
        """Whether the settings break a bound whatever the training brings."""
        excess = self.excess(work)
        return any(b.excess(excess.of_settings(b, params)) > 0 for b in self.bounds if b.objective.of_settings)


@dataclass(frozen=True)
class Excess:
    """By how much a trial breaks each bound, as a share of it; 0 or less if it does not, NaN if it was not measured.

    It holds none of the data, for it goes wherever the study goes. base: the settings that are not searched. shape,
    outputs: of the networks.
    """

    bounds: list[Bound]
    base: Settings
    shape: tuple[int, ...]
    outputs: int

    def __call__(self, trial: FrozenTrial) -> list[float]:
        return [
            b.excess(
                self.of_settings(b, trial.params)
                if b.objective.of_settings
                else trial.user_attrs.get(b.objective.name, math.nan)
            )
            for b in self.bounds
        ]

    def of_settings(self, bound: Bound, params: Mapping[str, Any]) -> float:
        """The value of what depends on the settings alone."""
        return bound.objective.of(Settings.from_search(params, self.base), self.shape, self.outputs)
