"""What a proposal costs: python -m benchmarks.sampler_overhead"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import tuner
from benchmarks.harness import Row, installed, markdown
from tuner import Categorical, Float, Int, Ordinal, Space
from tuner.samplers import SAMPLERS
from tuner.space import Domain

TITLE = "Overhead of samplers"
NOTE = (
    "Time of one `study.ask()` with settings for 8 parameters, after so many trials of random settings, in memory. "
    "Beside it Optuna's sampler of the same name, on the same trials, in turn with ours. At 1,000 trials its Gaussian "
    "process, which takes minutes, is left out."
)
ENVIRONMENT = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SPACE = Space(
    {
        "learning_rate": Float(1e-5, 1, log=True),
        "weight_decay": Float(1e-8, 1e-1, log=True),
        "dropout": Float(0, 0.8),
        "momentum": Float(0, 0.99),
        "layers": Int(1, 8),
        "units": Int(8, 512, log=True),
        "activation": Categorical(["relu", "tanh", "gelu", "silu"]),
        "batch_size": Ordinal([16, 32, 64, 128]),
    }
)
TRIALS = (10, 100, 1000)
ASKS = 15
ENOUGH = 5.0
"""Seconds after which no more proposals of one row are timed."""
SLOW = {("GPSampler", 1000)}
"""Peers that are left out."""
GOALS = {("TPESampler", 100): 5e-4, ("TPESampler", 1000): 3e-3, ("GPSampler", 100): 2e-2}
GRID = {name: [domain.decode(place) for place in (0.2, 0.5, 0.8)] for name, domain in SPACE.parameters.items()}
OPTIONS: dict[str, dict[str, Any]] = {"GridSampler": {"search_space": GRID}}
"""What samplers are to be made with."""


def run(quick: bool = False) -> list[Row]:
    """A row for each sampler and number of trials."""
    rows = []
    for name in SAMPLERS:
        for trials in (10,) if quick else TRIALS:
            row = measure(name, trials, 3 if quick else ASKS, peers=not quick)
            if (name, trials) in GOALS:
                row.want(under=GOALS[name, trials])
            rows.append(row)
    return rows


def measure(name: str, trials: int, asks: int, peers: bool = True) -> Row:
    """The medians of `asks` proposals after `trials` trials, ours and the peer's in turn."""
    studies = {"nanonet": ours(name, trials)}
    if peers and installed("optuna") and (name, trials) not in SLOW:
        theirs = optunas(name, trials)
        if theirs is not None:
            studies["Optuna"] = theirs
    for propose in studies.values():
        propose()  # imports and tables that are made once
    samples: dict[str, list[float]] = {study: [] for study in studies}
    begin = time.perf_counter()
    while len(samples["nanonet"]) < asks and (len(samples["nanonet"]) < 3 or time.perf_counter() - begin < ENOUGH):
        for study, propose in studies.items():
            samples[study].append(propose())
    arrays = {study: np.array(times) for study, times in samples.items()}
    return Row.of(f"{name}, {trials} trials", arrays, peers={"Optuna": "Optuna"})


def loss(settings: dict[str, Any]) -> float:
    """Something to learn: the distance from the middle of the space."""
    return float(((SPACE.encode(settings) - 0.5) ** 2).sum())


def ours(name: str, trials: int) -> Callable[[], float]:
    """A study with that many trials; each call gives the seconds of one more `ask`, and tells its loss."""
    study = tuner.create_study(space=SPACE, sampler=SAMPLERS["RandomSampler"](seed=1))
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, loss(trial.params))
    study.sampler = SAMPLERS[name](seed=1, **OPTIONS.get(name, {}))

    def propose() -> float:
        start = time.perf_counter()
        trial = study.ask()
        seconds = time.perf_counter() - start
        study.tell(trial, loss(trial.params))
        return seconds

    return propose


def optunas(name: str, trials: int) -> Callable[[], float] | None:
    """The same with Optuna's sampler of that name; None if there is none, or a library that it wants is missing."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    make = getattr(optuna.samplers, name, None)
    if make is None or name == "GridSampler":  # which wants the grid's values, and proposes none until a value is asked
        return None
    distributions = {parameter: distribution(optuna, domain) for parameter, domain in SPACE.parameters.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about samplers that are experimental
        try:
            study = optuna.create_study(sampler=make(seed=1))
        except ImportError:
            return None
        rng = np.random.default_rng(1)
        for _ in range(trials):
            settings = SPACE.decode(rng.random(SPACE.dimensions))
            study.add_trial(
                optuna.trial.create_trial(params=settings, distributions=distributions, value=loss(settings))
            )

    def propose() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = time.perf_counter()
            trial = study.ask(distributions)
            seconds = time.perf_counter() - start
            study.tell(trial, loss(trial.params))
        return seconds

    return propose


def distribution(optuna: Any, domain: Domain) -> Any:
    """Optuna's word for a domain."""
    if domain.kind == "float":
        return optuna.distributions.FloatDistribution(domain.low, domain.high, log=domain.log)
    if domain.kind == "int":
        return optuna.distributions.IntDistribution(domain.low, domain.high, log=domain.log)
    return optuna.distributions.CategoricalDistribution(domain.choices)


if __name__ == "__main__":
    print(f"# {TITLE}\n\n{NOTE}\n\n{markdown(run())}")
