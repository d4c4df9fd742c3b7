"""python -m benchmarks.tuning: seconds until an accuracy is reached, `tuner.tune` against Optuna with PyTorch.

On digits (0.975) and on a set of the size of MNIST (`benchmarks.strokes`, written as IDX files, 0.98). Both search the
space of `tuner.settings_space`, train on the same rows, judge each epoch on the same validation rows and train a trial
for 54 epochs at most. The peer is Optuna's TPESampler with its HyperbandPruner around a plain PyTorch loop over tensors
in memory, with its fused optimizers, on the number of threads that is faster. It runs twice: as it comes, and with
tune's own first settings enqueued. tune itself runs as it comes: trials side by side on all cores, schedules that
begin anew where trials are compared.

Each seed gives another split into training and validation rows, other proposals and other initial weights. The times
are taken in one process, in turn, after both have run once; --cold times whole processes instead, from their start.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import strokes

EPOCHS = 54
TARGETS = {"digits": 0.975, "strokes": 0.98}
SEEDS = {"digits": 10, "strokes": 5}
WARM_UP = {"digits": 3.0, "strokes": 10.0}  # seconds of a search that imports and compiles what searches use
GOAL = 10.0  # times faster
RESULTS = Path(__file__).parent / "results" / "tuning.md"
OURS, PEER, ENQUEUED = "nanonet", "Optuna + PyTorch", "Optuna + PyTorch, our first settings"

Clock = Callable[[], float]


class Reached(Exception):
    """The accuracy is reached."""


def dataset(name: str) -> Any:
    """The data set; strokes are drawn into IDX files, which are read as anybody's."""
    from nanonet import data

    if name == "digits":
        return data.load("digits")
    with tempfile.TemporaryDirectory() as folder:
        return data.load(str(strokes.write(folder)))


# ---------------------------------------------------------------------------------------------- ours


def nanonet(rows: Any, target: float, seed: int, limit: float, clock: Clock) -> float:
    """Seconds until tune knows of an epoch that reaches the target; infinity if it does not within the limit."""
    import tuner

    start = clock()
    found: list[float] = []

    def look(study: Any, trial: Any) -> None:
        if max(trial.intermediate_values.values(), default=0.0) >= target:
            found.append(clock() - start)
            raise Reached
        if clock() - start > limit:
            study.stop()

    with suppress(Reached):
        tuner.tune(rows, minutes=limit / 30, seed=seed, validation="split", max_epochs=EPOCHS, callbacks=[look])
    return found[0] if found else float("inf")


# ---------------------------------------------------------------------------------------------- peer


def optuna(rows: Any, target: float, seed: int, limit: float, clock: Clock, enqueue: bool = False) -> float:
    """The same for Optuna and PyTorch. Rows are cut and scaled by our functions, which is part of both times."""
    import optuna as library
    import torch

    from nanonet.settings import Settings
    from tuner.tuning.parts import Parts
    from tuner.tuning.space import first_settings

    library.logging.set_verbosity(library.logging.ERROR)
    start = clock()
    fold = Parts.of(rows, "split", 0.2, seed).folds[0]
    training = [torch.from_numpy(np.ascontiguousarray(a)) for a in (fold.x.reshape(len(fold.x), -1), fold.y)]
    x_validation = fold.x_validation.reshape(len(fold.x_validation), -1)
    validation = [torch.from_numpy(np.ascontiguousarray(a)) for a in (x_validation, fold.y_validation)]
    base = Settings(epochs=EPOCHS)
    found: list[float] = []

    def objective(trial: Any) -> float:
        settings = Settings.from_search(_suggested(trial), base.replace(seed=1000 * seed + trial.number))
        accuracy = 0.0
        for epoch, accuracy in enumerate(torch_epochs(settings, training, validation, rows.outputs), 1):
            if accuracy >= target:
                found.append(clock() - start)
            if found or clock() - start > limit:
                trial.study.stop()
                return accuracy
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise library.TrialPruned
        return accuracy

    study = library.create_study(
        direction="maximize",
        sampler=library.samplers.TPESampler(seed=seed),
        pruner=library.pruners.HyperbandPruner(min_resource=2, max_resource=EPOCHS, reduction_factor=3),
    )
    if enqueue:
        for settings in first_settings("classification"):
            study.enqueue_trial(settings.to_search())
    study.optimize(objective, timeout=limit)
    return found[0] if found else float("inf")


