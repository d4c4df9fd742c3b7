"""Checks of numbers that people give as options."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

__all__ = ["RESOURCES", "fraction", "ladder", "whole"]

RESOURCES = ("min_resource", "reduction_factor")
"""What pruners call the first rung and the ratio of the rungs."""


def whole(name: str, value: Any, least: int, other: str = "") -> int:
    """`value` as an int; ValueError unless it is a whole number of at least `least`, NumPy's among them.

    other: a text that would do as well, which only the message is told.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}{other and f' or {other!r}'}, got {value!r}")
    return int(value)


def fraction(name: str, value: Any) -> float:
    """`value` as a float; ValueError unless it is a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
    return float(value)


def ladder(
    first: Any, ratio: Any, other: str = "", names: tuple[str, str] = ("min_steps", "eta")
) -> tuple[int | str, int]:
    """(first rung, ratio of the rungs) as whole numbers; ValueError if they are not at least 1 and 2.

    other: a text that may stand in place of the first rung.
    """
    lowest = first if other and isinstance(first, str) and first == other else whole(names[0], first, 1, other)
    return lowest, whole(names[1], ratio, 2)
