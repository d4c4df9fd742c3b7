"""Optimizers, learning-rate schedules and clipping."""

from nanonet.errors import OptionError
from nanonet.optim import lr_scheduler, schedules
from nanonet.optim.adagrad import Adagrad
from nanonet.optim.adam import Adam, AdamW
from nanonet.optim.clipping import clip_grad_norm_, clip_grad_value_
from nanonet.optim.optimizer import Optimizer
from nanonet.optim.rmsprop import RMSprop
from nanonet.optim.sgd import SGD

#: The optimizers by the names that people type.
OPTIMIZERS = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop, "adagrad": Adagrad}


def get(name: str) -> type[Optimizer]:
    """The optimizer of that name, in any case. Raises OptionError that lists the names."""
    found = OPTIMIZERS.get(str(name).lower())
    if found is None:
        raise OptionError(f"optimizer: {name!r} is unknown, wanted one of {', '.join(OPTIMIZERS)}")
    return found


__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "clip_grad_norm_",
    "clip_grad_value_",
    "get",
    "lr_scheduler",
    "schedules",
]
