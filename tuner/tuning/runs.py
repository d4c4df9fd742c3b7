"""A trial as training runs that go on step by step."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nanonet import checkpoint
from nanonet.errors import OptionError
from nanonet.settings import Settings
from nanonet.stacked import SHARED, advance_together, shape, step_flop
from nanonet.training import Run

from ..resumable import Stackable
from ..trial import Trial
from .course import Course
from .normalized import Normalizer
from .objectives import Objective
from .parts import Fold, Parts
from .stages import continued, inherited

__all__ = ["TrainingRuns", "most_that_pay"]

AUTO = 16
"""Trials that are trained as one on a GPU unless somebody says how many. More of them would learn less from each other.
(Not measured yet.)"""
LAUNCHED = 5e8
"""Operations of an update up to which a GPU's time goes into launching kernels: some tens of them, at a few
microseconds each, in which it could do about as much in float32. (An estimate, not measured yet.)"""


def most_that_pay(flop: float) -> int:
    """How many networks, whose updates take so many operations each, a GPU trains as one in about the time of one."""
    return max(int(LAUNCHED / flop), 1)


@dataclass
class State:
    """A trial between two segments: one run per fold, and how many steps are done."""

    runs: list[Run]
    step: int = 0
    watched: list[float] = field(default_factory=list)
    """What was watched at the last step."""


class TrainingRuns(Stackable):
    """A trial as training runs, one per fold of each data set; `course` says what a step is.

    The value of a step is, for each objective, the mean over the validation rows of a data set, of all data sets the
    mean of what `Normalizer` makes of that. While fold after fold is trained, the mean is over those that have come to
    where they are going, and the one that is on its way.

    `watched` are measured with the objectives at the same steps, and the last of each is kept with the trial, among its
    user attributes: the mean over the validation rows in the data's own unit, of all data sets the mean.

    A trial counts by its last value: the best of a noisy curve flatters those that swing most, and lies in the middle
    of a learning rate schedule. (On digits, over five seeds: 0.981 test accuracy by the last, 0.978 by the best.)

    stack: None if trials are trained one by one; else up to how many of one network, update rule and batch size are
    trained as one, their folds too (`nanonet.stacked`), or "auto" for as many as pays (`most_that_pay`).
    """

    suffix = ".safetensors"

    def __init__(
        self,
        parts: Sequence[Parts],
        objectives: Sequence[Objective],
        base: Settings,
        course: Course,
        watched: Sequence[Objective] = (),
        device: str = "cpu",
        stack: int | str | None = None,
    ):
        self.parts = list(parts)
        self.objectives = list(objectives)
        self.watched = list(watched)
        self.course = course
        self.device = device
        self.base = base.replace(epochs=course.ends[-1])
        self.max_steps = course.steps
        self._automatic = stack == "auto"
        self.stack = (AUTO if device != "cpu" else 1) if stack == "auto" else stack or 1
        several = self.objectives if len(self.parts) > 1 else []
        self._normalizers = [[Normalizer(part, objective) for objective in several] for part in self.parts]

    @property
    def folds(self) -> list[Fold]:
        """The folds of all data sets, in order."""
        return [fold for part in self.parts for fold in part.folds]

    def settings(self, params: dict[str, Any]) -> Settings:
        """The training settings of a trial."""
        return Settings.from_search(params, self.base)

    # ----------------------------------------------------------------------------- trained as one

    def structure(self, params: dict[str, Any]) -> dict[str, Any]:
        return {n: v for n, v in params.items() if n in SHARED or n == "layers" or n.startswith("width_")}

    def kind(self, params: dict[str, Any]) -> tuple[Hashable, int]:
        try:
            settings = self.settings(params)
        except OptionError:  # which `start` will tell
            return None, 1
        return shape(settings), self._at_once(settings)

    def _at_once(self, settings: Settings) -> int:
        """Up to how many trials with these settings are trained as one."""
        if self.stack == 1 or shape(settings) is None:
            return 1
        if not self._automatic:
            return self.stack
        fold = self.parts[0].folds[0]
        outputs = self.parts[0].classes or int(np.prod(fold.y.shape[1:]))
        return min(self.stack, most_that_pay(step_flop(settings, int(np.prod(fold.x.shape[1:])), outputs)))

    def advance_together(self, states: Sequence[State], steps: Sequence[int]) -> list[Any]:
        return self._advanced(states, steps, together=True)

    def _advanced(self, states: Sequence[State], steps: Sequence[int], together: bool) -> list[Any]:
        """For each state what `advance` gives, or the exception that it caused. together: all runs as one."""
        goals = [self.course.epochs(state.step + more) for state, more in zip(states, steps, strict=True)]
        begun = [[run.epoch for run in state.runs] for state in states]
        pieces = [
            (run, fold, goal - run.epoch)
            for state, each in zip(states, goals, strict=True)
            for run, fold, goal in zip(state.runs, self.folds, each, strict=True)
        ]
        curves = iter(self._curves(pieces, together))
        found: list[Any] = []
        for state, more, epochs in zip(states, steps, begun, strict=True):
            own = [next(curves) for _ in state.runs]
            errors = [curve for curve in own if isinstance(curve, Exception)]
            try:
                found.append(errors[0] if errors else self._told(state, more, epochs, own))
            except Exception as error:
                found.append(error)
        return found

    def start(self, trial: Trial) -> State:
        settings = self.settings(trial.params)
        return State(self.runs(settings, self._home(settings)))

    def runs(self, settings: Settings, device: str | None = None) -> list[Run]:
        """A run with these settings on each fold, on that device; on the one for training unless given."""
        device = device or self.device
        return [
            Run(
                settings,
                f.x,
                f.y,
                (f.x_validation, f.y_validation),
                task=part.task,
                classes=part.classes,
                device=device,
            )
            for part in self.parts
            for f in part.folds
        ]

    def _home(self, settings: Settings) -> str:
        """Where runs lie between their segments: on the CPU if they may be trained as slices of one."""
        return "cpu" if self._at_once(settings) > 1 else self.device

    def adapt(self, state: State, trial: Trial) -> State:
        """The state with the trial's settings from here on, those aside that a run has for good (`stages.KEPT`)."""
        return self.changed(state, self.settings(trial.params))

    def changed(self, state: State, settings: Settings) -> State:
        """The state with other settings from here on."""
        runs = [
            continued(run, settings, f.x, f.y, (f.x_validation, f.y_validation))
            for run, f in zip(state.runs, self.folds, strict=True)
        ]
        return State(runs, state.step)

    def inherit(self, params: dict[str, Any], parent: dict[str, Any]) -> dict[str, Any]:
        return inherited(params, parent)

    def advance(self, state: State, steps: int) -> tuple[State, list[Any]]:
        away = any(run.device != self.device for run in state.runs)
        (found,) = self._advanced([state], [steps], together=away)
        if isinstance(found, Exception):
            raise found
        return found

    def _told(
        self, state: State, steps: int, begun: Sequence[int], curves: Sequence[list[list[float]]]
    ) -> tuple[State, list[Any]]:
        """What `advance` gives, after the runs went on from so many epochs and gave these curves."""
        last = state.step + steps
        values: list[Any] = []
        for step in range(state.step + 1, last + 1):
            counts = self.course.counts(step)
            places = [epochs - before - 1 for epochs, before in zip(self.course.epochs(step), begun, strict=True)]
            if any(at >= len(curve) for at, curve, counted in zip(places, curves, counts, strict=True) if counted):
                break  # one has stopped by itself
            now = [
                None
                if not counts[i]
                else curves[i][at]
                if at >= 0
                else self._measured(run, self.folds[i], run.history[-1])
                for i, (run, at) in enumerate(zip(state.runs, places, strict=True))
            ]
            value, state.watched = self._together(now)
            values.append(value if len(value) > 1 else value[0])
        state.step += len(values)
        return state, values

    def remarks(self, state: State) -> dict[str, Any]:
        return {o.name: value for o, value in zip(self.watched, state.watched, strict=False)}

    def save(self, state: State, path: Path) -> None:
        content = {"step": state.step, "runs": [run.state() for run in state.runs]}
        Path(path).write_bytes(checkpoint.dumps(content))

    def load(self, path: Path) -> State:
        content = checkpoint.load(path)
        homes = [self._home(Settings.from_dict(state["settings"])) for state in content["runs"]]
        runs = [
            Run.restore(state, f.x, f.y, (f.x_validation, f.y_validation), device=home)
            for state, f, home in zip(content["runs"], self.folds, homes, strict=True)
        ]
        return State(runs, content["step"])

    # ------------------------------------------------------------------------------------- the values

    def _curves(self, pieces: Sequence[tuple[Run, Fold, int]], together: bool) -> list[Any]:
        """For each of these runs, what is measured after each of its next epochs, of which there are so many; NaN where
        it diverged, fewer if it stopped by itself. Or the exception that measuring it raised."""
        curves: list[Any] = [[] for _ in pieces]
        whole = all(o.whole_epochs for o in self.objectives + self.watched)

        def measure(i: int, epoch: dict[str, float]) -> None:
            if not isinstance(curves[i], Exception):
                try:
                    curves[i].append(self._measured(*pieces[i][:2], epoch))
                except Exception as error:
                    curves[i] = error

        everything = range(len(pieces))
        for some in [everything] if together else [[i] for i in everything]:
            runs, epochs = ([pieces[i][place] for i in some] for place in (0, 2))

            def after(k: int, runs: list[Run] = runs, some: Sequence[int] = some) -> None:
                measure(some[k], runs[k].history[-1])

            found = advance_together(runs, epochs, self.device, None if whole else after)
            for i, results in zip(some, found if whole else (), strict=False):
                for epoch in results:
                    measure(i, epoch)
        return curves

    def _measured(self, run: Run, fold: Fold, epoch: dict[str, float]) -> list[float]:
        """The objectives, and what is watched, of a run that stands at the end of this epoch of its history; NaN if
        that is where it diverged."""
        if run.diverged and epoch is run.history[-1]:
            return [float("nan")] * len(self.objectives + self.watched)
        values = [o.measure(run, epoch, fold) for o in self.objectives]
        known = dict(zip(self.objectives, values, strict=True))
        return values + [known[o] if o in known else o.measure(run, epoch, fold) for o in self.watched]

    def _together(self, now: Sequence[list[float] | None]) -> tuple[list[float], list[float]]:
        """The objectives' values for all data sets, and those of what is watched, from the folds that count."""
        values, watched, at = [], [], 0
        for part, normalizers in zip(self.parts, self._normalizers, strict=True):
            pairs = [(v, len(f.y_validation)) for f, v in zip(part.folds, now[at:], strict=False) if v is not None]
            at += len(part.folds)
            mean = np.average([v for v, _ in pairs], axis=0, weights=[rows for _, rows in pairs])
            mean, others = np.split(mean, [len(self.objectives)])
            watched.append([part.unit(o.name) * value for o, value in zip(self.watched, others, strict=True)])
            if len(self.parts) > 1:
                mean = [normalizer(value) for normalizer, value in zip(normalizers, mean, strict=True)]
            values.append(mean)
        return np.mean(values, axis=0).tolist(), np.mean(watched, axis=0).tolist()
