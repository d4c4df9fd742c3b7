"""A trial: one set of settings and what became of it.

`Trial` is the live one that an objective works with, `FrozenTrial` a record of it as the storage has it.
"""

from __future__ import annotations

import enum
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from .errors import SpaceError, TrialPruned
from .space import Categorical, Domain, Float, Int, Space

if TYPE_CHECKING:
    from .study import Study

__all__ = ["FrozenTrial", "Trial", "TrialPruned", "TrialState", "curve_value"]


class TrialState(enum.IntEnum):
    """Where a trial stands."""

    RUNNING = 0
    COMPLETE = 1
    PRUNED = 2
    FAIL = 3
    WAITING = 4
    """To be run: enqueued by the user, or interrupted and to be run again under its number."""
    PAUSED = 5
    """Between two segments of a `Resumable`: has a curve and may go on."""

    def is_finished(self) -> bool:
        return self in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class FrozenTrial:
    """A trial as the storage has it. Read only."""

    number: int
    state: TrialState = TrialState.RUNNING
    values: list[float] | None = None
    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, Domain] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    intermediate_values: dict[int, Any] = field(default_factory=dict)
    """Step -> value; with several objectives, step -> list of values."""
    datetime_start: datetime | None = None
    datetime_complete: datetime | None = None
    error: str | None = None
    """Why the trial failed."""
    steps: int = 0
    """How many steps of a `Resumable` are done and kept."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Settings that were given, not proposed."""
    enqueued: bool = False
    """Whether the user enqueued it; a sampler proposes the others."""
    attempt: int = 0
    """How often the trial was handed out."""

    @property
    def value(self) -> float | None:
        """The value of a trial with one objective; None if it has none."""
        if self.values is not None and len(self.values) > 1:
            raise ValueError(f"trial {self.number} has {len(self.values)} values; use `values`")
        return self.values[0] if self.values else None

    @property
    def feasible(self) -> bool:
        """Whether it keeps its study's constraints, which stand as numbers in `user_attrs["constraints"]`."""
        return all(c <= 0 for c in self.user_attrs.get("constraints") or ())

    @property
    def parent(self) -> tuple[int, int] | None:
        """(number, steps) of the trial whose state after so many steps this one went on from; None if it started anew.

        The curve and `steps` of a trial are its own, without what its parent did.
        """
        origin = self.user_attrs.get("parent")
        return origin and (origin["trial"], origin["steps"])

    @property
    def age(self) -> int:
        """How many steps of a `Resumable` are behind the trial's state, those of its parents among them."""
        return self.steps + (self.user_attrs["parent"]["age"] if "parent" in self.user_attrs else 0)

    @property
    def last_step(self) -> int | None:
        return max(self.intermediate_values, default=None)

    @property
    def duration(self) -> timedelta | None:
        if self.datetime_start is None or self.datetime_complete is None:
            return None
        return self.datetime_complete - self.datetime_start

    def copy(self) -> FrozenTrial:
        """A copy whose dicts and lists may be changed."""
        return replace(
            self,
            values=None if self.values is None else list(self.values),
            params=dict(self.params),
            distributions=dict(self.distributions),
            user_attrs=dict(self.user_attrs),
            intermediate_values={s: list(v) if isinstance(v, list) else v for s, v in self.intermediate_values.items()},
            fixed=dict(self.fixed),
        )


