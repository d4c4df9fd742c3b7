"""What `tune` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nanonet.data import Dataset, Standardizer
from nanonet.settings import Settings
from nanonet.training import Run

from ..study import Study
from ..trial import FrozenTrial, TrialState
from .refinement import Refinement
from .stages import Stage

__all__ = ["Finalist", "FrontMember", "TuneResult"]


@dataclass(frozen=True)
class FrontMember:
    """One of the settings that no other beats in an objective without losing in another one."""

    trial: FrozenTrial
    settings: Settings
    values: dict[str, float]
    """Objective -> value on validation rows."""
    epochs: int
    watched: dict[str, float] = field(default_factory=dict)
    """What constraints bound -> value on validation rows, in the data's own unit."""


@dataclass(frozen=True)
class Finalist:
    """Settings that were trained anew with other seeds. scores: of each seed, the trial's own first."""

    trial: FrozenTrial
    scores: list[float]

    @property
    def mean(self) -> float:
        return float(np.mean(self.scores))

    @property
    def spread(self) -> float:
        """The standard deviation of the scores; 0 for a single one."""
        return float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else 0.0


@dataclass
class TuneResult:
    """What `tune` found.

    model: the network with the best settings, trained on the whole development part; takes scaled inputs.
    settings: the best ones. epochs: how many the model was trained for, as many as the best trial.
    stages: what it was trained with, one after the other. Several after population based training, of which `settings`
        are then the last.
    standardizer, target_standardizer: fitted on the development part; the latter for regression only.
    study: every trial. best_trial: the one whose settings these are.
    validation_score: of the best trial, of finalists the mean over their seeds; with several outputs, losses and errors
        are in standard deviations.
    test_score: of the model on the untouched test part.
    metric, direction: what the scores measure, with several objectives the first of them.
    watched: what constraints bound, and what it was for the best trial on validation rows, in the data's own unit.
    front: with several objectives, the settings among which none is better in all; by the first objective, best first.
    finalists: those that were trained anew with other seeds, best first.
    refinement: what refining by the gradient has changed, and whether it was better.
    steps_per_epoch: how many steps of a trial an epoch is: the folds, where fold after fold is trained.
    others: with several data sets, the results for the second and further ones, with models of their own.
    interrupted: whether Ctrl-C ended the search.
    """

    model: Any
    settings: Settings
    epochs: int
    standardizer: Standardizer
    target_standardizer: Standardizer | None
    study: Study
    best_trial: FrozenTrial
    validation_score: float
    test_score: float
    test_metrics: dict[str, float]
    metric: str
    direction: str
    dataset: Dataset
    run: Run
    rows: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False
    front: list[FrontMember] = field(default_factory=list)
    finalists: list[Finalist] = field(default_factory=list)
    refinement: Refinement | None = None
    steps_per_epoch: int = 1
    others: list[TuneResult] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    watched: dict[str, float] = field(default_factory=dict)

    def scores(self, x: Any) -> np.ndarray:
        """The network's outputs for rows in the data's own units: class scores (n, classes), or values."""
        outputs = self.run.predict(self.standardizer.transform(np.asarray(x)))
        if self.target_standardizer is None:
            return outputs
        single = self.target_standardizer.mean.ndim == 0
        return self.target_standardizer.inverse(outputs[:, 0] if single else outputs)

    def predict(self, x: Any) -> np.ndarray:
        """Class names (numbers, if the labels were numbers 0 to k - 1) or values for rows x (n, ...)."""
        outputs = self.scores(x)
        if self.dataset.task == "regression":
            return outputs
        numbers = outputs.argmax(axis=1)
        names = self.dataset.class_names
        plain = names is None or list(names) == [str(i) for i in range(len(names))]
        return numbers if plain else np.asarray(names)[numbers]

    def report(self) -> str:
        """The outcome as a table in plain text."""
        states = [t.state for t in self.study.get_trials(deepcopy=False)]
        early = states.count(TrialState.PRUNED) + states.count(TrialState.PAUSED)
        steps = sum(t.steps for t in self.study.get_trials(deepcopy=False))
        lines = [
            ("trials", f"{len(states)} ({states.count(TrialState.COMPLETE)} in full, {early} ended early, "
                       f"{states.count(TrialState.FAIL)} failed; {steps} epochs)"),
            ("best trial", str(self.best_trial.number)),
            (f"validation {self.metric}", f"{self.validation_score:.4f}"),
            *((f"constrained {name}", f"{value:.4g}") for name, value in self.watched.items()),
            *((f"test {name}", f"{value:.4f}") for name, value in self.test_metrics.items()),
            ("epochs", str(self.epochs)),
        ]  # fmt: skip
        for other in self.others:
            lines += [(f"{other.dataset.name}: test {name}", f"{v:.4f}") for name, v in other.test_metrics.items()]
        for finalist in self.finalists:
            text = f"{finalist.mean:.4f} +- {finalist.spread:.4f} over {len(finalist.scores)} seeds"
            lines.append((f"finalist {finalist.trial.number}", text))
        if self.refinement is not None:
            lines.append(("refined by gradient", _refined(self.refinement)))
        for member in self.front:
            text = ", ".join(f"{name} {value:.4g}" for name, value in member.values.items())
            lines.append((f"front, trial {member.trial.number}", text))
        for before, stage in zip(self.stages, self.stages[1:], strict=False):
            old, new = before.settings.to_dict(), stage.settings.to_dict()
            changes = ", ".join(f"{k} {_shown(old[k])} -> {_shown(new[k])}" for k in new if old[k] != new[k])
            lines.append((f"after epoch {before.epochs}", changes or "no change"))
        shown = self.settings.to_dict()
        lines += [(name, _shown(shown[name])) for name in self.settings.active() if name not in ("epochs", "seed")]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def _refined(found: Refinement) -> str:
    if found.trial is None:
        return f"trial {found.source}: nothing to gain, or no time"
    changes = ", ".join(f"{name} {old:.4g} -> {found.after[name]:.4g}" for name, old in found.before.items())
    return (
        f"trial {found.source} as trial {found.trial.number}: {changes} ({'better' if found.better else 'no better'})"
    )


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
