"""The `nanonet` command: tune, train, evaluate, predict, report, doctor.

Each command imports what it needs when it runs, so that help is there at once. Results go to stdout, notes and
progress to stderr. Exit codes: 0 done, 1 failed, 2 the command or its input is wrong, 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .arguments import make_parser, setting_texts
from .console import Console, number

__all__ = ["main"]

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


class Failure(Exception):
    """A command could not do its work; the message says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name; by default that of the process) and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        arguments = _parse(argv)
    except SystemExit as leaving:  # argparse has shown help, or what is wrong
        return int(leaving.code or 0)
    except KeyboardInterrupt:
        return INTERRUPTED
    console = Console(arguments.json, getattr(arguments, "quiet", False))
    try:
        return COMMANDS[arguments.command](arguments, console)
    except KeyboardInterrupt:
        kept = "; trials that are done are kept, the same command goes on with them"
        return _fail(console, arguments.command, INTERRUPTED, "interrupted" + kept * (arguments.command == "tune"))
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (Failure, OSError) as error:
        return _fail(console, arguments.command, FAILED, str(error))
    except Exception as error:
        if not isinstance(error, _wrong_input()):
            raise
        return _fail(console, arguments.command, WRONG, str(error))


def _parse(argv: list[str]) -> argparse.Namespace:
    command = next((word for word in argv if not word.startswith("-")), None)
    settings = ()
    if command == "train":
        from nanonet.settings import Settings

        settings = Settings.fields()
    parser = make_parser(command, settings)
    arguments = parser.parse_args(argv)
    if arguments.version:
        import nanonet

        print(f"nanonet {nanonet.__version__}")
        parser.exit()
    if arguments.command is None:
        parser.print_help(sys.stderr)
        parser.exit(WRONG)
    return arguments


def _fail(console: Console, command: str, code: int, message: str) -> int:
    console.error(f"nanonet {command}: {message}")
    console.document({"command": command, "error": message, "exit_code": code})
    return code


def _wrong_input() -> tuple[type[Exception], ...]:
    from nanonet import errors

    from .errors import SpaceError, StorageError

    return (
        errors.OptionError,
        errors.DataError,
        errors.ShapeError,
        errors.DtypeError,
        errors.DeviceError,
        errors.BackendUnavailable,
        errors.OutOfMemory,
        errors.CheckpointError,
        SpaceError,
        StorageError,
    )


# ------------------------------------------------------------------------------------------- tune


def tune(arguments: argparse.Namespace, console: Console) -> int:
    """Search for the best settings, train the best model, and leave both in a folder."""
    from nanonet.predictor import Predictor

    from .reporting.contents import gather
    from .tune import DEFAULT_MINUTES
    from .tune import tune as search

    dataset = _load(arguments)
    folder = _folder(arguments, dataset)
    _greet(console, dataset, folder)
    minutes = arguments.minutes
    if minutes is None and arguments.trials is None:
        minutes = DEFAULT_MINUTES
    progress = SearchProgress(console, arguments.trials, minutes)
    options = {"max_epochs": arguments.epochs} if arguments.epochs else {}
    if arguments.metric:
        options["metric"] = arguments.metric if len(arguments.metric) > 1 else arguments.metric[0]
    if arguments.constraint:
        options["constraints"] = dict(map(_constraint, arguments.constraint))
    try:
        result = search(
            dataset,
            minutes=minutes,
            trials=arguments.trials,
            validation=arguments.folds or "auto",
            test=arguments.test,
            seed=arguments.seed,
            n_jobs=arguments.jobs,
            device=arguments.device,
            stack=arguments.stack,
            finalists=arguments.finalists,
            refine=arguments.refine,
            out=folder,
            callbacks=[progress],
            **options,
        )
    finally:
        progress.stop()
    scores = {
        f"validation {result.metric}": result.validation_score,
        **{f"test {name}": value for name, value in result.test_metrics.items()},
    }
    predictor = Predictor(
        result.model, result.settings, dataset.schema, result.standardizer, result.target_standardizer, scores
    )
    trials = result.study.get_trials(deepcopy=False)
    _write_trials(folder / "trials.csv", trials, result.steps_per_epoch)
    states = Counter(trial.state.name.lower() for trial in trials)
    about = {
        "trials": ", ".join(f"{count} {state}" for state, count in sorted(states.items())),
        "best trial": result.best_trial.number,
        "trained epochs": result.epochs,
        **{f"constrained {name}": value for name, value in result.watched.items()},
    }
    title = f"Best settings of {len(trials)} trials"
    found = gather(result.study)
    files = _leave(folder, title, predictor, result.run.history, scores, about, found.words)
    result.study.storage.close()
    _show(console, title, predictor, scores, about)
    console.text("\n".join(found.words))
    console.note(f"model, settings, study and report are in {folder}")
    if result.interrupted:
        console.error("interrupted: this is the best so far; the same command goes on with the search")
    console.document(
        {
            "command": "tune",
            "data": arguments.data,
            "rows": result.rows,
            "out": str(folder),
            "files": [*files, "study.db", "trials.csv"],
            "seed": arguments.seed,
            "metric": result.metric,
            "direction": result.direction,
            "settings": predictor.settings.to_dict(),
            "epochs": result.epochs,
            "scores": scores | {f"constrained {name}": value for name, value in result.watched.items()},
            "trials": len(trials),
            "trials_by_state": dict(states),
            "best_trial": result.best_trial.number,
            "found": [{"name": o.name, **o.summary.to_dict()} for o in found.objectives],
            "seconds": round(result.seconds, 3),
            "interrupted": result.interrupted,
        }
    )
    return INTERRUPTED if result.interrupted else DONE


