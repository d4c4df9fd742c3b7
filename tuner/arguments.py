"""The command line of `nanonet`: its commands, their arguments and their help."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["CODES", "make_parser", "setting_texts"]

CODES = """\
exit codes:
  0    done
  1    something failed
  2    the command or its input is wrong; the message names the argument, the value and what is wanted
  130  interrupted by Ctrl-C; the best so far is saved and shown
"""

DATA = """\
DATA is one of
  digits       the shipped handwritten digits (1797 images of 8 x 8)
  FILE.csv     a table with a header; --target names the column to predict (.tsv too)
  FILE.npz     arrays x and y, and x_test and y_test if there is a test part
  FOLDER       MNIST's own IDX files
"""

FOLDER = """\
The folder then holds
  model.safetensors  the model with its settings, scaling and class names, for `nanonet predict` and `evaluate`
  settings.json      its settings, for `nanonet train --settings`
  report.md          what was done and how well it went
"""


def make_parser(command: str | None, settings: Iterable[Any] = ()) -> argparse.ArgumentParser:
    """The parser. `settings` are the `nanonet.Settings.fields()`, of which `train` makes its flags."""
    parser = argparse.ArgumentParser(
        prog="nanonet",
        description="Train and tune small neural networks, fast.",
        epilog=f"""\
examples:
  nanonet tune digits                             search for the best settings, about a minute
  nanonet tune flowers.csv --target kind --minutes 5
  nanonet train digits --hidden 128,64 --optimizer adamw --epochs 30
  nanonet predict nanonet-tune-digits new.csv --output predictions.csv
  nanonet report nanonet-tune-digits --html report.html
  nanonet doctor

`nanonet COMMAND --help` tells more about each.

{CODES}""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version and leave")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _tune(commands)
    _train(commands, settings if command == "train" else ())
    _evaluate(commands)
    _predict(commands)
    _report(commands)
    _doctor(commands)
    return parser


def _add(commands: Any, name: str, summary: str, text: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    lines = "\n".join(f"  nanonet {example}" for example in examples)
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{text}",
        epilog=f"examples:\n{lines}\n\n{CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="results as one JSON document on stdout, nothing else there"
    )
    parser.add_argument("--quiet", action="store_true", help="no notes and no progress on stderr")


