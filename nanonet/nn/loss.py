"""Losses as modules. Each is a function of `nanonet.losses` with its options."""

from __future__ import annotations

from typing import Any

from nanonet import losses
from nanonet.errors import OptionError
from nanonet.nn.module import Module
from nanonet.nn.parameter import Buffer
from nanonet.tensor import Tensor


class CrossEntropyLoss(Module):
    """Cross-entropy of scores: see `losses.cross_entropy`. weight (c,): the weight of each class."""

    def __init__(self, weight: Any = None, label_smoothing: float = 0.0, reduction: str = "mean"):
        self.weight = None if weight is None else Buffer(weight)
        self.label_smoothing = losses.check_smoothing(label_smoothing)
        self.reduction = losses.check_reduction(reduction)

    def forward(self, x: Tensor, target: Any) -> Tensor:
        return losses.cross_entropy(x, target, self.weight, self.label_smoothing, self.reduction)


class NLLLoss(Module):
    """Negative log-likelihood of log-probabilities: see `losses.nll_loss`."""

    def __init__(self, weight: Any = None, reduction: str = "mean"):
        self.weight = None if weight is None else Buffer(weight)
        self.reduction = losses.check_reduction(reduction)

    def forward(self, x: Tensor, target: Any) -> Tensor:
        return losses.nll_loss(x, target, self.weight, self.reduction)


class MSELoss(Module):
    """(x - target)^2: see `losses.mse_loss`."""

    def __init__(self, reduction: str = "mean"):
        self.reduction = losses.check_reduction(reduction)

    def forward(self, x: Tensor, target: Any) -> Tensor:
        return losses.mse_loss(x, target, self.reduction)


class L1Loss(Module):
    """|x - target|: see `losses.l1_loss`."""

    def __init__(self, reduction: str = "mean"):
        self.reduction = losses.check_reduction(reduction)

    def forward(self, x: Tensor, target: Any) -> Tensor:
        return losses.l1_loss(x, target, self.reduction)


class HuberLoss(Module):
    """Squared near the target, linear beyond delta: see `losses.huber_loss`."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        self.reduction = losses.check_reduction(reduction)
        if not delta > 0:
            raise OptionError(f"HuberLoss: delta is {delta!r}, wanted a number > 0")
        self.delta = delta

    def forward(self, x: Tensor, target: Any) -> Tensor:
        return losses.huber_loss(x, target, self.reduction, self.delta)


class BCELoss(Module):
    """Cross-entropy of probabilities of yes: see `losses.binary_cross_entropy`."""

    def __init__(self, weight: Any = None, reduction: str = "mean"):
        self.weight = None if weight is None else Buffer(weight)
        self.reduction = losses.check_reduction(reduction)

    def forward(self, x: Tensor, target: Any) -> Tensor:
        return losses.binary_cross_entropy(x, target, self.weight, self.reduction)


class BCEWithLogitsLoss(Module):
    """Cross-entropy of scores of yes: see `losses.binary_cross_entropy_with_logits`."""

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None):
        self.weight = None if weight is None else Buffer(weight)
        self.pos_weight = None if pos_weight is None else Buffer(pos_weight)
        self.reduction = losses.check_reduction(reduction)

    def forward(self, x: Tensor, target: Any) -> Tensor:
        return losses.binary_cross_entropy_with_logits(x, target, self.weight, self.reduction, self.pos_weight)
