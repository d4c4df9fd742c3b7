"""`tuner.tune` with constraints on what is not an objective: measured with them, kept, and kept to."""

import numpy as np
import pytest

import tuner
from nanonet import data
from nanonet.errors import DataError
from nanonet.training import Run
from tuner import Float, Int, Resumable, Space, TrialState
from tuner.pruners import NopPruner
from tuner.samplers import AutoSampler, RandomSampler
from tuner.tuning.parts import Parts

SPACE = Space({"layers": Int(1, 1), "width_1": Int(2, 32, log=True), "learning_rate": Float(1e-4, 0.1, log=True)})
QUICK = {"trials": 8, "max_epochs": 4, "n_jobs": 1, "validation": "split", "space": SPACE}


def blobs(rows=200, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    centres = 1.5 * rng.standard_normal((classes, 5))
    return (centres[y] + rng.standard_normal((rows, 5))).astype(np.float32), y


def line(rows=200, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 4))
    return x, 1000 + 50 * (x @ [1.0, -2.0, 0.5, 0.0]) + rng.standard_normal(rows)


def complete(study):
    return [t for t in study.trials if t.state is TrialState.COMPLETE]


def test_it_is_measured_in_the_datas_unit_and_bounds_the_result():
    x, y = line()
    options = QUICK | {"sampler": RandomSampler(seed=0), "pruner": NopPruner(), "metric": "loss"}
    free = tuner.tune(x, y, **options, constraints={"mae": "<= 1e9"})
    parts = Parts.of(data.from_arrays(x, y), "split", 0.2, 0)
    fold = parts.folds[0]
    for trial in free.study.trials:
        run = Run(free.settings.from_search(trial.params, free.settings), fold.x, fold.y)
        run.advance(4)
        targets = fold.y_validation * fold.scale
        errors = np.abs(run.predict(fold.x_validation)[:, 0] * fold.scale - targets)
        assert trial.user_attrs["mae"] == pytest.approx(errors.mean(), rel=1e-4)
        assert trial.user_attrs["constraints"] == pytest.approx([(errors.mean() - 1e9) / 1e9], rel=1e-4)
    maes = sorted(t.user_attrs["mae"] for t in free.study.trials)
    bound = (maes[3] + maes[4]) / 2
    bounded = tuner.tune(x, y, **options, constraints={"mae": f">= {bound}"})  # the better ones are not allowed
    allowed = [t for t in bounded.study.trials if t.user_attrs["mae"] >= bound]
    assert [t.params for t in bounded.study.trials] == [t.params for t in free.study.trials]
    assert len(allowed) == 4 and free.best_trial.number not in [t.number for t in allowed]
    assert bounded.best_trial.number == min(allowed, key=lambda t: t.value).number
    assert bounded.watched == {"mae": bounded.best_trial.user_attrs["mae"]}
    assert "constrained mae" in bounded.report()
    frame = pytest.importorskip("pandas") and bounded.study.trials_dataframe()
    assert list(frame["user_attrs_mae"]) == [t.user_attrs["mae"] for t in bounded.study.trials]


@pytest.mark.parametrize("validation", ["split", 3])
def test_folds_are_averaged_and_every_stretch_keeps_its_last(validation, tmp_path):
    """An attack of size 0 leaves the accuracy, which is the objective as well."""
    x, y = blobs(300)
    constraints = {"fgsm(0)": ">= 0", "accuracy": ">= 0.5"}
    options = QUICK | {"trials": 13, "max_epochs": 18, "validation": validation, "constraints": constraints}
    result = tuner.tune(x, y, **options, out=tmp_path)
    for trial in result.study.trials:
        last = trial.intermediate_values[trial.steps]
        assert trial.user_attrs["fgsm(0)"] == pytest.approx(trial.user_attrs["accuracy"], abs=1e-12)
        assert trial.user_attrs["accuracy"] == pytest.approx(last, abs=1e-5)
    assert len({t.steps for t in result.study.trials}) > 1
    result.study.storage.close()


def test_what_is_just_reached_is_reached():
    x, y = blobs()
    free = tuner.tune(x, y, **QUICK, constraints={"accuracy": ">= 0"})
    best = max(t.user_attrs["accuracy"] for t in complete(free.study))
    bounded = tuner.tune(x, y, **QUICK, constraints={"accuracy": f">= {best!r}"}, sampler=AutoSampler(seed=0))
    assert bounded.watched["accuracy"] >= best
    with pytest.raises(DataError, match="none that keeps the constraints"):
        tuner.tune(x, y, **QUICK | {"trials": 2}, constraints={"noise(0.5)": ">= 1.01"})


def test_the_front_keeps_constraints_as_well():
    x, y = blobs()
    options = QUICK | {"metric": ["accuracy", "parameters"], "sampler": RandomSampler(seed=0)}
    free = tuner.tune(x, y, **options, constraints={"loss": "<= 1e9"})
    losses = sorted(t.user_attrs["loss"] for t in complete(free.study))
    bound = losses[len(losses) // 2]
    result = tuner.tune(x, y, **options, constraints={"loss": f"<= {bound}"})
    assert result.front and all(m.watched["loss"] <= bound for m in result.front)
    assert any(m.watched["loss"] > bound for m in free.front)


def test_several_data_sets_count_by_the_mean():
    sets = [data.from_arrays(*blobs(200, 3, 0)), data.from_arrays(*blobs(160, 2, 1))]
    result = tuner.tune(sets, **QUICK | {"trials": 2}, constraints={"accuracy": ">= 0"})
    accuracies = []
    for dataset in sets:
        fold = Parts.of(dataset, "split", 0.2, 0).folds[0]
        validation = fold.x_validation, fold.y_validation
        run = Run(result.settings, fold.x, fold.y, validation, classes=dataset.outputs)
        accuracies.append(run.advance(result.epochs)[-1]["val_accuracy"])
    assert result.watched["accuracy"] == pytest.approx(np.mean(accuracies))


class Counting(Resumable):
    """Its values are x, and its state is how many steps are done."""

    max_steps = 9

    def start(self, trial):
        return [trial.params["x"], 0]

    def advance(self, state, steps):
        state[1] += steps
        return state, [state[0]] * steps

    def remarks(self, state):
        return {"done": state[1], "twice": 2 * state[0]}


def test_remarks_are_kept_with_the_trial_before_it_is_judged():
    def allowed(trial):
        return [trial.user_attrs["twice"] - 1.0]

    study = tuner.create_study(
        space=Space({"x": Float(0, 1)}), sampler=RandomSampler(seed=0), constraints_func=allowed, direction="maximize",
        pruner=tuner.pruners.SuccessiveHalvingPruner(1, reduction_factor=3),
    )  # fmt: skip
    study.optimize(Counting(), n_trials=9)
    for trial in study.trials:
        assert trial.user_attrs["done"] == trial.steps or trial.state is TrialState.COMPLETE
        assert trial.user_attrs["twice"] == 2 * trial.params["x"]
        assert trial.state is TrialState.PAUSED or trial.feasible == (trial.params["x"] <= 0.5)
    done = [t for t in study.trials if t.state is TrialState.COMPLETE]
    assert done and all(t.user_attrs["done"] == 9 for t in done)
