"""PyTorch's learning-rate schedulers: objects that set an optimizer's learning rate at each `step()`.

    scheduler = CosineAnnealingLR(optimizer, T_max=epochs)
    for epoch in range(epochs):
        train(); scheduler.step()

Each is a schedule, a function of time that multiplies the base learning rate, bound to an optimizer. Several on one
optimizer multiply. A rate that was changed from outside counts as changed from then on.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import Any

from kernels import plan
from nanonet.errors import CheckpointError, OptionError, RecordingError
from nanonet.optim import schedules
from nanonet.optim.optimizer import Optimizer

__all__ = [
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "InverseTimeLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]

Factor = Callable[[int], float]


class _Scheduler:
    """What all schedulers share: the optimizer, its learning rates, and no stepping within a recorded step."""

    def __init__(self, optimizer: Optimizer):
        if not isinstance(optimizer, Optimizer):
            raise OptionError(f"{type(self).__name__}: optimizer is {optimizer!r}; wanted a nanonet.optim.Optimizer")
        self.optimizer = optimizer

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _each_group(self, name: str, values: Any) -> list[Any]:
        """One value for each group, from one for all or from a list."""
        groups = len(self.optimizer.param_groups)
        if not isinstance(values, (list, tuple)):
            return [values] * groups
        if len(values) != groups:
            raise OptionError(f"{type(self).__name__}: {name} has {len(values)} entries; wanted {groups}, one a group")
        return list(values)

    def _check_not_recording(self) -> None:
        if plan.current() is not None:
            raise RecordingError(
                f"{type(self).__name__}.step within a recorded step would run only once; call it outside of `jit`"
            )

    def _wrong_state(self, state: Any) -> CheckpointError:
        found = state.get("kind") if isinstance(state, dict) else type(state).__name__
        return CheckpointError(f"the state is of {found}; wanted that of a {type(self).__name__} over as many groups")


class LRScheduler(_Scheduler):
    """lr = base * schedule(t), where t counts the calls of `step` and base is the learning rate it began with.

    schedule: a schedule or a function of t = 0, 1, 2, ...; or a list of them, one for each group.
    """

    def __init__(self, optimizer: Optimizer, schedule: Factor | Sequence[Factor]):
        super().__init__(optimizer)
        self.factors: list[Factor] = self._each_group("schedule", schedule)
        for factor in self.factors:
            if not callable(factor):
                raise OptionError(f"{type(self).__name__}: schedule is {factor!r}; wanted a schedule or a function")
        _initial_rates(optimizer)
        self.base_lrs = self.get_last_lr()
        self.last_epoch = 0
        self._set(self._now())

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next t, or to t = epoch."""
        self._check_not_recording()
        before, rates = self._now(), self.get_last_lr()
        for i, (rate, mine, factor) in enumerate(zip(rates, self._last, before, strict=True)):
            if rate != mine and factor:  # changed by someone else: go on from there
                self.base_lrs[i] = rate / factor
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._set(self._now())

    def _now(self) -> list[float]:
        return [float(factor(self.last_epoch)) for factor in self.factors]

    def _set(self, factors: list[float]) -> None:
        for group, base, factor in zip(self.optimizer.param_groups, self.base_lrs, factors, strict=True):
            group["lr"] = base * factor
        self._last = self.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on; the optimizer's own state is its own matter."""
        return {
            "kind": type(self).__name__,
            "last_epoch": self.last_epoch,
            "base_lrs": list(self.base_lrs),
            "last_lrs": list(self._last),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict()`, and set its learning rates. Raises CheckpointError."""
        try:
            if state["kind"] != type(self).__name__ or len(state["base_lrs"]) != len(self.base_lrs):
                raise self._wrong_state(state)
            base, last, epoch = map(float, state["base_lrs"]), map(float, state["last_lrs"]), int(state["last_epoch"])
        except (KeyError, TypeError, AttributeError):
            raise self._wrong_state(state) from None
        self.base_lrs, self.last_epoch, self._last = list(base), epoch, list(last)
        for group, rate in zip(self.optimizer.param_groups, self._last, strict=True):
            group["lr"] = rate


def _initial_rates(optimizer: Optimizer) -> list[float]:
    """Each group's learning rate from before the first scheduler."""
    rates = vars(optimizer).setdefault("initial_lrs", [])
    rates += [group["lr"] for group in optimizer.param_groups[len(rates) :]]
    return rates


def _count(kind: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"{kind}: {name} is {value!r}; wanted an integer of at least 1")


# ---------------------------------------------------------------------------------- a schedule each


class StepLR(LRScheduler):
    """base * gamma ^ floor(t / step_size)."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        super().__init__(optimizer, schedules.Step(step_size, gamma))


class MultiStepLR(LRScheduler):
    """base * gamma ^ (number of milestones at or before t)."""

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1):
        super().__init__(optimizer, schedules.MultiStep(tuple(milestones), gamma))


class ConstantLR(LRScheduler):
    """base * factor for t < total_iters, then base."""

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5):
        super().__init__(optimizer, lambda t: factor if t < total_iters else 1.0)


class LinearLR(LRScheduler):
    """base * (start_factor + (end_factor - start_factor) min(t, total_iters) / total_iters)."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ):
        _count("LinearLR", "total_iters", total_iters)
        rise = (end_factor - start_factor) / total_iters
        super().__init__(optimizer, lambda t: start_factor + rise * min(t, total_iters))


class ExponentialLR(LRScheduler):
    """base * gamma ^ t."""

    def __init__(self, optimizer: Optimizer, gamma: float):
        super().__init__(optimizer, schedules.Exponential(gamma))


class InverseTimeLR(LRScheduler):
    """base / (1 + decay t)."""

    def __init__(self, optimizer: Optimizer, decay: float):
        super().__init__(optimizer, schedules.InverseTime(decay))


class PolynomialLR(LRScheduler):
    """base * (1 - min(t, total_iters) / total_iters) ^ power."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0):
        _count("PolynomialLR", "total_iters", total_iters)
        super().__init__(optimizer, schedules.Polynomial(total_iters, power))


class LambdaLR(LRScheduler):
    """base * lr_lambda(t); a function, or a list with one for each group."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Factor | Sequence[Factor]):
        super().__init__(optimizer, lr_lambda)


class CosineAnnealingLR(LRScheduler):
    """eta_min + (base - eta_min) (1 + cos(pi t / T_max)) / 2 (Loshchilov & Hutter 2017). Rises again after T_max."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        _count("CosineAnnealingLR", "T_max", T_max)
        ends = _shares("CosineAnnealingLR", optimizer, eta_min)
        super().__init__(
            optimizer, [lambda t, end=end: end + (1 - end) * (1 + math.cos(math.pi * t / T_max)) / 2 for end in ends]
        )


class CosineAnnealingWarmRestarts(LRScheduler):
    """The cosine from base to eta_min, begun anew after T_0 steps, then T_0 T_mult, T_0 T_mult^2, ... (SGDR)."""

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0):
        _count("CosineAnnealingWarmRestarts", "T_0", T_0)
        ends = _shares("CosineAnnealingWarmRestarts", optimizer, eta_min)
        super().__init__(optimizer, [schedules.CosineRestarts(T_0, T_mult, end) for end in ends])


def _shares(kind: str, optimizer: Optimizer, eta_min: float) -> list[float]:
    """eta_min as a share of each group's initial learning rate."""
    if not isinstance(optimizer, Optimizer) or not eta_min:
        return [0.0] * len(getattr(optimizer, "param_groups", "."))
    rates = _initial_rates(optimizer)
    if not all(rates):
        raise OptionError(f"{kind}: eta_min is {eta_min!r} and a group's lr is 0; wanted an lr above 0")
    return [eta_min / rate for rate in rates]


class OneCycleLR(LRScheduler):
    """Up to max_lr and down again along half cosines (Smith & Topin 2018), stepped after each batch.

    Takes total_steps, or epochs and steps_per_epoch. max_lr: a number, or a list with one for each group. With
    cycle_momentum, momentum (beta1 for Adam) goes from max_momentum to base_momentum and back.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ):
        if total_steps is None:
            if not epochs or not steps_per_epoch:
                raise OptionError("OneCycleLR: wanted total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        _count("OneCycleLR", "total_steps", total_steps)
        cycle = schedules.OneCycle(total_steps, pct_start, div_factor, final_div_factor)
        # The cycle of momentum is that of the rate upside down, and comes back to where it began.
        level = schedules.OneCycle(total_steps, pct_start, 2.0, 1.0)
        self._momentum: Factor | None = None
        if cycle_momentum:
            self._momentum = lambda t: max_momentum - (max_momentum - base_momentum) * (2 * level(t) - 1)
        _Scheduler.__init__(self, optimizer)
        if cycle_momentum and not any(name in optimizer.param_groups[0] for name in ("momentum", "betas")):
            raise OptionError(
                f"OneCycleLR: {type(optimizer).__name__} has neither momentum nor betas; wanted cycle_momentum=False"
            )
        for group, rate in zip(optimizer.param_groups, self._each_group("max_lr", max_lr), strict=True):
            group["lr"] = rate
        super().__init__(optimizer, cycle)

    def _set(self, factors: list[float]) -> None:
        super()._set(factors)
        if self._momentum is not None:
            momentum = self._momentum(self.last_epoch)
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum


class SequentialLR(LRScheduler):
    """One scheduler after another: number i begins, at its own t = 0, at milestone i - 1.

    schedulers: made for the same optimizer. They are taken over: only this one is to be stepped.
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]):
        schedulers, milestones = list(schedulers), list(milestones)
        fit = [isinstance(s, LRScheduler) and s.optimizer is optimizer for s in schedulers]
        if not schedulers or not all(fit) or any(isinstance(s, OneCycleLR) for s in schedulers):
            raise OptionError(
                f"SequentialLR: schedulers are {schedulers!r}; wanted schedulers of this optimizer, none a OneCycleLR"
            )
        if len(milestones) != len(schedulers) - 1 or milestones != sorted(milestones):
            raise OptionError(
                f"SequentialLR: milestones are {milestones!r} for {len(schedulers)} schedulers; "
                "wanted one, rising, between each two"
            )
        starts = [0, *milestones]

        def of_group(i: int) -> Factor:
            def factor(t: int) -> float:
                stage = bisect.bisect_right(milestones, t)
                return schedulers[stage].factors[i](t - starts[stage])

            return factor

        for group, rate in zip(optimizer.param_groups, _initial_rates(optimizer), strict=True):
            group["lr"] = rate
        super().__init__(optimizer, [of_group(i) for i in range(len(optimizer.param_groups))])


# ----------------------------------------------------------------------------------- by a metric


class ReduceLROnPlateau(_Scheduler):
    """Multiplies the learning rate by `factor` when the metric given to `step` has not improved for more than
    `patience` steps, and then rests for `cooldown` steps.

    mode "min": better is below best - threshold |best|; "max": above best + threshold |best|. min_lr: a number, or a
    list with one for each group. A change of less than eps is left out.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ):
        super().__init__(optimizer)
        self._plateau = schedules.ReduceOnPlateau(patience, factor, 0.0, mode, threshold, cooldown)
        self.factor, self.eps = factor, eps
        self.min_lrs = self._each_group("min_lr", min_lr)

    def step(self, metrics: float) -> None:
        """Take the metric's newest value."""
        self._check_not_recording()
        before = self._plateau.current
        if self._plateau.report(float(metrics)) < before:
            for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                rate = max(group["lr"] * self.factor, least)
                if group["lr"] - rate > self.eps:
                    group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on, with the learning rates."""
        return {"kind": type(self).__name__, **self._plateau.state(), "last_lrs": self.get_last_lr()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict()`, and set its learning rates. Raises CheckpointError."""
        groups = self.optimizer.param_groups
        wanted = {"kind", "last_lrs", *self._plateau.slots}
        if not isinstance(state, dict) or set(state) != wanted or state["kind"] != type(self).__name__:
            raise self._wrong_state(state)
        if len(state["last_lrs"]) != len(groups):
            raise self._wrong_state(state)
        self._plateau.restore({name: state[name] for name in self._plateau.slots})
        for group, rate in zip(groups, state["last_lrs"], strict=True):
            group["lr"] = rate
