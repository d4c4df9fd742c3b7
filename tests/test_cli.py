"""The `nanonet` command: in this process with tiny budgets, and in others that are killed or interrupted."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tuner
from nanonet.predictor import Predictor
from nanonet.settings import Settings
from tuner import cli
from tuner.arguments import make_parser
from tuner.console import Console, jsonable, number

ROOT = Path(__file__).parent.parent
COMMANDS = ("tune", "train", "evaluate", "predict", "report", "doctor")
QUICK = ("--epochs", "3", "--quiet")


@pytest.fixture
def run(capsys):
    """run(*words) -> (exit code, stdout, stderr)."""

    def command(*words):
        code = cli.main([str(word) for word in words])
        return code, *capsys.readouterr()

    return command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data files and a model trained on each: flowers (classes) and prices (numbers)."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    with open(folder / "flowers.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["length", "colour", "kind"])
        for i in range(90):
            kind = i % 3
            writer.writerow([f"{10 * kind + rng.normal():.4f}", ["red", "blue"][i % 2], ["rose", "lily", "iris"][kind]])
    with open(folder / "prices.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["size", "age", "price"])
        for _ in range(90):
            size, age = rng.uniform(50, 150), rng.uniform(0, 50)
            writer.writerow([f"{size:.3f}", f"{age:.3f}", f"{2000 * size - 500 * age + rng.normal():.3f}"])
    few = ("--epochs", "20", "--batch-size", "8", "--quiet")
    assert cli.main(["train", str(folder / "flowers.csv"), "--target", "kind", "--out", str(folder / "f"), *few]) == 0
    assert cli.main(["train", str(folder / "prices.csv"), "--target", "price", "--out", str(folder / "p"), *few]) == 0
    return folder


def rows(text):
    return list(csv.reader(text.splitlines()))


# ---------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_has_examples_and_exit_codes(run, words):
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert "examples:\n  nanonet " in out
    assert "exit codes:" in out


def test_every_setting_is_a_flag_of_train(run):
    _, out, _ = run("train", "--help")
    text = " ".join(out.split())
    for field in Settings.fields():
        assert f"--{field.name.replace('_', '-')}" in text
        default = ",".join(map(str, field.default)) if field.type is tuple else field.default
        assert f"(default {default}" in text


def test_examples_are_right(monkeypatch, capsys):
    """Every example in the help can be parsed."""
    for command in (None, *COMMANDS):
        parser = make_parser(command, Settings.fields() if command == "train" else ())
        with pytest.raises(SystemExit):
            parser.parse_args([command, "--help"] if command else ["--help"])
        for line in capsys.readouterr().out.splitlines():
            if line.startswith("  nanonet "):
                words = line.split("   ")[0].split()[1:]
                fields = Settings.fields() if words[0] == "train" else ()
                assert make_parser(words[0], fields).parse_args(words).command == words[0]


def test_version_and_no_command(run):
    code, out, _ = run("--version")
    assert (code, out.split()[0]) == (0, "nanonet")
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "commands:" in err


def test_help_imports_no_heavy_library():
    heavy = {"numba", "llvmlite", "scipy", "rich", "sklearn", "nanonet"}
    code = f"import sys; from tuner import cli; cli.main(['--help']); print(*sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == ""


# --------------------------------------------------------------------------------------------- train


def test_train_leaves_a_model_and_a_report(run, tmp_path):
    code, out, err = run("train", "digits", "--out", tmp_path / "digits", "--epochs", 4, "--hidden", "32,16")
    assert code == 0
    assert "Trained model" in out
    assert "32,16" in out
    assert "test accuracy" in out
    assert err.startswith("digits: 1797 rows of 64 inputs, 10 classes")
    assert "Epoch 4/4 - " in err
    files = {path.name for path in (tmp_path / "digits").iterdir()}
    assert files == {"model.safetensors", "settings.json", "report.md", "curve.csv"}
    curve = rows((tmp_path / "digits" / "curve.csv").read_text())
    assert curve[0] == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr"]
    assert [row[0] for row in curve[1:]] == ["1", "2", "3", "4"]
    settings = json.loads((tmp_path / "digits" / "settings.json").read_text())
    assert Settings.from_dict(settings) == Settings(hidden=(32, 16), epochs=4)
    assert "| hidden | 32,16 |" in (tmp_path / "digits" / "report.md").read_text()
    assert Predictor.load(tmp_path / "digits").scores["test accuracy"] > 0.8


def test_json_is_one_document_and_nothing_else(run, tmp_path):
    code, out, err = run("train", "digits", "--json", "--out", tmp_path, *QUICK)
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["rows"] == {"training": 1079, "validation": 359, "test": 359}
    assert document["epochs"] == 3
    assert set(document["files"]) == {path.name for path in tmp_path.iterdir()}
    assert document["scores"] == Predictor.load(tmp_path).scores
    assert not document["interrupted"]


def test_the_same_seed_gives_the_same_model(run, tmp_path):
    scores = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        _, out, _ = run("train", "digits", "--json", "--seed", seed, "--out", tmp_path / name, *QUICK)
        scores.append(json.loads(out)["scores"])
    assert scores[0] == scores[1] != scores[2]


def test_settings_from_a_file_and_from_flags(run, tmp_path):
    file = tmp_path / "settings.json"
    file.write_text('{"hidden": [8], "optimizer": "sgd", "learning_rate": 0.1, "nesterov": false}')
    words = ("--settings", file, "--learning-rate", "0.05", "--nesterov", "--out", tmp_path / "out")
    code, out, _ = run("train", "digits", "--json", *words, *QUICK)
    wanted = Settings(hidden=(8,), optimizer="sgd", learning_rate=0.05, nesterov=True, epochs=3)
    assert (code, Settings.from_dict(json.loads(out)["settings"])) == (0, wanted)


def test_data_with_a_test_part_of_its_own(run, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.integers(0, 2, 60)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:7], y_test=y[:7])
    words = ("--out", tmp_path / "out", "--validation", "0")
    code, out, _ = run("train", tmp_path / "d.npz", "--json", *words, *QUICK)
    document = json.loads(out)
    assert code == 0
    assert document["rows"] == {"training": 60, "test": 7}
    assert set(document["scores"]) == {"test loss", "test accuracy"}


def test_training_that_diverges_fails(run, tmp_path):
    words = ("--optimizer", "sgd", "--learning-rate", "1e30", "--out", tmp_path / "out")
    code, out, err = run("train", "digits", "--json", *words, *QUICK)
    assert code == 1
    assert "a smaller --learning-rate may help" in err
    assert json.loads(out)["exit_code"] == 1
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_training_that_is_interrupted_leaves_its_model(run, tmp_path, monkeypatch):
    from nanonet.training import Run

    advance = Run.advance

    def interrupted(self, epochs):
        if self.epoch == 2:
            raise KeyboardInterrupt
        return advance(self, epochs)

    monkeypatch.setattr(Run, "advance", interrupted)
    code, out, err = run("train", "digits", "--epochs", 9, "--quiet", "--out", tmp_path)
    assert code == 130
    assert "test accuracy" in out
    assert err == "interrupted after 2 of 9 epochs: this is the model as it was then\n"
    assert Predictor.load(tmp_path).scores["test accuracy"] > 0.5
    monkeypatch.setattr(Run, "advance", lambda self, epochs: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("train", "digits", "--quiet", "--out", tmp_path)[::2] == (130, "nanonet train: interrupted\n")


# ---------------------------------------------------------------------------------- evaluate, predict


def test_evaluate(run, folder):
    code, out, err = run("evaluate", folder / "f", folder / "flowers.csv")
    assert (code, err) == (0, "")
    assert "accuracy" in out
    code, out, _ = run("evaluate", folder / "p" / "model.safetensors", folder / "prices.csv", "--json")
    document = json.loads(out)
    assert document["task"] == "regression"
    assert document["rows"] == 90
    assert document["scores"]["r2"] > 0.9
    assert document["scores"]["mae"] < 20000


def test_predict_with_and_without_the_target_column(run, folder, tmp_path):
    code, out, _ = run("predict", folder / "f", folder / "flowers.csv")
    assert code == 0
    assert rows(out)[0] == ["prediction"]
    names = [row[0] for row in rows(out)[1:]]
    kinds = [row[2] for row in rows((folder / "flowers.csv").read_text())[1:]]
    assert np.mean(np.array(names) == kinds) > 0.9
    (tmp_path / "new.csv").write_text("number,colour,length\n1,blue,0.1\n2,red,20.5\n")
    code, out, _ = run("predict", folder / "f", tmp_path / "new.csv", "--probabilities", "--json", "--quiet")
    document = json.loads(out)
    assert document["prediction"] == ["rose", "iris"]
    assert set(document) >= {"probability_iris", "probability_lily", "probability_rose"}
    assert sum(document[f"probability_{kind}"][0] for kind in ("iris", "lily", "rose")) == pytest.approx(1)


def test_predict_into_a_file(run, folder, tmp_path):
    path = tmp_path / "out.csv"
    code, out, err = run("predict", folder / "f", folder / "flowers.csv", "--output", path, "--probabilities")
    assert (code, out, err) == (0, "", f"90 predictions are in {path}\n")
    content = rows(path.read_text())
    assert content[0] == ["prediction", "probability_iris", "probability_lily", "probability_rose"]
    assert len(content) == 91
    code, out, _ = run("predict", folder / "f", folder / "flowers.csv", "--output", path, "--json")
    assert json.loads(out) == {
        "command": "predict",
        "model": str(folder / "f"),
        "data": str(folder / "flowers.csv"),
        "rows": 90,
        "output": str(path),
    }


def test_predict_numbers(run, folder):
    _, out, _ = run("predict", folder / "p", folder / "prices.csv")
    found = np.array([float(row[0]) for row in rows(out)[1:]])
    prices = np.array([float(row[2]) for row in rows((folder / "prices.csv").read_text())[1:]])
    assert np.corrcoef(found, prices)[0, 1] > 0.95
    code, _, err = run("predict", folder / "p", folder / "prices.csv", "--probabilities")
    assert code == 2
    assert "--probabilities: the model predicts numbers" in err


# ---------------------------------------------------------------------------------------------- tune


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """What a small search leaves."""
    folder = tmp_path_factory.mktemp("tune")
    assert cli.main(["tune", "digits", "--trials", "4", "--epochs", "3", "--out", str(folder), "--quiet"]) == 0
    return folder


def trials_of(folder):
    study = tuner.load_study(storage=folder / "study.db")
    trials = study.trials
    study.storage.close()
    return trials


def test_tune_leaves_study_model_and_report(study):
    assert {path.name for path in study.iterdir()} >= {
        "study.db",
        "model.safetensors",
        "settings.json",
        "report.md",
        "curve.csv",
        "trials.csv",
    }
    assert len(trials_of(study)) == 4
    table = rows((study / "trials.csv").read_text())
    assert table[0][:4] == ["trial", "state", "value", "epochs"]
    assert [row[0] for row in table[1:]] == ["0", "1", "2", "3"]
    predictor = Predictor.load(study)
    assert predictor.scores["test accuracy"] > 0.5
    settings = json.loads((study / "settings.json").read_text())
    assert predictor.settings == Settings.from_dict(settings)


def test_the_same_tune_again_repeats_no_trial(study, run):
    before = trials_of(study)
    words = ("tune", "digits", "--epochs", 3, "--out", study, "--json")
    code, out, _ = run(*words, "--trials", 4)
    document = json.loads(out)
    assert (code, document["trials"]) == (0, 4)
    assert trials_of(study) == before
    assert document["scores"] == Predictor.load(study).scores
    assert {f"validation {document['metric']}", "test accuracy"} <= set(document["scores"])
    code, out, _ = run(*words, "--trials", 5)
    assert (code, json.loads(out)["trials"]) == (0, 5)
    finished = [trial for trial in before if trial.state.is_finished()]
    assert [trial for trial in trials_of(study) if trial.number in {t.number for t in finished}] == finished


def test_another_search_in_the_same_folder_is_refused(study, run, folder):
    code, _, err = run("tune", "digits", "--epochs", 3, "--trials", 4, "--out", study, "--seed", 7)
    assert code == 2
    assert "holds another search" in err
    assert "seed was 0 and is 7" in err


def test_tune_with_folds_on_numbers(run, folder, tmp_path):
    words = ("--target", "price", "--folds", 3, "--trials", 2, "--jobs", 1, "--out", tmp_path)
    code, out, err = run("tune", folder / "prices.csv", *words, "--epochs", 3)
    assert code == 0
    assert "Best settings of 2 trials" in out
    assert "test mae" in out
    assert "best validation score" in err
    code, out, _ = run("evaluate", tmp_path, folder / "prices.csv", "--json")
    assert code == 0


class Terminal:
    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text
        return len(text)

    def isatty(self):
        return True

    def flush(self):
        pass


def test_progress_on_a_terminal(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    assert cli.main(["tune", "digits", "--trials", "2", "--epochs", "2", "--out", str(tmp_path)]) == 0
    assert "best validation score" in screen.text
    assert screen.text.rstrip().endswith(f"model, settings, study and report are in {tmp_path}")
    assert "validation score" not in capsys.readouterr().out


def test_tune_that_is_interrupted_shows_the_best_so_far(run, tmp_path, monkeypatch):
    seen = []

    def interrupt(self, study, trial):
        seen.append(trial.number)
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli.SearchProgress, "__call__", interrupt)
    code, out, err = run("tune", "digits", "--trials", 50, "--epochs", 3, "--jobs", 1, "--quiet", "--out", tmp_path)
    assert code == 130
    assert "test accuracy" in out
    assert "interrupted: this is the best so far; the same command goes on" in err
    assert Predictor.load(tmp_path).scores["test accuracy"] > 0.3


def test_trials_are_stacked_if_asked_for(run, tmp_path):
    words = ("--trials", 10, "--epochs", 1, "--jobs", 1, "--quiet", "--json")
    code, out, _ = run("tune", "digits", *words, "--stack", 4, "--out", tmp_path)
    assert code == 0 and json.loads(out)["trials"] == 10
    code, _, err = run("tune", "digits", *words, "--stack", "some", "--out", tmp_path)
    assert code == 2 and "wanted a whole number of at least 1, 'auto' or 'off'" in err
    for text, stack in (("auto", "auto"), ("off", False), ("3", 3)):
        assert make_parser("tune").parse_args(["tune", "digits", "--stack", text]).stack == stack


# ------------------------------------------------------------------------------- killed and interrupted


def start(*words):
    command = [sys.executable, "-m", "tuner.cli", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_trials(process, folder, wanted):
    """The trials, once `wanted` of them are finished."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "study.db").exists():
            try:
                finished = [trial for trial in trials_of(folder) if trial.state.is_finished()]
            except (KeyError, ValueError, tuner.StorageError):  # being made
                finished = []
            if len(finished) >= wanted:
                return finished
        time.sleep(0.02)
    raise AssertionError(f"no {wanted} trials in time: {process.communicate()}")


