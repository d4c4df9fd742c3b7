"""The search space: what may be varied, and how it maps to the unit cube.

A parameter's domain maps the unit interval to its values and back. A `Space` is a number of named domains, some of
them active only under a condition. Samplers work on the unit cube and never see values.

    space = Space(
        {"n_layers": Int(1, 3), "width_2": Int(8, 256, log=True), "lr": Float(1e-4, 1.0, log=True)},
        conditions={"width_2": {"parent": "n_layers", "at_least": 2}},
    )
    space.decode([0.1, 0.5, 0.5])  ->  {"n_layers": 1, "lr": 0.01}
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import numpy as np

from .cells import Ruler
from .constraints import Constraint
from .errors import SpaceError
from .priors import Prior, prior_from_json

__all__ = ["Categorical", "Domain", "Float", "Int", "Ordinal", "Space", "from_jsonable", "to_jsonable"]

FEW = 1 << 16  # a domain of at most so many values is told apart cell by cell
MOST = 1 << 62  # the largest whole number, and the most values a domain may have
DIGITS = 12  # significant digits of a decoded float: far below any sensible search resolution, and 0.01 stays 0.01


# ------------------------------------------------------------------------------------------------ domains


class Domain(ABC):
    """The values one parameter may take, laid out along the unit interval.

    Laid out evenly, unless there is a prior: then in proportion to it, so that uniform points are draws from it.
    """

    kind: str
    size: int | None
    """How many values there are; None for a continuous range."""
    prior: Prior | None = None
    _warp: tuple[np.ndarray, np.ndarray] | None = None

    def decode(self, u: float) -> Any:
        """The value at u, which is clipped to [0, 1]."""
        u = _clip(u)
        return self._value(u if self._warp is None else _clip(np.interp(u, self._warp[1], self._warp[0])))

    def encode(self, value: Any) -> float:
        """The place of `value` in [0, 1]; SpaceError if it is not in the domain.

        decode(encode(value)) == value, for continuous ranges up to 12 significant digits of the range.
        """
        place = self.natural(value)
        return place if self._warp is None else _clip(np.interp(place, *self._warp))

    @abstractmethod
    def natural(self, value: Any) -> float:
        """As `encode`, without the prior."""

    @abstractmethod
    def _value(self, place: float) -> Any:
        """As `decode`, without the prior."""

    def natural_edges(self) -> np.ndarray | None:
        """Where the values' cells begin and end without the prior: rising from 0 to 1, float64 (size + 1,).

        None if the range is continuous or has more than `FEW` values.
        """
        return None if self.size is None or self.size > FEW else np.arange(self.size + 1) / self.size

    @property
    def edges(self) -> np.ndarray | None:
        """Where the values' cells begin and end, float64 (size + 1,); None for continuous and very large domains."""
        edges = self.natural_edges()
        return edges if edges is None or self._warp is None else np.interp(edges, *self._warp)

    @property
    def places(self) -> np.ndarray | None:
        """Where `encode` puts each value, float64 (size,); None for continuous and very large domains."""
        if self.natural_edges() is None:
            return None
        places = self._natural_places()
        return places if self._warp is None else np.interp(places, *self._warp)

    def _natural_places(self) -> np.ndarray:
        return (np.arange(self.size) + 0.5) / self.size

    def _use(self, prior: Prior | None) -> None:
        """Lay the values out in proportion to a prior."""
        if prior is not None:
            if not isinstance(prior, Prior):
                raise SpaceError(f"{self}: prior must be a Near or Weights, got {prior!r}")
            self._warp = prior.warp(self)
        self.prior = prior

    @abstractmethod
    def __contains__(self, value: Any) -> bool: ...

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict that `domain_from_json` reads."""

    def _prior_json(self) -> dict[str, Any]:
        return {} if self.prior is None else {"prior": self.prior.to_json()}

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return False
        mine, theirs = ({k: v for k, v in vars(d).items() if k != "_warp"} for d in (self, other))
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]


class Float(Domain):
    """A real number in [low, high]; even in its logarithm with log=True; a multiple of `step` above low with step=."""

    kind = "float"

    def __init__(
        self, low: float, high: float, log: bool = False, step: float | None = None, prior: Prior | None = None
    ):
        self.low, self.high = _real("low", low), _real("high", high)
        self.log, self.step = bool(log), None if step is None else _real("step", step)
        _check_range(self, self.low, self.high, self.log, self.step)
        if self.log and self.low <= 0:
            raise SpaceError(f"{self}: log=True wants low > 0, got {low}")
        if self.log and self.step is not None:
            raise SpaceError(f"{self}: log=True and step={step} cannot be combined")
        self.size = None
        if self.step is not None:
            steps = (Decimal(repr(self.high)) - Decimal(repr(self.low))) / Decimal(repr(self.step))
            if steps > MOST:
                raise SpaceError(f"{self}: step={step} makes more than {MOST} values")
            self.size = int(steps + Decimal("1e-9")) + 1  # `high` itself may be a rounded multiple
            self.high = self._at(self.size - 1)
        elif self.low == self.high:
            self.size = 1
        self._use(prior)

    def _value(self, u: float) -> float:
        if self.size is not None:
            return self._at(_cell(u, self.size))
        if self.log:
            value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
            value = float(f"{value:.{DIGITS}g}")
        else:
            span = self.high - self.low
            value = self.low + u * span if math.isfinite(span) else self.low * (1 - u) + self.high * u
            if math.isfinite(span):
                value = round(value, DIGITS - math.ceil(math.log10(span)))
        return min(max(value, self.low), self.high)

    def natural(self, value: float) -> float:
        if value not in self:
            raise SpaceError(f"{value!r} is not in {self}")
        value = float(value)
        if self.size is not None:
            step = self.step or 1.0
            return _centre(round((value - self.low) / step), self.size)
        if self.log:
            return _clip((math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low)))
        return _clip((value / 2 - self.low / 2) / (self.high / 2 - self.low / 2))

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, Real) or not self.low <= value <= self.high:
            return False
        if self.step is None:
            return True
        steps = (float(value) - self.low) / self.step
        return abs(steps - round(steps)) < 1e-8

    def _at(self, index: int) -> float:
        """low + index * step in decimal arithmetic, so that 0.1 + 2 * 0.1 is 0.3."""
        if index == 0 or self.step is None:
            return self.low
        return float(Decimal(repr(self.low)) + index * Decimal(repr(self.step)))

    def to_json(self) -> dict[str, Any]:
        limits = {"low": self.low, "high": self.high, "log": self.log, "step": self.step}
        return {"kind": "float", **limits, **self._prior_json()}

    def __repr__(self) -> str:
        return f"Float({self.low}, {self.high}{_flags(self)})"


class Int(Domain):
    """A whole number in [low, high], both included; even in its logarithm with log=True; every step-th with step=."""

    kind = "int"

    def __init__(self, low: int, high: int, log: bool = False, step: int | None = None, prior: Prior | None = None):
        self.low, self.high = _integer("low", low), _integer("high", high)
        self.log, self.step = bool(log), None if step in (None, 1) else _integer("step", step)
        _check_range(self, self.low, self.high, self.log, self.step)
        if self.log and self.low < 1:
            raise SpaceError(f"{self}: log=True wants low >= 1, got {low}")
        if self.log and self.step is not None:
            raise SpaceError(f"{self}: log=True and step={step} cannot be combined")
        self.size = (self.high - self.low) // (self.step or 1) + 1
        self.high = self.low + (self.size - 1) * (self.step or 1)
        self._use(prior)

    def natural_edges(self) -> np.ndarray | None:
        if not self.log or self.size > FEW:
            return super().natural_edges()
        edges = np.log(np.arange(self.low, self.high + 2) - 0.5)
        return (edges - edges[0]) / (edges[-1] - edges[0])

    def _natural_places(self) -> np.ndarray:
        if not self.log:
            return super()._natural_places()
        first, last = math.log(self.low - 0.5), math.log(self.high + 0.5)
        if last <= first:
            return np.array([0.5])
        places = [math.log(value) for value in range(self.low, self.high + 1)]  # to the bit what `natural` gives
        return np.clip((np.array(places) - first) / (last - first), 0.0, 1.0)

    def _value(self, u: float) -> int:
        if not self.log:
            return self.low + _cell(u, self.size) * (self.step or 1)
        first, last = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return min(max(round(math.exp(first + u * (last - first))), self.low), self.high)

    def natural(self, value: int) -> float:
        if value not in self:
            raise SpaceError(f"{value!r} is not in {self}")
        if not self.log:
            return _centre((int(value) - self.low) // (self.step or 1), self.size)
        first, last = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return _clip((math.log(value) - first) / (last - first)) if last > first else 0.5

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, Real) or not self.low <= value <= self.high:
            return False
        return int(value) == value and (int(value) - self.low) % (self.step or 1) == 0

    def to_json(self) -> dict[str, Any]:
        limits = {"low": self.low, "high": self.high, "log": self.log, "step": self.step}
        return {"kind": "int", **limits, **self._prior_json()}

    def __repr__(self) -> str:
        return f"Int({self.low}, {self.high}{_flags(self)})"


class _Choices(Domain):
    """Values listed one by one: the i-th of n has the cell [i / n, (i + 1) / n)."""

    def __init__(self, choices: Sequence[Any], prior: Prior | None = None):
        if isinstance(choices, (str, bytes)) or not isinstance(choices, Iterable):
            raise SpaceError(f"{type(self).__name__}: choices must be a list of values, got {choices!r}")
        self.choices = tuple(choices)
        if not self.choices:
            raise SpaceError(f"{type(self).__name__}: choices is empty")
        self.size = len(self.choices)
        if len({(type(c).__name__, repr(c)) for c in self.choices}) < self.size:
            raise SpaceError(f"{self}: a choice is listed twice")
        self._use(prior)

    def _value(self, u: float) -> Any:
        return self.choices[_cell(u, self.size)]

    def natural(self, value: Any) -> float:
        index = self.index(value)
        if index is None:
            raise SpaceError(f"{value!r} is not in {self}")
        return _centre(index, self.size)

    def index(self, value: Any) -> int | None:
        """The position of `value` among the choices: the same object, else an equal one of its type, else equal."""
        try:
            known = self._known.get((type(value), value))
        except TypeError:  # it has no hash
            known = None
        if known is not None:
            return known
        tests = (
            lambda c: c is value,
            lambda c: type(c) is type(value) and bool(c == value),
            lambda c: isinstance(c, bool) == isinstance(value, bool) and bool(c == value),
        )
        return next((i for same in tests for i, c in enumerate(self.choices) if same(c)), None)

    @cached_property
    def _known(self) -> dict[tuple[type, Any], int]:
        """(type, choice) -> position of the choices that have a hash and are equal to no other of their type."""
        known: dict[tuple[type, Any], int] = {}
        twins = set()  # 0.0 and -0.0
        for position, choice in enumerate(self.choices):
            key = type(choice), choice
            try:
                if known.setdefault(key, position) != position:
                    twins.add(key)
            except TypeError:
                continue
        return {key: position for key, position in known.items() if key not in twins}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_known"}

    def __contains__(self, value: Any) -> bool:
        return self.index(value) is not None

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "choices": [to_jsonable(c) for c in self.choices], **self._prior_json()}

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return False
        return repr(self.choices) == repr(other.choices) and self.prior == other.prior

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(repr(c) for c in self.choices[:8])
        return f"{type(self).__name__}([{shown}{', ...' if self.size > 8 else ''}])"


class Ordinal(_Choices):
    """Listed values whose order means something: batch sizes 16, 32, 64, 128."""

    kind = "ordinal"


class Categorical(_Choices):
    """Listed values without an order: optimizers, activations."""

    kind = "categorical"


KINDS: dict[str, type[Domain]] = {d.kind: d for d in (Float, Int, Ordinal, Categorical)}


def domain_from_json(data: Mapping[str, Any]) -> Domain:
    """The domain that `Domain.to_json` wrote."""
    kind = data.get("kind")
    if kind not in KINDS:
        raise SpaceError(f"kind {kind!r} of a parameter is unknown; known are {', '.join(KINDS)}")
    try:
        prior = data.get("prior") and prior_from_json(data["prior"])
        if "choices" in data:
            return KINDS[kind]([from_jsonable(c) for c in data["choices"]], prior=prior)
        return KINDS[kind](data["low"], data["high"], log=data.get("log", False), step=data.get("step"), prior=prior)
    except (KeyError, TypeError) as error:
        raise SpaceError(f"{dict(data)!r} does not describe a {kind} parameter: {error!r}") from error


# ----------------------------------------------------------------------------------------------- conditions

PREDICATES = {
    "in": lambda value, allowed: Categorical(allowed).index(value) is not None,
    "not_in": lambda value, barred: Categorical(barred).index(value) is None,
    "equals": lambda value, wanted: value == wanted,
    "at_least": lambda value, bound: value >= bound,
    "at_most": lambda value, bound: value <= bound,
}
"""A condition is {"parent": name, PREDICATE: argument}; the parameter is active while the parent's value fits."""


