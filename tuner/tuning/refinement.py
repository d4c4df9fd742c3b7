"""The continuous settings of the best trial, refined by the gradient of the validation loss, as one trial more."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nanonet.errors import OptionError
from nanonet.settings import Settings

from ..hypergradient import Data, gradient_tune_over
from ..pruners import NopPruner
from ..schedulers import Decision, Scheduler, Segment, Situation
from ..schedulers.base import PENDING
from ..space import Float, Space
from ..study import Study
from ..trial import FrozenTrial, TrialState
from .runs import TrainingRuns

__all__ = ["Refinement", "check_refinable", "run_refinement"]

DIFFERENTIABLE = ("learning_rate", "weight_decay", "l1", "momentum", "beta1", "beta2")
SGD_RATE = "learning_rate_sgd"  # what the search calls sgd's learning rate
LEAST_STEPS = 100
MOST_STEPS = 5000  # of all parts together, if there is no limit to the time
ROUNDS = 10  # evaluations of the gradient for which there should be time
ATTRIBUTE = "refined"
GRADIENT_SHARE = 0.6  # of the time, the rest is for the trial


@dataclass(frozen=True)
class Refinement:
    """What came of a refinement.

    source: the number of the trial whose settings were refined. trial: the one with the refined settings; None if there
        was no time, or the gradient changed nothing.
    before, after: parameters of the search. history: of `gradient_tune`, a dict a round.
    better: whether the trial took the source's place.
    """

    source: int
    trial: FrozenTrial | None
    before: dict[str, float]
    after: dict[str, float]
    history: list[dict[str, float]] = field(default_factory=list)
    better: bool = False


def check_refinable(space: Space) -> None:
    """OptionError if no parameter of the space is continuous and can be differentiated."""
    if not any(_continuous(space, name) for name in (*DIFFERENTIABLE, SGD_RATE)):
        raise OptionError(
            f"refine is 'gradient', and none of the settings searched can be differentiated: {', '.join(space.names)}; "
            f"wanted one of {', '.join(DIFFERENTIABLE)} among them, with a range of numbers"
        )


def run_refinement(study: Study, work: TrainingRuns, space: Space, deadline: float) -> Refinement | None:
    """Refine the settings of the study's best trial, and run them as a trial more; None if there is nothing to refine.

    deadline: of time.monotonic. What was refined is kept in the study's attributes, so a search that goes on does not
    repeat it. A trial that does not come to its end in time stays paused, and counts for nothing.
    """
    known: dict[str, int] = study.user_attrs.get(ATTRIBUTE) or {}
    best = study.best_trial
    if ATTRIBUTE in best.user_attrs:  # it was refined already, and is the better one
        best = study.trials[best.user_attrs[ATTRIBUTE]]
    settings = work.settings(best.params)
    chosen = _chosen(space, best.params, settings)
    if not chosen:
        return None
    before = {name: best.params[name] for name in chosen.values()}
    number = known.get(str(best.number))
    history: list[dict[str, float]] = []
    if number is None:
        now = time.monotonic()
        after, history = _refined(work, settings, chosen, now + GRADIENT_SHARE * (deadline - now))
        after = {name: _inside(space, name, value) for name, value in after.items()}
        params = {**best.params, **after}
        same = all(math.isclose(after.get(name, value), value, rel_tol=1e-6) for name, value in before.items())
        if same or time.monotonic() >= deadline:
            return Refinement(best.number, None, before, before, history)
        number = study.storage.enqueue_trial(study.study_id, params, {ATTRIBUTE: best.number})
        study.set_user_attr(ATTRIBUTE, {**known, str(best.number): number})
    if not study.trials[number].state.is_finished():
        _run_to_its_end(study, work, number, deadline)
    trial = study.trials[number]
    after = {name: trial.params[name] for name in before}
    better = trial.state is TrialState.COMPLETE and study.best_trial.number == number
    return Refinement(best.number, trial, before, after, history, better)


def _chosen(space: Space, params: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """Setting -> the parameter that it is, of those that can be differentiated here."""
    rate = SGD_RATE if SGD_RATE in params and settings.optimizer == "sgd" else "learning_rate"
    names = {name: rate if name == "learning_rate" else name for name in DIFFERENTIABLE}
    return {
        setting: name
        for setting, name in names.items()
        if name in params
        and _continuous(space, name)
        and setting in settings.active()
        and getattr(settings, setting) > 0
    }


def _continuous(space: Space, name: str) -> bool:
    domain = space.parameters.get(name)
    return isinstance(domain, Float) and domain.step is None and domain.low < domain.high


def _inside(space: Space, name: str, value: float) -> float:
    domain = space.parameters[name]
    return min(max(value, domain.low), domain.high)


def _refined(
    work: TrainingRuns, settings: Settings, chosen: Mapping[str, str], deadline: float
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """(parameters, history). Where the loss cannot be differentiated to any use, no parameters."""
    parts = [
        Data(f.x, f.y, (f.x_validation, f.y_validation), part.task, part.classes)
        for part in work.parts
        for f in part.folds
    ]
    options = {"names": list(chosen), "scheduled": True}
    try:
        parts, steps = _affordable(settings, parts, options, deadline)
        found = gradient_tune_over(settings, parts, steps=steps, rounds=2 * ROUNDS, deadline=deadline, **options)
    except OptionError:  # the loss falls at no learning rate
        return {}, []
    return {name: float(getattr(found.settings, setting)) for setting, name in chosen.items()}, found.history


def _affordable(
    settings: Settings, parts: list[Data], options: Mapping[str, Any], deadline: float
) -> tuple[list[Data], int]:
    """The parts to differentiate on, and the steps: those of the whole training, if there is time.

    What is best after few steps is too bold for many (Wu et al. 2018): rather one fold to the end than all of them half
    the way. (Of ten searches on digits the refined trial was better in nine with all 1836 steps, in three with 1000.)
    """
    every = settings.epochs * max(min(len(part.y) for part in parts) // settings.batch_size, 1)
    budget = float(MOST_STEPS)
    if not math.isinf(deadline):
        times = [time.monotonic()]
        for rounds in (1, 3):
            gradient_tune_over(settings, parts[:1], steps=min(every, LEAST_STEPS // 2), rounds=rounds, **options)
            times.append(time.monotonic())
        before, middle, now = times
        pace = ((now - middle) - (middle - before)) / 2 / min(every, LEAST_STEPS // 2)
        budget = (deadline - now) / (ROUNDS * max(pace, 1e-6))
    count = min(max(int(budget // every), 1), len(parts))
    return parts[:count], min(max(int(budget // count), LEAST_STEPS), every)


def _run_to_its_end(study: Study, work: TrainingRuns, number: int, deadline: float) -> None:
    left = deadline - time.monotonic()
    usual, study.pruner = study.pruner, _Alone(number, max(work.max_steps // 10, 1))
    try:
        study.optimize(work, n_trials=1, timeout=None if math.isinf(left) else max(left, 0.0))
    finally:
        study.pruner = usual


class _Alone(NopPruner):
    """One trial runs to its end, in segments of so many steps; the others stay where they are."""

    def __init__(self, number: int, steps: int):
        self._scheduler = _OnlyOne(number, steps)

    def scheduler(self) -> Scheduler:
        return self._scheduler


class _OnlyOne(Scheduler):
    def __init__(self, number: int, steps: int):
        self.number, self.steps = number, steps

    def decide(self, situation: Situation) -> Decision:
        for trial in situation.trials:
            if trial.number == self.number and trial.state in PENDING:
                return Decision(run=Segment(self.number, min(self.steps, situation.max_steps - trial.steps)))
        return Decision()
