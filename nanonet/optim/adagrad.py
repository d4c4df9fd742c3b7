from typing import Any

from nanonet.optim.optimizer import Optimizer, Parameters


class Adagrad(Optimizer):
    r"""Adagrad (Duchi et al. 2011, figure 1, diagonal).

    s <- s + g^2
    w <- w - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        eps: float = 1e-10,
        l1: float = 0.0,
    ):
        super().__init__(params, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps, l1=l1)

    @classmethod
    def rule(cls, options: dict[str, Any]) -> str:
        return "adagrad"
