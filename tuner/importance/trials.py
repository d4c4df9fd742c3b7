"""Which trials of a study count, and what each came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..trial import FrozenTrial, TrialState
from .table import Table, estimated_finals

if TYPE_CHECKING:
    from ..study import Study

__all__ = ["Target", "table_of"]

Target = Callable[[FrozenTrial], float]


def table_of(
    study: Study, params: Sequence[str] | None = None, target: Target | None = None, objective: int | None = None
) -> tuple[Table, int]:
    """(the study's trials as a table, their losses' sign: a value is sign * loss).

    target: what to explain, of complete trials, small values taken as good. Without it the study's objective, or of
    several the one of that number, and trials that were ended early count with what they would have come to (see
    `estimated_finals`). Trials without a value and those whose value is NaN do not count.
    params: the parameters to look at, all by default. Raises ValueError for several objectives with neither `target`
    nor `objective`, for unknown names in `params`, and if no trial counts.
    """
    count = len(study.directions)
    if target is None and objective is None and count > 1:
        raise ValueError(f"the study has {count} objectives; give target, for example target=lambda t: t.values[0]")
    k = objective or 0
    if not 0 <= k < count:
        raise ValueError(f"objective must be in 0 to {count - 1}, got {objective!r}")
    sign = study.signs[k] if target is None else 1
    trials = study.get_trials(deepcopy=False)
    complete = [t for t in trials if t.state is TrialState.COMPLETE and t.values]
    if target is not None:
        values = np.array([float(target(t.copy())) for t in complete])
        chosen = complete
    else:
        early = (TrialState.PRUNED, TrialState.PAUSED)
        chosen = complete + [t for t in trials if t.state in early and t.intermediate_values]
        values = np.array([t.values[k] if t.state is TrialState.COMPLETE else np.nan for t in chosen])
        if len(chosen) > len(complete):
            finals = estimated_finals([_curve(t, k) for t in chosen])
            values = np.where(np.isnan(values), finals, values)
    kept = np.flatnonzero(~np.isnan(values))
    if not len(kept):
        raise ValueError("no trial has a value yet; there is nothing to explain")
    chosen = [chosen[i] for i in kept]
    known = dict.fromkeys(name for t in chosen for name in t.params)
    unknown = [name for name in params or () if name not in known]
    if unknown:
        raise ValueError(f"params names {', '.join(map(repr, unknown))}, which no trial has; "
                         f"they have {', '.join(known) or 'none'}")  # fmt: skip
    # All parameters make the table: what is left out would else look like noise.
    return Table.of([t.params for t in chosen], [t.distributions for t in chosen], sign * values[kept]), sign


def _curve(trial: FrozenTrial, objective: int) -> dict[int, float]:
    """step -> value of one objective."""
    curve = trial.intermediate_values
    return {step: value[objective] if isinstance(value, (list, tuple)) else value for step, value in curve.items()}
