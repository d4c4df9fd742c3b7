"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..console import number
from ..importance.words import MATTERS, shown
from .contents import Contents, Objective, result

__all__ = ["best_table", "importance_rows", "interaction_rows", "markdown", "overview"]

WORTH = 0.01  # of the variance: an interaction worth a line


def markdown(contents: Contents) -> str:
    """The words first, then the tables."""
    lines = [f"# Study {contents.study.study_name}", ""]
    for objective in contents.objectives:
        if objective.name:
            lines += [f"**{objective.name}, to {objective.direction}**", ""]
        summary = objective.summary
        lines += [*(f"- {sentence}" for sentence in summary.sentences), *(f"- Note: {w}" for w in summary.warnings), ""]
    lines += _table(("", ""), overview(contents))
    header, rows = best_table(contents)
    if rows:
        lines += [f"## {'Pareto front' if len(contents.objectives) > 1 else 'Best trials'}", ""]
        lines += _table(header, rows)
    for objective in contents.objectives:
        if not objective.tells:
            continue
        after = f" for {objective.name}" if objective.name else ""
        lines += [f"## What matters{after}", ""]
        lines += _table(("parameter", "share of the variance", "with others", "good"), importance_rows(objective))
        rows = interaction_rows(objective)
        if rows:
            lines += [f"## What depends on each other{after}", ""]
            lines += _table(("parameters", "share of the variance"), rows)
    return "\n".join(lines).rstrip() + "\n"


def overview(contents: Contents) -> list[tuple[str, str]]:
    """(what, how much) of the study as a whole."""
    rows = [("trials", ", ".join(f"{count} {state}" for state, count in contents.states.items()) or "none")]
    steps = sum(trial.steps for trial in contents.trials)
    if steps:
        rows.append(("steps", str(steps)))
    if contents.seconds is not None:
        rows.append(("seconds from first start to last end", f"{contents.seconds:.1f}"))
    for objective in contents.objectives:
        about = f" ({objective.name})" if objective.name else ""
        if objective.analysis is not None:
            rows.append((f"explained by the settings{about}", f"{objective.summary.r2:.2f} of the differences"))
    return rows


def best_table(contents: Contents) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of the best trials, with the parameters that at least one of them has."""
    names = list(dict.fromkeys(name for trial in contents.best for name in trial.params))
    values = ["value"] if len(contents.objectives) == 1 else [o.name for o in contents.objectives]
    rows = [
        [
            str(trial.number),
            *map(number, result(trial)),
            *(shown(trial.params[name]) if name in trial.params else "" for name in names),
        ]
        for trial in contents.best
    ]
    return ["trial", *values, *names], rows


def importance_rows(objective: Objective) -> list[list[str]]:
    """parameter, share alone, sum of its shares with others, good part; for each parameter."""
    summary = objective.summary
    shared: dict[str, float] = dict.fromkeys(summary.importances, 0.0)
    for pair, share in summary.interactions.items():
        for name in pair:
            shared[name] += share
    return [
        [name, f"{share:.2f}", f"{shared[name]:.2f}", _good(summary.good.get(name)) if share >= MATTERS else ""]
        for name, share in summary.importances.items()
    ]


def interaction_rows(objective: Objective) -> list[list[str]]:
    """parameters, share; for each two that depend on each other."""
    pairs = objective.summary.interactions.items()
    return [[" and ".join(pair), f"{share:.2f}"] for pair, share in pairs if share >= WORTH]


def _good(part: Any) -> str:
    if part is None:
        return "everywhere"
    return " to ".join(map(shown, part)) if isinstance(part, tuple) else ", ".join(map(shown, part))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return [*lines, ""]
