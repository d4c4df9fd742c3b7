"""Population based training (Jaderberg et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..checks import number, whole
from ..samplers.base import keyed_integer, keyed_uniform
from ..space import Categorical, Domain, Float, Int
from ..trial import FrozenTrial, TrialState
from .base import PENDING, Decision, Scheduler, Segment, Situation

__all__ = ["PopulationTraining", "explore"]


class PopulationTraining(Scheduler):
    """A population trains side by side. Every `interval` steps the worst are ended, and in place of each a new trial
    goes on from the state of one of the best (exploit) with settings that are perturbed (explore).

    So settings may change in the course of a training. A generation is decided when all of it is there, so the outcome
    does not depend on the order in which workers finish. A member that failed is replaced as one of the worst.
    Replacements do not count as trials that are started, for `n_trials`; `Resumable.adapt` takes them their settings.

    size: of the population. interval: steps between two generations. quantile: the part of the population that is
    replaced, and the part that its successors come from, at most 1/2. resample: how likely a setting is drawn anew
    instead of being perturbed. seed: of the random choices.
    """

    def __init__(
        self, size: int = 20, interval: int = 5, quantile: float = 0.25, resample: float = 0.25, seed: int = 0
    ):
        self.size, self.interval = whole("size", size, 2), whole("interval", interval, 1)
        self.quantile, self.resample = number("quantile", quantile, "(0, 0.5]"), number("resample", resample, "[0, 1]")
        self.seed = seed

    def decide(self, situation: Situation) -> Decision:
        founders = [t for t in situation.trials if t.parent is None]
        if len(founders) < self.size and situation.may_start:
            waiting = [t for t in founders if t.state is TrialState.WAITING]
            return Decision(run=Segment(waiting[0].number if waiting else None, self._steps(0, situation)))
        gone = (TrialState.PRUNED, TrialState.FAIL)
        members = [t for t in situation.trials if t.state not in gone and (t.parent or t in founders[: self.size])]
        going = [t for t in members if not t.state.is_finished()]
        if not going:
            return Decision()
        age = min(t.age for t in going)
        if age > 0 and all(t.state in PENDING and t.age == age for t in going if _birth(t) != age):
            decision = self._generation(situation, members, min(len(founders), self.size), age)
            if decision is not None:
                return decision
        for trial in going:
            if trial.state in PENDING and trial.age == age:
                return Decision(run=Segment(trial.number, self._steps(age, situation)))
        return Decision()

    def _steps(self, age: int, situation: Situation) -> int:
        return min((age // self.interval + 1) * self.interval, situation.max_steps) - age

    def _generation(self, situation: Situation, members: list[FrozenTrial], size: int, age: int) -> Decision | None:
        """End the worst, or put a new member in the place of one that is missing; None if there is nothing to do."""
        born = [t for t in situation.trials if t.parent and _birth(t) == age]
        old = [t for t in members if t not in born]
        parents = situation.ranked([t for t in old if t.state is TrialState.PAUSED], situation.max_steps)
        replaced = max(int(size * self.quantile), 1)
        missing = size - len(old) - len(born)
        surplus = min(max(replaced - missing - len(born), 0), max(len(parents) - 1, 0))
        if missing + surplus == 0 or not parents:
            return None
        stop = [t.number for t in parents[len(parents) - surplus :]]
        number = situation.trials[-1].number + 1
        best = parents[: max(min(replaced, len(parents) - surplus), 1)]
        parent = best[keyed_integer(self.seed, number, "parent") % len(best)]
        params = explore(parent.params, parent.distributions, (self.seed, number), self.resample)
        return Decision(stop, Segment(None, self._steps(age, situation), parent.number, params))


def _birth(trial: FrozenTrial) -> int:
    """The age at which a trial went on from its parent's state; 0 for one that started anew."""
    return trial.age - trial.steps


def explore(
    params: Mapping[str, Any], domains: Mapping[str, Domain], key: tuple[object, ...], resample: float
) -> dict[str, Any]:
    """Settings near these. Each is drawn anew with probability `resample`; else a number is multiplied by 0.8 or 1.2
    (a whole number changes by 1 at least), a listed value with an order is moved by one place, and others stay."""
    changed = {}
    for name, value in params.items():
        domain, up = domains[name], keyed_uniform(*key, name, "up") < 0.5
        if keyed_uniform(*key, name, "anew") < resample:
            changed[name] = domain.decode(keyed_uniform(*key, name))
        elif isinstance(domain, (Float, Int)):
            changed[name] = _scaled(value, domain, up)
        elif isinstance(domain, Categorical):
            changed[name] = value
        else:
            changed[name] = domain.choices[min(max(domain.index(value) + (1 if up else -1), 0), domain.size - 1)]
    return changed


def _scaled(value: float, domain: Float | Int, up: bool) -> float:
    aim = value * (1.2 if up else 0.8)
    grid = domain.step or (1 if isinstance(domain, Int) else None)
    if grid is None:
        return min(max(aim, domain.low), domain.high)
    moved = round((value - domain.low) / grid) + (round((aim - value) / grid) or (1 if up else -1))
    place = min(max(moved, 0), domain.size - 1)
    return domain.low + place * grid if isinstance(domain, Int) else domain.decode((place + 0.5) / domain.size)
