"""`tuner.tune`: from rows to a tuned, trained and tested network."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tuner
from nanonet import data
from nanonet.errors import DataError, OptionError
from nanonet.settings import Settings
from tuner import Categorical, Float, Space, StorageError, TrialState
from tuner.tune import TrainingRuns, settings_space
from tuner.tuning.parts import Parts

ROOT = Path(__file__).parents[1]


def blobs(rows=240, classes=3, seed=0):
    """Overlapping clouds of points in five dimensions."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    centres = 2.5 * rng.standard_normal((classes, 5))
    return (100 + 10 * (centres[y] + rng.standard_normal((rows, 5)))).astype(np.float32), y


def line(rows=240, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 4))
    return x, 1000 + 50 * (x @ [1.0, -2.0, 0.5, 0.0]) + rng.standard_normal(rows)


QUICK = {"trials": 5, "max_epochs": 6, "n_jobs": 1, "validation": "split"}


# ------------------------------------------------------------------------------------------ the result


def test_classes_are_learned_and_the_result_tells_all_about_it():
    x, y = blobs()
    result = tuner.tune(x, y, **QUICK)
    assert result.metric == "accuracy"
    assert result.direction == "maximize"
    assert result.validation_score > 0.85
    assert result.test_score > 0.8
    assert result.test_score == result.test_metrics["accuracy"]
    assert isinstance(result.settings, Settings)
    assert len(result.study.trials) == 5
    assert 1 <= result.epochs <= 6
    assert result.run.epoch == result.epochs
    assert result.rows == {"training": 144, "development": 192, "test": 48}
    assert np.mean(result.predict(x) == y) > 0.8
    assert result.scores(x[:7]).shape == (7, 3)
    for word in ("validation accuracy", "test accuracy", "learning_rate", "trials"):
        assert word in result.report()


def test_values_are_learned_in_their_own_unit():
    x, y = line()
    result = tuner.tune(x, y, **QUICK | {"max_epochs": 18}, metric="mae")
    spread = np.abs(y - y.mean()).mean()
    assert result.predict(x).shape == y.shape
    assert np.abs(result.predict(x) - y).mean() < spread / 2
    assert result.direction == "minimize"
    assert 0.1 < result.validation_score / result.test_score < 10
    assert result.test_metrics["r2"] > 0.6


def test_names_of_classes_come_back():
    x, y = blobs(classes=2)
    names = np.array(["no", "yes"])[y]
    result = tuner.tune(x, names, **QUICK, metric="f1")
    assert set(result.predict(x)) <= {"no", "yes"}
    assert np.mean(result.predict(x) == names) > 0.8
    assert "f1" in result.test_metrics


def test_folds_take_the_place_of_the_validation_part():
    x, y = blobs()
    result = tuner.tune(x, y, **QUICK | {"trials": 3, "validation": 3})
    assert len(tuner.tune(x, y, trials=1, max_epochs=1).run.history) == 1
    assert result.rows == {"training": 128, "development": 192, "test": 48}
    assert result.test_score > 0.8


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_same_seed_gives_the_same_bits(n_jobs):
    x, y = blobs()
    options = {"trials": 9, "max_epochs": 6, "n_jobs": n_jobs, "seed": 3}
    one, other = (tuner.tune(x, y, **options | more) for more in ({}, {"n_jobs": 1}))
    assert [t.intermediate_values for t in one.study.trials] == [t.intermediate_values for t in other.study.trials]
    for a, b in zip(one.model.state_dict().values(), other.model.state_dict().values()):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_metric_of_ones_own():
    x, y = blobs()

    def errors(y_true, scores):
        return float(np.sum(scores.argmax(axis=1) != y_true))

    result = tuner.tune(x, y, **QUICK | {"trials": 3}, metric=errors, direction="minimize")
    assert result.metric == "errors"
    assert result.test_score == round(48 * (1 - result.test_metrics["accuracy"]))
    with pytest.raises(OptionError, match="direction is None"):
        tuner.tune(x, y, metric=errors)


# -------------------------------------------------------------------------------------------- honesty


def test_the_test_part_is_untouched_until_the_end(monkeypatch):
    x, y = blobs()
    dataset = data.from_arrays(x, y)
    _, _, apart = data.split_rows(dataset.y, 0.2, 0.2, seed=0)
    plain = tuner.tune(x, y, **QUICK)
    spoiled = x.copy()
    spoiled[apart] = 1e6
    other = tuner.tune(spoiled, y, **QUICK)
    assert [t.intermediate_values for t in plain.study.trials] == [t.intermediate_values for t in other.study.trials]
    np.testing.assert_array_equal(plain.standardizer.mean, other.standardizer.mean)
    assert other.test_score < 0.6 < plain.test_score


