"""A report's figures, drawn by matplotlib without a display: (heading, caption, PNG) each."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..importance import Analysis
from ..importance.table import Axis
from ..importance.words import good_places, shown
from ..trial import FrozenTrial, TrialState
from .contents import Contents, Objective, result

__all__ = ["figures"]

INK, SOFT, LINE = "#1f2933", "#6b7783", "#e6eaee"
MAIN, LIGHT, GOOD, WARN = "#1f6f8b", "#a9cdd9", "#2e8b57", "#d9822b"
STATES = {
    TrialState.COMPLETE: (MAIN, "complete"),
    TrialState.PRUNED: (WARN, "pruned"),
    TrialState.PAUSED: (LIGHT, "paused"),
    TrialState.FAIL: ("#b23b3b", "failed"),
    TrialState.RUNNING: ("#8d99a6", "running"),
}
PANELS = 6  # parameters with a figure of their own
PARALLEL = 9  # parameters side by side
CURVES = 300  # learning curves at most
DPI = 150


def figures(contents: Contents) -> Iterator[tuple[str, str, bytes]]:
    """Every figure that the study has something for."""
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise ImportError('figures want matplotlib; install it with pip install "nanonet[plot]"') from error

    style = {
        "font.size": 9.5,
        "font.family": "DejaVu Sans",
        "text.color": INK,
        "axes.edgecolor": SOFT,
        "axes.labelcolor": INK,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": LINE,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "legend.frameon": False,
        "figure.facecolor": "white",
    }
    for draw in (_front, _histories, _importances, _dependences, _interactions, _parallel, _curves, _timeline):
        with rc_context(style):
            for name, caption, figure in draw(contents):
                file = io.BytesIO()
                figure.savefig(file, format="png", dpi=DPI)
                yield name, caption, file.getvalue()


Drawn = Iterator[tuple[str, str, Any]]


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


# -------------------------------------------------------------------------------------- the search's course


def _histories(contents: Contents) -> Drawn:
    signs = contents.study.signs
    ended = [t for t in contents.trials if result(t) and math.isfinite(min(map(abs, result(t))))]
    if len(ended) < 2:
        return
    figure, axes = _figure(9, 3.1 * len(signs), len(signs))
    for k, (ax, sign) in enumerate(zip(axes[:, 0], signs, strict=True)):
        for state, (colour, label) in STATES.items():
            some = [t for t in ended if t.state is state]
            if some:
                values = [result(t)[k] for t in some]
                ax.scatter([t.number for t in some], values, s=16, color=colour, label=label, alpha=0.8, linewidths=0)
        complete = [t for t in ended if t.state is TrialState.COMPLETE] or ended
        best = sign * np.minimum.accumulate([sign * result(t)[k] for t in complete])
        numbers = [t.number for t in complete]
        ax.step([*numbers, ended[-1].number], [*best, best[-1]], where="post", color=INK, lw=1.4, label="best so far")
        _limit(ax, np.array([result(t)[k] for t in ended]), sign)
        ax.set_xlabel("trial")
        ax.set_ylabel(contents.objectives[k].name or "value")
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    yield (
        "How the search went",
        "Each trial's value, and the best so far. Values far off the rest are left out.",
        figure,
    )


def _limit(ax: Any, values: np.ndarray, sign: int, log: bool = True) -> None:
    """Show all but values that lie far on the bad side; in the logarithm if they span it."""
    values = values[np.isfinite(values)]
    good, bad = (values.min(), np.quantile(values, 0.9)) if sign > 0 else (values.max(), np.quantile(values, 0.1))
    if log and sign > 0 and min(good, bad) > 0 and max(good, bad) > 50 * min(good, bad):
        ax.set_yscale("log")
        low, high = sorted((good, bad))
        ax.set_ylim(low / (high / low) ** 0.06, high * (high / low) ** 0.12)
        return
    margin = abs(bad - good) or abs(good) * 0.1 or 1.0
    ax.set_ylim(*sorted((good - sign * 0.08 * margin, bad + sign * 0.25 * margin)))


def _curves(contents: Contents) -> Drawn:
    curves = [t for t in contents.trials if len(t.intermediate_values) > 1]
    if len(contents.objectives) > 1 or len(curves) < 2:
        return
    sign = contents.study.signs[0]
    order = sorted(curves, key=lambda t: -sign * _last(t))[-CURVES:]
    order = [t for t in order if math.isfinite(_last(t))]
    figure, ((ax,),) = _figure(9, 3.6)
    from matplotlib import colormaps

    for place, trial in enumerate(order):
        colour = colormaps["viridis_r"](0.08 + 0.85 * place / max(1, len(order) - 1))
        ax.plot(*_curve(trial), color=colour, lw=0.8, alpha=0.55)
    values = np.array([v for t in order for v in t.intermediate_values.values()])
    for trial in [t for t in contents.best[:1] if t.intermediate_values]:
        ax.plot(*_curve(trial), color=WARN, lw=2.2, label=f"best trial, {trial.number}")
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _limit(ax, values, sign)
    ax.set_xlabel("step")
    ax.set_ylabel("value")
    yield "Learning curves", "A trial's value after each step; the darker, the better it ended.", figure


def _curve(trial: FrozenTrial) -> tuple[list[int], list[float]]:
    steps = sorted(trial.intermediate_values)
    return steps, [trial.intermediate_values[step] for step in steps]


def _last(trial: FrozenTrial) -> float:
    value = result(trial)[0]
    return math.inf if math.isnan(value) else value


def _timeline(contents: Contents) -> Drawn:
    timed = [t for t in contents.trials if t.duration is not None]
    if len(timed) < 2:
        return
    begin = min(t.datetime_start for t in timed)
    start = np.array([(t.datetime_start - begin).total_seconds() for t in timed])
    length = np.array([t.duration.total_seconds() for t in timed])
    span = float((start + length).max())
    unit, divisor = ("minutes", 60.0) if span > 300 else ("seconds", 1.0)
    figure, ((ax,),) = _figure(9, 3.4)
    for state, (colour, label) in STATES.items():
        rows = [i for i, t in enumerate(timed) if t.state is state]
        if rows:
            numbers = [timed[i].number for i in rows]
            wide = np.maximum(length[rows], span * 1e-3) / divisor
            ax.barh(numbers, wide, left=start[rows] / divisor, height=0.9, color=colour, label=label)
    ax.invert_yaxis()
    ax.set_xlabel(unit)
    ax.set_ylabel("trial")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    yield (
        "When each trial ran",
        "From a trial's start to its end; paused ones, which have no end, are left out.",
        figure,
    )


# ---------------------------------------------------------------------------------------------- what matters


def _importances(contents: Contents) -> Drawn:
    told = [o for o in contents.objectives if o.tells]
    if not told:
        return
    count = max(len(o.summary.importances) for o in told)
    figure, axes = _figure(9, 0.9 + 0.3 * count, 1, len(told))
    for ax, objective in zip(axes[0], told, strict=True):
        shares = objective.summary.importances
        shared = dict.fromkeys(shares, 0.0)
        for pair, share in objective.summary.interactions.items():
            for name in pair:
                shared[name] += share
        names, alone = list(shares), np.array(list(shares.values()))
        ax.barh(names, alone, color=MAIN, label="alone", height=0.62)
        ax.barh(names, [shared[n] for n in names], left=alone, color=LIGHT, label="together with others", height=0.62)
        for y, (name, share) in enumerate(shares.items()):
            both = f"{share:.2f} + {shared[name]:.2f}"
            ax.text(share + shared[name] + 0.01, y, both, va="center", color=SOFT, fontsize=8.5)
        ax.invert_yaxis()
        ax.set_xlim(0, max(0.3, float((alone + [shared[n] for n in names]).max()) * 1.05 + 0.12 * len(told)))
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0, labelcolor=INK)
        ax.set_xlabel("share of the variance")
        ax.set_title(objective.name, loc="left")
        ax.legend(loc="lower right")
    yield "What matters", "How much of the differences each parameter explains alone, and together with others.", figure


def _dependences(contents: Contents) -> Drawn:
    for objective in contents.objectives:
        if not objective.tells:
            continue
        names = list(objective.summary.importances)[:PANELS]
        columns = min(3, len(names))
        rows = -(-len(names) // columns)
        figure, axes = _figure(9, 2.7 * rows, rows, columns)
        flat = axes.ravel()
        for ax, name in zip(flat, names):
            _dependence(ax, objective, name)
        for ax in flat[len(names) :]:
            ax.set_visible(False)
        after = f" for {objective.name}" if objective.name else ""
        caption = (
            "The expected value along each parameter over all values of the others, with its spread from tree to tree; "
            "the trials as dots; the good part shaded."
        )
        yield f"Where it is good{after}", caption, figure


def _dependence(ax: Any, objective: Objective, name: str) -> None:
    analysis, axis = objective.analysis, objective.analysis.axes[name]
    dependence = analysis.dependence(name)
    sign, mean, spread, places = analysis.sign, dependence.mean, dependence.spread, dependence.places[0]
    table = analysis.surrogate.table
    column = list(analysis.axes).index(name)
    losses = np.where(np.isfinite(table.losses), table.losses, np.nan)
    seen, values = table.places[:, column], sign * losses
    jitter = np.random.default_rng(0).uniform(-0.12, 0.12, len(seen)) / axis.cells if axis.choices is not None else 0
    ax.scatter(seen + jitter, values, s=7, color=SOFT, alpha=0.35, linewidths=0)
    fine = good_places(dependence, analysis.sign, axis.categorical)
    if not fine.all():
        half = np.diff(axis.edges)[: len(places)] / 2 if _discrete(axis) else np.full(len(places), 0.5 / len(places))
        for place, width in zip(places[fine], half[fine], strict=True):
            ax.axvspan(place - width, place + width, color=GOOD, alpha=0.13, lw=0)
    if axis.categorical:
        ax.errorbar(places, mean, yerr=spread, fmt="o", color=MAIN, capsize=3, ms=5)
    else:
        ax.fill_between(places, mean - spread, mean + spread, color=MAIN, alpha=0.22, lw=0)
        ax.plot(places, mean, color=MAIN, lw=1.8, marker="o" if _discrete(axis) else None, ms=3.5)
    _limit(ax, np.concatenate([values[np.isfinite(values)], mean]), sign, log=False)
    _ticks(ax.xaxis, axis)
    ax.set_xlim(0, 1)
    ax.set_title(f"{name}  ({objective.summary.importances[name]:.2f})", loc="left")


def _discrete(axis: Axis) -> bool:
    return axis.choices is not None or (axis.domain.size is not None and axis.domain.size <= axis.cells)


def _ticks(ruler: Any, axis: Axis, most: int = 5) -> None:
    """Ticks of a range laid out along [0, 1], in the parameter's own unit."""
    if axis.choices is not None:
        number = len(axis.choices)
        every = max(1, -(-number // 8))
        rows = range(0, number, every)
        centres = (axis.edges[1:] + axis.edges[:-1]) / 2
        labels = [_short(shown(axis.choices[i])) for i in rows]
        ruler.set_ticks([centres[i] for i in rows], labels)
        if ruler.axis_name == "x" and sum(map(len, labels)) > 22:
            for label in ruler.get_ticklabels():
                label.set(rotation=30, ha="right")
        return
    domain = axis.domain
    low, high = domain.low, domain.high
    if domain.log and high >= 10 * low:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        every = max(1, -(-(last - first + 1) // most))
        values = [10.0**k for k in range(first, last + 1, every)]
        if len(values) < 3:
            values = sorted({m * 10.0**k for k in range(first - 1, last + 1) for m in (1, 2, 5)})
    elif domain.log:
        values = list(np.geomspace(low, high, 4))
    else:
        from matplotlib.ticker import MaxNLocator

        values = list(MaxNLocator(most - 1, integer=isinstance(low, int)).tick_values(low, high))
    if isinstance(low, int):
        values = sorted({round(v) for v in values})
    values = [v for v in values if low <= v <= high]
    if domain.size is not None and domain.size > 1 and getattr(domain, "step", None):
        values = [domain.decode(domain_place(domain, v)) for v in values]
        values = sorted(set(values))
    ruler.set_ticks([domain.encode(type(low)(v)) for v in values], [_number(v) for v in values])


def domain_place(domain: Any, value: float) -> float:
    """The place of the grid value nearest to `value`."""
    steps = round((value - domain.low) / domain.step)
    return (steps + 0.5) / domain.size


def _number(value: float) -> str:
    text = f"{value:.4g}"
    if "e" in text or 0 < abs(value) < 0.01:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return text


def _short(text: str) -> str:
    return text if len(text) <= 14 else text[:13] + "…"


def _interactions(contents: Contents) -> Drawn:
    for objective in contents.objectives:
        if not objective.tells or len(objective.summary.importances) < 2:
            continue
        pairs = objective.summary.interactions
        (a, b), strongest = next(iter(pairs.items()))
        if strongest < 0.01:
            continue
        names = list(objective.summary.importances)[:PARALLEL]
        for name in (a, b):
            names += [name] * (name not in names)
        matrix = np.full((len(names), len(names)), np.nan)
        for (first, second), share in pairs.items():
            if first in names and second in names:
                i, j = sorted((names.index(first), names.index(second)))
                matrix[j, i] = share
        figure, ((left, right),) = _figure(9, 3.9, 1, 2)
        left.imshow(matrix, cmap="GnBu", vmin=0, vmax=max(0.05, strongest))
        for i, j in zip(*np.nonzero(matrix >= 0.01)):
            dark = matrix[i, j] > 0.6 * max(0.05, strongest)
            left.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else INK)
        left.set_xticks(range(len(names)), [_short(n) for n in names], rotation=40, ha="right")
        left.set_yticks(range(len(names)), [_short(n) for n in names])
        left.grid(visible=False)
        left.set_title("share of the variance of each two together", loc="left")
        _surface(figure, right, objective, a, b)
        after = f" for {objective.name}" if objective.name else ""
        yield (
            f"What depends on each other{after}",
            f"On the right, the two that depend most on each other: {a} and {b}.",
            figure,
        )


def _surface(figure: Any, ax: Any, objective: Objective, a: str, b: str) -> None:
    """The expected value over two parameters, and the trials."""
    analysis: Analysis = objective.analysis
    dependence = analysis.dependence(a, b, points=40)
    edges = []
    for name, places in zip((a, b), dependence.places, strict=True):
        axis = analysis.axes[name]
        middle = (places[1:] + places[:-1]) / 2
        edges.append(axis.edges[: len(places) + 1] if _discrete(axis) else np.concatenate([[0], middle, [1]]))
    colours = "viridis" if analysis.sign > 0 else "viridis_r"
    mesh = ax.pcolormesh(*edges, dependence.mean.T, cmap=colours, shading="flat")
    table, names = analysis.surrogate.table, list(analysis.axes)
    ax.scatter(*(table.places[:, names.index(n)] for n in (a, b)), s=6, color="white", alpha=0.6, linewidths=0)
    ax.grid(visible=False)
    _ticks(ax.xaxis, analysis.axes[a])
    _ticks(ax.yaxis, analysis.axes[b])
    ax.set_xlabel(a)
    ax.set_ylabel(b)
    ax.set_title("expected value; dark is good", loc="left")
    figure.colorbar(mesh, ax=ax, pad=0.02).outline.set_visible(False)


# -------------------------------------------------------------------------------------- all trials at once


def _parallel(contents: Contents) -> Drawn:
    objective = contents.objectives[0]
    if len(contents.objectives) > 1 or objective.analysis is None or len(objective.summary.importances) < 2:
        return
    from matplotlib import colormaps

    analysis = objective.analysis
    names = list(objective.summary.importances)[:PARALLEL]
    table, sign = analysis.surrogate.table, contents.study.signs[0]
    columns = [list(analysis.axes).index(name) for name in names]
    finite = np.flatnonzero(np.isfinite(table.losses))
    order = finite[np.argsort(-table.losses[finite], kind="stable")]
    order = order[-CURVES:]
    figure, ((ax,),) = _figure(9, 3.8)
    rng = np.random.default_rng(0)
    for place, row in enumerate(order):
        share = place / max(1, len(order) - 1)  # 1 is the best
        heights = table.places[row, columns].copy()
        for j, name in enumerate(names):
            axis = analysis.axes[name]
            if axis.choices is not None:
                heights[j] += rng.uniform(-0.25, 0.25) / axis.cells
        colour = colormaps["viridis_r"](0.05 + 0.9 * share)
        ax.plot(range(len(names)), heights, color=colour, lw=0.6 + 1.2 * share**4, alpha=0.15 + 0.75 * share**3,
                zorder=2 + share)  # fmt: skip
    ax.set_xlim(-0.3, len(names) - 0.4)
    ax.set_ylim(-0.03, 1.03)
    ax.set_yticks([])
    ax.set_xticks(range(len(names)), [_short(n) for n in names])
    ax.tick_params(axis="x", length=0, labelcolor=INK)
    ax.grid(visible=False)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    for j, name in enumerate(names):
        ax.axvline(j, color=SOFT, lw=0.8, zorder=4)
        _scale(ax, j, analysis.axes[name])
    direction = "smallest" if sign > 0 else "largest"
    yield "All trials", f"A line for each trial, the darker, the better ({direction} values are best).", figure


def _scale(ax: Any, x: float, axis: Axis) -> None:
    """The values along one of the upright lines."""
    from matplotlib.figure import Figure

    ruler = Figure().subplots().yaxis
    _ticks(ruler, axis)
    for place, label in zip(ruler.get_ticklocs(), ruler.get_ticklabels()):
        ax.text(x + 0.03, place, label.get_text(), fontsize=8, color=INK, va="center", zorder=5,
                bbox={"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 0.6})  # fmt: skip


def _front(contents: Contents) -> Drawn:
    if len(contents.objectives) != 2:
        return
    signs = contents.study.signs
    front = sorted(v for v in map(result, contents.study.best_trials) if all(map(math.isfinite, v)))
    if not front:
        return
    complete = [result(t) for t in contents.trials if t.state is TrialState.COMPLETE]
    points = np.array([v for v in complete if all(map(math.isfinite, v))] or front)
    figure, ((ax,),) = _figure(9, 4.2)
    ax.scatter(*points.T, s=16, color=LIGHT, linewidths=0, label="beaten in all objectives by another")
    x, y = np.array(front).T
    # What the front dominates is bounded by a staircase that turns at the worse one of two neighbours.
    ax.step(x, y, where="post" if signs[0] > 0 else "pre", color=MAIN, lw=1.2)
    ax.scatter(x, y, s=26, color=MAIN, label="Pareto front", zorder=3)
    names = [f"{o.name} ({o.direction})" for o in contents.objectives]
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    for k, (sign, limit) in enumerate(zip(signs, (ax.set_xlim, ax.set_ylim), strict=True)):
        good, bad = sorted((points[:, k].min(), points[:, k].max()), reverse=sign < 0)
        bad = np.quantile(points[:, k], 0.95 if sign > 0 else 0.05)
        margin = abs(bad - good) or abs(good) * 0.1 or 1.0
        limit(*sorted((good - sign * 0.06 * margin, bad + sign * 0.15 * margin)))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    yield "Pareto front", "Trials that no other one beats in all objectives.", figure
