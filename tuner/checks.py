"""Checks of numbers that people give as options."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

__all__ = ["fraction", "whole"]


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