def _comparable(a: Any, b: Any) -> bool:
    try:
        return isinstance(a <= b, (bool, np.bool_))
    except TypeError:
        return False


def _check_condition(name: str, condition: Any, parameters: Mapping[str, Domain]) -> None:
    wanted = f'{{"parent": name, one of {", ".join(PREDICATES)}: argument}}'
    if not isinstance(condition, Mapping) or len(condition) != 2 or "parent" not in condition:
        raise SpaceError(f"the condition of {name!r} must be {wanted}, got {condition!r}")
    parent = condition["parent"]
    (predicate,) = set(condition) - {"parent"}
    if predicate not in PREDICATES:
        raise SpaceError(f"the condition of {name!r} must be {wanted}, got {condition!r}")
    if parent not in parameters or parent == name:
        raise SpaceError(f"the condition of {name!r} names the parent {parent!r}, which is not another parameter")
    argument = condition[predicate]
    if predicate in ("at_least", "at_most"):
        domain = parameters[parent]
        values = domain.choices if isinstance(domain, _Choices) else [domain.low]
        if not all(_comparable(value, argument) for value in values):
            raise SpaceError(f"the condition of {name!r} compares {parent!r} with {argument!r}: they have no order")
    if predicate in ("in", "not_in"):
        strange = [v for v in Categorical(argument).choices if v not in parameters[parent]]
        if strange:
            raise SpaceError(f"the condition of {name!r} names values that {parent!r} never takes: {strange}")


