"""What samplers are compared on: tables of real training runs, and functions whose best value is known.

A task is a `tuner.Space` and a function of settings. Regret is normalised: clip((loss - best) / (median - best), 0, 1),
the median being that of uniform random settings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner import Categorical, Float, Int, Ordinal, Space

__all__ = ["Task", "synthetic", "tables"]

Settings = Mapping[str, Any]
CHANCE = 2.0  # a loss of a table of curves that is NaN or larger reads as this


@dataclass(frozen=True)
class Task:
    """A search problem: the smaller loss(settings), the better."""

    name: str
    space: Space
    loss: Callable[[Settings], float]
    best: float
    median: float

    def regret(self, loss: float) -> float:
        """Normalised to [0, 1]: 0 is the best value there is, 1 that of a middling random setting or worse."""
        return float(np.clip((loss - self.best) / (self.median - self.best), 0.0, 1.0))

    def __str__(self) -> str:
        return self.name


# ------------------------------------------------------------------------------------------------- tables


def tables(folder: Path) -> list[Task]:
    """A task for each .npz file below the folder, by name; its README says what they hold."""
    norms = json.loads((folder / "norm.json").read_text()) if (folder / "norm.json").exists() else {}
    tasks = []
    for file in sorted(folder.glob("**/*.npz")):
        name = file.relative_to(folder).with_suffix("").as_posix()
        with np.load(file, allow_pickle=False) as arrays:
            make = _grid if "loss" in arrays else _curves
            tasks.append(make(name, arrays, norms.get(name)))
    return tasks


def _grid(name: str, arrays: Any, norm: Mapping[str, float] | None) -> Task:
    """A full grid: the loss is the mean over the replicates."""
    kinds = {"ordinal": Ordinal, "categorical": Categorical}
    names = [str(n) for n in arrays["param_names"]]
    choices = [[c.item() for c in arrays[f"choices_{i}"]] for i in range(len(names))]
    domains = [kinds[str(kind)](c) for kind, c in zip(arrays["param_kinds"], choices, strict=True)]
    loss = np.nanmean(arrays["loss"].astype(np.float64), axis=-1)
    space = Space(dict(zip(names, domains, strict=True)))
    where = [{value: i for i, value in enumerate(c)} for c in choices]

    def look_up(settings: Settings) -> float:
        return float(loss[tuple(w[settings[n]] for n, w in zip(names, where, strict=True))])

    best, median = _norm(norm, loss.ravel())
    return Task(name, space, look_up, best, median)


RANGES = {
    "learning_rate": (1e-8, 10.0),
    "l1": (1e-8, 10.0),
    "l2": (1e-8, 10.0),
    "epsilon": (1e-10, 1e3),
    "beta1": (1e-4, 1.0),
    "beta2": (1e-6, 1.0),
    "linear_decay": (1e-7, 1e-4),
    "exponential_decay": (1e-6, 1e-3),
}
"""What TaskSet's settings were drawn from, even in the logarithm; of the betas, 1 - beta."""


def curve_space(names: list[str]) -> Space:
    """The space of TaskSet's settings; one_minus_beta1 in place of beta1."""
    return Space({_renamed(n): Float(*RANGES[n], log=True) for n in names})


def curve_places(names: list[str], values: np.ndarray) -> np.ndarray:
    """The rows' points in the unit cube of `curve_space`, (rows, settings)."""
    columns = []
    for name, column in zip(names, values.T, strict=True):
        low, high = RANGES[name]
        column = 1 - column if name.startswith("beta") else column
        columns.append(np.log(np.maximum(column, low) / low) / math.log(high / low))
    return np.stack(columns, axis=1)


def read_curves(valid: np.ndarray) -> np.ndarray:
    """Validation losses (rows, points) without the one before training, NaN and large ones cut off."""
    curves = valid[:, 1:].astype(np.float64)
    return np.where(np.isnan(curves), CHANCE, np.minimum(curves, CHANCE))


def _renamed(name: str) -> str:
    return f"one_minus_{name}" if name.startswith("beta") else name


def _curves(name: str, arrays: Any, norm: Mapping[str, float] | None) -> Task:
    """Rows of settings, of which the nearest counts: the loss at the end of training."""
    names = [str(n) for n in arrays["hp_names"]]
    rows = curve_places(names, arrays["hp"])
    loss = read_curves(arrays["valid"])[:, -1]
    space = curve_space(names)

    def look_up(settings: Settings) -> float:
        point = space.encode(settings)
        return float(loss[np.argmin(((rows - point) ** 2).sum(axis=1))])

    best, median = _norm(norm, loss)
    return Task(name, space, look_up, best, median)


def _norm(norm: Mapping[str, float] | None, losses: np.ndarray) -> tuple[float, float]:
    return (norm["best"], norm["median"]) if norm else (float(losses.min()), float(np.median(losses)))


