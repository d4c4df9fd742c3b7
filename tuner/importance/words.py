"""A study in plain words: what matters, where it is good, and what cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .analysis import Analysis, PartialDependence
from .table import Axis
from .trials import Target

if TYPE_CHECKING:
    from ..study import Study

__all__ = ["Summary", "describe", "good_places", "summary", "tells"]

QUANTILE = 0.75  # the worst quarter of the trials counts as equally bad
MATTERS = 0.05  # of the variance: less is not worth a sentence
HARDLY = 0.02  # of the variance, alone and with all others: less than this hardly matters
TOGETHER = 0.05  # of the variance: an interaction worth a sentence
TOLERANCE = 0.15  # of the way from the best to the worst mean: as good as the best
EDGE = 0.1  # of a range: where its end begins
FEW, FEW_EACH = 20, 4  # trials in all, and for each parameter; with less than half of it nothing is told
WEAK, NOTHING = 0.3, 0.1  # explained shares of the differences below which little, or nothing, can be told


@dataclass(frozen=True)
class Summary:
    """sentences: what was found. warnings: why to take it with care. `str` gives both, a line each.

    importances, interactions: shares of the variance (see `Analysis`). good: name -> (low, high) or list of choices,
    for each parameter that matters and has a good part. r2: how well the trials are explained.
    """

    sentences: list[str]
    warnings: list[str] = field(default_factory=list)
    importances: dict[str, float] = field(default_factory=dict)
    interactions: dict[tuple[str, str], float] = field(default_factory=dict)
    good: dict[str, Any] = field(default_factory=dict)
    r2: float = float("nan")
    trials: int = 0

    def __str__(self) -> str:
        return "\n".join([*self.sentences, *(f"Note: {warning}" for warning in self.warnings)])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "sentences": self.sentences,
            "warnings": self.warnings,
            "importances": self.importances,
            "interactions": [{"parameters": list(pair), "share": share} for pair, share in self.interactions.items()],
            "good": self.good,
            "explained": self.r2,
            "trials": self.trials,
        }


def summary(
    study: Study, *, target: Target | None = None, objective: int | None = None, seed: int | None = 0
) -> Summary:
    """The study in plain words; never raises for want of trials, but says so. `target`, `objective`: see `Analysis`.

    Shares are of the variance over the whole space, the worst quarter of the trials counting as equally bad. A
    parameter is good where its partial dependence has gone less than 15% of the way from its best to its worst, or lies
    within one standard deviation of the forest's trees from the best.
    """
    try:
        analysis = Analysis(study, target=target, objective=objective, quantile=QUANTILE, seed=seed)
    except ValueError as error:
        if target is objective is None and len(study.directions) > 1:
            raise
        return Summary([], [str(error)])
    return describe(analysis)


def enough(analysis: Analysis) -> bool:
    """Whether there are trials enough to tell anything."""
    return analysis.trials >= max(FEW, FEW_EACH * len(analysis.axes)) // 2


def tells(analysis: Analysis) -> bool:
    """Whether the analysis is worth showing: of enough trials, whose differences it explains."""
    return enough(analysis) and analysis.r2 >= NOTHING


def describe(analysis: Analysis) -> Summary:
    """The analysis in plain words."""
    shares, pairs, d = analysis.importances, analysis.interactions, len(analysis.axes)
    sentences, warnings, good = [], [], {}
    wanted = max(FEW, FEW_EACH * d)
    if not enough(analysis):
        warnings.append(
            f"only {analysis.trials} trials for {d} parameters: too few to tell what matters; {wanted} are wanted."
        )
        return Summary([], warnings, shares, pairs, good, analysis.r2, analysis.trials)
    if analysis.trials < wanted:
        warnings.append(
            f"only {analysis.trials} trials for {d} parameters: too few to tell for sure; {wanted} would do better."
        )
    if analysis.surrogate.variance == 0 or np.ptp(analysis.surrogate.losses) == 0:
        return Summary(
            ["All trials came to the same value."], warnings, shares, pairs, good, analysis.r2, analysis.trials
        )
    if analysis.r2 < NOTHING:
        why = "the values are noisy, there are too few trials, or all settings do as well"
        warnings.append(f"the trials' settings explain hardly anything of how they differ: {why}.")
        return Summary([], warnings, shares, pairs, good, analysis.r2, analysis.trials)
    if analysis.r2 < WEAK:
        warnings.append(
            f"the settings explain only {max(analysis.r2, 0.0):.2f} of the differences between trials that were set "
            "aside: the values are noisy, or there are too few trials."
        )
    important = [name for name, share in shares.items() if share >= MATTERS] or list(shares)[:1]
    for i, name in enumerate(important):
        part, end = _good_part(name, analysis)
        if part is not None:
            good[name] = part
        verb = "explains" if len(shares) == 1 else ("matters most:", "comes next:", "then:")[min(i, 2)]
        sentences.append(f"{name} {verb} {shares[name]:.2f} of the variance; {_where(part, analysis.axes[name])}.")
        if end is not None:
            bound = shown(getattr(analysis.axes[name].domain, end))
            word = "lower" if end == "low" else "upper"
            warnings.append(f"{name} is best at the {word} end of its range ({bound}): widen it if you can.")
    for (a, b), share in pairs.items():
        if share >= TOGETHER:
            sentences.append(f"{a} and {b} depend on each other: {share:.2f} of the variance is theirs together.")
    involved = dict(shares)
    for (a, b), share in pairs.items():
        involved[a] += share
        involved[b] += share
    idle = [name for name in shares if involved[name] < HARDLY and name not in important]
    if idle:
        sentences.append(f"{_listed(idle)} hardly {'matter' if len(idle) > 1 else 'matters'}.")
    return Summary(sentences, warnings, shares, pairs, good, analysis.r2, analysis.trials)


def good_places(dependence: PartialDependence, sign: int, categorical: bool) -> np.ndarray:
    """Which places of a parameter are as good as the best, (len(values),) bool; of a number, those next to the best."""
    loss = sign * dependence.mean
    at = int(np.argmin(loss))
    tolerance = max(TOLERANCE * float(np.ptp(loss)), float(dependence.spread[at]))
    fine = loss <= loss[at] + tolerance
    if categorical:
        return fine
    stops = np.flatnonzero(~fine)
    low = stops[stops < at].max(initial=-1) + 1
    high = stops[stops > at].min(initial=len(fine))
    return (np.arange(len(fine)) >= low) & (np.arange(len(fine)) < high)


def _good_part(name: str, analysis: Analysis) -> tuple[Any, str | None]:
    """((low, high), or the good choices, or None if all are alike; "low" or "high" if the best is at that end).

    It is at an end if the good part reaches it, is at most half of the range, and has its best in the outermost tenth.
    """
    dependence, axis = analysis.dependence(name), analysis.axes[name]
    fine = good_places(dependence, analysis.sign, axis.categorical)
    loss, values, places = analysis.sign * dependence.mean, dependence.values[0], dependence.places[0]
    if fine.all():
        return None, None
    if axis.categorical:
        return [values[i] for i in np.argsort(loss, kind="stable") if fine[i]], None
    first, last = np.flatnonzero(fine)[[0, -1]]
    best, end = places[int(np.argmin(loss))], None
    if axis.choices is None and places[last] - places[first] <= 0.5:
        if first == 0 and best <= EDGE:
            end = "low"
        elif last == len(fine) - 1 and best >= 1 - EDGE:
            end = "high"
    return (values[first], values[last]), end


def _where(part: Any, axis: Axis) -> str:
    if part is None:
        return "no part of its range stands out"
    if isinstance(part, list):
        return f"good: {_listed([shown(choice) for choice in part])}"
    low, high = part
    if low == high:
        return f"good at {shown(low)}"
    first, last = axis.value(0.0), axis.value(1.0)
    if low == first:
        return f"good up to {shown(high)}"
    if high == last:
        return f"good from {shown(low)}"
    return f"good between {shown(low)} and {shown(high)}"


def shown(value: Any) -> str:
    """A setting for reading: 0.0032, 128, adam."""
    if isinstance(value, (float, np.floating)):
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.3g}"
    return str(value)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
