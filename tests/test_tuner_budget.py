"""Limits of a study in steps, seconds and cost, of one call or of all."""

import math
import time
from types import SimpleNamespace

import pytest

import tuner
from tuner import Float, Resumable, Space, TrialPruned, TrialState
from tuner.pruners import NopPruner, SuccessiveHalvingPruner
from tuner.samplers import RandomSampler


class Walk(Resumable):
    max_steps = 9

    def start(self, trial):
        return trial.params["x"]

    def advance(self, state, steps):
        return state, [state] * steps


class Priced(Walk):
    """The steps of settings with a larger x cost more."""

    def cost(self, params, steps):
        return steps * (1 + params["x"])


def study_of(storage=None, pruner=None):
    return tuner.create_study(
        storage=storage,
        study_name="s",
        load_if_exists=True,
        sampler=RandomSampler(seed=1),
        pruner=pruner or NopPruner(),
        space=Space({"x": Float(0, 1)}),
    )


def finished(study):
    return sum(t.state.is_finished() for t in study.trials)


@pytest.fixture(params=["memory", "file"])
def place(request, tmp_path):
    return None if request.param == "memory" else tmp_path / "s.db"


def test_steps_of_this_call_or_of_all():
    study = study_of()
    for limits, steps in (
        ({"n_steps": 20}, 18),
        ({"n_steps": 20}, 36),
        ({"n_steps": 40, "total": True}, 36),
        ({"n_steps": 45, "total": True}, 45),
        ({"total_steps": 54}, 54),
        ({"total_steps": 60, "n_steps": 90}, 54),
        ({"n_steps": 90, "n_trials": 1}, 63),
    ):
        study.optimize(Walk(), **limits)
        assert sum(t.steps for t in study.trials) == steps, limits


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_steps_are_not_exceeded_by_workers_side_by_side(n_jobs):
    study = study_of(pruner=SuccessiveHalvingPruner(1, reduction_factor=3))
    study.optimize(Walk(), n_steps=25, n_jobs=n_jobs)
    assert 25 - 6 < sum(t.steps for t in study.trials) <= 25


def test_a_cost_that_trials_report(place):
    def objective(trial):
        trial.report_cost(2.0)
        trial.report_cost(0.5)
        if trial.number == 1:
            raise TrialPruned
        if trial.number == 2:
            raise ValueError
        return 0.0

    study = study_of(place)
    for limits, trials in (
        ({"cost": 10}, 4),
        ({"cost": 9}, 8),
        ({"cost": 10, "total": True}, 8),
        ({"cost": 25, "total": True}, 10),
        ({"total_cost": 30}, 12),
        ({"total_cost": 31, "cost": 99}, 13),
    ):
        study.optimize(objective, catch=ValueError, **limits)
        assert finished(study) == len(study.trials) == trials, limits
    assert {t.user_attrs["cost"] for t in study.trials} == {2.5}
    assert {t.state for t in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    study.storage.close()


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_cost_that_is_known_beforehand_is_never_exceeded(place, n_jobs):
    study = study_of(place, SuccessiveHalvingPruner(1, reduction_factor=3))

    def spent():
        return sum(t.steps * (1 + t.params["x"]) for t in study.trials if t.steps)

    study.optimize(Priced(), cost=20.0, n_jobs=n_jobs)
    assert 20 - 12 < spent() <= 20
    assert math.isclose(sum(t.user_attrs.get("cost", 0) for t in study.trials), spent())
    before = spent()
    study.optimize(Priced(), cost=15.0, n_jobs=n_jobs)
    assert 15 - 12 < spent() - before <= 15
    study.optimize(Priced(), total_cost=60.0, n_jobs=n_jobs)
    assert 60 - 12 < spent() <= 60
    assert not [t for t in study.trials if t.state is TrialState.RUNNING]
    study.optimize(Priced(), n_trials=30, total=True)
    assert finished(study) == len(study.trials) == 30
    study.storage.close()


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_else_seconds_of_workers_are_the_cost(place, n_jobs):
    def objective(trial):
        time.sleep(0.03)
        if trial.number == 1:
            raise TrialPruned
        return 0.0

    study = study_of(place)
    study.optimize(objective, cost=0.2, n_jobs=n_jobs)
    costs = [t.user_attrs["cost"] for t in study.trials]
    assert all(cost >= 0.03 for cost in costs)
    assert sum(costs) >= 0.2
    assert sum(costs[:-n_jobs]) < 0.2
    count = len(costs)
    study.optimize(objective, cost=0.2, total=True)
    assert len(study.trials) == count
    study.storage.close()


def test_reported_costs_do_not_keep_workers_idle():
    """Trials run two at a time, whether workers begin in step (the first of each pair then finds nobody) or in turn."""
    running, beside_another = set(), set()

    def objective(trial):
        if running:
            beside_another.update(running, {trial.number})
        running.add(trial.number)
        trial.report_cost(0.001)
        time.sleep(0.03)
        running.remove(trial.number)
        return 0.0

    study = study_of()
    study.optimize(objective, cost=0.02, n_jobs=2)
    assert 20 <= len(study.trials) <= 21
    assert len(beside_another) > 15


def test_trials_of_calls_that_counted_no_cost_count_their_duration():
    study = study_of()
    study.optimize(lambda trial: time.sleep(0.02) or 0.0, n_trials=5)
    assert not any("cost" in t.user_attrs for t in study.trials)
    study.optimize(lambda trial: 0.0, total_cost=0.1)
    assert len(study.trials) == 5
    priced = study_of()
    priced.optimize(Walk(), n_trials=2)
    spent = sum(9 * (1 + t.params["x"]) for t in priced.trials)
    priced.optimize(Priced(), total_cost=spent + 1)
    assert finished(priced) == 2


def test_seconds_of_this_call_or_of_all(monkeypatch, place):
    clock = [1000.0]
    fake = SimpleNamespace(monotonic=lambda: clock[0])
    monkeypatch.setattr("tuner.budget.time", fake)
    monkeypatch.setattr("tuner.optimization.time", fake)

    def objective(trial):
        clock[0] += 10
        return 0.0

    study = study_of(place)
    for limits, trials in (
        ({"total_seconds": 35}, 4),
        ({"total_seconds": 35}, 4),
        ({"total_seconds": 60}, 6),
        ({"timeout": 15}, 8),
        ({"total_seconds": 70, "n_trials": 99, "total": True}, 9),
        ({"total_seconds": 200, "timeout": 15}, 11),
    ):
        clock[0] += 1e6  # nothing runs between two calls
        study.optimize(objective, **limits)
        assert len(study.trials) == trials, limits
    study.storage.close()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"n_steps": -1}, "n_steps must be a number >= 0, got -1"),
        ({"cost": -0.5}, "cost must be a number >= 0, got -0.5"),
        ({"total_cost": math.nan}, "total_cost must be a number >= 0, got nan"),
        ({"total": True}, "total=True wants n_trials, n_steps or cost"),
        ({"total_seconds": -1}, "total_seconds must be a number >= 0, got -1"),
    ],
)
def test_limits_that_make_no_sense(limits, message):
    with pytest.raises(ValueError, match=message):
        study_of().optimize(Walk(), **limits)


def test_a_function_has_no_steps_and_a_cost_is_a_number():
    with pytest.raises(ValueError, match="n_steps is for a tuner.Resumable"):
        study_of().optimize(lambda trial: 0.0, n_steps=3)
    with pytest.raises(ValueError, match="report_cost: cost must be a number >= 0, got -1"):
        study_of().ask().report_cost(-1)
