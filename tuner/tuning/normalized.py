"""Scores of several data sets on one scale."""

from __future__ import annotations

import numpy as np

from nanonet import losses, tensor

from .objectives import MAXIMIZED, Objective, Own
from .parts import Parts

__all__ = ["Normalizer"]


class Normalizer:
    """A score of one data set, next to that of the best answer that looks at no input.

    The best such answer gives every validation row the share of each class, or the mean, of the training rows; b is its
    score, the mean over the folds.

        accuracies and their like, at most 1       (value - b) / (1 - b):  0 is no better than that answer, 1 perfect
        losses, errors                             value / b:              1 is no better than that answer, 0 perfect
        parameters, seconds, scores of your own to be made large      the value itself
    """

    def __init__(self, part: Parts, objective: Objective):
        self.up = objective.direction == "maximize"
        self.baseline: float | None = None
        if objective.of_settings or (isinstance(objective, Own) and self.up and objective.name not in MAXIMIZED):
            return
        scores = [_baseline(part, objective, fold) for fold in part.folds]
        self.baseline = float(np.average(scores, weights=[len(fold.y_validation) for fold in part.folds]))

    def __call__(self, value: float) -> float:
        b = self.baseline
        if b is None:
            return value
        if self.up:
            return (value - b) / (1 - b) if b < 1 else value
        return value / b if b > 0 else value


def _baseline(part: Parts, objective: Objective, fold) -> float:
    if part.task == "classification":
        shares = np.bincount(fold.y, minlength=part.classes) / len(fold.y)
        outputs = np.tile(np.log(np.maximum(shares, 1e-9)).astype(np.float32), (len(fold.y_validation), 1))
    else:
        outputs = np.zeros_like(fold.y_validation)  # targets are standardized
    if isinstance(objective, Own):
        return float(objective.function(fold.y_validation, outputs))
    if part.task == "classification":
        if objective.name == "loss":
            return float(losses.cross_entropy(tensor(outputs), tensor(fold.y_validation)).numpy())
        return float(np.mean(outputs.argmax(axis=1) == fold.y_validation))
    difference = fold.y_validation - outputs
    return float(np.mean(difference**2) if objective.name == "loss" else np.mean(np.abs(difference)))
