"""Which frozen run to thaw: the one whose curve promises most, by extrapolation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..checks import number, whole
from ..pareto import HUGE
from ..trial import FrozenTrial, TrialState
from .base import PENDING, Decision, Scheduler, Segment, Situation
from .extrapolation import Extrapolation, expected_improvement

__all__ = ["FreezeThaw"]

FEW = 5  # trials that are begun before any goes on


class FreezeThaw(Scheduler):
    """New trials run `min_steps` steps and are frozen. While they have had their part of all steps, the trial whose
    curve promises most per step is thawed, and doubles its steps.

    What a curve promises is the expected improvement, at its last step, on the best loss of any trial, over the steps
    that it has to go; see extrapolation.py for the model of curves, which is fitted to those of this study. (In the
    spirit of Swersky et al. 2014, with a plainer model.) Of trials with the very same curve only the first is thawed.
    With several objectives, which have no common scale, the best by `pareto.order` is thawed.

    Once no more trials may be started, trials are thawed until the most promising one is complete; the others end.

    min_steps: of a new trial. explore: the part of all steps that goes to new trials.
    """

    def __init__(self, min_steps: int = 1, explore: float = 0.5):
        self.min_steps, self.explore = whole("min_steps", min_steps, 1), number("explore", explore, "(0, 1)")

    def decide(self, situation: Situation) -> Decision:
        first = min(self.min_steps, situation.max_steps)
        for trial in situation.trials:
            if trial.state in PENDING and trial.steps < first:
                return Decision(run=Segment(trial.number, first - trial.steps))
        begun = sum(min(max(t.steps, first), first) for t in situation.trials)
        spent = sum(max(t.steps, first) for t in situation.trials)
        frozen = [t for t in situation.trials if t.state is TrialState.PAUSED]
        if situation.may_start and (not frozen or len(situation.trials) < FEW or begun < self.explore * spent):
            return Decision(run=Segment(None, first))
        chosen = self._chosen(situation, frozen) if frozen else None
        if chosen is not None:
            steps = min(max(chosen.steps, first), situation.max_steps - chosen.steps)
            return Decision(run=Segment(chosen.number, steps))
        if situation.may_start:
            return Decision(run=Segment(None, first))
        if any(trial.state is TrialState.RUNNING for trial in situation.trials):
            return Decision()
        return Decision([trial.number for trial in frozen])

    def _chosen(self, situation: Situation, frozen: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """The trial to thaw; None if a complete one promises more than all that are frozen, and none may be started."""
        known = [t for t in situation.trials if t.steps > 0 and t.state is not TrialState.FAIL]
        if len(situation.signs) > 1:
            best = situation.ranked(known, situation.max_steps)[0]
            if best.state is TrialState.COMPLETE and not situation.may_start:
                return None
            return situation.ranked(frozen, situation.max_steps)[0]
        curves = {t.number: _curve(t, situation) for t in known}
        model = Extrapolation(list(curves.values()))
        best = min(min(curve) for curve in curves.values())
        promising: FrozenTrial | None = None
        highest, lowest, seen = -1.0, np.inf, set()
        for trial in frozen:
            key = curves[trial.number].tobytes()
            if key in seen:
                continue
            seen.add(key)
            mean, deviation = model.predict(curves[trial.number], situation.max_steps)
            lowest = min(lowest, mean)
            promise = expected_improvement(mean, deviation, best) / (situation.max_steps - trial.steps)
            if promise > highest:
                highest, promising = promise, trial
        ended = [curves[t.number][-1] for t in known if t.state is TrialState.COMPLETE]
        if not situation.may_start and ended and min(ended) <= lowest:
            return None
        return promising


def _curve(trial: FrozenTrial, situation: Situation) -> np.ndarray:
    """Losses after 1, 2, ... steps: of the last step, or of the best so far, as trials count."""
    values = [trial.intermediate_values.get(step, np.nan) for step in range(1, trial.steps + 1)]
    losses = situation.signs[0] * np.array(values, dtype=np.float64)
    losses = np.where(np.isnan(losses) | (losses == np.inf), np.inf, np.clip(losses, -HUGE, HUGE))
    return np.minimum.accumulate(losses) if situation.best else losses
