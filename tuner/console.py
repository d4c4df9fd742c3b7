"""What a command shows: notes and progress on stderr, results on stdout, as tables or as one JSON document."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["Console", "jsonable", "number"]


class Console:
    """json: results as one JSON document instead of tables. quiet: no notes and no progress."""

    def __init__(self, json: bool = False, quiet: bool = False):
        self.json, self.quiet = json, quiet

    @property
    def live(self) -> bool:
        """Is there a terminal to show progress on?"""
        return not self.quiet and sys.stderr.isatty()

    def note(self, text: str) -> None:
        """A line on stderr, unless quiet."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        """A line on stderr in any case."""
        print(text, file=sys.stderr, flush=True)

    def document(self, content: Mapping[str, Any]) -> None:
        """The one JSON document of a command, on stdout, if it was asked for."""
        if self.json:
            print(json.dumps(jsonable(content), indent=2, allow_nan=False), flush=True)

    def text(self, text: str) -> None:
        """Text on stdout, unless that is for JSON."""
        if not self.json:
            print(text, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any] | None]) -> None:
        """A table on stdout, unless that is for JSON. None in place of a row draws a line."""
        if self.json:
            return
        from rich import box
        from rich.console import Console as Screen
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD)
        for i, column in enumerate(columns):
            table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
        for row in rows:
            if row is None:
                table.add_section()
                continue
            table.add_row(*(cell if isinstance(cell, str) else number(cell) for cell in row))
        screen = Screen(file=sys.stdout, highlight=False, markup=False)
        screen.print(title)
        screen.print(table)


def number(value: Any) -> str:
    """A result for reading: 0.9750, 1.2e-05, 128."""
    if isinstance(value, float):
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.3g}"
    return str(value)


def jsonable(value: Any) -> Any:
    """The value in JSON's own types; NaN and infinity, which JSON does not know, become null."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
