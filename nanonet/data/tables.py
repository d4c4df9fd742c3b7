"""CSV files: a header, then rows of numbers and text."""

import csv
import io
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nanonet.data.dataset import Column, Dataset, from_arrays
from nanonet.errors import DataError

__all__ = ["read_csv"]

MISSING = ("", "na", "n/a", "nan", "null", "?")
MOST_CATEGORIES = 100

Cells = tuple[str, ...]


def read_csv(
    path: str | os.PathLike, target: str | None = None, *, task: str | None = None, schema: Mapping | None = None
) -> Dataset:
    """The table in a CSV file: UTF-8, a header, values apart by commas, semicolons or tabs.

    `target` names the column to predict; the others are the inputs. A column of numbers is one feature. A column
    of text becomes one feature per category (at most 100), 1 where the row has it and 0 elsewhere. The target is
    a class if it is text or few different whole numbers (see `from_arrays`), else a number; `task` says otherwise.

    With `schema` (the `Dataset.schema` of the training data) columns are found by name, in whatever order, and
    become the same features; others are ignored and the target may be absent. If the training data had no
    names, all columns but the target are taken as they come.

    Raises DataError naming the file, the line and the column, and what is wanted. No value may be missing.
    """
    where = os.fspath(path)
    table, lines = _read(path)
    if schema is not None:
        target = schema["target"] if target is None else target
    elif target is None:
        raise DataError(f"{where}: no target column given; wanted one of {', '.join(table)}")
    elif target not in table:
        raise DataError(f"{where}: there is no target column {target!r}; wanted one of {', '.join(table)}")
    goal = table.pop(target, None) if target is not None else None
    y = None if goal is None else _column(where, target, goal, lines)
    if schema is not None and schema["columns"] is not None:
        columns = [Column(name, categories and tuple(categories)) for name, categories in schema["columns"]]
        absent = [column.name for column in columns if column.name not in table]
        if absent:
            raise DataError(
                f"{where}: there is no column {', '.join(map(repr, absent))}; the model was trained with it"
            )
        blocks = [_features(where, column, table[column.name], lines) for column in columns]
    else:
        if not table:
            raise DataError(f"{where}: there is no column besides the target {target!r}; wanted inputs")
        columns, blocks = [], []
        for name, cells in table.items():
            column = Column(name) if schema is not None else _kind(where, name, cells, lines)
            columns.append(column)
            blocks.append(_features(where, column, cells, lines))
        columns = None if schema is not None else columns
    x = np.concatenate(blocks, axis=1)
    try:
        return from_arrays(x, y, task, schema=schema, columns=columns, target=target, name=Path(path).stem)
    except ValueError as error:
        message = re.sub(r"in row (\d+)", lambda found: f"in line {lines[int(found[1])]}", str(error))
        raise DataError(f"{where}: {message.replace('y holds', f'column {target!r} holds')}") from None


def _read(path: str | os.PathLike) -> tuple[dict[str, Cells], list[int]]:
    """{column: its cells}, and the line of the file that each row ends on."""
    where = os.fspath(path)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start} is not UTF-8; wanted a CSV file in UTF-8") from None
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror}); wanted a CSV file") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows, lines = [], []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:  # an empty line is none
                rows.append([cell.strip() for cell in cells])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num}: {error}; wanted a CSV file") from None
    if len(rows) < 2:
        raise DataError(f"{where}: has {len(rows)} lines; wanted a header and at least one row")
    header, *rows = rows
    if all(_is_number(name) for name in header):
        raise DataError(f"{where}, line {lines[0]}: holds only numbers; wanted a header with the names of the columns")
    for number, name in enumerate(header, start=1):
        if not name:
            raise DataError(f"{where}, line {lines[0]}: column {number} has no name; wanted a name for each column")
        if header.count(name) > 1:
            raise DataError(f"{where}, line {lines[0]}: the column {name!r} occurs twice; wanted different names")
    for cells, line in zip(rows, lines[1:], strict=True):
        if len(cells) != len(header):
            raise DataError(f"{where}, line {line}: has {len(cells)} values; wanted {len(header)}, as in the header")
    return dict(zip(header, zip(*rows, strict=True), strict=True)), lines[1:]


def _kind(where: str, name: str, cells: Cells, lines: list[int]) -> Column:
    """Whether a column holds numbers or text, and which texts."""
    values = _column(where, name, cells, lines)
    if values.dtype.kind == "f":
        return Column(name)
    categories = np.unique(values)
    if len(categories) > MOST_CATEGORIES:
        raise DataError(
            f"{where}: column {name!r} holds {len(categories)} different texts; wanted numbers or at most "
            f"{MOST_CATEGORIES} categories. Take the column out if it only names the rows"
        )
    return Column(name, tuple(categories.tolist()))


def _features(where: str, column: Column, cells: Cells, lines: list[int]) -> np.ndarray:
    """float32 (n, 1) for numbers, (n, categories) of 0 and 1 for text."""
    if column.categories is None:
        values = _column(where, column.name, cells, lines)
        if values.dtype.kind != "f":
            raise _wanted_number(where, column.name, cells, lines)
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            raise _error(where, lines[row], column.name, cells[row], "a finite float32 number")
        return values[:, None]
    place = {category: number for number, category in enumerate(column.categories)}
    hot = np.zeros((len(cells), len(place)), np.float32)
    for row, cell in enumerate(cells):
        if cell not in place:
            raise _error(where, lines[row], column.name, cell, f"one of {', '.join(place)}")
        hot[row, place[cell]] = 1
    return hot


def _column(where: str, name: str, cells: Cells, lines: list[int]) -> np.ndarray:
    """A column's values, float64 or text. It is text if half of its values or more are no numbers."""
    try:
        values = np.array([float(cell) for cell in cells])
        if np.isfinite(values).all():
            return values
    except ValueError:
        pass
    for cell, line in zip(cells, lines, strict=True):
        if cell.lower() in MISSING:
            raise _error(where, line, name, cell, "a value: fill it in or take the row out")
    numbers = sum(map(_is_number, cells))
    if 2 * numbers > len(cells):
        raise _wanted_number(where, name, cells, lines)
    return np.array(cells)


def _wanted_number(where: str, name: str, cells: Cells, lines: list[int]) -> DataError:
    row = next(row for row, cell in enumerate(cells) if not _is_number(cell))
    return _error(where, lines[row], name, cells[row], "a finite number, as in the rest of the column")


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _error(where: str, line: int, column: str, cell: str, wanted: str) -> DataError:
    return DataError(f"{where}, line {line}, column {column!r}: is {cell!r}; wanted {wanted}")
