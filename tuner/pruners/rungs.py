"""Judging a trial that reports, as it passes a rung, against those that passed it before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .. import pareto
from ..trial import FrozenTrial, TrialState

__all__ = ["falls_behind", "longest"]


def falls_behind(
    trial: FrozenTrial,
    trials: Sequence[FrozenTrial],
    rungs: Iterable[tuple[int, float]],
    signs: int | Sequence[int],
    bootstrap_count: int = 0,
) -> bool:
    """Whether the trial's last report takes it past a rung at which it is not among the best.

    rungs: (step, share of the trials there that go on), rising. At least the best one of a rung goes on.
    bootstrap_count: so many trials must have come to a rung before one may pass it.
    """
    steps = sorted(trial.intermediate_values)
    if not steps:
        return False
    before, now = (steps[-2] if len(steps) > 1 else -1), steps[-1]
    for rung, share in rungs:
        if rung > now:
            return False
        if rung > before and not _passes(rung, share, trial, trials, signs, bootstrap_count):
            return True
    return False


def longest(trials: Sequence[FrozenTrial]) -> int | None:
    """The last step of the longest complete trial; None without one."""
    lengths = (t.last_step for t in trials if t.state is TrialState.COMPLETE)
    return max((length for length in lengths if length is not None), default=None)


def _passes(
    rung: int,
    share: float,
    trial: FrozenTrial,
    trials: Sequence[FrozenTrial],
    signs: int | Sequence[int],
    bootstrap_count: int,
) -> bool:
    own = _at(trial, rung)
    if own is None or np.isnan(own).any():
        return False
    others = (_at(t, rung) for t in trials if t.number != trial.number)
    rivals = [own, *(value for value in others if value is not None and not np.isnan(value).any())]
    if len(rivals) <= bootstrap_count:
        return False
    losses = pareto.losses(rivals, signs)
    return bool(losses[0] <= np.sort(losses)[max(int(len(rivals) * share + 1e-9), 1) - 1])


def _at(trial: FrozenTrial, rung: int) -> float | list[float] | None:
    """The value with which the trial first reached the rung; None if it did not."""
    if rung in trial.intermediate_values:
        return trial.intermediate_values[rung]
    step = min((s for s in trial.intermediate_values if s >= rung), default=None)
    return None if step is None else trial.intermediate_values[step]