def test_the_validation_part_does_not_leak_into_the_scaling_of_the_training_part():
    x, y = blobs()
    train, held, _ = data.split_rows(y, 0.2, 0.2, seed=0)
    spoiled = x.copy()
    spoiled[held] = 1e6
    folds = [Parts.of(data.from_arrays(rows, y), "split", 0.2, 0).folds[0] for rows in (x, spoiled)]
    np.testing.assert_array_equal(folds[0].x, folds[1].x)
    np.testing.assert_allclose(folds[0].x.mean(axis=0), 0, atol=1e-4)
    assert len(folds[0].x) == len(train)


def test_a_data_sets_own_test_part_is_used():
    x, y = blobs()
    x_test, y_test = blobs(60, seed=0)
    result = tuner.tune(data.from_arrays(x, y, x_test=x_test, y_test=y_test), **QUICK | {"trials": 2})
    assert result.rows["test"] == 60
    assert result.rows["development"] == 240


# ------------------------------------------------------------------------------------------ going on


def test_a_search_in_a_folder_goes_on_where_it_ended(tmp_path):
    x, y = blobs()
    whole = tuner.tune(x, y, **QUICK | {"trials": 9})
    tuner.tune(x, y, **QUICK | {"trials": 4}, out=tmp_path / "out").study.storage.close()
    assert (tmp_path / "out" / "study.db").exists()
    result = tuner.tune(x, y, **QUICK | {"trials": 9}, out=tmp_path / "out")
    assert [t.params for t in result.study.trials] == [t.params for t in whole.study.trials]
    again = tuner.tune(x, y, **QUICK | {"trials": 9}, out=tmp_path / "out")
    assert [t.datetime_complete for t in again.study.trials] == [t.datetime_complete for t in result.study.trials]
    for key, value in result.model.state_dict().items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(again.model.state_dict()[key]))
    for changed in ({"seed": 1}, {"validation": 2}, {"metric": "loss", "direction": "maximize"}, {"max_epochs": 9}):
        with pytest.raises(StorageError, match=f"holds another search: .*{next(iter(changed))} was"):
            tuner.tune(x, y, **QUICK | changed, out=tmp_path / "out")
    with pytest.raises(StorageError, match="data was"):
        tuner.tune(x + 1, y, **QUICK, out=tmp_path / "out")
    for opened in (result, again):
        opened.study.storage.close()


