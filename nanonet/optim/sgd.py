from typing import Any

from nanonet.errors import OptionError
from nanonet.optim.optimizer import Optimizer, Parameters


class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum (Polyak 1964) or Nesterov's (Sutskever et al. 2013).

        v <- mu v + (1 - dampening) g             (v <- g at the first step)
        w <- w - lr v                             or, with nesterov:  w <- w - lr (g + mu v)

    Without momentum w <- w - lr g. Full-batch, mini-batch and single-sample descent differ in the batch size alone.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        l1: float = 0.0,
    ):
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            l1=l1,
        )

    @classmethod
    def rule(cls, options: dict[str, Any]) -> str:
        if not options["momentum"]:
            return "sgd"
        return "nesterov" if options["nesterov"] else "momentum"

    @classmethod
    def check(cls, options: dict[str, Any]) -> None:
        super().check(options)
        if options["nesterov"] and (not options["momentum"] or options["dampening"]):
            given = f"momentum {options['momentum']} and dampening {options['dampening']}"
            raise OptionError(f"SGD: nesterov is given with {given}, wanted momentum > 0 and dampening 0")