class SearchProgress:
    """Tells how the search goes, after each segment of a trial: a live bar on a terminal, else each new best.

    The bar is full when the study has `trials` trials, or without that number when `minutes` are over.
    """

    def __init__(self, console: Console, trials: int | None, minutes: float | None):
        self._console, self._trials, self._minutes = console, trials, minutes
        self._start, self._shown = time.monotonic(), 0.0
        self._best: float | None = None
        self._ended: set[int] | None = None
        self._bar: Any = None

    def __call__(self, study: Any, trial: Any) -> None:
        before = self._best
        if self._ended is None:  # the first time: with those of earlier runs
            self._ended = set()
            for known in study.get_trials(deepcopy=False):
                self._take(study, known)
        self._take(study, trial)
        if self._console.live:
            self._draw()
        elif self._best != before:
            seconds = time.monotonic() - self._start
            self._console.note(f"{seconds:6.1f} s  trial {trial.number:4d}  best validation score {self._best:.4f}")

    def _take(self, study: Any, trial: Any) -> None:
        if trial.state.is_finished():
            self._ended.add(trial.number)
        curve = [value[0] if isinstance(value, list) else value for value in trial.intermediate_values.values()]
        values = [value for value in (self._best, *curve) if value is not None and value == value]
        self._best = (max if study.directions[0] == "maximize" else min)(values, default=None)

    def _draw(self) -> None:
        now = time.monotonic()
        if now - self._shown < 0.1:
            return
        self._shown = now
        if self._bar is None:
            from rich.console import Console as Screen
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Screen(file=sys.stderr), auto_refresh=False, transient=True)
            self._task = self._bar.add_task("", total=self._trials or 60 * self._minutes)
            self._bar.start()
        ended = len(self._ended)
        best = "" if self._best is None else f", best validation score {self._best:.4f}"
        done = ended if self._trials else now - self._start
        self._bar.update(self._task, completed=done, description=f"{ended} trials ended{best}")
        self._bar.refresh()

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _constraint(text: str) -> tuple[str, str]:
    """(name, "<= number") of "name<=number"."""
    at = max(text.find("<="), text.find(">="))
    return (text[:at].strip(), text[at:]) if at >= 0 else (text, "")


