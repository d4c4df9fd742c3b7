"""The search space that `nanonet.Settings` declares."""

from __future__ import annotations

from collections.abc import Iterable

from nanonet.settings import Settings

from ..space import Categorical, Domain, Float, Int, Ordinal, Space

__all__ = ["FIRST", "first_settings", "settings_space", "tunable"]

DOMAINS: dict[str, type[Domain]] = {"float": Float, "int": Int, "ordinal": Ordinal, "categorical": Categorical}

FIRST = [
    Settings(schedule="cosine", learning_rate=5e-3),
    Settings(schedule="cosine", hidden=(256, 128), dropout=0.2, batch_size=64),
]
"""What is tried before anything is known: a small network, and a large one that is kept from learning by heart."""
SMOOTHING = 0.1
"""Label smoothing of these for classes, unless the loss is what counts. (On 24 splits of digits, 54 epochs of the small
network came to 0.975 of the validation rows in all runs with it and in 15 without.)"""


def settings_space(names: Iterable[str] | None = None, base: Settings | None = None) -> Space:
    """The search space that `nanonet.Settings` declares; the settings in `base` are its default point.

    names: the settings to search, by default those that are tunable. Raises OptionError for an unknown name.
    """
    base = base or Settings()
    rows = Settings.search_space(names, base)
    parameters: dict[str, Domain] = {}
    conditions = {}
    for row in rows:
        kind = DOMAINS[row["kind"]]
        parameters[row["name"]] = (
            kind(row["choices"]) if "choices" in row else kind(row["low"], row["high"], log=row["log"])
        )
        if row["condition"] is not None:
            conditions[row["name"]] = {"parent": row["condition"]["parent"], "in": list(row["condition"]["in"])}
    return Space(parameters, conditions, defaults=[base.to_search(names)])


def tunable(task: str) -> list[str]:
    """The settings that are searched unless others are named, for "classification" or "regression"."""
    idle = ("label_smoothing",) if task == "regression" else ()
    return [f.name for f in Settings.fields() if f.tunable and f.name not in idle]


def first_settings(task: str, metrics: Iterable[str] = ("accuracy",)) -> list[Settings]:
    """`FIRST` for a task and what is measured, with label smoothing where that serves it."""
    smoothing = SMOOTHING if task == "classification" and "loss" not in metrics else 0.0
    return [settings.replace(label_smoothing=smoothing) for settings in FIRST]
