"""Where good values are expected to lie.

A prior is a monotone warp of the unit interval: uniform points of the cube become draws from the prior, for every
sampler alike, and no value is ever ruled out. A share `doubt` of its mass stays uniform, so a prior that is wrong
costs a factor of 1 / doubt at most.

    Float(1e-5, 1.0, log=True, prior=Near(3e-3, spread=0.1))
    Categorical(["relu", "gelu", "tanh"], prior=Weights([3, 2, 1]))
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import SpaceError

if TYPE_CHECKING:
    from .space import Domain

__all__ = ["Histogram", "Near", "Prior", "Weights", "prior_from_json"]

KNOTS = 257  # of the warp of a continuous range


class Prior(ABC):
    """How likely the parts of a domain's range are."""

    kind: str

    @abstractmethod
    def masses(self, domain: Domain, edges: np.ndarray) -> np.ndarray:
        """The prior's mass, up to a factor, between neighbouring edges (k + 1,) of the unit interval: float64 (k,)."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict that `prior_from_json` reads."""

    def warp(self, domain: Domain) -> tuple[np.ndarray, np.ndarray]:
        """(places in the domain's own unit interval, places in the cube), both rising from 0 to 1."""
        edges = domain.natural_edges()
        if edges is None:
            edges = np.linspace(0.0, 1.0, KNOTS)
        masses = self.masses(domain, edges)
        doubt = self.doubt
        share = (1 - doubt) * masses / masses.sum() + doubt * np.diff(edges)
        cube = np.concatenate([[0.0], np.cumsum(share)])
        return edges, cube / cube[-1]

    doubt: float = 0.2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prior) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.to_json().items() if name != "kind")
        return f"{type(self).__name__}({options})"


class Near(Prior):
    """A bell around `value`; `spread` is its standard deviation as a share of the range (of its logarithm with log)."""

    kind = "near"

    def __init__(self, value: Any, spread: float = 0.15, doubt: float = 0.2):
        if isinstance(spread, bool) or not isinstance(spread, Real) or not (spread > 0 and math.isfinite(spread)):
            raise SpaceError(f"Near: spread must be a number above 0, got {spread!r}")
        self.value, self.spread, self.doubt = value, float(spread), _share(doubt)

    def masses(self, domain: Domain, edges: np.ndarray) -> np.ndarray:
        centre = domain.natural(self.value)
        # A difference of normal distribution functions; erfc would be exact far out, where `doubt` is all that counts.
        cdf = np.array([0.5 * math.erf((edge - centre) / (self.spread * math.sqrt(2))) for edge in edges])
        return np.diff(cdf)

    def to_json(self) -> dict[str, Any]:
        from .space import to_jsonable

        return {"kind": self.kind, "value": to_jsonable(self.value), "spread": self.spread, "doubt": self.doubt}


class Weights(Prior):
    """A weight for each of the listed choices, at least 0 and not all 0."""

    kind = "weights"

    def __init__(self, weights: Sequence[float], doubt: float = 0.2):
        try:
            self.weights = [float(w) for w in weights]
        except (TypeError, ValueError):
            raise SpaceError(f"Weights: weights must be a list of numbers, got {weights!r}") from None
        if not self.weights or not all(0 <= w < math.inf for w in self.weights) or not sum(self.weights) > 0:
            raise SpaceError(f"Weights: weights must be numbers of at least 0, not all 0, got {list(weights)!r}")
        self.doubt = _share(doubt)

    def masses(self, domain: Domain, edges: np.ndarray) -> np.ndarray:
        if len(self.weights) != domain.size:
            raise SpaceError(f"Weights: {len(self.weights)} weights for the {domain.size} values of {domain}")
        return np.array(self.weights)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "weights": self.weights, "doubt": self.doubt}


class Histogram(Prior):
    """A weight for each of equally wide parts of a continuous range (of its logarithm with log)."""

    kind = "histogram"

    def __init__(self, weights: Sequence[float], doubt: float = 0.2):
        self.weights, self.doubt = Weights(weights).weights, _share(doubt)

    def masses(self, domain: Domain, edges: np.ndarray) -> np.ndarray:
        total = np.concatenate([[0.0], np.cumsum(self.weights)])
        return np.diff(np.interp(edges, np.linspace(0.0, 1.0, len(total)), total))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "weights": self.weights, "doubt": self.doubt}


def prior_from_json(data: Mapping[str, Any]) -> Prior:
    """The prior that `to_json` wrote. SpaceError if it makes no sense."""
    from .space import from_jsonable

    if not isinstance(data, Mapping):
        raise SpaceError(f"{data!r} does not describe a prior")
    options = {name: from_jsonable(value) for name, value in data.items() if name != "kind"}
    kinds: dict[str, type[Prior]] = {p.kind: p for p in (Near, Weights, Histogram)}
    try:
        return kinds[data["kind"]](**options)
    except (KeyError, TypeError) as error:
        raise SpaceError(f"{dict(data)!r} does not describe a prior: {error!r}") from error


def _share(doubt: Any) -> float:
    if isinstance(doubt, bool) or not isinstance(doubt, Real) or not 0 < doubt <= 1:
        raise SpaceError(f"doubt must be a number in (0, 1], got {doubt!r}")
    return float(doubt)
