"""Samplers for several objectives against Optuna's, by the hypervolume of what they found: python benchmarks/fronts.py

The problems are ZDT1, ZDT2, ZDT3 (Zitzler, Deb & Thiele 2000) with ten parameters and DTLZ2 (Deb et al. 2002) with
seven parameters and three objectives. Printed is the share of the true front's hypervolume that is missing after so
many trials, with 95 % intervals over the seeds, and the difference to the peers, seed by seed. The reference point has
the worst values that the problem knows. Evolution is compared after more trials than samplers with a model.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # when run as a script
    sys.path.insert(0, str(ROOT))

import tuner  # noqa: E402
from benchmarks.search import interval, suggest, version  # noqa: E402
from tuner.pareto import hypervolume  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results"
MANY, FEW = (100, 250, 500), (30, 60)
"""Trials after which evolution is compared, and samplers with a model."""


# -------------------------------------------------------------------------------------------- the problems


@dataclass(frozen=True)
class Problem:
    """value(x (parameters,)) -> objectives, the smaller the better, at most `worst` each."""

    name: str
    parameters: int
    value: Callable[[np.ndarray], tuple[float, ...]]
    worst: tuple[float, ...]
    most: float
    """The hypervolume of the true front below `worst`."""

    @cached_property
    def space(self) -> tuner.Space:
        return tuner.Space({f"x{j}": tuner.Float(0, 1) for j in range(self.parameters)})

    def at(self, settings: dict[str, float]) -> tuple[float, ...]:
        return self.value(np.array(list(settings.values())))

    def missing(self, values: Sequence[Sequence[float]]) -> float:
        """The share of the true front's hypervolume that these results do not cover."""
        return 1 - hypervolume(np.array(values), self.worst) / self.most


def zdt(name: str, h: Callable[[Any, Any], Any]) -> Problem:
    """f1 = x1, f2 = g h(f1, g) with g = 1 + 9 mean(x2, ...), which is 1 on the front."""

    def value(x: np.ndarray) -> tuple[float, ...]:
        g = 1 + 9 * float(np.mean(x[1:]))
        return float(x[0]), float(g * h(x[0], g))

    f = np.linspace(0, 1, 200_001)
    reached = np.minimum.accumulate(h(f, 1.0))  # the best f2 with an f1 of at most f
    return Problem(name, 10, value, (1.0, 10.0), 10.0 - float(np.trapezoid(reached, f)))


def dtlz2() -> Problem:
    """The front is the part of the unit sphere with positive coordinates."""

    def value(x: np.ndarray) -> tuple[float, ...]:
        r = 1 + float(np.sum((x[2:] - 0.5) ** 2))
        a, b = float(x[0]) * math.pi / 2, float(x[1]) * math.pi / 2
        return r * math.cos(a) * math.cos(b), r * math.cos(a) * math.sin(b), r * math.sin(a)

    return Problem("DTLZ2", 7, value, (2.25,) * 3, 2.25**3 - math.pi / 6)


PROBLEMS = {
    problem.name: problem
    for problem in (
        zdt("ZDT1", lambda f, g: 1 - np.sqrt(f / g)),
        zdt("ZDT2", lambda f, g: 1 - (f / g) ** 2),
        zdt("ZDT3", lambda f, g: 1 - np.sqrt(f / g) - f / g * np.sin(10 * np.pi * f)),
        dtlz2(),
    )
}


# -------------------------------------------------------------------------------------------- the searches

Search = Callable[[Problem, int, int], list[Sequence[float]]]
"""search(problem, seed, trials) -> the values of the trials in order."""


def ours(name: str) -> Search:
    """By our sampler of that name."""

    def run(problem: Problem, seed: int, trials: int) -> list[Sequence[float]]:
        study = tuner.create_study(
            space=problem.space,
            sampler=getattr(tuner.samplers, name)(seed=seed),
            directions=["minimize"] * len(problem.worst),
        )
        study.optimize(lambda trial: problem.at(trial.params), n_trials=trials)
        return [trial.values for trial in study.trials]

    return run


