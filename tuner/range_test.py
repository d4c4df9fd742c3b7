"""Settings to try first whose learning rate comes from a range test (Smith 2017), one for each optimizer."""

from __future__ import annotations

from typing import Any

from nanonet.errors import OptionError
from nanonet.settings import Settings
from nanonet.training import Run

from .space import Float, Space
from .tuning.parts import Parts

__all__ = ["settings_by_range_test"]

RATES = ("learning_rate", "learning_rate_sgd")


def settings_by_range_test(space: Space, base: Settings, part: Parts) -> list[dict[str, Any]]:
    """Points of the space: its default, or the middle, with each optimizer at the rate that its range test suggests.

    The tests train on the first fold. An optimizer whose loss falls at no rate is left out, and all of them if the
    space has no learning rate.
    """
    domain = space.parameters.get("optimizer")
    optimizers = [base.optimizer] if domain is None else list(domain.choices)
    middle = space.decode([0.5] * space.dimensions, space.defaults[0] if space.defaults else {})
    fold, found = part.folds[0], []
    for optimizer in optimizers:
        fixed = {name: value for name, value in middle.items() if name not in RATES}
        point = space.decode([0.5] * space.dimensions, fixed | ({} if domain is None else {"optimizer": optimizer}))
        rates = [name for name in RATES if isinstance(space.parameters.get(name), Float) and name in point]
        if not rates:
            continue
        try:
            run = Run(Settings.from_search(point, base), fold.x, fold.y, task=part.task, classes=part.classes)
            rate = run.lr_range_test().suggestion
        except OptionError:
            continue
        found.append(
            {**point, rates[0]: min(max(rate, space.parameters[rates[0]].low), space.parameters[rates[0]].high)}
        )
    return found
