"""Importance against functions whose variances are known, and against Optuna's: python benchmarks/importance.py

Each evaluator gets the same random points. Printed is the mean distance of a parameter's importance from the truth,
with a 95 % interval over the seeds, and the CPU seconds of one evaluation. Importances are normalised to sum to 1, as
Optuna's are; the truth is that of the main effects in closed form.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # when run as a script
    sys.path.insert(0, str(ROOT))

import tuner  # noqa: E402
from tuner import importance  # noqa: E402

TRIALS = (50, 100, 200)


@dataclass(frozen=True)
class Function:
    """value(points (n, d)) -> (n,); shares (d,): the variances of the main effects."""

    name: str
    value: Callable[[np.ndarray], np.ndarray]
    shares: np.ndarray


def functions() -> list[Function]:
    """Ishigami & Homma 1990; the g-function of Sobol; an additive one of ten parameters, of which five matter."""

    def ishigami(x: np.ndarray) -> np.ndarray:
        z = 2 * np.pi * x - np.pi
        return np.sin(z[:, 0]) + 7 * np.sin(z[:, 1]) ** 2 + 0.1 * z[:, 2] ** 4 * np.sin(z[:, 0])

    a = np.array([0, 1, 4.5, 9, 99, 99, 99, 99])
    slopes = np.array([4.0, 3, 2, 1, 1, 0, 0, 0, 0, 0])
    return [
        Function("Ishigami", ishigami, np.array([(1 + 0.1 * np.pi**4 / 5) ** 2 / 2, 49 / 8, 0])),
        Function("g", lambda x: np.prod((np.abs(4 * x - 2) + a) / (1 + a), axis=1), 1 / (3 * (1 + a) ** 2)),
        Function("additive", lambda x: x @ slopes, slopes**2 / 12),
    ]


def ours(points: np.ndarray, values: np.ndarray, seed: int) -> Callable[[], dict[str, float]]:
    """Our fANOVA of a study with these trials."""
    space = tuner.Space({f"x{j}": tuner.Float(0, 1) for j in range(points.shape[1])})
    study = tuner.create_study(space=space, sampler=tuner.samplers.RandomSampler(seed=0))
    for row in points:
        study.enqueue_trial({f"x{j}": float(u) for j, u in enumerate(row)})
    study.optimize(lambda trial: values[trial.number], n_trials=len(points))
    evaluator = importance.FanovaImportanceEvaluator(seed=seed)
    return lambda: importance.get_param_importances(study, evaluator=evaluator)


def optuna(points: np.ndarray, values: np.ndarray, seed: int) -> Callable[[], dict[str, float]]:
    """Optuna's."""
    import optuna as library

    library.logging.set_verbosity(library.logging.ERROR)
    study = library.create_study()
    domains = {f"x{j}": library.distributions.FloatDistribution(0, 1) for j in range(points.shape[1])}
    for row, value in zip(points, values, strict=True):
        params = {f"x{j}": float(u) for j, u in enumerate(row)}
        study.add_trial(library.create_trial(params=params, distributions=domains, value=float(value)))
    evaluator = library.importance.FanovaImportanceEvaluator(seed=seed)
    return lambda: library.importance.get_param_importances(study, evaluator=evaluator)


EVALUATORS: dict[str, Any] = {"nanonet": ours, "Optuna": optuna}


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, nargs="+", default=TRIALS)
    options = parser.parse_args(arguments)
    print("| function | trials | evaluator | mean distance | CPU seconds |\n|---|---|---|---|---|", flush=True)
    for function in functions():
        truth = function.shares / function.shares.sum()
        for trials in options.trials:
            for name, make in EVALUATORS.items():
                distances, seconds = [], []
                for seed in range(options.seeds):
                    points = np.random.default_rng(seed).random((trials, len(truth)))
                    evaluate = make(points, function.value(points), seed)
                    begin = time.process_time()
                    found = evaluate()
                    seconds.append(time.process_time() - begin)
                    shares = np.array([found[f"x{j}"] for j in range(len(truth))])
                    distances.append(np.abs(shares - truth).mean())
                bound = 1.96 * np.std(distances, ddof=1) / np.sqrt(options.seeds)
                row = (
                    function.name,
                    trials,
                    name,
                    f"{np.mean(distances):.3f} +- {bound:.3f}",
                    f"{np.mean(seconds):.2f}",
                )
                print(f"| {' | '.join(map(str, row))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