@pytest.mark.skipif(os.name != "posix", reason="kill -9 and SIGINT are POSIX")
def test_kill_9_loses_and_repeats_no_trial(tmp_path):
    words = ("tune", "digits", "--trials", "12", "--epochs", "3", "--jobs", "2", "--out", tmp_path, "--json", "--quiet")
    process = start(*words)
    finished = wait_for_trials(process, tmp_path, 3)
    process.kill()
    process.communicate()
    before = {trial.number: trial for trial in trials_of(tmp_path)}
    again = start(*words)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    after = {trial.number: trial for trial in trials_of(tmp_path)}
    assert sorted(after) == list(range(12))
    assert json.loads(out)["trials"] == 12
    for trial in finished:
        assert after[trial.number] == before[trial.number] == trial
    for trial in before.values():
        assert after[trial.number].params == trial.params
        assert after[trial.number].datetime_start == trial.datetime_start


@pytest.mark.skipif(os.name != "posix", reason="kill -9 and SIGINT are POSIX")
def test_ctrl_c_ends_cleanly_with_the_best_so_far(tmp_path):
    process = start("tune", "digits", "--minutes", "5", "--epochs", "3", "--out", tmp_path)
    wait_for_trials(process, tmp_path, 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Best settings of" in out
    assert "test accuracy" in out
    assert err.rstrip().endswith("the same command goes on with the search")
    assert "Traceback" not in err
    assert Predictor.load(tmp_path).scores["test accuracy"] > 0.3


# ------------------------------------------------------------------------------------------- doctor


def test_doctor(run):
    code, out, err = run("doctor")
    assert err == ""
    assert "backend reference" in out
    code_json, text, _ = run("doctor", "--json")
    report = json.loads(text)
    assert code == code_json == (0 if report["ok"] else 1)
    assert report["backends"]["reference"]["test"]["error"] is None
    assert report["libraries"]["numpy"] == np.__version__
    assert report["backends"]["cupy_gpu"]["reason"]


def test_doctor_finds_what_is_wrong(run, monkeypatch):
    from kernels import registry
    from nanonet import doctor

    monkeypatch.setattr(registry, "available", lambda: {"numba_cpu": "numba is not installed", "reference": None})
    monkeypatch.setattr(registry, "_cpu", registry.get("reference"))
    monkeypatch.delenv("NANONET_BACKEND", raising=False)
    train = doctor._train
    monkeypatch.setattr(doctor, "_train", lambda name: train(name) * np.nan)
    code, out, _ = run("doctor")
    assert code == 1
    assert "FAILED its test: a training step gives wrong numbers" in out
    assert "only the slow reference backend works: numba is not installed" in out


def test_doctor_names_a_cache_that_cannot_be_written(run, monkeypatch):
    pytest.importorskip("llvmlite")
    from kernels.numba_cpu import compiler

    monkeypatch.setattr(compiler, "cache_folder", lambda: (None, "/nowhere cannot be written"))
    code, out, _ = run("doctor", "--json")
    report = json.loads(out)
    assert (code, report["cache"]["writable"]) == (1, False)
    assert any("/nowhere cannot be written" in problem for problem in report["problems"])


# ------------------------------------------------------------------------------------------- bad input


def bad(words, message):
    return pytest.param(words.split(), message, id=words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        bad("train nowhere.csv --target a", "nowhere.csv: cannot be read"),
        bad("train nowhere", "nowhere: wanted digits, a .csv file with a header"),
        bad("train {folder}/flowers.csv", "no target column given; wanted one of length, colour, kind"),
        bad("train {folder}/flowers.csv --target size", "there is no target column 'size'"),
        bad("train {folder}/flowers.csv --target kind --task regression", "regression"),
        bad("train digits --target kind", "--target: digits has no column 'kind'; it is for CSV files"),
        bad("tune digits --task regression", "--task: digits is for classification, not for regression"),
        bad("train digits --epochs many", "epochs is 'many'; wanted an integer in [1, inf)"),
        bad("train digits --dropout 1.5", "dropout is 1.5; wanted a number in [0, 1)"),
        bad("train digits --optimizer adma", "optimizer is 'adma' (did you mean 'adam'?)"),
        bad("train digits --hidden 12x", "hidden is '12x'; wanted widths such as 128,64, or none"),
        bad("train digits --settings nowhere.json", "--settings nowhere.json: there is no such file"),
        bad("train digits --settings {folder}/flowers.csv", "flowers.csv: Expecting value"),
        bad("train digits --settings {folder}/list.json", "list.json: wanted an object"),
        bad("train digits --settings {folder}/odd.json", "setting is 'rate'"),
        bad("train digits --validation 0.6 --test 0.6", "together wanted less than 1"),
        bad("train digits --test 1", "argument --test: got '1', wanted a share of the rows in [0, 0.9]"),
        bad("tune digits --trials 0", "argument --trials: got '0', wanted a whole number of at least 1"),
        bad("tune digits --minutes -1", "argument --minutes: got '-1', wanted a number above 0"),
        bad("tune digits --minutes inf", "argument --minutes: got 'inf'"),
        bad("tune digits --folds 1", "argument --folds: got '1', wanted a whole number of at least 2"),
        bad("tune digits --jobs 0", "argument --jobs: got '0', wanted a whole number of at least 1, or -1"),
        bad("tune digits --seed -3", "argument --seed: got '-3'"),
        bad("tune digits --test 0", "test is 0.0; wanted a share of the rows between 0 and 1"),
        bad("tune", "the following arguments are required: DATA"),
        bad("tune digits --trails 3", "unrecognized arguments: --trails 3"),
        bad("frobnicate", "invalid choice: 'frobnicate'"),
        bad("evaluate nowhere digits", "nowhere: there is no such file; wanted a model"),
        bad("evaluate {folder}/flowers.csv digits", "flowers.csv: not a checkpoint"),
        bad("evaluate {folder}/f digits", "digits: has the classes"),
        bad("predict {folder}/f digits", "x has rows of shape (64,); wanted (3,)"),
        bad("predict {folder}/f {folder}/prices.csv", "there is no column 'length'"),
        bad("evaluate {folder}/f {folder}/bare.csv", "has no targets; wanted the column 'kind'"),
        bad("evaluate {folder}/f {folder}/tulip.csv", "'tulip'"),
    ],
)
def test_bad_input_is_named(run, folder, tmp_path, monkeypatch, words, message):
    (folder / "list.json").write_text("[1, 2]")
    (folder / "odd.json").write_text('{"rate": 3}')
    (folder / "bare.csv").write_text("length,colour\n1.5,red\n")
    (folder / "tulip.csv").write_text("length,colour,kind\n1.5,red,tulip\n")
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*(word.format(folder=folder) for word in words))
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_errors_are_json_too(run):
    code, out, err = run("evaluate", "nowhere", "digits", "--json")
    document = json.loads(out)
    assert code == document["exit_code"] == 2
    assert document["error"] in err