SEARCH = """
import sys, tuner
from nanonet import data

def tell(study, trial):
    print(trial.number, trial.steps, flush=True)

digits = data.load("digits")
tuner.tune(digits, trials=12, max_epochs=12, validation="split", n_jobs=1, out=sys.argv[1], callbacks=[tell])
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are sent as POSIX has them")
def test_a_killed_search_goes_on_bit_for_bit(tmp_path):
    def launch(folder):
        return subprocess.Popen(
            [sys.executable, "-c", SEARCH, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )

    for segments in (5, 9):
        process = launch(tmp_path / "killed")
        for _ in range(segments):
            assert process.stdout.readline()
        process.kill()
        process.communicate()
    kept = tuner.load_study(storage=tmp_path / "killed" / "study.db")
    done = [t for t in kept.trials if t.state.is_finished()]
    kept.storage.close()
    for folder in ("killed", "whole"):
        process = launch(tmp_path / folder)
        process.communicate()
        assert process.returncode == 0
    killed, whole = (tuner.load_study(storage=tmp_path / folder / "study.db") for folder in ("killed", "whole"))
    assert [(t.state, t.params, t.intermediate_values) for t in killed.trials] == [
        (t.state, t.params, t.intermediate_values) for t in whole.trials
    ]
    assert [killed.trials[t.number] for t in done] == done
    for study in (killed, whole):
        study.storage.close()


def test_ctrl_c_ends_with_the_best_so_far():
    x, y = blobs()

    def interrupt(study, trial):
        if trial.number == 3:
            raise KeyboardInterrupt

    result = tuner.tune(x, y, **QUICK | {"trials": 30}, callbacks=[interrupt])
    assert result.interrupted
    assert 1 <= len(result.study.trials) <= 5
    assert result.test_score > 0.6


def test_ctrl_c_before_there_is_anything_is_ctrl_c(monkeypatch):
    x, y = blobs()

    def interrupted(self, trial):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingRuns, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuner.tune(x, y, **QUICK)


def test_time_is_kept():
    x, y = blobs()
    tuner.tune(x, y, **QUICK | {"trials": 1})  # compile first
    result = tuner.tune(x, y, minutes=1 / 60, max_epochs=6)
    assert result.seconds < 4
    assert len(result.study.trials) > 1


# ------------------------------------------------------------------------------------------ the space


def test_the_space_is_the_one_that_settings_declare():
    space = settings_space()
    assert {"layers", "learning_rate", "optimizer", "batch_size"} <= set(space.names)
    assert space.conditions["momentum"] == {"parent": "optimizer", "in": ["sgd"]}
    assert Settings.from_search(space.defaults[0]) == Settings()
    rng = np.random.default_rng(0)
    for _ in range(100):
        settings = space.decode(rng.random(space.dimensions))
        assert len(Settings.from_search(settings).hidden) == settings["layers"]
    assert Space.from_json(space.to_json()) == space


@pytest.mark.parametrize(
    ("rows", "metric", "smoothing"), [(blobs, "accuracy", 0.1), (blobs, "loss", 0.0), (line, "mae", None)]
)
def test_labels_are_smoothed_at_first_where_classes_count(rows, metric, smoothing):
    result = tuner.tune(*rows(), metric=metric, **{**QUICK, "trials": 2})
    assert [trial.params.get("label_smoothing") for trial in result.study.trials] == [smoothing] * 2


def test_some_settings_may_be_searched_and_the_others_given():
    x, y = blobs()
    base = Settings(hidden=(7,), optimizer="sgd", learning_rate=0.1)
    result = tuner.tune(x, y, **QUICK | {"trials": 3}, space=["dropout", "batch_size"], base=base)
    assert result.settings.hidden == (7,)
    assert result.settings.optimizer == "sgd"
    assert set(result.study.trials[1].params) == {"dropout", "batch_size"}
    own = Space({"learning_rate": Float(0.01, 0.02), "activation": Categorical(["tanh"])})
    result = tuner.tune(x, y, **QUICK | {"trials": 2}, space=own)
    assert 0.01 <= result.settings.learning_rate <= 0.02
    assert result.settings.activation == "tanh"


# -------------------------------------------------------------------------------------------- refusals


def test_trials_that_diverge_fail_and_are_never_best():
    x, y = blobs()
    space = Space({"learning_rate": Categorical([0.05, 1e30])}, defaults=[{"learning_rate": 1e30}])
    base = Settings(optimizer="sgd", momentum=0.0)
    with np.errstate(all="ignore"):
        result = tuner.tune(x, y, **QUICK, space=space, base=base)
        assert result.study.trials[0].state is TrialState.FAIL
        assert "NaN" in result.study.trials[0].error
        assert result.settings.learning_rate == 0.05
        with pytest.raises(DataError, match="no trial gave a finite accuracy: a value is NaN"):
            tuner.tune(x, y, **QUICK | {"trials": 1}, space=space, base=base)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"minutes": 0}, OptionError, "minutes is 0; wanted a number above 0"),
        ({"trials": 0}, OptionError, "trials is 0; wanted a whole number of at least 1"),
        ({"validation": 1}, OptionError, "validation is 1; wanted 'auto', 'split' or a number of folds"),
        ({"validation": "folds"}, OptionError, "validation is 'folds'; wanted 'auto', 'split'"),
        ({"test": 1.5}, OptionError, "test is 1.5; wanted a share"),
        ({"max_epochs": 0}, OptionError, "max_epochs is 0"),
        ({"metric": "acuracy"}, OptionError, "acuracy"),
        ({"space": ["learning_rates"]}, OptionError, "learning_rates"),
    ],
)
def test_options_are_checked(options, error, message):
    x, y = blobs()
    with pytest.raises(error, match=message):
        tuner.tune(x, y, **QUICK | options)


def test_data_is_checked():
    x, y = blobs()
    with pytest.raises(DataError, match="y is missing"):
        tuner.tune(data.from_arrays(x, y).__class__(x=x, y=None, task="classification"), **QUICK)
    x[3, 2] = np.nan
    with pytest.raises(DataError, match="x holds nan in row 3"):
        tuner.tune(x, y, **QUICK)


def test_tune_can_be_called_however_it_was_imported():
    code = "from tuner.tune import tune; import tuner; assert callable(tuner.tune); from tuner import TuneResult"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    code = "import tuner; assert callable(tuner.tune); from tuner.tune import tune; assert callable(tuner.tune)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
