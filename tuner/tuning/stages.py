"""Training in stages: settings that change in mid-run, as population based training changes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanonet.settings import Settings
from nanonet.training import Run

from ..study import Study
from ..trial import FrozenTrial

if TYPE_CHECKING:
    from .runs import TrainingRuns

__all__ = ["Stage", "continued", "inherited", "stages_of"]

KEPT = ("hidden", "activation", "initializer", "batch_norm", "optimizer", "seed")
"""Settings that a run has for good: its weights, and what the optimizer remembers, are of use to no others."""


@dataclass(frozen=True)
class Stage:
    """Settings that hold until a training has come to so many steps of a trial, and so many epochs, in all."""

    settings: Settings
    steps: int
    epochs: int


def inherited(params: Mapping[str, Any], parent: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the search for a run that goes on from another's weights: the network and the kind of optimizer
    are the parent's, the rest is that of `params`."""
    kept = {name: value for name, value in parent.items() if name in (*KEPT, "layers") or name.startswith("width_")}
    return {**params, **kept}


def continued(
    run: Run, settings: Settings, x: Any, y: Any, validation: tuple[Any, Any] | None = None, **changes: Any
) -> Run:
    """A run that goes on from where `run` stands, over the same data, with these settings but for those in `KEPT`.

    Weights, what the optimizer remembers, random states and history are copied bit by bit. Learning rate, schedule,
    momentum, betas, decay, L1, clipping, dropout, batch size, smoothing and patience are the new ones from here on; a
    schedule counts its epochs from the beginning of training.
    """
    settings = settings.replace(**{name: getattr(run.settings, name) for name in KEPT}, **changes)
    begun = Run(settings, x, y, validation, task=run.task, classes=run.outputs, device=run.device)
    state, fresh = run.state(), begun.state()
    # A dropout layer that comes or goes shifts the names of those behind it, so what there is counts by its place.
    for name in ("model", "best"):
        if state[name] is not None:
            state[name] = dict(zip(fresh["model"], state[name].values(), strict=True))
    streams = zip(fresh["streams"], state["streams"].values(), strict=False)
    state["streams"] = {**fresh["streams"], **dict(streams)}
    for group, other in zip(state["optimizer"]["groups"], fresh["optimizer"]["groups"], strict=True):
        group["options"] = other["options"]
        group["states"] = {name: group["states"].get(name, arrays) for name, arrays in other["states"].items()}
    return Run.restore({**state, "settings": settings.to_dict()}, x, y, validation, device=run.device)


def stages_of(study: Study, trial: FrozenTrial, work: TrainingRuns) -> list[Stage]:
    """What a trial's weights went through, the oldest stage first; one alone unless it went on from another trial."""
    found, until = [], trial.age
    while True:
        found.append(Stage(work.settings(trial.params), until, max(work.course.epochs(until))))
        if trial.parent is None:
            return found[::-1]
        until = trial.age - trial.steps
        trial = study.storage.trial(study.study_id, trial.parent[0])
