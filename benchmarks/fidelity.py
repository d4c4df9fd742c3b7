"""Searches that stop trainings early, against Optuna's, on tables of learning curves: regret against epochs spent.

    python benchmarks/fidelity.py --tables FOLDER

FOLDER holds taskset/*.npz and norm.json (or the .npz files themselves). A proposal reads the curve of the row that is
nearest in the unit cube of the settings' logarithms; a step is an epoch, the first being point 1 of the curve. What
counts is the best validation loss seen on any curve once so many epochs are spent, as normalised regret. Optuna cannot
resume a trial, so its objectives report every epoch; ours are a `tuner.Resumable`.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # when run as a script
    sys.path.insert(0, str(ROOT))

import tuner  # noqa: E402
from benchmarks.search import interval, suggest  # noqa: E402
from benchmarks.search_tasks import curve_places, curve_space, read_curves  # noqa: E402
from tuner import pruners, samplers  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results"
TRAININGS = (10, 25, 50)
"""The budgets, in full trainings' worth of epochs."""


# ---------------------------------------------------------------------------------------------- the curves


@dataclass(frozen=True)
class Curves:
    """A table: settings (rows) and their validation losses (rows, epochs)."""

    name: str
    space: tuner.Space
    places: np.ndarray
    losses: np.ndarray
    best: float
    median: float

    @property
    def epochs(self) -> int:
        return self.losses.shape[1]

    def curve(self, settings: dict[str, float]) -> np.ndarray:
        """The losses of the nearest row."""
        return self.losses[np.argmin(((self.places - self.space.encode(settings)) ** 2).sum(axis=1))]

    def regret(self, loss: float) -> float:
        """0 is the best loss in the table, 1 that of a middling random setting."""
        return float(np.clip((loss - self.best) / (self.median - self.best), 0.0, 1.0))