class Trial:
    """A running trial, as an objective sees it.

    The n-th new parameter that a trial asks for takes the n-th axis of the sampler's stream for this trial number,
    unless the study has a fixed space: then all its parameters are set before the objective starts.
    """

    def __init__(self, study: Study, number: int, attempt: int):
        self.study = study
        self.number = number
        self._attempt = attempt
        known = study.storage.trial(study.study_id, number)
        self.steps = known.steps
        self.age, self.parent = known.age, known.parent
        self._fixed = known.fixed
        self._earlier = known.params
        self._params: dict[str, Any] = dict(known.params) if known.steps else {}
        self._distributions: dict[str, Domain] = dict(known.distributions) if known.steps else {}
        self._user_attrs = dict(known.user_attrs)
        self._reported = dict(known.intermediate_values)
        self._relative: dict[str, float] = {}
        self.datetime_start = known.datetime_start

    # ---------------------------------------------------------------------------------------- settings

    @property
    def params(self) -> dict[str, Any]:
        """The settings so far, name -> value."""
        return dict(self._params)

    @property
    def distributions(self) -> dict[str, Domain]:
        return dict(self._distributions)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high]; on a grid of `step` above low, or even in its logarithm."""
        return self._suggest(name, Float(low, high, log=log, step=step))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number in [low, high], both included."""
        return self._suggest(name, Int(low, high, log=log, step=step))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""
        return self._suggest(name, Categorical(choices))

    def _suggest(self, name: str, domain: Domain) -> Any:
        if name in self._params:
            return self._known(name, domain)
        if name in self._fixed:
            value = self._fixed[name]
            if value not in domain:
                raise SpaceError(f"trial {self.number} was given {name}={value!r}, which is not in {domain}")
        elif name in self._earlier and self._earlier[name] in domain:
            value = self._earlier[name]
        elif name in self._relative:
            value = domain.decode(self._relative[name])
        else:
            value = domain.decode(self.study._coordinate(name, domain, len(self._params), self.number))
        self._set({name: value}, {name: domain})
        return value

    def _known(self, name: str, domain: Domain) -> Any:
        value, before = self._params[name], self._distributions.get(name)
        if before is not None and type(before) is not type(domain):
            raise SpaceError(f"trial {self.number} already has {name}={value!r} from {before}, not from {domain}")
        if value not in domain:
            warnings.warn(
                f"trial {self.number} already has {name}={value!r} from {self._distributions[name]}; "
                f"the new range {domain} is ignored",
                RuntimeWarning,
                stacklevel=4,
            )
        return value

    def _set(self, params: Mapping[str, Any], distributions: Mapping[str, Domain], distinct: bool = False) -> bool:
        study = self.study
        if not study.storage.set_params(study.study_id, self.number, self._attempt, params, distributions, distinct):
            return False
        self._params.update(params)
        self._distributions.update(distributions)
        return True

    def _begin(self, space: Space | None, learned: Space | None, suggested: Mapping[str, Any] | None = None) -> None:
        """Take settings from the fixed space, or coordinates for the space seen so far.

        What the user gave goes first, then what an earlier attempt at this trial had, then what is suggested, then the
        sampler's proposal.
        """
        if self.steps:
            return
        if space is not None:
            earlier = {n: v for n, v in self._earlier.items() if n in space.parameters and v in space.parameters[n]}
            given = {**earlier, **self._fixed}
            if suggested and not given and self._take(space, suggested):
                return
            refused: set[bytes] = set()
            while True:
                point = self.study._propose(space, self.number, refused)
                params, key = space.decode(point, given), space.key(point)
                again = key in refused or bool(given) or self.study.sampler.repeats
                if self._set(params, {name: space.parameters[name] for name in params}, distinct=not again):
                    return
                refused.add(key)  # another process was faster
        elif learned is not None:
            point = self.study._propose(learned, self.number)
            self._relative = dict(zip(learned.names, map(float, point), strict=True))

    def _take(self, space: Space, suggested: Mapping[str, Any]) -> bool:
        """Take the sampler's proposal with these settings in it, if that may be tried and was not; whether it was."""
        if self.study.sampler.repeats:  # its points are to be taken as they are
            return False
        if any(
            name not in space.parameters or value not in space.parameters[name] for name, value in suggested.items()
        ):
            return False  # they are of another space
        params = space.decode(self.study._propose(space, self.number), suggested)
        if not space.allows(params) or self.study._was_tried(space, params, self.number):
            return False
        return self._set(params, {name: space.parameters[name] for name in params}, distinct=True)

    # ---------------------------------------------------------------------------------------- progress

    def report(self, value: float | Sequence[float], step: int) -> None:
        """Tell the objective's value at `step` (a whole number >= 0); a step that was told already is ignored.

        With several objectives the value is a sequence of one number for each.
        """
        value = curve_value(value, len(self.study.directions), "report")
        if isinstance(step, bool) or int(step) != step or step < 0:
            raise ValueError(f"report: step must be a whole number >= 0, got {step!r}")
        step = int(step)
        if step in self._reported:
            warnings.warn(f"trial {self.number}: step {step} was reported already; ignored", RuntimeWarning, 2)
            return
        self.study.storage.report(self.study.study_id, self.number, self._attempt, step, value)
        self._reported[step] = value

    def should_prune(self) -> bool:
        """Whether the study's pruner would end this trial now; then raise `TrialPruned`."""
        return bool(self._reported) and self.study._should_prune(self)

    def set_user_attr(self, key: str, value: Any) -> None:
        """Keep a JSON-able remark with the trial."""
        self.study.storage.set_user_attr(self.study.study_id, self.number, self._attempt, key, value)
        self._user_attrs[key] = value

    @property
    def user_attrs(self) -> dict[str, Any]:
        return dict(self._user_attrs)

    @property
    def cost(self) -> float:
        """What the trial has cost so far, where that is counted (see `Study.optimize`); else 0."""
        return float(self._user_attrs.get("cost", 0.0))

    def report_cost(self, cost: float) -> None:
        """Add to what the trial has cost, a number >= 0 in any unit, in place of the seconds it takes."""
        cost = float(cost)
        if not 0 <= cost < math.inf:
            raise ValueError(f"report_cost: cost must be a number >= 0, got {cost!r}")
        self.set_user_attr("cost", self.cost + cost)

    def __repr__(self) -> str:
        return f"Trial(number={self.number}, params={self._params})"


def curve_value(value: Any, objectives: int, source: str) -> float | list[float]:
    """A point of a curve: a float, or with several objectives a list of one for each. NaN is let through.

    TypeError and ValueError name the `source` of the value.
    """
    wanted = "a number" if objectives == 1 else f"a sequence of {objectives} numbers, one per objective"
    try:
        if objectives == 1:
            return float(value)
        numbers = [float(v) for v in value]
    except (TypeError, ValueError):
        raise TypeError(f"{source}: value must be {wanted}, got {value!r} of type {type(value).__name__}") from None
    if len(numbers) != objectives:
        raise ValueError(f"{source}: value must be {wanted}, got {len(numbers)}: {value!r}")
    return numbers


def feasible(values: Any, objectives: int) -> tuple[list[float] | None, str | None]:
    """What an objective returned as a list of floats, or None and the reason why it cannot be a result."""
    listed = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    if len(listed) != objectives:
        return None, f"the objective gave {len(listed)} values, the study has {objectives} directions"
    try:
        numbers = [float(v) for v in listed]
    except (TypeError, ValueError):
        return None, f"the objective's value {values!r} is not a number"
    if any(map(math.isnan, numbers)):
        return None, f"the objective's value is NaN ({values!r})"
    return numbers, None
