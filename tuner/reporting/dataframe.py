"""Trials as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ..trial import FrozenTrial

__all__ = ["trials_dataframe"]


def trials_dataframe(trials: Sequence[FrozenTrial], objectives: int, attrs: Sequence[str], multi_index: bool) -> Any:
    """A row for each trial; see `Study.trials_dataframe`."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("trials_dataframe wants pandas; install it with pip install pandas") from error
    columns: dict[tuple[str, str], list[Any]] = {}
    for attr in attrs:
        values = [_attribute(trial, attr) for trial in trials]
        if attr in ("value", "values") and objectives > 1:
            for k in range(objectives):
                columns["values", str(k)] = [None if not t.values else t.values[k] for t in trials]
        elif attr in ("value", "values"):
            columns["value", ""] = [trial.value for trial in trials]
        elif attr == "state":
            columns[attr, ""] = [state.name for state in values]
        elif any(isinstance(value, dict) for value in values):
            for key in sorted({key for value in values for key in value}, key=str):
                columns[attr, str(key)] = [value.get(key) for value in values]
        elif attr not in ("params", "user_attrs", "intermediate_values"):
            columns[attr, ""] = values
    table = pandas.DataFrame(dict(enumerate(columns.values())), index=range(len(trials)))
    names = list(columns)
    table.columns = (
        pandas.MultiIndex.from_tuples(names) if multi_index else ["_".join(filter(None, name)) for name in names]
    )
    return table


def _attribute(trial: FrozenTrial, attr: str) -> Any:
    known = [*(field.name for field in fields(trial)), "value", "duration", "last_step"]
    if attr not in known:
        raise ValueError(f"attrs names {attr!r}, which a trial does not have; it has {', '.join(known)}")
    return None if attr in ("value", "values") else getattr(trial, attr)
