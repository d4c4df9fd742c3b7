"""Checks of options, with one wording: the argument, the value received, and what is wanted."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable

import numpy as np

from nanonet.errors import OptionError

__all__ = ["count", "hashable", "inside", "number", "sides", "unknown"]


def unknown(argument: str, value: object, choices: Iterable[object]) -> OptionError:
    """The error to raise when `value` of `argument` is none of `choices`; it names the nearest choice."""
    from difflib import get_close_matches

    names = [str(choice) for choice in choices]
    near = get_close_matches(str(value), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return OptionError(f"{argument} is {value!r}{hint}; wanted one of {', '.join(names)}")


def count(argument: str, value: object, least: int = 1) -> int:
    """`value` as an int, if it is a whole number of at least `least`. Raises OptionError."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least:
        return operator.index(value)
    raise OptionError(f"{argument} is {value!r}; wanted an integer of at least {least}")


def number(argument: str, value: object, interval: str = "(-inf, inf)") -> float:
    """`value` as a float, if it is a number in the interval, written as "[0, 1)". Raises OptionError."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if real and inside(value, interval):
        return float(value)
    raise OptionError(f"{argument} is {value!r}; wanted a number in {interval}")


def inside(value: float, interval: str) -> bool:
    """Whether a number is finite and lies in an interval written as in mathematics: "[0, 1)"."""
    least, most = (float(end) for end in interval[1:-1].split(","))
    above = value > least if interval[0] == "(" else value >= least
    below = value < most if interval[-1] == ")" else value <= most
    return math.isfinite(value) and above and below


def sides(argument: str, value: object, axes: int, least: int = 1) -> tuple[int, ...]:
    """`value`, an integer for every axis or one integer per axis, as one of at least `least` per axis.

    Raises OptionError.
    """
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes
    whole = all(isinstance(side, (int, np.integer)) and not isinstance(side, bool) and side >= least for side in given)
    if len(given) != axes or not whole:
        wanted = f"an integer of at least {least}" + (f" or {axes} of them" if axes > 1 else "")
        raise OptionError(f"{argument} is {value!r}; wanted {wanted}")
    return tuple(operator.index(side) for side in given)


def hashable(value: object) -> object:
    """`value` with tuples in the place of lists, so that it can be the key of a cache."""
    return tuple(map(hashable, value)) if isinstance(value, (list, tuple)) else value
