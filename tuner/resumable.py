"""Objectives that can stop, be stored and go on: a trial is then run in segments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from .trial import Trial, curve_value

__all__ = ["Advanced", "Resumable", "Stackable", "run_segment", "run_segments"]


class Resumable(ABC):
    """An objective whose trials go step by step. Pass it to `Study.optimize` in place of a function.

    max_steps: how many steps a trial has at most.
    score: "last" if a trial counts by the last value of its curve, "best" if by the best one.

    A subclass may define `save(state, path)` and `load(path) -> state` (OSError or ValueError if the file is missing
    or damaged), with `suffix` as the files' ending. Without them, or when a state was lost, a trial that goes on is
    first run again from its start, so `start` and `advance` must give the same for the same settings.
    """

    max_steps: int = 100
    score: str = "last"

    @abstractmethod
    def start(self, trial: Trial) -> Any:
        """The state before the first step. Settings are in `trial.params`, or asked for by `trial.suggest_...`."""

    @abstractmethod
    def advance(self, state: Any, steps: int) -> tuple[Any, Sequence[Any]]:
        """(the state after `steps` steps more, one value per step).

        `state` may be changed in place. With several objectives each step's value is a sequence of one for each.
        Fewer values than steps mean that the trial has come to its own end; a NaN ends it as failed, so a run that
        diverges should stop there and give a NaN last. `TrialPruned` ends it as pruned.
        """

    def remarks(self, state: Any) -> dict[str, Any]:
        """What else there is to tell about a state that was just advanced: JSON-able values by name, which the trial
        keeps among its user attributes until it has gone further. By default nothing."""
        return {}

    def adapt(self, state: Any, trial: Trial) -> Any:
        """The state of another trial, which may be changed in place, with the settings of `trial` from here on.

        For schedulers that change settings in mid-run, as population based training does.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define adapt(state, trial) for settings to change mid-run"
        )

    def inherit(self, params: dict[str, Any], parent: dict[str, Any]) -> dict[str, Any]:
        """The settings for a trial that goes on from the state of one with the settings `parent`, where `params` were
        proposed: those that cannot change in mid-run should be the parent's. By default all of `params`."""
        return params


class Stackable(Resumable):
    """A resumable of which several trials can be advanced as one, where that is faster than one after another.

    A worker is then given segments of up to `stack` trials at a time, which are grouped by their `kind`. See
    `stacking.py` for how trials come to be of one kind.
    """

    stack: int = 1

    @abstractmethod
    def kind(self, params: dict[str, Any]) -> tuple[Hashable, int]:
        """What trials must have in common to be advanced together, and up to how many of them that pays."""

    @abstractmethod
    def structure(self, params: dict[str, Any]) -> dict[str, Any]:
        """Those of the settings that decide the kind."""

    @abstractmethod
    def advance_together(self, states: Sequence[Any], steps: Sequence[int]) -> Sequence[Any]:
        """For each state, `steps` further, what `advance` gives; or the exception that this state alone caused."""


class Advanced(list):
    """The values of a segment's steps, and what `Resumable.remarks` says about the state after them."""

    remarks: Mapping[str, Any] = {}


def run_segment(task: Resumable, trial: Trial, done: int, steps: int, checkpoints: Any) -> Advanced:
    """Take the trial's state after `done` steps, add `steps` more, put the new state away; the values of the new steps.

    Runs in a worker and touches nothing else, so a segment that was lost is simply run again.
    """
    return _ended(task, trial, done, steps, checkpoints, task.advance(_state(task, trial, done, checkpoints), steps))


def run_segments(
    task: Stackable, trials: Sequence[Trial], done: Sequence[int], steps: Sequence[int], checkpoints: Any
) -> list[Advanced | Exception]:
    """`run_segment` for several trials as one. What goes wrong with one of them stands in the place of its values.

    Where memory does not suffice for all of them, they are run by halves.
    """
    if len(trials) == 1:
        try:
            return [run_segment(task, trials[0], done[0], steps[0], checkpoints)]
        except Exception as error:
            return [error]
    try:
        return _run_together(task, trials, done, steps, checkpoints)
    except MemoryError:
        halves = slice(len(trials) // 2), slice(len(trials) // 2, None)
    return [r for half in halves for r in run_segments(task, trials[half], done[half], steps[half], checkpoints)]


def _run_together(
    task: Stackable, trials: Sequence[Trial], done: Sequence[int], steps: Sequence[int], checkpoints: Any
) -> list[Advanced | Exception]:
    results: list[Any] = [None] * len(trials)
    states: dict[int, Any] = {}
    for i, trial in enumerate(trials):
        try:
            states[i] = _state(task, trial, done[i], checkpoints)
        except Exception as error:
            results[i] = error
    found = task.advance_together(list(states.values()), [steps[i] for i in states]) if states else []
    for i, advanced in zip(states, found, strict=True):
        try:
            if isinstance(advanced, Exception):
                raise advanced
            results[i] = _ended(task, trials[i], done[i], steps[i], checkpoints, advanced)
        except Exception as error:
            results[i] = error
    return results


def _state(task: Resumable, trial: Trial, done: int, checkpoints: Any) -> Any:
    """The trial's state after `done` steps."""
    state = checkpoints.take(trial.number, done, task) if done else None
    return _rebuilt(task, trial, done, checkpoints) if state is None else state


def _ended(task: Resumable, trial: Trial, done: int, steps: int, checkpoints: Any, advanced: Any) -> Advanced:
    """Put the state away that `advance` gave; its values."""
    if not isinstance(advanced, tuple) or len(advanced) != 2 or not isinstance(advanced[1], Iterable):
        raise TypeError(f"advance must give (state, values), one value per step, got {advanced!r}")
    state, values = advanced
    values = Advanced(curve_value(value, len(trial.study.directions), "advance") for value in values)
    values.remarks = task.remarks(state)
    if len(values) > steps:
        raise ValueError(f"advance was asked for {steps} steps and gave {len(values)} values")
    checkpoints.put(trial.number, done + len(values), state, task)
    return values


def _rebuilt(task: Resumable, trial: Trial, done: int, checkpoints: Any = None) -> Any:
    """The state after `done` steps of the trial's own, from its beginning: the copy of its parent's state, if it is
    there, else run again; or none."""
    if trial.parent is None:
        state = task.start(trial)
    else:
        state = checkpoints.take(trial.number, 0, task) if checkpoints is not None else None
        if state is None:
            number, steps = trial.parent
            study = trial.study
            state = _rebuilt(task, Trial(study, number, study.storage.trial(study.study_id, number).attempt), steps)
        state = task.adapt(state, trial)
    return task.advance(state, done)[0] if done else state