# ---------------------------------------------------------------------------------------------- functions


def _branin(s: Settings) -> float:
    x, y = s["x"], s["y"]
    bend = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return bend**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


_HARTMANN_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def _hartmann(s: Settings) -> float:
    x = np.array(list(s.values()))
    return -float(np.array([1.0, 1.2, 3.0, 3.2]) @ np.exp(-(_HARTMANN_A * (x - _HARTMANN_P) ** 2).sum(axis=1)))


def _ackley(x: np.ndarray) -> float:
    waves = math.exp(np.cos(2 * math.pi * x).mean())
    return float(-20 * math.exp(-0.2 * math.sqrt((x**2).mean())) - waves + 20 + math.e)


def _mixed_ackley(s: Settings) -> float:
    """Ackley's function whose first axes are switches (Bliek et al. 2021)."""
    return _ackley(np.array([float(s[name]) for name in s]))


_EFFECTS = {"sgd": (0.30, -1.0), "momentum": (0.10, -1.5), "adam": (0.0, -2.5), "rmsprop": (0.15, -3.0)}


def _network(s: Settings) -> float:
    """Shaped like the loss of a small network: the best rate depends on the optimizer, width and depth trade off."""
    offset, rate = _EFFECTS[s["optimizer"]]
    miss = math.log10(s["learning_rate"]) - rate - 0.1 * (s["layers"] - 2)
    capacity = math.log2(s["width"]) + s["layers"] - 9
    rough = 1.5 * miss**2 if miss < 0 else 4 * miss**2
    return offset + rough + 0.05 * capacity**2 + 2 * (s["dropout"] - 0.04 * max(capacity + 1, 0)) ** 2


def _branches(s: Settings) -> float:
    """A choice of three methods, each with settings of its own."""
    if s["method"] == "linear":
        return 0.4 + 0.1 * (math.log10(s["penalty"]) + 2) ** 2
    if s["method"] == "trees":
        return 0.2 + 0.02 * (s["depth"] - 7) ** 2 + 0.3 * (s["share"] - 0.6) ** 2
    miss = math.log10(s["rate"]) + 1.8 + 0.3 * (s["blocks"] - 2)
    second = 0.1 * (math.log2(s["units"]) - 6) ** 2 if s["blocks"] >= 2 else 0.15
    return 0.3 * miss**2 + 0.05 * (s["blocks"] - 3) ** 2 + second


def synthetic() -> list[Task]:
    """Branin, Hartmann 6, Ackley 5, and spaces with whole numbers, categories and conditions.

    No optimum lies in the middle of its range, where some samplers begin.
    """
    switches = {f"b{i}": Categorical([0, 1]) for i in range(3)}
    spaces = {
        "branin": (Space({"x": Float(-5, 10), "y": Float(0, 15)}), _branin, 0.39788735772973816),
        "hartmann6": (Space({f"x{i}": Float(0, 1) for i in range(6)}), _hartmann, -3.322368011391339),
        "ackley5": (
            Space({f"x{i}": Float(-15, 30) for i in range(5)}), lambda s: _ackley(np.array(list(s.values()))), 0.0
        ),
        "mixed ackley": (Space({**switches, **{f"x{i}": Float(-0.7, 1.3) for i in range(3)}}), _mixed_ackley, 0.0),
        "mixed network": (
            Space(
                {
                    "learning_rate": Float(1e-6, 1.0, log=True),
                    "optimizer": Categorical(list(_EFFECTS)),
                    "layers": Int(1, 5),
                    "width": Int(8, 1024, log=True),
                    "dropout": Float(0.0, 0.6),
                }
            ),
            _network,
            0.0,
        ),
        "conditional": (
            Space(
                {
                    "method": Categorical(["linear", "trees", "network"]),
                    "penalty": Float(1e-6, 1e2, log=True),
                    "depth": Int(1, 20),
                    "share": Float(0.1, 1.0),
                    "rate": Float(1e-5, 1.0, log=True),
                    "blocks": Int(1, 8),
                    "units": Int(4, 512, log=True),
                },
                {
                    "penalty": {"parent": "method", "equals": "linear"},
                    "depth": {"parent": "method", "equals": "trees"},
                    "share": {"parent": "method", "equals": "trees"},
                    "rate": {"parent": "method", "equals": "network"},
                    "blocks": {"parent": "method", "equals": "network"},
                    "units": {"parent": "blocks", "at_least": 2},
                },
            ),
            _branches,
            0.0,
        ),
    }  # fmt: skip
    tasks = []
    for name, (space, loss, best) in spaces.items():
        points = np.random.default_rng(0).random((10_001, space.dimensions))
        median = float(np.median([loss(space.decode(point)) for point in points]))
        tasks.append(Task(f"function/{name}", space, loss, best, median))
    return tasks