def _suggested(trial: Any) -> dict[str, Any]:
    """The space of `Settings.search_space`, as Optuna's calls."""
    from nanonet.settings import Settings

    values: dict[str, Any] = {}
    for row in Settings.search_space():
        name, condition = row["name"], row["condition"]
        if condition is not None and values.get(condition["parent"]) not in condition["in"]:
            continue
        if "choices" in row:
            values[name] = trial.suggest_categorical(name, row["choices"])
        else:
            suggest = trial.suggest_int if row["kind"] == "int" else trial.suggest_float
            values[name] = suggest(name, row["low"], row["high"], log=row["log"])
    return values


def torch_epochs(settings: Any, training: list[Any], validation: list[Any], outputs: int) -> Any:
    """Train with these settings, as `nanonet.training.Run` does, and yield the validation accuracy of each epoch."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(settings.seed)
    (x, y), (x_validation, y_validation) = training, validation
    activation = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}[settings.activation]
    layers: list[Any] = []
    wide = x.shape[1]
    for narrow in settings.hidden:
        layers += [nn.Linear(wide, narrow), activation()]
        nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
        if settings.dropout:
            layers.append(nn.Dropout(settings.dropout))
        wide = narrow
    layers.append(nn.Linear(wide, outputs))
    nn.init.xavier_uniform_(layers[-1].weight)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    model = nn.Sequential(*layers)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        optimizer: Any = torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, fused=True)
    else:
        kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
        optimizer = kind(groups, lr=settings.learning_rate, fused=True)
    steps = -(-len(x) // settings.batch_size)
    factors = settings.learning_rate_schedule(steps)(np.arange(EPOCHS * steps))
    for epoch in range(EPOCHS):
        model.train()
        for step, rows in enumerate(torch.randperm(len(x)).split(settings.batch_size), epoch * steps):
            if settings.schedule != "constant":
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * float(factors[step])
            optimizer.zero_grad()
            functional.cross_entropy(model(x[rows]), y[rows], label_smoothing=settings.label_smoothing).backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            yield float((model(x_validation).argmax(1) == y_validation).float().mean())


def best_threads(rows: Any) -> int:
    """1 or 2 PyTorch threads, by the time of two epochs with the usual settings."""
    import torch

    from nanonet.settings import Settings
    from tuner.tuning.parts import Parts

    fold = Parts.of(rows, "split", 0.2, 0).folds[0]
    parts = (
        (fold.x.reshape(len(fold.x), -1), fold.y),
        (fold.x_validation.reshape(len(fold.x_validation), -1), fold.y_validation),
    )
    training, validation = ([torch.from_numpy(np.ascontiguousarray(a)) for a in part] for part in parts)
    seconds = {}
    for threads in sorted({1, min(2, os.cpu_count() or 1)}):
        torch.set_num_threads(threads)
        epochs = torch_epochs(Settings(epochs=EPOCHS), training, validation, rows.outputs)
        next(epochs)
        start = time.perf_counter()
        next(epochs)
        seconds[threads] = time.perf_counter() - start
    chosen = min(seconds, key=seconds.get)  # type: ignore[arg-type]
    torch.set_num_threads(chosen)
    return chosen


# -------------------------------------------------------------------------------------------- the table


def measure(name: str, seeds: int, limit: float, cpu: bool = False) -> dict[str, np.ndarray]:
    """Seconds of each searcher for each seed."""
    rows, target = dataset(name), TARGETS[name]
    clock = time.process_time if cpu else time.perf_counter
    searchers: Mapping[str, Callable[..., float]] = {
        OURS: nanonet,
        PEER: optuna,
        ENQUEUED: lambda *arguments: optuna(*arguments, enqueue=True),
    }
    threads = best_threads(rows)
    print(f"{name}: PyTorch on {threads} thread{'s' * (threads > 1)}", file=sys.stderr, flush=True)
    for searcher in (nanonet, optuna):
        searcher(rows, 2.0, 999, WARM_UP[name], clock)
    found: dict[str, list[float]] = {label: [] for label in searchers}
    for seed in range(seeds):
        for label in list(searchers)[:: 1 if seed % 2 == 0 else -1]:
            found[label].append(searchers[label](rows, target, seed, limit, clock))
        shown = ", ".join(f"{label} {values[-1]:.3g} s" for label, values in found.items())
        print(f"{name}, seed {seed}: {shown}", file=sys.stderr, flush=True)
    return {label: np.array(values) for label, values in found.items()}


def interval(statistic: Callable[..., float], *samples: np.ndarray, draws: int = 4000) -> tuple[float, float]:
    """The 95% interval of a statistic of paired samples, each (n,), by the bootstrap over seeds."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, len(samples[0]), (draws, len(samples[0])))
    values = [statistic(*(sample[place] for sample in samples)) for place in places]
    low, high = np.percentile(values, [2.5, 97.5], method="nearest")
    return float(low), float(high)