# ---------------------------------------------------------------------------------------------------- space


class Space:
    """Named parameters, each with a domain and optionally a condition.

    parameters: name -> Domain, in the order of the unit cube's axes.
    conditions: name -> {"parent": other name, "in" | "not_in" | "equals" | "at_least" | "at_most": argument}.
        A parameter is inactive, and absent from decoded settings, if its parent is inactive or fails the test.
    defaults: settings that are known to be good; `AutoSampler` tries them first. A default may leave parameters out:
        they stand at the middle of their range.
    constraints: expressions over the names, as text (then hard) or `Constraint`s.
    Raises SpaceError for unknown or circular parents, unknown names in a constraint, and defaults outside the space.
    """

    def __init__(
        self,
        parameters: Mapping[str, Domain],
        conditions: Mapping[str, Mapping[str, Any]] | None = None,
        defaults: Iterable[Mapping[str, Any]] = (),
        constraints: Iterable[Constraint | str] = (),
    ):
        for name, domain in parameters.items():
            if not isinstance(name, str) or not isinstance(domain, Domain):
                raise SpaceError(f"parameter {name!r} must be a name with a Float, Int, Ordinal or Categorical, "
                                 f"got {domain!r}")  # fmt: skip
        self.parameters = dict(parameters)
        self.conditions = {name: dict(condition) for name, condition in (conditions or {}).items()}
        for name, condition in self.conditions.items():
            if name not in self.parameters:
                raise SpaceError(f"there is a condition for {name!r}, which is not a parameter")
            _check_condition(name, condition, self.parameters)
        self._order = self._parents_first()
        self.constraints = [c if isinstance(c, Constraint) else Constraint(c) for c in constraints]
        for constraint in self.constraints:
            unknown = sorted(constraint.names - self.parameters.keys())
            if unknown:
                raise SpaceError(f"{constraint} names {', '.join(map(repr, unknown))}, not among the parameters")
        self.defaults = [dict(settings) for settings in defaults]
        self._last_key: tuple[bytes | None, bytes] = (None, b"")
        for settings in self.defaults:
            self._check_values(settings)

    @property
    def names(self) -> list[str]:
        return list(self.parameters)

    @property
    def dimensions(self) -> int:
        return len(self.parameters)

    def is_active(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Whether `name` counts, given the settings of its ancestors (which must be there if they are active)."""
        condition = self.conditions.get(name)
        if condition is None:
            return True
        parent = condition["parent"]
        if parent not in settings or not self.is_active(parent, settings):
            return False
        (predicate,) = set(condition) - {"parent"}
        return PREDICATES[predicate](settings[parent], condition[predicate])

    def allows(self, settings: Mapping[str, Any]) -> bool:
        """Whether the settings keep every hard constraint."""
        return all(c.holds(settings) for c in self.constraints if not c.weight)

    def weight(self, settings: Mapping[str, Any]) -> float:
        """How often these settings are to be proposed, from 0 (a hard constraint is broken) to 1 (none is)."""
        return math.prod(c.weight for c in self.constraints if not c.holds(settings))

    @property
    def size(self) -> int | None:
        """How many combinations there are, inactive parameters and constraints not considered; None: no end of them."""
        sizes = [domain.size for domain in self.parameters.values()]
        return None if None in sizes else math.prod(sizes)

    def snap(self, points: np.ndarray) -> np.ndarray:
        """The points with each coordinate where `encode` would put its value, shape (..., dimensions)."""
        points = np.minimum(np.maximum(np.array(points, dtype=np.float64), 0.0), 1.0)
        axes, ruler, places, begins = self._cells
        if len(axes):
            points[..., axes] = places[begins + ruler.cells(points[..., axes])]
        return points

    def active(self, points: np.ndarray) -> np.ndarray:
        """Which coordinates count at each of the points (n, dimensions): bool of that shape."""
        points = np.asarray(points, dtype=np.float64)
        names = self.names
        active = np.ones(points.shape, dtype=bool)
        for name in self._order:
            condition = self.conditions.get(name)
            if condition is None:
                continue
            parent = condition["parent"]
            (predicate,) = set(condition) - {"parent"}
            axis = names.index(parent)
            places, inverse = np.unique(points[:, axis], return_inverse=True)
            domain, argument = self.parameters[parent], condition[predicate]
            fits = np.array([PREDICATES[predicate](domain.decode(u), argument) for u in places], dtype=bool)
            active[:, names.index(name)] = fits[inverse] & active[:, axis]
        return active

    def key(self, point: np.ndarray) -> bytes:
        """The same for all points (dimensions,) of the same settings, and for the point that `encode` gives them.

        Inactive coordinates may be NaN.
        """
        point = np.asarray(point, dtype=np.float64)
        bits = point.tobytes()
        last = self._last_key
        if last[0] != bits:  # a proposal's key is asked for several times in a row
            last = self._last_key = bits, self.keys(point[None])[0]
        return last[1]

    def keys(self, points: np.ndarray) -> list[bytes]:
        """The `key` of each of the points (n, dimensions)."""
        missing = np.isnan(points)
        snapped = self.snap(np.where(missing, 0.5, points))
        if self.conditions:
            missing |= ~self.active(snapped)
        return [row.tobytes() for row in np.round(np.where(missing, np.nan, snapped), 9) + 0.0]

    @cached_property
    def _cells(self) -> tuple[np.ndarray, Ruler, np.ndarray, np.ndarray]:
        """The axes that have cells, their ruler, the places of their cells in a row, and where those of each begin."""
        edges = {axis: domain.edges for axis, domain in enumerate(self.parameters.values())}
        edges = {axis: e for axis, e in edges.items() if e is not None}
        places = [list(self.parameters.values())[axis].places for axis in edges]
        begins = np.cumsum([0, *map(len, places)])[:-1].astype(np.intp)
        axes = np.array(list(edges), dtype=np.intp)
        return axes, Ruler(list(edges.values())), np.concatenate([*places, np.empty(0)]), begins

    def decode(self, point: Sequence[float], fixed: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The settings at `point`, shape (dimensions,) in [0, 1]; inactive parameters are left out.

        Values in `fixed` stand in place of the point's; SpaceError if one is outside its domain.
        """
        if len(point) != self.dimensions:
            raise SpaceError(f"point has {len(point)} coordinates, the space has {self.dimensions} parameters")
        fixed = fixed or {}
        self._check_values(fixed)
        place = dict(zip(self.parameters, point, strict=True))
        values: dict[str, Any] = {}
        for name in self._order:
            if self.is_active(name, values):
                values[name] = fixed[name] if name in fixed else self.parameters[name].decode(place[name])
        return {name: values[name] for name in self.parameters if name in values}

    def encode(self, settings: Mapping[str, Any]) -> np.ndarray:
        """The point, float64 of shape (dimensions,), of these settings; inactive parameters stand at 0.5.

        SpaceError if an active parameter is missing, a name is unknown or a value is outside its domain.
        """
        self._check_values(settings)
        active = [name for name in self._order if self.is_active(name, settings)]
        missing = [name for name in active if name not in settings]
        if missing:
            raise SpaceError(f"settings lack {', '.join(map(repr, missing))}")
        return np.array(
            [self.parameters[n].encode(settings[n]) if n in active else 0.5 for n in self.parameters], dtype=np.float64
        )

    def to_json(self) -> str:
        """JSON text that `Space.from_json` reads."""
        parameters = [
            {"name": name, **domain.to_json(), **({"when": self.conditions[name]} if name in self.conditions else {})}
            for name, domain in self.parameters.items()
        ]
        defaults = [to_jsonable(d) for d in self.defaults]
        constraints = {"constraints": [c.to_json() for c in self.constraints]} if self.constraints else {}
        return json.dumps({"parameters": parameters, "defaults": defaults, **constraints})

    @classmethod
    def from_json(cls, text: str) -> Space:
        """The space that `to_json` wrote; SpaceError says what is wrong with the text."""
        try:
            data = json.loads(text)
            rows = [dict(row) for row in data["parameters"]]
            names = [row.pop("name") for row in rows]
            whens = [row.pop("when", None) for row in rows]
            return cls(
                dict(zip(names, map(domain_from_json, rows), strict=True)),
                {name: when for name, when in zip(names, whens, strict=True) if when is not None},
                [from_jsonable(d) for d in data.get("defaults", [])],
                [Constraint(c["expression"], c["weight"]) for c in data.get("constraints", [])],
            )
        except SpaceError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise SpaceError(f"this is not the JSON of a search space: {error!r}") from error

    def __eq__(self, other: object) -> bool:
        def parts(space: Space) -> tuple[Any, ...]:
            constraints = [c.to_json() for c in space.constraints]
            return list(space.parameters.items()), space.conditions, space.defaults, constraints

        return isinstance(other, Space) and (self is other or parts(self) == parts(other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Space(" + ", ".join(f"{name}: {domain}" for name, domain in self.parameters.items()) + ")"

    def _check_values(self, settings: Mapping[str, Any]) -> None:
        for name, value in settings.items():
            if name not in self.parameters:
                raise SpaceError(f"{name!r} is not a parameter of the space; it has {', '.join(self.names) or 'none'}")
            if value not in self.parameters[name]:
                raise SpaceError(f"{name}={value!r} is not in {self.parameters[name]}")

    def _parents_first(self) -> list[str]:
        order: dict[str, None] = {}

        def visit(name: str, children: tuple[str, ...]) -> None:
            if name in children:
                raise SpaceError(f"conditions go round in a circle: {' -> '.join((*children, name))}")
            if name in self.conditions:
                visit(self.conditions[name]["parent"], (*children, name))
            order.setdefault(name)

        for name in self.parameters:
            visit(name, ())
        return list(order)


# --------------------------------------------------------------------------------------------------- JSON


def to_jsonable(value: Any) -> Any:
    """`value` as JSON knows it; tuples and NumPy scalars are kept apart or made plain. SpaceError if it cannot be."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple):
        return {"tuple": [to_jsonable(v) for v in value]}
    if isinstance(value, list):
        return [to_jsonable(v) for v in value]
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        plain = {k: to_jsonable(v) for k, v in value.items()}
        return {"dict": plain} if plain.keys() in ({"tuple"}, {"dict"}) else plain
    raise SpaceError(
        f"{value!r} of type {type(value).__name__} cannot be stored as JSON; "
        "use numbers, strings, booleans, None, or lists, tuples and dicts of them"
    )


def from_jsonable(value: Any) -> Any:
    """The inverse of `to_jsonable`."""
    if isinstance(value, list):
        return [from_jsonable(v) for v in value]
    if isinstance(value, dict):
        if value.keys() == {"tuple"}:
            return tuple(from_jsonable(v) for v in value["tuple"])
        if value.keys() == {"dict"}:
            value = value["dict"]
        return {k: from_jsonable(v) for k, v in value.items()}
    return value


# ------------------------------------------------------------------------------------------------- helpers


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise SpaceError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _integer(name: str, value: Any) -> int:
    whole = isinstance(value, (Integral, float)) and not isinstance(value, bool) and value == value // 1
    if not whole:
        raise SpaceError(f"{name} must be a whole number, got {value!r}")
    if not -MOST <= value <= MOST:
        raise SpaceError(f"{name} must be between -{MOST} and {MOST}")
    return int(value)


def _check_range(domain: Domain, low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise SpaceError(f"{type(domain).__name__}: low must not be above high, got low={low}, high={high}")
    if step is not None and step <= 0:
        raise SpaceError(f"{type(domain).__name__}: step must be positive, got {step}")


def _flags(domain: Float | Int) -> str:
    return (", log=True" if domain.log else "") + (f", step={domain.step}" if domain.step is not None else "")


def _clip(u: float) -> float:
    if not u == u:
        raise SpaceError("a coordinate is NaN; it must be in [0, 1]")
    return min(max(float(u), 0.0), 1.0)


def _cell(u: float, size: int) -> int:
    return min(int(_clip(u) * size), size - 1)


def _centre(index: int, size: int) -> float:
    return (index + 0.5) / size
