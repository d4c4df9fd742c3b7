"""Learning-rate schedules: functions of time that multiply the base learning rate.

`schedule(t)` is the factor at step t = 0, 1, 2, ...; whether a step is an update or an epoch is the caller's
choice. t may be an array of integers, and the factors then have its shape. Schedules never change: they hold
no state, so that step t has the same factor whenever and however often it is asked for. (The one exception is
ReduceOnPlateau, which listens to a metric.)

    warm = LinearWarmup(100) * Cosine(total=2000)          # product
    join = Sequential([Constant(), Exponential(0.99)], milestones=[500])
"""

import itertools
import math

import numpy as np

from nanonet.errors import OptionError
from nanonet.options import count, number, unknown

__all__ = [
    "Chain",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Exponential",
    "InverseTime",
    "LinearWarmup",
    "MultiStep",
    "OneCycle",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "Sequential",
    "Step",
    "get",
]


class Schedule:
    """A function of time. Kinds give `factor`; whoever uses one calls it."""

    def __call__(self, t):
        """The factor at step t: a float for an integer, an array float64 of t's shape for an array.

        Raises OptionError when t is not made of integers of at least 0.
        """
        steps = np.asarray(t)
        if steps.dtype.kind not in "iu" or (steps.size and steps.min() < 0):
            raise OptionError(f"t is {t!r}; wanted integers of at least 0")
        # One step goes as an array, too: NumPy's powers of arrays and of scalars may differ in the last bit.
        factors = np.asarray(self.factor(np.atleast_1d(steps).astype(np.float64)), dtype=np.float64)
        return float(factors[0]) if steps.ndim == 0 else factors

    def factor(self, t: np.ndarray) -> np.ndarray:
        """The factors at whole numbers t (any shape, float64)."""
        raise NotImplementedError

    def __mul__(self, other: "Schedule") -> "Chain":
        return Chain([self, other])

    def _set(self, **options) -> None:
        vars(self).update(options)

    def __setattr__(self, name: str, value: object):
        raise AttributeError(f"{name}: a schedule never changes; make another one")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


# ------------------------------------------------------------------------------------------- plain


class Constant(Schedule):
    """f(t) = 1."""

    def factor(self, t):
        return np.ones_like(t)


class Step(Schedule):
    """f(t) = gamma ^ floor(t / step_size)."""

    def __init__(self, step_size: int, gamma: float = 0.1):
        self._set(step_size=count("Step: step_size", step_size), gamma=number("Step: gamma", gamma, "(0, inf)"))

    def factor(self, t):
        return self.gamma ** np.floor(t / self.step_size)


class MultiStep(Schedule):
    """f(t) = gamma ^ (number of milestones at or before t)."""

    def __init__(self, milestones: tuple[int, ...], gamma: float = 0.1):
        self._set(milestones=_milestones("MultiStep", milestones), gamma=number("MultiStep: gamma", gamma, "(0, inf)"))

    def factor(self, t):
        return self.gamma ** np.searchsorted(self.milestones, t, side="right").astype(np.float64)


class Exponential(Schedule):
    """f(t) = gamma ^ t."""

    def __init__(self, gamma: float):
        self._set(gamma=number("Exponential: gamma", gamma, "(0, inf)"))

    def factor(self, t):
        return self.gamma**t


class InverseTime(Schedule):
    """f(t) = 1 / (1 + decay t)."""

    def __init__(self, decay: float):
        self._set(decay=number("InverseTime: decay", decay, "[0, inf)"))

    def factor(self, t):
        return 1 / (1 + self.decay * t)


class Polynomial(Schedule):
    """f(t) = end + (1 - end) (1 - min(t, total) / total) ^ power."""

    def __init__(self, total: int, power: float = 1.0, end: float = 0.0):
        self._set(
            total=count("Polynomial: total", total),
            power=number("Polynomial: power", power, "(0, inf)"),
            end=number("Polynomial: end", end, "[0, inf)"),
        )

    def factor(self, t):
        return self.end + (1 - self.end) * (1 - np.minimum(t, self.total) / self.total) ** self.power


class LinearWarmup(Schedule):
    """f(t) = start + (1 - start) min(t, steps) / steps; 1 from the start if steps is 0."""

    def __init__(self, steps: int, start: float = 0.1):
        self._set(
            steps=count("LinearWarmup: steps", steps, least=0),
            start=number("LinearWarmup: start", start, "[0, inf)"),
        )

    def factor(self, t):
        if self.steps == 0:
            return np.ones_like(t)
        return self.start + (1 - self.start) * np.minimum(t, self.steps) / self.steps


