"""Which settings matter, where they are good, and which depend on each other.

    tuner.importance.get_param_importances(study)          {"lr": 0.62, "width": 0.21, ...}
    tuner.importance.get_interactions(study)               {("lr", "width"): 0.09, ...}
    tuner.importance.partial_dependence(study, "lr")       .values, .mean, .spread
    print(tuner.importance.summary(study))                 the same in plain words

What is explained are the complete trials; those that were ended early count too, with what they would have come to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .analysis import Analysis, PartialDependence
from .evaluators import FanovaImportanceEvaluator, ImportanceEvaluator, PedAnovaImportanceEvaluator
from .trials import Target
from .words import Summary, summary

if TYPE_CHECKING:
    from ..study import Study

__all__ = [
    "Analysis",
    "FanovaImportanceEvaluator",
    "ImportanceEvaluator",
    "PartialDependence",
    "PedAnovaImportanceEvaluator",
    "Summary",
    "get_interactions",
    "get_param_importances",
    "partial_dependence",
    "summary",
]


def get_param_importances(
    study: Study,
    *,
    evaluator: ImportanceEvaluator | None = None,
    params: list[str] | None = None,
    target: Target | None = None,
    normalize: bool = True,
) -> dict[str, float]:
    """name -> how much the parameter matters, largest first; with normalize=True they sum to 1 (or all are 0).

    evaluator: fANOVA unless given. params: which ones, all by default; the others still count as what they are.
    target: what to explain of a complete trial; must be given if the study has several objectives.
    Raises ValueError if no trial has a value or `params` has a name that none of them has.
    """
    if evaluator is not None and not isinstance(evaluator, ImportanceEvaluator):
        raise TypeError(f"evaluator must be a tuner.importance evaluator or None, got {evaluator!r}")
    shares = (evaluator or FanovaImportanceEvaluator(seed=0)).evaluate(study, params, target=target)
    total = sum(shares.values())
    if normalize and total > 0:
        shares = {name: share / total for name, share in shares.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def get_interactions(
    study: Study, *, target: Target | None = None, seed: int | None = 0
) -> dict[tuple[str, str], float]:
    """(name, name) -> the share of the variance that two parameters explain together and neither does alone."""
    return Analysis(study, target=target, seed=seed).interactions


def partial_dependence(
    study: Study, *params: str, target: Target | None = None, points: int = 50, seed: int | None = 0
) -> PartialDependence:
    """The expected value along one or two parameters over all values of the others."""
    return Analysis(study, target=target, seed=seed).dependence(*params, points=points)
