"""The learning-rate range test: the loss along a learning rate that rises from step to step (Smith 2017, section 3.3).

    found = nanonet.lr_range_test(model, optimizer, "cross_entropy", x, y)
    found.suggestion, found.rates, found.losses

The model and the optimizer are afterwards as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nanonet.errors import OptionError
from nanonet.loop import Training
from nanonet.objectives import inputs, objective, targets
from nanonet.optim import Optimizer
from nanonet.options import count, number

__all__ = ["RangeTest", "lr_range_test", "range_test"]

WIDTH = 0.04  # of the bell that smooths the losses: its deviation as a share of the steps
RISEN = 4.0  # the test ends where the loss is so many times what it was at first
#: How far the suggestion lies below the rate of the lowest loss. Of rates that were best after 10 to 20 epochs (digits
#: and a regression, SGD with momentum, Adam, RMSprop, batches of 32 and 128) nearly all lay within a factor of 3 of it.
#: The place of steepest descent, which is often advised, was too low by 2 to 30.
MARGIN = 2.5


@dataclass(frozen=True)
class RangeTest:
    """What a range test met.

    rates, losses: of each step, float64 (steps,), fewer if the run diverged; the losses are those before each step.
    smoothed: the losses, averaged over neighbouring steps.
    lowest: the rate at which the smoothed loss is lowest; beyond it training is no longer stable.
    steepest: the rate below that at which the smoothed loss falls fastest.
    suggestion: a learning rate to train with, a factor of 2.5 below `lowest`.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    lowest: float
    steepest: float
    suggestion: float


def lr_range_test(
    model: Any,
    optimizer: Optimizer,
    loss: Any,
    x: Any,
    y: Any,
    *,
    batch_size: int = 32,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 200,
    seed: int = 0,
) -> RangeTest:
    """Train for `steps` steps at rates that rise evenly in their logarithm from low to high, and find a good one.

    loss: a name or a function, as for `Module.compile`. x (n, ...), y (n, ...) in mini-batches of batch_size rows.
    All groups of the optimizer are set to the same rate. Raises OptionError, DataError, ShapeError.
    """
    from nanonet.fitting import dtype_of, predict

    goal, dtype = objective(model, loss), dtype_of(model)
    x = inputs(x, dtype=dtype)
    y = targets(y, goal.task, len(x), predict(model, x[:1]).shape[1:], dtype)
    count("batch_size", batch_size, 1)
    training = Training(goal.forward, optimizer, goal.loss, x, y, batch_size=batch_size, seed=seed, guarded=True)
    return range_test(model, optimizer, training, low=low, high=high, steps=steps)


def range_test(
    model: Any, optimizer: Optimizer, training: Training, *, low: float = 1e-6, high: float = 10.0, steps: int = 200
) -> RangeTest:
    """The range test of a training without a schedule, as `lr_range_test`."""
    number("low", low, "(0, inf)")
    number("high", high, "(0, inf)")
    if not low < high:
        raise OptionError(f"high is {high!r}; wanted more than low, which is {low!r}")
    count("steps", steps, 10)
    rates = np.geomspace(low, high, steps)
    kept = model.state_dict(), model.random_state(), optimizer.state_dict(), model.training
    try:
        model.train()
        losses = training.losses_at(rates, lambda found: np.mean(found[-3:]) > RISEN * found[0])
    finally:
        model.load_state_dict(kept[0])
        model.load_random_state(kept[1])
        optimizer.load_state_dict(kept[2])
        model.train(kept[3])
    return judged(rates[: len(losses)], losses)


def judged(rates: np.ndarray, losses: np.ndarray) -> RangeTest:
    """The range test whose steps at these rates met these losses, each (steps,). OptionError if the loss never fell."""
    place = np.arange(len(rates))
    capped = np.minimum(np.nan_to_num(losses, nan=np.inf), RISEN * losses[0])
    bell = np.exp(-0.5 * ((place[:, None] - place) / (WIDTH * len(rates))) ** 2)
    smoothed = bell @ capped / bell.sum(axis=1)
    lowest = int(smoothed.argmin())
    if lowest == 0:
        raise OptionError(
            f"lr_range_test: the loss never falls at rates from {rates[0]:g} to {rates[-1]:g}; wanted another range"
        )
    steepest = int(np.gradient(smoothed, np.log(rates))[: lowest + 1].argmin())
    return RangeTest(
        rates, losses, smoothed, float(rates[lowest]), float(rates[steepest]), float(rates[lowest]) / MARGIN
    )
