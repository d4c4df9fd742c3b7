"""The best settings once more with other seeds, so that the luckiest trial does not pass for the best one."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..executors import cores, perform
from ..study import Study
from ..trial import FrozenTrial, TrialState
from .result import Finalist
from .runs import State, TrainingRuns
from .stages import Stage, stages_of

__all__ = ["run_finals"]

ATTRIBUTE = "finalists"
SEEDS = 7919  # between the seeds of two repetitions


def run_finals(
    study: Study, work: TrainingRuns, count: int, repeats: int, deadline: float, n_jobs: int
) -> list[Finalist]:
    """The `count` best trials trained with repeats - 1 further seeds each, best mean first.

    Round after round each finalist gets one more seed; a round that does not end before `deadline` (of time.monotonic)
    counts for nobody. What was done is kept in the study's attributes, so a search that goes on does not repeat it.
    """
    sign = study.signs[0]
    complete = [t for t in study.trials if t.state is TrialState.COMPLETE and t.values and t.feasible]
    chosen = sorted(complete or [study.best_trial], key=lambda t: (sign * _value(t), t.number))[:count]
    known: dict[str, list[float]] = study.user_attrs.get(ATTRIBUTE) or {}
    scores = {t.number: [_value(t), *known.get(str(t.number), [])][:repeats] for t in chosen}
    crowded = 2 * n_jobs > cores()
    with ThreadPoolExecutor(n_jobs) as pool:
        for repeat in range(1, repeats):
            due = [t for t in chosen if len(scores[t.number]) <= repeat]
            tasks = [
                (t, pool.submit(perform, crowded, _until(deadline, work, stages_of(study, t, work), repeat)))
                for t in due
            ]
            found = [(t, task.result().result) for t, task in tasks]
            if any(value is None for _, value in found):
                break
            for t, value in found:
                scores[t.number].append(value)
                known[str(t.number)] = scores[t.number][1:]
            study.set_user_attr(ATTRIBUTE, known)
    rounds = min(map(len, scores.values()))
    finalists = [Finalist(t, scores[t.number][:rounds]) for t in chosen]
    return sorted(finalists, key=lambda f: (sign * f.mean, f.trial.number))


def _value(trial: FrozenTrial) -> float:
    return trial.intermediate_values[trial.steps] if trial.values is None else trial.values[0]


def _until(deadline: float, work: TrainingRuns, stages: list[Stage], repeat: int) -> Callable[[], float | None]:
    """A task that trains the trial's settings with another seed; it gives the last value, or None for lack of time."""

    def task() -> float | None:
        first = stages[0].settings
        state = State(work.runs(first.replace(seed=first.seed + SEEDS * repeat)))
        value = float("nan")
        for stage in stages:
            if state.step:
                state = work.changed(state, stage.settings)
            while state.step < stage.steps:
                if time.monotonic() >= deadline:
                    return None
                state, found = work.advance(state, 1)
                if found:
                    value = found[0]
                if not found or value != value:
                    return value
        return value

    return task
