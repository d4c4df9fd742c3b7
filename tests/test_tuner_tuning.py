"""`tuner.tune` beyond the plain case: several objectives, constraints, validation, finalists, data sets, warm start."""

import numpy as np
import pytest

import tuner
from nanonet import data
from nanonet.errors import DataError, OptionError
from nanonet.settings import Settings
from nanonet.training import Run
from tuner import Categorical, Float, Int, Space, StorageError, TrialState
from tuner.cli import main
from tuner.samplers import QMCSampler
from tuner.tune import TrainingRuns
from tuner.tuning.finalists import SEEDS
from tuner.tuning.parts import Parts

WIDTHS = Space({"layers": Categorical([1]), "width_1": Int(2, 64, log=True)}, defaults=[{"layers": 1, "width_1": 8}])
QUICK = {"max_epochs": 4, "n_jobs": 1, "validation": "split", "space": WIDTHS}


def blobs(rows=200, classes=3, seed=0):
    """Overlapping clouds of points in five dimensions."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    centres = 2.0 * rng.standard_normal((classes, 5))
    return (centres[y] + rng.standard_normal((rows, 5))).astype(np.float32), y


# ---------------------------------------------------------------------------------- several objectives


def test_several_objectives_give_a_front():
    x, y = blobs()
    result = tuner.tune(x, y, trials=9, metric=["accuracy", "parameters", "fgsm(0.2)"], **QUICK)
    assert result.study.directions == ("maximize", "minimize", "maximize")
    done = [t for t in result.study.trials if t.state is TrialState.COMPLETE]
    for trial in done:
        width = trial.params["width_1"]
        assert trial.values[1] == 5 * width + width + 3 * width + 3
        assert trial.values[2] <= trial.values[0] + 1e-3
    points = np.array([t.values for t in done]) * [-1, 1, -1]
    best = {
        t.number for t, p in zip(done, points, strict=True) if not any((q <= p).all() and (q < p).any() for q in points)
    }
    assert {m.trial.number for m in result.front} == best
    accuracies = [m.values["accuracy"] for m in result.front]
    assert accuracies == sorted(accuracies, reverse=True)
    assert result.best_trial.number == result.front[0].trial.number
    assert result.settings == result.front[0].settings
    assert "front, trial" in result.report()
    smallest = tuner.tune(
        x, y, trials=9, metric=["accuracy", "parameters"],
        choose=lambda front: min(front, key=lambda m: m.values["parameters"]), **QUICK,
    )  # fmt: skip
    widths = [t.params["width_1"] for t in smallest.study.trials if t.state is TrialState.COMPLETE]
    assert smallest.settings.hidden == (min(widths),)
    with pytest.raises(OptionError, match="choose gave 3"):
        tuner.tune(x, y, trials=2, metric=["accuracy", "parameters"], choose=lambda front: 3, **QUICK)


def test_constraints_bound_what_is_found(monkeypatch):
    x, y = blobs()
    starts = []
    begin = TrainingRuns.start
    monkeypatch.setattr(TrainingRuns, "start", lambda self, t: starts.append(t.number) or begin(self, t))
    result = tuner.tune(x, y, trials=9, constraints={"parameters": "<= 100", "latency": "<= 1"}, **QUICK)
    count = {t.number: 9 * t.params["width_1"] + 3 for t in result.study.trials}
    assert sorted(starts) == [number for number, size in count.items() if size <= 100]
    assert 0 < len(starts) < 9
    assert count[result.best_trial.number] <= 100
    assert all(t.state is TrialState.PRUNED for t in result.study.trials if count[t.number] > 100)
    with pytest.raises(DataError, match="none that keeps the constraints"):
        tuner.tune(x, y, trials=3, constraints={"accuracy": ">= 1.5"}, **QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": ["accuracy", "accuracy"]}, "wanted each objective once"),
        ({"metric": ["accuracy", "loss"], "direction": ["maximize"]}, "2 objectives and direction 1"),
        ({"metric": ["accuracy", "loss"], "finalists": 3}, "finalists is 3; with several objectives wanted 1"),
        ({"finalists": 0}, "finalists is 0"),
        ({"metric": []}, "0 objectives"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(OptionError, match=message):
        tuner.tune(*blobs(), trials=1, **QUICK | options)


# ------------------------------------------------------------------------------------------ validation


def parts(validation, groups=None):
    """The parts of 60 rows that hold their own number; a quarter is for testing."""
    x = np.stack([np.arange(60), np.ones(60)], axis=1)
    return Parts.of(data.from_arrays(x, np.arange(60) % 3), validation, 0.25, 0, groups)


def test_groups_are_in_one_part_only():
    groups = np.arange(60) // 4
    for validation in ("split", 3, data.GroupKFold(3)):
        found = parts(validation, groups)
        development, test = set(found.x[:, 0].astype(int) // 4), set(found.x_test[:, 0].astype(int) // 4)
        assert not development & test
        assert 2 <= len(test) <= 6
        assert len(found.folds) == (1 if validation == "split" else 3)
        for fold in found.folds:
            assert len(fold.y) + len(fold.y_validation) == len(found.y)
            both = np.concatenate([fold.x, fold.x_validation])[:, 0]
            rows = np.sort(found.x[:, 0])[np.argsort(np.argsort(both))].astype(int)  # scaling keeps the order
            assert not set(rows[: len(fold.x)] // 4) & set(rows[len(fold.x) :] // 4)
    with pytest.raises(DataError, match="groups has 3 entries and the data 60 rows"):
        parts("split", [1, 2, 3])


def test_time_goes_forward():
    found = parts(data.TimeSeriesSplit(4))
    np.testing.assert_array_equal(found.x_test[:, 0], np.arange(45, 60))
    assert [len(fold.y_validation) for fold in found.folds] == [9] * 4
    assert [len(fold.y) for fold in found.folds] == [9, 18, 27, 36]
    assert all(fold.x[:, 0].max() < fold.x_validation[:, 0].min() for fold in found.folds)


def test_pairs_of_rows_and_foreign_splitters():
    found = parts([(np.arange(0, 20), np.arange(20, 30)), (np.arange(10, 30), np.arange(0, 10))])
    np.testing.assert_array_equal(found.x_test[:, 0], np.arange(30, 60))
    assert [(len(f.y), len(f.y_validation)) for f in found.folds] == [(20, 10), (20, 10)]
    model_selection = pytest.importorskip("sklearn.model_selection")
    found = parts(model_selection.ShuffleSplit(2, test_size=9, random_state=0))
    assert [len(f.y_validation) for f in found.folds] == [9, 9]
    with pytest.raises(DataError, match="both trained and validated on"):
        parts([(np.arange(20), np.arange(19, 30))])
    with pytest.raises(DataError, match="wanted numbers from 0 to 59"):
        parts([(np.arange(20), np.array([70]))])
    with pytest.raises(DataError, match="leave some out"):
        parts([(np.arange(30), np.arange(30, 60))])
    with pytest.raises(OptionError, match="validation is empty"):
        parts([])


def test_bad_settings_do_not_train_on_all_folds():
    """Small learning rates are hopeless: such trials end after the first fold. The others' values are the means over
    all folds."""
    x, y = blobs(300)
    space = Space({"learning_rate": Float(1e-9, 0.02, log=True)}, defaults=[{"learning_rate": 0.01}])
    options = {"trials": 13, "max_epochs": 18, "n_jobs": 1, "validation": 3, "space": space}
    result = tuner.tune(x, y, **options)
    first = result.study.pruner.scheduler().rungs[0]
    short = [t for t in result.study.trials if t.steps < first]
    assert short and all(t.steps == first // 3 for t in short)
    assert all(t.params["learning_rate"] < 3e-3 for t in short)
    assert result.best_trial.steps == 54 and result.epochs == 18
    found = Parts.of(data.from_arrays(x, y), 3, 0.2, 0)
    scores = []
    for fold in found.folds:
        run = Run(result.settings, fold.x, fold.y, (fold.x_validation, fold.y_validation), classes=3)
        scores.append(run.advance(18)[-1]["val_accuracy"])
    rows = [len(fold.y_validation) for fold in found.folds]
    assert result.validation_score == pytest.approx(np.average(scores, weights=rows), abs=1e-5)
    one, two = (tuner.tune(x, y, **options | {"n_jobs": n, "sampler": QMCSampler(seed=0)}) for n in (1, 2))
    assert [t.intermediate_values for t in one.study.trials] == [t.intermediate_values for t in two.study.trials]


# --------------------------------------------------------------------------------- schedules and rungs


def test_the_schedule_has_run_out_where_trials_are_compared():
    settings = Settings(schedule="cosine", epochs=54, restart=2)
    assert settings.cycle_ends() == [2, 6, 18, 54]
    factors = settings.learning_rate_schedule(10)(np.arange(540))
    wanted = np.concatenate([(1 + np.cos(np.pi * np.arange(n) / n)) / 2 for n in (20, 40, 120, 360)])
    np.testing.assert_allclose(factors, wanted, atol=1e-12)
    assert Settings(epochs=54, restart=2).cycle_ends() == [54]  # a constant rate has no course
    assert Settings(schedule="one_cycle", epochs=28, restart=1).cycle_ends() == [1, 3, 9, 28]
    x, y = blobs(1000)
    result = tuner.tune(x, y, trials=2, max_epochs=36, n_jobs=1, validation="split")
    assert result.settings.restart == result.study.pruner.scheduler().rungs[0]
    assert result.settings.cycle_ends() == result.study.pruner.scheduler().rungs


# -------------------------------------------------------------------------------------------- finalists


def test_finalists_are_trained_with_other_seeds_and_chosen_by_their_mean(tmp_path):
    x, y = blobs()
    options = {**QUICK, "trials": 7, "finalists": 2, "repeats": 3, "metric": "loss"}
    result = tuner.tune(x, y, out=tmp_path, **options)
    assert len(result.finalists) == 2
    fold = Parts.of(data.from_arrays(x, y), "split", 0.2, 0).folds[0]
    for finalist in result.finalists:
        settings = Settings.from_search(finalist.trial.params, result.settings)
        wanted = []
        for repeat in range(3):
            run = Run(settings.replace(seed=SEEDS * repeat), fold.x, fold.y, (fold.x_validation, fold.y_validation))
            wanted.append(run.advance(finalist.trial.steps)[-1]["val_loss"])
        np.testing.assert_allclose(finalist.scores, wanted, rtol=1e-6)
        assert finalist.spread == pytest.approx(np.std(wanted, ddof=1))
    assert result.finalists[0].mean <= result.finalists[1].mean
    assert result.best_trial.number == result.finalists[0].trial.number
    assert result.validation_score == result.finalists[0].mean
    assert "over 3 seeds" in result.report()
    result.study.storage.close()
    again = tuner.tune(x, y, out=tmp_path, **options)
    assert [f.scores for f in again.finalists] == [f.scores for f in result.finalists]
    again.study.storage.close()


# ------------------------------------------------------------------------------------ several data sets


def test_one_setting_for_several_data_sets():
    sets = [data.from_arrays(*blobs(200, 3, 0)), data.from_arrays(*blobs(160, 2, 1))]
    result = tuner.tune(sets, trials=4, **QUICK)
    assert len(result.others) == 1
    assert result.others[0].settings == result.settings
    assert result.scores(sets[0].x[:5]).shape == (5, 3)
    assert result.others[0].scores(sets[1].x[:5]).shape == (5, 2)
    score = []
    for dataset in sets:
        fold = Parts.of(dataset, "split", 0.2, 0).folds[0]
        run = Run(
            result.settings, fold.x, fold.y, (fold.x_validation, fold.y_validation), classes=dataset.outputs
        )  # fmt: skip
        accuracy = run.advance(result.epochs)[-1]["val_accuracy"]
        chance = np.mean(fold.y_validation == np.bincount(fold.y).argmax())
        score.append((accuracy - chance) / (1 - chance))
    assert result.validation_score == pytest.approx(np.mean(score), abs=1e-5)
    rng = np.random.default_rng(0)
    values = data.from_arrays(rng.standard_normal((50, 2)), rng.standard_normal(50))
    with pytest.raises(DataError, match="wanted one task"):
        tuner.tune([sets[0], values], trials=1)


# ------------------------------------------------------------------------------------------- warm start


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StorageError, match="there is no such file"):
        tuner.tune(*blobs(), trials=1, warm_start=[tmp_path / "none.db"], **QUICK)


def test_the_best_of_earlier_studies_come_first():
    x, y = blobs()
    studies = []
    for direction, worth in (("minimize", {8: 3, 16: 1, 32: 2, 128: 0}), ("maximize", {16: 7, 64: 9, 2: 5})):
        study = tuner.create_study(direction=direction)
        for width, value in worth.items():
            study.enqueue_trial({"layers": 1, "width_1": width})
            trial = study.ask({"layers": Categorical([1]), "width_1": Int(2, 256)})
            study.tell(trial, value)
        studies.append(study)
    result = tuner.tune(x, y, trials=6, warm_start=studies, **QUICK)
    # Places: 128 is outside; 16: 1/3 and 1/2; 32: 2/3; 8: 1; 64: 0; 2: 1.
    tried = [t.params["width_1"] for t in result.study.trials]
    assert tried[:3] == [64, 16, 32]
    assert set(tried[3:5]) == {8, 2}
    assert all(t.enqueued for t in result.study.trials[:5])
    study = studies[0]
    before = len(study.trials)
    tuner.tune(x, y, trials=2, warm_start=study, **QUICK)
    assert len(study.trials) == before


# ----------------------------------------------------------------------------------------- command line


def test_the_command_knows_metrics_constraints_and_finalists(tmp_path, capsys):
    x, y = blobs(120)
    table = tmp_path / "blobs.csv"
    lines = [",".join(map(str, [*row, label])) for row, label in zip(x, y, strict=True)]
    table.write_text("\n".join(["a,b,c,d,e,kind", *lines]))
    common = ["tune", str(table), "--target", "kind", "--trials", "3", "--epochs", "2", "--jobs", "1", "--json"]
    assert main([*common, "--out", str(tmp_path / "a"), "--metric", "f1", "--finalists", "2"]) == 0
    assert '"validation f1"' in capsys.readouterr().out
    trials = (tmp_path / "a" / "trials.csv").read_text().splitlines()
    assert {line.split(",")[3] for line in trials[1:]} <= {"1", "2"}
    several = ["--metric", "accuracy", "--metric", "parameters", "--constraint", "parameters<=1e6"]
    assert main([*common, "--out", str(tmp_path / "b"), *several]) == 0
    assert main([*common, "--out", str(tmp_path / "d"), "--constraint", "noise(0.5)>=0.1"]) == 0
    assert '"constrained noise(0.5)"' in capsys.readouterr().out
    assert main([*common, "--out", str(tmp_path / "c"), "--constraint", "parameters"]) == 2
    assert "wanted '<= number'" in capsys.readouterr().out