def _data(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("data", metavar="DATA", help="digits, FILE.csv, FILE.npz or a FOLDER of IDX files")
    parser.add_argument("--target", metavar="COLUMN", help="the column of a CSV file to predict")
    parser.add_argument("--task", choices=("classification", "regression"), help="(default: told from the targets)")
    parser.add_argument(
        "--test",
        type=_share,
        default=0.2,
        metavar="SHARE",
        help="share of the rows kept untouched for the test at the end; of no effect if the data has a test part of "
        "its own (default 0.2)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where networks are trained (default cpu)"
    )
    parser.add_argument("--out", metavar="FOLDER", help=f"where to leave the results (default ./nanonet-{name}-DATA)")


def _tune(commands: Any) -> None:
    parser = _add(
        commands,
        "tune",
        "search for the best settings, and train the best model",
        f"""\
Trains networks with different settings and stops the bad ones early. Settings are chosen by 4-fold validation up to
5,000 rows, else by a fifth of the rows; --folds says otherwise. The best settings are then trained again on all rows
but the test part, which is looked at once, at the end. Without --trials and --minutes the search takes a minute.

{DATA}
{FOLDER}  study.db           all trials; the same command again goes on with them, also after kill -9
  trials.csv         the trials' settings and values
  curve.csv          the curve of the final training
""",
        [
            "tune digits",
            "tune digits --trials 100 --jobs 2 --seed 1 --out runs/digits",
            "tune flowers.csv --target kind --folds 5 --minutes 10",
        ],
    )
    _data(parser, "tune")
    parser.add_argument("--trials", type=_positive_int, metavar="N", help="trials in all, those before included")
    parser.add_argument(
        "--minutes", type=_positive, metavar="M", help="time for everything; the same command again adds as much"
    )
    parser.add_argument(
        "--folds",
        type=_folds,
        metavar="K",
        help="K-fold validation (default: 4 up to 5,000 rows, else a validation part)",
    )
    parser.add_argument(
        "--jobs", type=_jobs, default=None, metavar="J", help="trials side by side (default: all cores)"
    )
    parser.add_argument(
        "--stack",
        type=_stack,
        default="auto",
        metavar="K",
        help="train up to K trials of one network as one; 'off' trains one by one (default 'auto': on a GPU, if the "
        "networks are small)",
    )
    parser.add_argument("--epochs", type=_positive_int, metavar="E", help="most epochs of a trial (default 54)")
    parser.add_argument(
        "--metric",
        action="append",
        metavar="NAME",
        help="what to make best: accuracy, loss, f1, mae, parameters, latency, 'noise(0.5)', 'fgsm(0.1)', ... (default "
        "accuracy, for values loss); several make a trade-off, of which the best by the first one is kept",
    )
    parser.add_argument(
        "--constraint", action="append", metavar="TEXT", help="such as 'parameters<=50000' or 'latency<=1e-4'"
    )
    parser.add_argument(
        "--finalists",
        type=_positive_int,
        default=1,
        metavar="N",
        help="train the N best settings with 3 seeds at the end, and take the best mean (default 1: the best trial)",
    )
    parser.add_argument(
        "--refine",
        choices=("gradient",),
        help="refine the best learning rate, weight decay, ... by the gradient of the validation loss, as a last trial",
    )
    parser.add_argument("--seed", type=_seed, default=0, help="seed of everything random (default 0)")
    _common(parser)


def _train(commands: Any, settings: Iterable[Any]) -> None:
    parser = _add(
        commands,
        "train",
        "train one model with given settings",
        f"{DATA}\n{FOLDER}  curve.csv          loss and accuracy of each epoch\n\nEarlier results in it are replaced.",
        [
            "train digits",
            "train digits --hidden 256,128 --activation gelu --dropout 0.2 --optimizer adamw --schedule cosine",
            "train prices.csv --target price --batch-size 64 --epochs 200 --early-stopping 20",
            "train digits --settings nanonet-tune-digits/settings.json --epochs 100",
        ],
    )
    _data(parser, "train")
    parser.add_argument(
        "--validation",
        type=_share,
        default=0.2,
        metavar="SHARE",
        help="share of the rows for validation, by which early stopping goes; 0 for none (default 0.2)",
    )
    parser.add_argument("--settings", metavar="FILE.json", help="settings from a file; those given as flags win")
    _common(parser)
    group = parser.add_argument_group("settings")
    for field in settings:
        flag, about = f"--{field.name.replace('_', '-')}", _help(field)
        if field.type is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, dest=field.name, help=about)
        else:
            group.add_argument(flag, metavar=_metavar(field), dest=field.name, help=about)


def _evaluate(commands: Any) -> None:
    parser = _add(
        commands,
        "evaluate",
        "tell how well a model does on data with targets",
        f"MODEL is the folder that `tune` or `train` left, or a model file. All rows of DATA count, so it should be\n"
        f"data that the model was not trained on.\n\n{DATA}",
        ["evaluate nanonet-tune-digits more.csv", "evaluate runs/model.safetensors test.npz --json"],
    )
    _model(parser)
    _common(parser)


def _predict(commands: Any) -> None:
    parser = _add(
        commands,
        "predict",
        "write a model's predictions for data as CSV",
        "MODEL is the folder that `tune` or `train` left, or a model file. DATA needs no target column. Columns of a\n"
        f"CSV file are found by name. The result has a row for each row of DATA.\n\n{DATA}",
        [
            "predict nanonet-tune-digits new.csv",
            "predict nanonet-tune-digits new.csv --probabilities --output predictions.csv",
        ],
    )
    _model(parser)
    parser.add_argument("--output", metavar="FILE.csv", help="write the CSV there (default: to stdout)")
    parser.add_argument("--probabilities", action="store_true", help="with the probability of each class")
    _common(parser)


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a folder that `tune` or `train` left, or a model file")
    parser.add_argument("data", metavar="DATA", help="digits, FILE.csv, FILE.npz or a FOLDER of IDX files")


