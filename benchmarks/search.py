"""Samplers against Optuna's, by normalised regret: python benchmarks/search.py --tables FOLDER

Each sampler gets the same tasks, seeds and budgets. Tasks are tables of real training runs, below FOLDER, and functions
with a known best value; see search_tasks.py. Printed is the mean regret of the best settings after 25, 50 and 100
trials, with 95 % intervals over the seeds, and of each of our samplers the difference to its peer, seed by seed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # when run as a script
    sys.path.insert(0, str(ROOT))

import tuner  # noqa: E402
from benchmarks.search_tasks import Task, synthetic, tables  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results"
BUDGETS = (25, 50, 100)
PEERS = {
    "AutoSampler": ("optuna GP",),
    "GPSampler": ("optuna GP",),
    "TPESampler": ("optuna TPE", "optuna TPE multivariate"),
    "CmaEsSampler": ("optuna CMA-ES",),
    "RandomSampler": ("optuna random",),
    "QMCSampler": ("optuna random",),
}
"""Each of our samplers and the peers it is measured by."""


# ------------------------------------------------------------------------------------------- one search


def ours(name: str) -> Callable[[Task, int, int], list[float]]:
    """run(task, seed, trials) -> the losses in order, by our sampler of that name."""

    def run(task: Task, seed: int, trials: int) -> list[float]:
        study = tuner.create_study(space=task.space, sampler=getattr(tuner.samplers, name)(seed=seed))
        study.optimize(lambda trial: task.loss(trial.params), n_trials=trials)
        return [trial.value for trial in study.trials]

    return run


def optuna(make: Callable[[Any, int], Any]) -> Callable[[Task, int, int], list[float]]:
    """The same by a sampler of Optuna's: make(optuna.samplers, seed)."""

    def run(task: Task, seed: int, trials: int) -> list[float]:
        import optuna as library

        library.logging.set_verbosity(library.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about samplers that are experimental
            study = library.create_study(sampler=make(library.samplers, seed))
            study.optimize(lambda trial: task.loss(suggest(trial, task.space)), n_trials=trials)
        return [trial.value for trial in study.trials]

    return run


def suggest(trial: Any, space: tuner.Space) -> dict[str, Any]:
    """Settings that an Optuna trial proposes, asked for in the order of the space. Listed values that have an order are
    asked for by their place."""
    settings: dict[str, Any] = {}
    for name, domain in space.parameters.items():
        if not space.is_active(name, settings):
            continue
        if domain.kind == "float":
            settings[name] = trial.suggest_float(name, domain.low, domain.high, log=domain.log, step=domain.step)
        elif domain.kind == "int":
            settings[name] = trial.suggest_int(name, domain.low, domain.high, log=domain.log, step=domain.step or 1)
        elif domain.kind == "ordinal":
            settings[name] = domain.choices[trial.suggest_int(name, 0, domain.size - 1)]
        else:
            settings[name] = trial.suggest_categorical(name, domain.choices)
    return settings


SEARCHES: dict[str, Callable[[Task, int, int], list[float]]] = {
    **{name: ours(name) for name in tuner.samplers.SAMPLERS if name != "GridSampler"},
    "optuna GP": optuna(lambda s, seed: s.GPSampler(seed=seed)),
    "optuna TPE": optuna(lambda s, seed: s.TPESampler(seed=seed)),
    "optuna TPE multivariate": optuna(lambda s, seed: s.TPESampler(seed=seed, multivariate=True, group=True)),
    "optuna CMA-ES": optuna(lambda s, seed: s.CmaEsSampler(seed=seed)),
    "optuna random": optuna(lambda s, seed: s.RandomSampler(seed=seed)),
}
"""Every sampler that can be compared."""


def regrets(task: Task, search: str, seed: int) -> list[float]:
    """The normalised regret at each of the budgets."""
    losses = SEARCHES[search](task, seed, BUDGETS[-1])
    best = np.minimum.accumulate(losses)
    return [task.regret(best[min(budget, len(best)) - 1]) for budget in BUDGETS]


# ---------------------------------------------------------------------------------------------- the table


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (Student's t)."""
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return float(values.mean()), math.nan
    return float(values.mean()), float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


class Cells:
    """Regrets by (task, search, seed): float64 (budgets,)."""

    def __init__(self, found: dict[tuple[str, str, int], list[float]], seeds: int):
        self.found, self.seeds = found, seeds

    def seed_means(self, tasks: Sequence[str], search: str) -> np.ndarray:
        """Mean over the tasks, (seeds, budgets)."""
        cells = [[self.found[task, search, seed] for seed in range(self.seeds)] for task in tasks]
        return np.mean(cells, axis=0)


def markdown(cells: Cells, groups: dict[str, list[str]], searches: Sequence[str]) -> str:
    """Mean regrets for each group of tasks and each task, then the differences to the peers."""
    lines = [
        "Mean normalised regret (0 is the best value there is), plus or minus half a 95 % interval over seeds.",
        "",
    ]
    heads = [f"{search} @{budget}" for search in searches for budget in BUDGETS]
    lines += [f"| tasks | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    rows = {**groups, **{task: [task] for tasks in list(groups.values())[1:] for task in tasks}}
    for name, tasks in rows.items():
        texts = []
        for search in searches:
            means = cells.seed_means(tasks, search)
            texts += ["{:.4f} ± {:.4f}".format(*interval(means[:, i])) for i in range(len(BUDGETS))]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    pairs = [(a, b) for a in searches for b in PEERS.get(a, ()) if b in searches]
    if pairs:
        lines += ["", "Ours less the peer's, seed by seed; below 0 ours is better.", ""]
        lines += ["| ours | peer | tasks | " + " | ".join(f"@{b}" for b in BUDGETS) + " | at or below |"]
        lines += ["|---" * (4 + len(BUDGETS)) + "|"]
        for mine, peer in pairs:
            for name, tasks in groups.items():
                gaps = cells.seed_means(tasks, mine) - cells.seed_means(tasks, peer)
                texts = ["{:+.4f} ± {:.4f}".format(*interval(gaps[:, i])) for i in range(len(BUDGETS))]
                met = "yes" if (gaps.mean(axis=0) <= 0).all() else "no"
                lines.append(f"| {mine} | {peer} | {name} | {' | '.join(texts)} | {met} |")
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------- the program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table."""
    options = _parser().parse_args(arguments)
    found = {"tables": tables(options.tables) if options.tables else [], "functions": synthetic()}
    if options.tables and not found["tables"]:
        print(f"--tables {options.tables}: there is no .npz file below it", file=sys.stderr)
        return 2
    chosen = {
        group: [task for task in tasks if not options.tasks or any(word in task.name for word in options.tasks)]
        for group, tasks in found.items()
    }
    groups = {"all": [t.name for tasks in chosen.values() for t in tasks]}
    groups |= {group: [t.name for t in tasks] for group, tasks in chosen.items() if tasks}
    searches = options.samplers or [name for name in SEARCHES if _available(name)]
    kept = _load(options.cells) if options.cells else {}
    wanted = [
        (task, search, seed)
        for seed in range(options.seeds)
        for search in searches
        for tasks in chosen.values()
        for task in tasks
        if _id(task.name, search, seed) not in kept or search in options.again
    ]
    for cell, values in _run(wanted, options.jobs, options.tables):
        kept[cell] = values
        if options.cells:
            options.cells.write_text(json.dumps(kept, indent=0))
    cells = Cells(
        {
            (task, search, seed): kept[_id(task, search, seed)]
            for task in groups["all"]
            for search in searches
            for seed in range(options.seeds)
        },
        options.seeds,
    )
    text = markdown(cells, groups, searches)
    print(text)
    if options.write:
        about = f"{options.seeds} seeds, Optuna {version('optuna')}, NumPy {np.__version__}"
        head = f"# Search\n\n`python benchmarks/search.py --tables FOLDER`; {about}.\n\n"
        (RESULTS / "search.md").write_text(head + text + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks/search.py", description=__doc__)
    parser.add_argument("--tables", type=Path, help="folder of tables; without it only functions are searched")
    parser.add_argument("--samplers", nargs="*", choices=list(SEARCHES), metavar="NAME", help=", ".join(SEARCHES))
    parser.add_argument(
        "--tasks", nargs="*", default=[], metavar="WORD", help="only tasks with such a word in the name"
    )
    parser.add_argument("--seeds", type=int, default=10, help="how many (10)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--cells", type=Path, help="JSON file that keeps single results, so that a run can go on")
    parser.add_argument("--again", nargs="*", default=[], metavar="NAME", help="samplers to run again, though kept")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results/search.md")
    return parser


def _id(task: str, search: str, seed: int) -> str:
    return f"{task}|{search}|{seed}"


def _load(file: Path) -> dict[str, list[float]]:
    return json.loads(file.read_text()) if file.exists() else {}


_TASKS: dict[str, Task] = {}


def _prepare(folder: Path | None) -> None:
    """Each process reads the tasks once."""
    found = [*(tables(folder) if folder else ()), *synthetic()]
    _TASKS.update({task.name: task for task in found})


def _cell(task: str, search: str, seed: int) -> tuple[str, list[float]]:
    return _id(task, search, seed), regrets(_TASKS[task], search, seed)


def _run(wanted: Sequence[tuple[Task, str, int]], jobs: int, folder: Path | None):
    """(id, regrets) of each cell, as they come."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    if jobs == 1:
        _prepare(folder)
        for task, search, seed in wanted:
            yield _cell(task.name, search, seed)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), _prepare, (folder,)) as pool:
        futures = [pool.submit(_cell, task.name, search, seed) for task, search, seed in wanted]
        for done, future in enumerate(as_completed(futures), 1):
            yield future.result()
            if sys.stderr.isatty():
                print(f"\r{done} of {len(futures)} searches", end="", file=sys.stderr, flush=True)


def _available(search: str) -> bool:
    """Whether the libraries of a peer are installed."""
    needs = {"optuna GP": ("optuna", "torch"), "optuna CMA-ES": ("optuna", "cmaes")}
    return not search.startswith("optuna") or all(version(n) for n in needs.get(search, ("optuna",)))


def version(library: str) -> str:
    """The version of a library that is installed, or ""."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