def optuna(name: str) -> Search:
    """By Optuna's sampler of that name."""

    def run(problem: Problem, seed: int, trials: int) -> list[Sequence[float]]:
        import optuna as library

        library.logging.set_verbosity(library.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about samplers that are experimental
            sampler = getattr(library.samplers, name)(seed=seed)
            study = library.create_study(sampler=sampler, directions=["minimize"] * len(problem.worst))
            study.optimize(lambda trial: problem.at(suggest(trial, problem.space)), n_trials=trials)
        return [trial.values for trial in study.trials]

    return run


@dataclass(frozen=True)
class Group:
    """Searches that are compared with each other, ours first."""

    budgets: tuple[int, ...]
    searches: dict[str, Search]
    problems: tuple[str, ...] = tuple(PROBLEMS)


GROUPS = {
    "evolution": Group(
        MANY,
        {
            "NSGAIISampler": ours("NSGAIISampler"),
            "optuna NSGA-II": optuna("NSGAIISampler"),
            "random": ours("RandomSampler"),
        },
    ),
    "Gaussian process": Group(
        FEW,
        {"GPSampler": ours("GPSampler"), "optuna GP": optuna("GPSampler"), "optuna TPE": optuna("TPESampler")},
        ("ZDT1", "ZDT2", "ZDT3"),
    ),
    "TPE": Group(FEW, {"TPESampler": ours("TPESampler"), "optuna TPE": optuna("TPESampler")}),
}


def missing(problem: str, group: str, search: str, seed: int) -> list[float]:
    """The share that is missing after each of the group's budgets."""
    wanted, known = GROUPS[group], PROBLEMS[problem]
    values = wanted.searches[search](known, seed, wanted.budgets[-1])
    return [known.missing(values[:budget]) for budget in wanted.budgets]


# ----------------------------------------------------------------------------------------------- the table


def markdown(found: dict[str, list[float]], groups: Sequence[str], seeds: int) -> str:
    """For each group the shares that are missing, and the first search's less those of the others."""
    lines = [
        "The share of the true front's hypervolume that is missing after so many trials, in percent, plus or minus "
        f"half a 95 % interval over {seeds} seeds. At the right, that of the first search less it, seed by seed: "
        "below 0 the first one is better.",
    ]
    for name in groups:
        group = GROUPS[name]
        heads = [*(f"@{budget}" for budget in group.budgets), *(f"gap @{budget}" for budget in group.budgets)]
        lines += ["", f"| {name} | problem | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
        first = next(iter(group.searches))
        for search in group.searches:
            for problems in (group.problems, *((p,) for p in group.problems)):
                mine, best = (
                    100 * np.mean([[found[_id(p, name, s, seed)] for seed in range(seeds)] for p in problems], axis=0)
                    for s in (search, first)
                )
                cells = ["{:.2f} ± {:.2f}".format(*interval(column)) for column in mine.T]
                gaps = ["{:+.2f} ± {:.2f}".format(*interval(column)) for column in (best - mine).T]
                title = problems[0] if len(problems) == 1 else "all"
                lines.append(f"| {search} | {title} | {' | '.join(cells + gaps)} |")
    return "\n".join(lines)


def _id(*cell: Any) -> str:
    return json.dumps(cell)


# --------------------------------------------------------------------------------------------- the program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print the table and keep it if that was asked for."""
    options = _parser().parse_args(arguments)
    if not version("optuna"):
        print("benchmarks/fronts.py compares with Optuna, which is not installed", file=sys.stderr)
        return 2
    kept = json.loads(options.cells.read_text()) if options.cells and options.cells.exists() else {}
    wanted = [
        (problem, name, search, seed)
        for seed in range(options.seeds)
        for name in options.groups
        for problem in GROUPS[name].problems
        for search in GROUPS[name].searches
        if _id(problem, name, search, seed) not in kept
    ]
    for cell, values in _run(wanted, options.jobs):
        kept[cell] = values
        if options.cells:
            options.cells.write_text(json.dumps(kept, indent=0))
    text = markdown(kept, options.groups, options.seeds)
    print(text)
    if options.write:
        about = f"Optuna {version('optuna')}, NumPy {np.__version__}"
        head = f"# Pareto fronts\n\n`python benchmarks/fronts.py`; {about}.\n\n"
        (RESULTS / "fronts.md").write_text(head + text + "\n")
    return 0


def _run(wanted: Sequence[tuple[str, str, str, int]], jobs: int) -> Iterator[tuple[str, list[float]]]:
    """(id, shares that are missing) of each cell, as they come."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        futures = {pool.submit(missing, *cell): cell for cell in wanted}
        for done, future in enumerate(as_completed(futures), 1):
            yield _id(*futures[future]), future.result()
            if sys.stderr.isatty():
                print(f"\r{done} of {len(futures)} searches", end="", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks/fronts.py", description=__doc__)
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS), metavar="NAME",
                        help=", ".join(GROUPS))  # fmt: skip
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0 (10)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--cells", type=Path, help="JSON file that keeps single results, so that a run can go on")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results/fronts.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