def _report(commands: Any) -> None:
    parser = _add(
        commands,
        "report",
        "tell what became of a search, which settings matter, and where they are good",
        "STUDY is the folder that `tune` left, or the file of any study. The report is Markdown; --html leaves a page\n"
        "with figures, which needs matplotlib.",
        [
            "report nanonet-tune-digits",
            "report nanonet-tune-digits --html report.html",
            "report study.db --name first --json",
        ],
    )
    parser.add_argument("study", metavar="STUDY", help="a folder that `tune` left, or a study's file")
    parser.add_argument("--name", metavar="NAME", help="the study's name, if the file holds several")
    parser.add_argument("--html", metavar="FILE.html", help="leave a page with figures there")
    _common(parser)


def _doctor(commands: Any) -> None:
    parser = _add(
        commands,
        "doctor",
        "tell what works on this machine, what does not, and why",
        "Shows versions, backends, vector width, threads and the kernel cache, and tests each backend.\n\n"
        "--tune searches the kernels' settings on this machine (how products are cut into blocks, from how much work\n"
        "on threads share it, when a convolution goes by Winograd's algorithm) and keeps those that are faster,\n"
        "measured in turn with the usual ones, in the kernel cache. Leave the machine alone meanwhile.\n"
        "Results may then differ in their last bits from those with the usual settings; the same settings and seed\n"
        "give the same bits.",
        ["doctor", "doctor --json", "doctor --tune --minutes 5", "doctor --tune --reset"],
    )
    parser.add_argument("--tune", action="store_true", help="search for the kernels' best settings on this machine")
    parser.add_argument("--minutes", type=_positive, default=2.0, metavar="M", help="time of the search (default 2)")
    parser.add_argument("--seed", type=_seed, default=0, help="seed of the search (default 0)")
    parser.add_argument("--reset", action="store_true", help="with --tune: back to the usual settings")
    parser.add_argument("--quiet", action="store_true", help="no notes on stderr")
    parser.add_argument("--json", action="store_true", help="as one JSON document")


# ------------------------------------------------------------------------------- settings as flags


def setting_texts(arguments: argparse.Namespace, settings: Iterable[Any]) -> dict[str, Any]:
    """The settings that were given as flags, name -> text or bool."""
    given = {field.name: getattr(arguments, field.name, None) for field in settings}
    return {name: value for name, value in given.items() if value is not None}


def _help(field: Any) -> str:
    default = ",".join(map(str, field.default)) if field.type is tuple else str(field.default)
    facts = [f"default {default}"]
    if field.options:
        facts.append(f"one of {', '.join(field.options)}")
    elif field.valid:
        facts.append(f"{'each ' if field.type is tuple else ''}in {field.valid}")
    for name, values in (field.condition or {}).items():
        facts.append(f"only with {name} {' or '.join(map(str, values))}")
    return f"{field.help} ({'; '.join(facts)})".replace("%", "%%")


def _metavar(field: Any) -> str:
    return {tuple: "WIDTHS", int: "N", float: "X"}.get(field.type, "NAME")


# --------------------------------------------------------------------------------------- values


def _number(text: str, kind: type, wanted: str, least: float, most: float = math.inf) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most or value == math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted {wanted}")
    return value


def _positive_int(text: str) -> int:
    return _number(text, int, "a whole number of at least 1", 1)


def _positive(text: str) -> float:
    return _number(text, float, "a number above 0", 1e-9)


def _share(text: str) -> float:
    return _number(text, float, "a share of the rows in [0, 0.9]", 0.0, 0.9)


def _folds(text: str) -> int:
    return _number(text, int, "a whole number of at least 2", 2)


def _seed(text: str) -> int:
    return _number(text, int, "a whole number of at least 0, below 2^53", 0, 2**53 - 1)


def _stack(text: str) -> int | str | bool:
    if text in ("auto", "off"):
        return text == "auto" and text
    return _number(text, int, "a whole number of at least 1, 'auto' or 'off'", 1)


def _jobs(text: str) -> int:
    return -1 if text == "-1" else _number(text, int, "a whole number of at least 1, or -1 for all cores", 1)
