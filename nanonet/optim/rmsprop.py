from typing import Any

from nanonet.optim.optimizer import Optimizer, Parameters


class RMSprop(Optimizer):
    r"""RMSprop (Tieleman & Hinton 2012, lecture 6.5).

    v <- a v + (1 - a) g^2
    w <- w - lr g / (sqrt(v) + eps)           with momentum:  b <- mu b + g / (sqrt(v) + eps),  w <- w - lr b
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        l1: float = 0.0,
    ):
        super().__init__(params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, l1=l1)

    @classmethod
    def rule(cls, options: dict[str, Any]) -> str:
        return "rmsprop_momentum" if options["momentum"] else "rmsprop"