# ------------------------------------------------------------------------------------------ cosine


class Cosine(Schedule):
    """f(t) = end + (1 - end) (1 + cos(pi min(t, total) / total)) / 2 (Loshchilov & Hutter 2017, equation 5).

    It stays at `end` after `total`.
    """

    def __init__(self, total: int, end: float = 0.0):
        self._set(total=count("Cosine: total", total), end=number("Cosine: end", end, "[0, inf)"))

    def factor(self, t):
        return self.end + (1 - self.end) * (1 + np.cos(math.pi * np.minimum(t, self.total) / self.total)) / 2


class CosineRestarts(Schedule):
    """Cosine, begun anew after `first` steps, then `first * mult`, `first * mult^2`, ... (SGDR).

    f(t) = end + (1 - end) (1 + cos(pi t_i / T_i)) / 2, where period i of length T_i = first mult^i holds t and
    t_i counts from its beginning (Loshchilov & Hutter 2017, equation 5).
    """

    def __init__(self, first: int, mult: int = 1, end: float = 0.0):
        self._set(
            first=count("CosineRestarts: first", first),
            mult=count("CosineRestarts: mult", mult),
            end=number("CosineRestarts: end", end, "[0, inf)"),
        )

    def factor(self, t):
        starts, lengths = self._periods(float(np.max(t, initial=0)))
        period = np.searchsorted(starts, t, side="right") - 1
        part = (t - starts[period]) / lengths[period]
        return self.end + (1 - self.end) * (1 + np.cos(math.pi * part)) / 2

    def _periods(self, last: float) -> tuple[np.ndarray, np.ndarray]:
        """First steps and lengths of the periods up to the one that holds step `last`."""
        if self.mult == 1:
            starts = np.arange(last // self.first + 1) * self.first
            return starts, np.full(len(starts), self.first)
        starts, lengths = [0], [self.first]
        while starts[-1] + lengths[-1] <= last:
            starts.append(starts[-1] + lengths[-1])
            lengths.append(lengths[-1] * self.mult)
        return np.array(starts), np.array(lengths)


class OneCycle(Schedule):
    """Up from 1 / div to 1, then down to 1 / (div final_div), along half cosines (Smith & Topin 2018).

    With c(a, b, p) = b + (a - b) (1 + cos(pi p)) / 2 and the peak at u = pct_start * total - 1,

        f(t) = c(1 / div, 1, t / u)                                   for t <= u
        f(t) = c(1, 1 / (div final_div), (t - u) / (total - 1 - u))   for u < t <= total - 1

    It stays at the last value after that. The base learning rate is the highest.
    """

    def __init__(self, total: int, pct_start: float = 0.3, div: float = 25.0, final_div: float = 1e4):
        self._set(
            total=count("OneCycle: total", total),
            pct_start=number("OneCycle: pct_start", pct_start, "[0, 1]"),
            div=number("OneCycle: div", div, "(0, inf)"),
            final_div=number("OneCycle: final_div", final_div, "(0, inf)"),
        )

    def factor(self, t):
        first, last = 1 / self.div, 1 / (self.div * self.final_div)
        end = self.total - 1
        peak = min(max(self.pct_start * self.total - 1, 0.0), end)
        rise = _half_cosine(first, 1.0, t / peak) if peak > 0 else np.ones_like(t)
        fall = _half_cosine(1.0, last, (np.minimum(t, end) - peak) / (end - peak)) if peak < end else np.ones_like(t)
        return np.where(t <= peak, rise, fall)


def _half_cosine(start: float, end: float, part: np.ndarray) -> np.ndarray:
    return end + (start - end) * (1 + np.cos(math.pi * part)) / 2


# --------------------------------------------------------------------------------------- composing


class Chain(Schedule):
    """f(t) = f1(t) f2(t) ...: several at once."""

    def __init__(self, schedules: tuple[Schedule, ...]):
        self._set(schedules=_schedules("Chain", schedules))

    def factor(self, t):
        return math.prod((schedule.factor(t) for schedule in self.schedules), start=np.ones_like(t))


class Sequential(Schedule):
    """One after another: schedule i begins, at its own step 0, at milestone i - 1."""

    def __init__(self, schedules: tuple[Schedule, ...], milestones: tuple[int, ...]):
        self._set(schedules=_schedules("Sequential", schedules), milestones=_milestones("Sequential", milestones))
        if len(self.milestones) != len(self.schedules) - 1:
            raise OptionError(
                f"Sequential: got {len(self.schedules)} schedules and {len(self.milestones)} milestones; "
                "wanted one milestone between each two schedules"
            )

    def factor(self, t):
        stage = np.searchsorted(self.milestones, t, side="right")
        out = np.empty_like(t)
        for i, (schedule, begin) in enumerate(zip(self.schedules, (0, *self.milestones), strict=True)):
            here = stage == i
            out[here] = schedule.factor(t[here] - begin)
        return out


# ------------------------------------------------------------------------------------ by a metric


class ReduceOnPlateau:
    """Multiply the factor by `factor` when a metric has not improved for more than `patience` reports.

    `report(value)`, say once per epoch, returns the factor to use from now on. In mode "min" a value is better
    if it is below best - threshold |best|, in mode "max" if above best + threshold |best|; NaN never is. After
    a reduction, `cooldown` reports do not count as bad. The factor never falls below `minimum`.
    """

    slots = ("current", "best", "bad", "rest")

    def __init__(self, patience=10, factor=0.1, minimum=0.0, mode="min", threshold=1e-4, cooldown=0):
        if mode not in ("min", "max"):
            raise unknown("mode of ReduceOnPlateau", mode, ("min", "max"))
        self.patience = count("ReduceOnPlateau: patience", patience, least=0)
        self.factor = number("ReduceOnPlateau: factor", factor, "(0, 1)")
        self.minimum = number("ReduceOnPlateau: minimum", minimum, "[0, 1]")
        self.mode = mode
        self.threshold = number("ReduceOnPlateau: threshold", threshold, "[0, inf)")
        self.cooldown = count("ReduceOnPlateau: cooldown", cooldown, least=0)
        self.current = 1.0  # the factor in use
        self.best = math.inf  # in mode "max", of the negated metric
        self.bad = 0  # reports since the last better one
        self.rest = 0  # reports of cooldown left

    def report(self, value: float) -> float:
        """Take the metric's newest value; return the factor."""
        value = float(value) if self.mode == "min" else -float(value)
        margin = self.threshold * abs(self.best) if math.isfinite(self.best) else 0.0
        if value < self.best - margin:
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.rest:
            self.rest -= 1
            self.bad = 0
        if self.bad > self.patience:
            self.current = max(self.current * self.factor, self.minimum)
            self.rest, self.bad = self.cooldown, 0
        return self.current

    def __call__(self, t) -> float:
        """The factor in use, at whatever step."""
        return self.current

    def state(self) -> dict[str, float]:
        """What `restore` needs to go on as if nothing had happened."""
        return {slot: getattr(self, slot) for slot in self.slots}

    def restore(self, state: dict[str, float]) -> None:
        """Take over a `state()`. Raises OptionError unless it has exactly these entries."""
        if set(state) != set(self.slots):
            raise OptionError(f"state has {sorted(state)}; wanted {sorted(self.slots)}")
        for slot in self.slots:
            setattr(self, slot, state[slot])


# ----------------------------------------------------------------------------------------- by name

_BY_NAME = {
    "constant": Constant,
    "step": Step,
    "multi_step": MultiStep,
    "exponential": Exponential,
    "inverse_time": InverseTime,
    "polynomial": Polynomial,
    "linear_warmup": LinearWarmup,
    "cosine": Cosine,
    "cosine_restarts": CosineRestarts,
    "one_cycle": OneCycle,
    "reduce_on_plateau": ReduceOnPlateau,
}


def get(name, **options):
    """A schedule by name, as in get("step", step_size=30, gamma=0.5); a schedule or function as it is.

    Raises OptionError for an unknown name, an unknown option, one that is missing or out of range.
    """
    if callable(name) and not options:
        return name
    kind = _BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None:
        raise unknown("schedule", name, _BY_NAME)
    import inspect

    known = inspect.signature(kind).parameters
    for option in options:
        if option not in known:
            raise unknown(f"an option of schedule {name}", option, known or ["(it has none)"])
    missing = [option for option in known if known[option].default is inspect.Parameter.empty and option not in options]
    if missing:
        raise OptionError(f"schedule {name}: {', '.join(missing)} not given")
    return kind(**options)


# ------------------------------------------------------------------------------------------ checks


def _milestones(kind: str, values) -> tuple[int, ...]:
    milestones = tuple(count(f"{kind}: a milestone", value, least=0) for value in values)
    if any(b <= a for a, b in itertools.pairwise(milestones)):
        raise OptionError(f"{kind}: milestones are {milestones}; wanted each above the one before")
    return milestones


def _schedules(kind: str, values) -> tuple[Schedule, ...]:
    schedules = tuple(values)
    if not schedules or not all(isinstance(schedule, Schedule) for schedule in schedules):
        raise OptionError(f"{kind}: schedules are {schedules!r}; wanted one or more schedules")
    return schedules