def tables(folder: Path) -> list[Curves]:
    """The tables of curves below the folder, by name."""
    file = folder / "norm.json"
    norms = json.loads(file.read_text()) if file.exists() else {}
    found = []
    for file in sorted(folder.glob("**/*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            if "valid" not in arrays:
                continue
            names = [str(name) for name in arrays["hp_names"]]
            losses, places = read_curves(arrays["valid"]), curve_places(names, arrays["hp"])
        norm = next((norms[key] for key in (f"taskset/{file.stem}", file.stem) if key in norms), {})
        lowest = losses.min(axis=1)
        best, median = norm.get("mf_best", lowest.min()), norm.get("mf_median", np.median(lowest))
        found.append(Curves(file.stem, curve_space(names), places, losses, float(best), float(median)))
    return found


# ------------------------------------------------------------------------------------------- the searches

Search = Callable[[Curves, int, int], list[float]]
"""search(table, seed, epochs) -> the losses in the order in which they were seen, as many as epochs."""


class LookUp(tuner.Resumable):
    """Trainings that are read from the table; `seen` are all losses in order."""

    def __init__(self, table: Curves):
        self.table, self.max_steps, self.seen = table, table.epochs, []

    score = "best"

    def start(self, trial: tuner.Trial) -> list[Any]:
        return [self.table.curve(trial.params), 0]

    def advance(self, state: list[Any], steps: int) -> tuple[list[Any], list[float]]:
        curve, done = state
        values = curve[done : done + steps].tolist()
        self.seen += values
        return [curve, done + len(values)], values


def ours(pruner: Callable[[int, int], tuner.pruners.Pruner], sampler: Callable[[int], samplers.Sampler]) -> Search:
    """A study of ours. pruner(epochs of a trial, epochs in all), sampler(seed)."""

    def run(table: Curves, seed: int, epochs: int) -> list[float]:
        work = LookUp(table)
        made = pruner(table.epochs, epochs)
        study = tuner.create_study(space=table.space, sampler=sampler(seed), pruner=made)
        study.optimize(work, total_steps=epochs)
        return work.seen

    return run


def plain(length: int, budget: int) -> tuner.pruners.Pruner:
    """Half of the budget for one epoch each, the other half to finish the best."""
    keep = max(budget // 2 // max(length - 1, 1), 1)
    return pruners.EarlyDiscardingPruner(max(budget - keep * (length - 1), keep), 1, keep)


def optuna(make: Callable[[Any, int, int], tuple[Any, Any]]) -> Search:
    """A study of Optuna's. make(optuna, seed, epochs of a trial) -> (sampler, pruner)."""

    def run(table: Curves, seed: int, epochs: int) -> list[float]:
        import optuna as library

        library.logging.set_verbosity(library.logging.ERROR)
        seen: list[float] = []

        def objective(trial: Any) -> float:
            curve = table.curve(suggest(trial, table.space))
            for step, loss in enumerate(curve.tolist(), 1):
                seen.append(loss)
                trial.report(loss, step)
                if len(seen) >= epochs:
                    trial.study.stop()
                    raise library.TrialPruned
                if trial.should_prune():
                    raise library.TrialPruned
            return float(curve.min())

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about samplers that are experimental
            sampler, pruner = make(library, seed, table.epochs)
            library.create_study(sampler=sampler, pruner=pruner).optimize(objective)
        return seen

    return run


def _tpe(seed: int) -> samplers.Sampler:
    return samplers.TPESampler(seed=seed)


def _random(seed: int) -> samplers.Sampler:
    return samplers.RandomSampler(seed=seed)


def _mixed(seed: int) -> samplers.Sampler:
    return samplers.InterleavedSampler(samplers.TPESampler(seed=seed))


OURS: dict[str, Search] = {
    "AutoPruner, TPE and random": ours(lambda length, budget: pruners.AutoPruner(), _mixed),
    "AutoPruner, TPE": ours(lambda length, budget: pruners.AutoPruner(), _tpe),
    "AutoPruner, random": ours(lambda length, budget: pruners.AutoPruner(), _random),
    "ASHA, TPE": ours(lambda length, budget: pruners.AsynchronousHalvingPruner(), _tpe),
    "Hyperband, TPE": ours(lambda length, budget: pruners.HyperbandPruner(), _tpe),
    "FreezeThaw, TPE": ours(lambda length, budget: pruners.FreezeThawPruner(), _tpe),
    "PASHA, TPE": ours(lambda length, budget: pruners.ProgressiveHalvingPruner(), _tpe),
    "early discarding, TPE": ours(plain, _tpe),
}
PEERS: dict[str, Search] = {
    "random, full trainings": ours(lambda length, budget: pruners.NopPruner(), _random),
    "early discarding, random": ours(plain, _random),
    "optuna random, Hyperband": optuna(
        lambda o, seed, length: (o.samplers.RandomSampler(seed=seed), o.pruners.HyperbandPruner(1, length, 3))
    ),
    "optuna TPE, Hyperband": optuna(
        lambda o, seed, length: (o.samplers.TPESampler(seed=seed), o.pruners.HyperbandPruner(1, length, 3))
    ),
    "optuna TPE, SuccessiveHalving": optuna(
        lambda o, seed, length: (o.samplers.TPESampler(seed=seed), o.pruners.SuccessiveHalvingPruner(1))
    ),
    "optuna TPE, Median": optuna(
        lambda o, seed, length: (o.samplers.TPESampler(seed=seed), o.pruners.MedianPruner())
    ),
}  # fmt: skip
SEARCHES = OURS | PEERS
PLANNED = ("early discarding, random", "early discarding, TPE")
"""Searches that must know the budget, and are run anew for each."""


def regrets(table: Curves, search: str, seed: int) -> list[float]:
    """The normalised regret at each of the budgets."""
    budgets = [trainings * table.epochs for trainings in TRAININGS]
    longest = None if search in PLANNED else np.minimum.accumulate(SEARCHES[search](table, seed, budgets[-1]))
    found = []
    for budget in budgets:
        best = np.minimum.accumulate(SEARCHES[search](table, seed, budget)) if longest is None else longest
        found.append(table.regret(best[min(budget, len(best)) - 1]))
    return found


# ---------------------------------------------------------------------------------------------- the table


def markdown(found: dict[str, list[float]], names: Sequence[str], searches: Sequence[str], seeds: int) -> str:
    """Mean regrets over the tables and for each, and the differences of the first search to all others."""

    def means(tasks: Sequence[str], search: str) -> np.ndarray:
        return np.mean([[found[_id(task, search, seed)] for seed in range(seeds)] for task in tasks], axis=0)

    lines = [
        f"Mean normalised regret after the epochs of {', '.join(map(str, TRAININGS))} full trainings, over "
        f"{len(names)} tables and {seeds} seeds, plus or minus half a 95 % interval over the seeds. At the right, that "
        f"of {searches[0]} less it, seed by seed: below 0 {searches[0]} is better.",
        "",
        f"| search | {' | '.join([*(f'{t} trainings' for t in TRAININGS), *(f'gap @{t}' for t in TRAININGS)])} |",
        "|---" * (1 + 2 * len(TRAININGS)) + "|",
    ]  # fmt: skip
    first = means(names, searches[0])
    for search in searches:
        mine = means(names, search)
        cells = ["{:.4f} ± {:.4f}".format(*interval(column)) for column in mine.T]
        gaps = ["{:+.4f} ± {:.4f}".format(*interval(column)) for column in (first - mine).T]
        lines.append(f"| {search} | {' | '.join(cells + gaps)} |")
    lines += ["", "For each table:", "", f"| search | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for search in searches:
        cells = [" ".join(f"{value:.4f}" for value in means([name], search).mean(axis=0)) for name in names]
        lines.append(f"| {search} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _id(table: str, search: str, seed: int) -> str:
    return json.dumps([table, search, seed])


def _cell(folder: Path, table: str, search: str, seed: int) -> list[float]:
    return regrets(next(t for t in tables(folder) if t.name == table), search, seed)


# --------------------------------------------------------------------------------------------- the program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print the table and keep it."""
    options = _parser().parse_args(arguments)
    names = [table.name for table in tables(options.tables)]
    if not names:
        print(f"--tables {options.tables}: there is no table of curves below it", file=sys.stderr)
        return 2
    searches = options.searches or [s for s in SEARCHES if "optuna" not in s or _installed()]
    kept = json.loads(options.cells.read_text()) if options.cells and options.cells.exists() else {}
    wanted = [(n, s, seed) for seed in range(options.seeds) for s in searches for n in names]
    wanted = [cell for cell in wanted if _id(*cell) not in kept]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_cell, options.tables, *cell): cell for cell in wanted}
        for done, future in enumerate(as_completed(futures), 1):
            kept[_id(*futures[future])] = future.result()
            print(f"\r{done} of {len(wanted)}", end="", file=sys.stderr, flush=True)
            if options.cells:
                options.cells.write_text(json.dumps(kept, indent=0))
    print(file=sys.stderr)
    text = markdown(kept, names, searches, options.seeds)
    print(text)
    if options.results:
        library = f"Optuna {metadata.version('optuna')}" if _installed() else "without Optuna"
        head = f"# Early stopping on learning curves\n\n`python benchmarks/fidelity.py --tables FOLDER`, {library}.\n\n"
        options.results.write_text(head + text + "\n")
    return 0


def _installed() -> bool:
    from importlib.util import find_spec

    return find_spec("optuna") is not None


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("benchmarks/fidelity.py", description=__doc__.splitlines()[0])
    made.add_argument("--tables", type=Path, required=True, help="folder of the tables of learning curves")
    made.add_argument("--seeds", type=int, default=10, help="how many, from 0 (default 10)")
    made.add_argument("--jobs", type=int, default=2, help="searches side by side (default 2)")
    made.add_argument("--searches", nargs="+", choices=list(SEARCHES), metavar="NAME", help=", ".join(SEARCHES))
    made.add_argument("--cells", type=Path, help="file to keep each search's outcome in, and to go on from")
    made.add_argument("--results", type=Path, default=RESULTS / "fidelity.md", help="where to write the table")
    return made


if __name__ == "__main__":
    sys.exit(main())