def test_a_folder_that_cannot_be_made_fails(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = run("train", "digits", "--out", tmp_path / "file")
    assert (code, out) == (1, "")
    assert "file" in err


# ------------------------------------------------------------------------------------------- console


def test_json_knows_no_nan(capsys):
    Console(json=True).document({"a": float("nan"), "b": np.float32(0.5), "c": (np.arange(2), float("inf")), 1: None})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": 0.5, "c": [[0, 1], None], "1": None}
    assert jsonable(Path("a")) == "a"


def test_numbers_for_reading():
    assert [number(v) for v in (0.97512, 0.0, 1.234e-7, 123456.7, 12, "x")] == [
        "0.9751",
        "0.0000",
        "1.23e-07",
        "1.23e+05",
        "12",
        "x",
    ]


def test_first_use_is_told(monkeypatch, tmp_path):
    pytest.importorskip("llvmlite")
    from kernels.numba_cpu import compiler
    from nanonet.doctor import first_use

    monkeypatch.setattr(compiler, "cache_folder", lambda: (tmp_path, ""))
    monkeypatch.delenv("NANONET_BACKEND", raising=False)
    assert first_use()
    (tmp_path / "kernel.o").write_bytes(b"")
    assert not first_use()
    monkeypatch.setenv("NANONET_BACKEND", "reference")
    (tmp_path / "kernel.o").unlink()
    assert not first_use()