def median_ratio(theirs: np.ndarray, ours: np.ndarray) -> float:
    """How many times faster ours is, by the medians over seeds."""
    return float(np.median(theirs) / np.median(ours))


def table(found: Mapping[str, Mapping[str, np.ndarray]], limit: float) -> str:
    """Markdown: a row for each data set and searcher. A search that did not reach the target counts as infinite."""
    lines = [
        "| data | seeds | searcher | median s | 95% | reached | times slower than nanonet | 95% |",
        "|" + " --- |" * 8,
    ]
    for name, times in found.items():
        ours = times[OURS]
        for label, values in times.items():
            low, high = interval(lambda v: float(np.median(v)), values)
            cells = [f"{name}, {TARGETS[name]}", str(len(values)), label, _shown(np.median(values), limit)]
            cells += [f"{_shown(low, limit)} to {_shown(high, limit)}", f"{np.isfinite(values).sum()}"]
            if label == OURS:
                cells += ["", ""]
            else:
                capped = np.minimum(values, limit)  # at least so slow
                low, high = interval(median_ratio, capped, np.minimum(ours, limit))
                cells += [f"{median_ratio(capped, np.minimum(ours, limit)):.1f}", f"{low:.1f} to {high:.1f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(seconds: float, limit: float) -> str:
    return f"{seconds:.3g}" if np.isfinite(seconds) else f"> {limit:g}"


def cold(seeds: int, limit: float) -> dict[str, np.ndarray]:
    """Seconds of whole processes that search on digits, kernels of ours in their cache."""
    found: dict[str, list[float]] = {OURS: [], PEER: []}
    for seed in range(-1, seeds):  # the first one fills the cache
        for label, values in found.items():
            start = time.perf_counter()
            command = [sys.executable, "-m", "benchmarks.tuning", "--worker", label, "--seed", str(max(seed, 0))]
            subprocess.run([*command, "--limit", str(limit)], check=True, cwd=Path(__file__).parents[1])
            if seed >= 0:
                values.append(time.perf_counter() - start)
    return {label: np.array(values) for label, values in found.items()}


def main(arguments: list[str] | None = None) -> int:
    """Print the table and keep it; 1 if a goal is missed."""
    parser = argparse.ArgumentParser("python -m benchmarks.tuning", description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help="digits, strokes; both unless given")
    parser.add_argument("--seeds", type=int, help="of each set, in place of 10 and 5")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a search has not reached it")
    parser.add_argument("--cpu", action="store_true", help="count processor seconds: for machines that are not quiet")
    parser.add_argument("--cold", action="store_true", help="time whole processes on digits as well")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file to write")
    parser.add_argument("--worker", choices=(OURS, PEER), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        search = nanonet if options.worker == OURS else optuna
        search(dataset("digits"), TARGETS["digits"], options.seed, options.limit, time.perf_counter)
        return 0
    unknown = set(options.sets) - set(TARGETS)
    if unknown:
        parser.error(f"there is no {unknown.pop()!r}; wanted {' or '.join(TARGETS)}")
    found = {
        name: measure(name, options.seeds or SEEDS[name], options.limit, options.cpu)
        for name in options.sets or TARGETS
    }
    from benchmarks.__main__ import machine

    about = "\n".join(f"- {name}: {value}" for name, value in machine().items())
    clock = "Processor seconds of the whole process" if options.cpu else "Seconds"
    head = f"# Tuning: seconds until an accuracy is reached\n\n{about}\n\n{__doc__}"
    text = f"{head}\n{clock}.\n\n{table(found, options.limit)}\n"
    if options.cold:
        times = cold(5, options.limit)
        shown = ", ".join(f"{label} {np.median(values):.3g} s" for label, values in times.items())
        text += f"\nWhole processes on digits, from their start, kernels in their cache, medians of 5: {shown}.\n"
    print(text)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(text)
    met = [median_ratio(np.minimum(times[PEER], options.limit), times[OURS]) >= GOAL for times in found.values()]
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
