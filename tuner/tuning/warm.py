"""Starting from what earlier studies found."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import pareto
from ..errors import SpaceError, StorageError
from ..space import Space
from ..study import Study, load_study
from ..trial import TrialState

__all__ = ["earlier_settings"]

MOST = 8  # settings that are taken over


def earlier_settings(studies: Iterable[Any], space: Space, most: int = MOST) -> list[dict[str, Any]]:
    """The best settings of earlier studies that lie in the space, distinct, the most promising first.

    studies: `Study` objects or files that hold one. A trial is worth its place among those of its study, from 0 for
    the best to 1 for the worst, so that studies with other data and other metrics can be compared; settings that
    several studies tried are worth the mean. Parameters that the space does not have are left out; a trial with a value
    outside the space, or without one that the space wants, is passed over. Raises StorageError.
    """
    worth: dict[bytes, list[float]] = {}
    settings: dict[bytes, dict[str, Any]] = {}
    for given in [studies] if isinstance(studies, (Study, str, os.PathLike)) else studies:
        study, opened = _opened(given)
        trials = [t for t in study.trials if t.state is TrialState.COMPLETE and t.values and t.feasible]
        if opened:
            study.storage.close()
        order = np.argsort(pareto.losses([t.values for t in trials], study.signs), kind="stable")
        places = np.empty(len(trials))
        places[order] = np.arange(len(trials))
        for trial, place in zip(trials, places, strict=True):
            inside = {name: value for name, value in trial.params.items() if name in space.parameters}
            try:
                point = space.encode(inside)
                decoded = space.decode(point, inside)
            except SpaceError:
                continue
            key = space.key(point)
            worth.setdefault(key, []).append(place / max(len(trials) - 1, 1))
            settings.setdefault(key, decoded)
    ranked = sorted(settings, key=lambda key: float(np.mean(worth[key])))
    return [settings[key] for key in ranked[:most]]


def _opened(given: Any) -> tuple[Study, bool]:
    if isinstance(given, Study):
        return given, False
    try:
        return load_study(storage=given), True
    except (KeyError, ValueError) as error:
        raise StorageError(f"warm_start: {given} cannot be used: {error}") from error