def _write_trials(path: Path, trials: Sequence[Any], steps_per_epoch: int) -> None:
    """Every trial's settings, state and value (the first of several objectives) as CSV."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", "value", "epochs", *names])
        for trial in trials:
            value = trial.intermediate_values.get(trial.steps) if trial.values is None else trial.values[0]
            value = value[0] if isinstance(value, list) else value
            row = ["" if value is None else value, -(-trial.steps // steps_per_epoch)]
            writer.writerow([trial.number, trial.state.name, *row, *(trial.params.get(name, "") for name in names)])


# ------------------------------------------------------------------------------------------- train


def train(arguments: argparse.Namespace, console: Console) -> int:
    """Train one model and leave it in a folder."""
    from nanonet import data
    from nanonet.predictor import Predictor
    from nanonet.training import Run

    settings = _settings(arguments)
    dataset = _load(arguments)
    folder = _folder(arguments, dataset)
    _greet(console, dataset, folder)
    parts = _parts(dataset, arguments.validation, arguments.test, settings.seed)
    (x, y), standardizer = parts["training"], data.Standardizer().fit(parts["training"][0])
    target_scale = None if dataset.task == "classification" else data.Standardizer().fit(y)

    def scaled(part: tuple[Any, Any]) -> tuple[Any, Any]:
        return standardizer.transform(part[0]), part[1] if target_scale is None else target_scale.transform(part[1])

    classes = dataset.outputs if dataset.task == "classification" else None
    validation = scaled(parts["validation"]) if "validation" in parts else None
    begin = time.monotonic()
    run = Run(settings, *scaled((x, y)), validation, task=dataset.task, classes=classes, device=arguments.device)
    interrupted = _advance(run, console)
    if run.diverged:
        raise Failure(
            f"the loss became {run.history[-1]['loss']} in epoch {run.epoch}; a smaller --learning-rate may help"
        )
    run.restore_best()
    predictor = Predictor(run.model.cpu(), settings, dataset.schema, standardizer, target_scale)
    scores = {
        f"{part} {name}": value
        for part in ("validation", "test")
        if part in parts
        for name, value in predictor.evaluate(*parts[part]).items()
    }
    predictor.scores = scores
    about = {"trained epochs": run.epoch, "best epoch": run.best_epoch}
    files = _leave(folder, "Trained model", predictor, run.history, scores, about)
    _show(console, "Trained model", predictor, scores, about)
    console.note(f"model, settings and report are in {folder}")
    if interrupted:
        console.error(f"interrupted after {run.epoch} of {settings.epochs} epochs: this is the model as it was then")
    console.document(
        {
            "command": "train",
            "data": arguments.data,
            "rows": {name: len(rows) for name, (rows, _) in parts.items()},
            "out": str(folder),
            "files": files,
            "settings": settings.to_dict(),
            "epochs": run.epoch,
            "best_epoch": run.best_epoch,
            "scores": scores,
            "seconds": round(time.monotonic() - begin, 3),
            "interrupted": interrupted,
        }
    )
    return INTERRUPTED if interrupted else DONE


def _advance(run: Any, console: Console) -> bool:
    """Train epoch by epoch to the end; whether Ctrl-C ended it. Before the first epoch is done Ctrl-C is raised."""
    from nanonet.progress import Progress

    progress = Progress(0 if console.quiet else 1, file=sys.stderr)
    progress.set_params({"epochs": run.settings.epochs, "steps": 1})
    progress.on_train_begin()
    try:
        while run.epoch < run.settings.epochs and not run.stopped:
            progress.on_epoch_begin(run.epoch)
            for results in run.advance(1):
                progress.on_epoch_end(run.epoch - 1, results)
    except KeyboardInterrupt:
        if run.epoch == 0:
            raise
        return True
    finally:
        progress.on_train_end()
    return False


def _settings(arguments: argparse.Namespace) -> Any:
    """The settings of `--settings`, changed by those given as flags."""
    from nanonet.errors import DataError
    from nanonet.settings import Settings

    base = Settings()
    if arguments.settings is not None:
        try:
            content = json.loads(Path(arguments.settings).read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("wanted an object with a setting's name for each value")
            base = Settings.from_dict(content)
        except FileNotFoundError:
            raise DataError(f"--settings {arguments.settings}: there is no such file") from None
        except ValueError as error:
            raise DataError(f"--settings {arguments.settings}: {error}") from None
    given = setting_texts(arguments, Settings.fields())
    return base.replace(
        **{name: Settings.field(name).parse(text) if isinstance(text, str) else text for name, text in given.items()}
    )


def _parts(dataset: Any, validation: float, test: float, seed: int) -> dict[str, tuple[Any, Any]]:
    """(x, y) of the training, validation and test parts; a part without rows is left out."""
    from nanonet import data

    own = dataset.x_test is not None
    rows = data.split_rows(dataset.y, validation, 0.0 if own else test, seed=seed)
    named = zip(("training", "validation", "test"), rows, strict=True)
    parts = {name: (dataset.x[part], dataset.y[part]) for name, part in named if len(part)}
    return {**parts, "test": (dataset.x_test, dataset.y_test)} if own else parts


# ---------------------------------------------------------------------------------- evaluate, predict


def evaluate(arguments: argparse.Namespace, console: Console) -> int:
    """Show how well a saved model does on data with targets."""
    from nanonet import data
    from nanonet.predictor import Predictor

    predictor = Predictor.load(arguments.model)
    dataset = data.load(arguments.data, schema=predictor.schema)
    scores = predictor.evaluate_on(dataset)
    console.table(f"{arguments.model} on {len(dataset.x)} rows of {arguments.data}", ("score", "value"), scores.items())
    console.document(
        {
            "command": "evaluate",
            "model": arguments.model,
            "data": arguments.data,
            "rows": len(dataset.x),
            "task": predictor.task,
            "scores": scores,
        }
    )
    return DONE


def predict(arguments: argparse.Namespace, console: Console) -> int:
    """Write a saved model's predictions."""
    from nanonet import data
    from nanonet.errors import DataError
    from nanonet.predictor import Predictor

    predictor = Predictor.load(arguments.model)
    dataset = data.load(arguments.data, schema=predictor.schema)
    names = predictor.class_names
    if arguments.probabilities and names is None:
        raise DataError("--probabilities: the model predicts numbers; wanted a classification model")
    header, columns = ["prediction"], []
    if names is not None:
        columns.append(predictor.names(dataset.x))
        if arguments.probabilities:
            header += [f"probability_{name}" for name in names]
            columns += list(predictor.probabilities(dataset.x).T)
    else:
        values = predictor.predict(dataset.x)
        columns += [values] if values.ndim == 1 else list(values.T)
        header = header if values.ndim == 1 else [f"prediction_{i + 1}" for i in range(len(columns))]
    rows = [[cell if isinstance(cell, str) else f"{cell:.7g}" for cell in row] for row in zip(*columns, strict=True)]
    if arguments.output is not None:
        with open(arguments.output, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        console.note(f"{len(rows)} predictions are in {arguments.output}")
    elif not console.json:
        csv.writer(sys.stdout, lineterminator="\n").writerows([header, *rows])
    document = {"command": "predict", "model": arguments.model, "data": arguments.data, "rows": len(rows)}
    if arguments.output is not None:
        document["output"] = arguments.output
    else:
        document |= dict(zip(header, columns, strict=True))
    console.document(document)
    return DONE


# ------------------------------------------------------------------------------------------ report


def report(arguments: argparse.Namespace, console: Console) -> int:
    """Show what became of a study and what matters in it."""
    from nanonet.errors import OptionError

    from .reporting import Report
    from .reporting.contents import gather
    from .study import load_study

    path = Path(arguments.study)
    try:
        study = load_study(study_name=arguments.name, storage=path / "study.db" if path.is_dir() else path)
    except (KeyError, ValueError) as error:
        raise OptionError(f"--name: {error.args[0]}") from None
    made = Report(gather(study))
    document = {"command": "report", **made.to_dict()}
    if arguments.html is not None:
        try:
            page = made.html()
        except ImportError as error:
            raise Failure(f"--html: {error}") from None
        Path(arguments.html).write_text(page, encoding="utf-8")
        document["html"] = arguments.html
        console.note(f"a page with figures is in {arguments.html}")
    study.storage.close()
    console.text(str(made).rstrip())
    console.document(document)
    return DONE


# ------------------------------------------------------------------------------------------ doctor


def doctor(arguments: argparse.Namespace, console: Console) -> int:
    """Show what works on this machine, or search for the kernels' best settings on it."""
    from nanonet.doctor import examine, text
    from nanonet.errors import OptionError

    if arguments.reset and not arguments.tune:
        raise OptionError("--reset is for --tune; give both")
    if arguments.tune:
        return _reset_kernels(console) if arguments.reset else _tune_kernels(arguments, console)
    report = examine()
    console.text(text(report))
    console.document(report)
    return DONE if report["ok"] else FAILED


def _tune_kernels(arguments: argparse.Namespace, console: Console) -> int:
    from kernels import registry

    from .kernel_tuning import tune_kernels

    reason = registry.reason("numba_cpu")
    if reason is not None:
        raise Failure(f"--tune: there are no compiled kernels to tune: {reason}")
    from kernels.numba_cpu import knobs

    found = tune_kernels(arguments.minutes, arguments.seed, console.note)
    usual = knobs.defaults()
    rows: list[Any] = []
    for group in found.groups:
        rows += [None] * bool(rows)
        names = [name for name in knobs.KNOBS if knobs.KNOBS[name].group == group.group]
        for name in names:
            now = found.values.get(name, usual[name])
            rows.append((name, str(usual[name]), str(now) if name in found.values else "", ""))
        verdict = f"{group.speed:.3f}" if group.kept and group.speed else ""
        rows[-len(names)] = (*rows[-len(names)][:3], verdict)
    console.table("Settings of the kernels", ("setting", "usual", "found", "times as fast"), rows)
    for problem in found.problems:
        console.error(problem)
    if found.values:
        console.text(f"{found.speed:.3f} x as fast over all; kept in {knobs.path()}")
    else:
        console.text("nothing was faster for sure; the usual settings stay")
    file = str(knobs.path()) if found.values else None
    console.document({"command": "doctor", "defaults": usual, "file": file, **found.to_dict()})
    return DONE


def _reset_kernels(console: Console) -> int:
    from kernels import registry

    removed = False
    if registry.reason("numba_cpu") is None:
        from kernels.numba_cpu import knobs

        removed = knobs.forget()
    console.text("the usual kernel settings are back" if removed else "there were no tuned kernel settings")
    console.document({"command": "doctor", "removed": removed})
    return DONE


# -------------------------------------------------------------------------------- the folder and the table


def _load(arguments: argparse.Namespace) -> Any:
    """The data to train on. OptionError for a --target or --task that it does not know."""
    from nanonet import data
    from nanonet.errors import OptionError

    dataset = data.load(arguments.data, arguments.target, task=arguments.task)
    if arguments.target not in (None, dataset.target):
        raise OptionError(f"--target: {arguments.data} has no column {arguments.target!r}; it is for CSV files")
    if arguments.task not in (None, dataset.task):
        raise OptionError(f"--task: {arguments.data} is for {dataset.task}, not for {arguments.task}")
    return dataset


def _folder(arguments: argparse.Namespace, dataset: Any) -> Path:
    folder = Path(arguments.out or f"nanonet-{arguments.command}-{dataset.name}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _greet(console: Console, dataset: Any, folder: Path) -> None:
    """Say what is about to happen."""
    from nanonet.doctor import first_use

    kind = f"{dataset.outputs} classes" if dataset.task == "classification" else f"{dataset.outputs} numbers to predict"
    shape = " x ".join(map(str, dataset.x.shape[1:]))
    console.note(f"{dataset.name}: {len(dataset.x)} rows of {shape} inputs, {kind}; results go to {folder}")
    if not console.quiet and first_use():
        console.note("first use on this machine: compiling the kernels, once")


def _leave(
    folder: Path,
    title: str,
    predictor: Any,
    history: Sequence[Mapping[str, Any]],
    scores: Mapping[str, float],
    about: Mapping[str, Any],
    found: Sequence[str] = (),
) -> list[str]:
    """Write the model, its settings, the curve of its training and the report; the files' names.

    found: what a search told about the settings, a sentence each.
    """
    model = predictor.save(folder)
    text = json.dumps(predictor.settings.to_dict(), indent=2)
    (folder / "settings.json").write_text(text + "\n", encoding="utf-8")
    with open(folder / "curve.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)
    lines = [f"# {title}", "", "| setting | value |", "|---|---|"]
    settings = predictor.settings
    lines += [f"| {name} | {_shown(getattr(settings, name))} |" for name in settings.active()]
    lines += ["", "| result | value |", "|---|---|"]
    lines += [f"| {name} | {number(value)} |" for name, value in (*about.items(), *scores.items())]
    if found:
        lines += ["", "What the search found out:", "", *(f"- {sentence}" for sentence in found)]
    lines += ["", f"Use it: `nanonet predict {folder} DATA`, or in Python", "", "```python"]
    lines += [
        "from nanonet.predictor import Predictor",
        "",
        f'predictor = Predictor.load("{folder.as_posix()}")',
        "```",
    ]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [model.name, "settings.json", "curve.csv", "report.md"]


def _shown(value: Any) -> str:
    """A setting for reading: 0.003, 128,64, adam."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show(console: Console, title: str, predictor: Any, scores: Mapping[str, float], about: Mapping[str, Any]) -> None:
    """A table of the settings that have an effect and are worth a word, and of the results."""
    settings = predictor.settings
    rows: list[Any] = []
    for field in settings.fields():
        value = getattr(settings, field.name)
        if field.name in settings.active() and (field.tunable or value != field.default):
            rows.append((field.name, _shown(value)))
    console.table(title, ("setting", "value"), [*rows, None, *about.items(), *scores.items()])


COMMANDS = {
    "tune": tune,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "report": report,
    "doctor": doctor,
}

if __name__ == "__main__":
    sys.exit(main())
