"""The search space that `nanonet.Settings` declares."""

from __future__ import annotations

from collections.abc import Iterable

from nanonet.settings import Settings

from ..space import Categorical, Domain, Float, Int, Ordinal, Space

__all__ = ["settings_space"]

DOMAINS: dict[str, type[Domain]] = {"float": Float, "int": Int, "ordinal": Ordinal, "categorical": Categorical}


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
