"""What a report tells of a study, as data."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..importance import Analysis, Summary
from ..importance.words import QUANTILE, describe, tells
from ..trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from ..study import Study

__all__ = ["Contents", "Objective", "gather", "result"]

BEST = 5  # trials to list
FRONT = 20  # trials of a Pareto front to list


@dataclass(frozen=True)
class Objective:
    """name: for headings; "" if there is only one. analysis: None if there is nothing to explain; tells: whether it is
    worth showing."""

    name: str
    direction: str
    summary: Summary
    analysis: Analysis | None
    tells: bool = False


@dataclass(frozen=True)
class Contents:
    """trials: all of them. best: the best ones by value, or the Pareto front if there are several objectives."""

    study: Study
    trials: list[FrozenTrial]
    objectives: list[Objective]
    best: list[FrozenTrial]

    @property
    def states(self) -> dict[str, int]:
        """How many trials are in each state that occurs."""
        counts = Counter(trial.state for trial in self.trials)
        return {state.name.lower(): counts[state] for state in TrialState if counts[state]}

    @property
    def seconds(self) -> float | None:
        """From the first trial's start to the last one's end."""
        starts = [t.datetime_start for t in self.trials if t.datetime_start is not None]
        ends = [t.datetime_complete for t in self.trials if t.datetime_complete is not None]
        return (max(ends) - min(starts)).total_seconds() if starts and ends else None

    @property
    def words(self) -> list[str]:
        """What was found, and why to take it with care: a sentence each."""
        lines = []
        for objective in self.objectives:
            before = f"{objective.name}: " if objective.name else ""
            lines += [before + line for line in str(objective.summary).splitlines()]
        return lines

    def to_dict(self) -> dict[str, Any]:
        return {
            "study": self.study.study_name,
            "directions": list(self.study.directions),
            "trials": len(self.trials),
            "trials_by_state": self.states,
            "steps": sum(t.steps for t in self.trials),
            "seconds": self.seconds,
            "best": [{"trial": t.number, "values": result(t), "params": t.params} for t in self.best],
            "objectives": [{"name": o.name, "direction": o.direction, **o.summary.to_dict()} for o in self.objectives],
        }


def result(trial: FrozenTrial) -> list[float]:
    """A trial's values; while it has none, the last ones of its curve."""
    if trial.values:
        return list(trial.values)
    if trial.last_step is None:
        return []
    last = trial.intermediate_values[trial.last_step]
    return list(last) if isinstance(last, (list, tuple)) else [last]


def gather(study: Study) -> Contents:
    """Look at a study, once."""
    trials = study.get_trials(deepcopy=False)
    if len(study.directions) > 1:
        objectives = [
            _objective(study, f"objective {k + 1}", direction, k) for k, direction in enumerate(study.directions)
        ]
        front = sorted(study.best_trials, key=result)
        return Contents(study, trials, objectives, front[:: max(1, -(-len(front) // FRONT))])
    sign = study.signs[0]
    complete = [t for t in trials if t.state is TrialState.COMPLETE and t.values and t.feasible]
    furthest = max((t.steps for t in trials if t.state is TrialState.PAUSED), default=0)
    complete = complete or [t for t in trials if t.state is TrialState.PAUSED and t.steps == furthest]
    best = sorted(complete, key=lambda t: (sign * result(t)[0], t.number))[:BEST]
    return Contents(study, trials, [_objective(study, "", study.direction, 0)], best)


def _objective(study: Study, name: str, direction: str, number: int) -> Objective:
    try:
        analysis = Analysis(study, objective=number, quantile=QUANTILE)
    except ValueError as error:
        return Objective(name, direction, Summary([], [str(error)]), None)
    return Objective(name, direction, describe(analysis), analysis, tells(analysis))
