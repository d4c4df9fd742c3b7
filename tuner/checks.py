"""Checks of numbers that people give as options."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

__all__ = ["RESOURCES", "ladder", "number", "whole"]

RESOURCES = ("min_resource", "reduction_factor")
"""What pruners call the first rung and the ratio of the rungs."""


def whole(name: str, value: Any, least: int, other: str = "") -> int:
    """`value` as an int; ValueError unless it is a whole number of at least `least`, NumPy's among them.

    other: a text that would do as well, which only the message is told.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}{other and f' or {other!r}'}, got {value!r}")
    return int(value)


def number(name: str, value: Any, interval: str) -> float:
    """`value` as a float; ValueError unless it is a number in an interval written as in mathematics: "[0, 1)"."""
    least, most = map(float, interval[1:-1].split(","))
    real = isinstance(value, Real) and not isinstance(value, bool)
    ends = [end for end, open_one in ((least, interval[0] == "("), (most, interval[-1] == ")")) if open_one]
    if not real or not least <= value <= most or value in ends:
        raise ValueError(f"{name} must be a number in {interval}, got {value!r}")
    return float(value)


def ladder(
    first: Any, ratio: Any, other: str = "", names: tuple[str, str] = ("min_steps", "eta")
) -> tuple[int | str, int]:
    """(first rung, ratio of the rungs) as whole numbers; ValueError if they are not at least 1 and 2.

    other: a text that may stand in place of the first rung.
    """
    lowest = first if other and isinstance(first, str) and first == other else whole(names[0], first, 1, other)
    return lowest, whole(names[1], ratio, 2)
