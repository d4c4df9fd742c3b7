from typing import Any

from nanonet.optim.optimizer import Optimizer, Parameters


class Adam(Optimizer):
    r"""Adam (Kingma & Ba 2015, algorithm 1). Weight decay is part of the gradient.

    m <- b1 m + (1 - b1) g          m^ = m / (1 - b1^t)
    v <- b2 v + (1 - b2) g^2        v^ = v / (1 - b2^t)
    w <- w - lr m^ / (sqrt(v^) + eps)
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        l1: float = 0.0,
    ):
        super().__init__(params, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay, l1=l1)

    @classmethod
    def rule(cls, options: dict[str, Any]) -> str:
        return "adam"


class AdamW(Optimizer):
    r"""Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    m, v, m^, v^ as in Adam
    w <- w - lr (m^ / (sqrt(v^) + eps) + decay w)
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        l1: float = 0.0,
    ):
        super().__init__(params, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay, l1=l1)

    @classmethod
    def rule(cls, options: dict[str, Any]) -> str:
        return "adamw"
