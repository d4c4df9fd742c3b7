"""When a study stops by itself: soon once nothing is to be gained, and not while it still gains."""

import math

import numpy as np
import pytest
from scipy.stats import norm

import tuner
from tuner import Float, Int, Space, TrialPruned, TrialState
from tuner.samplers import GPSampler, RandomSampler
from tuner.terminators import (
    ExpectedImprovement,
    NoImprovement,
    NoRecord,
    RegretBound,
    _Model,
    cross_validation_noise,
    report_cross_validation_scores,
)

LINE = Space({"x": Float(0, 1)})
PLANE = Space({"x": Float(0, 1), "y": Float(0, 1)})


def run(values, terminator, direction="minimize", space=LINE, **options):
    """How many trials of a study with these values were run."""
    study = tuner.create_study(sampler=RandomSampler(seed=0), direction=direction, space=space)
    study.optimize(lambda trial: values[trial.number], n_trials=len(values), callbacks=[terminator], **options)
    return len(study.trials)


# ------------------------------------------------------------------------------------------ no improvement


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_no_improvement_for_so_many_trials(direction):
    sign = 1 if direction == "minimize" else -1

    def stopped(losses, **options):
        return run([sign * loss for loss in losses], NoImprovement(**options), direction)

    assert stopped([1.0] * 50, trials=7) == 8
    assert stopped(list(range(50, 0, -1)), trials=7) == 50
    assert stopped([5, 4, 9, 9, 3, 9, 9, 9, 2], trials=3) == 8
    assert stopped([5, 4, 9, 9, 3, 9, 9, 9, 2], trials=4) == 9
    assert stopped([5, 4.9, 4.8, 4.7, 4.6], trials=2, min_improvement=0.3) == 3
    assert stopped([5, 4.9, 4.2, 4.1, 4.0], trials=2, min_improvement=0.3) == 5


def test_only_complete_trials_count_for_no_improvement():
    study = tuner.create_study(sampler=RandomSampler(seed=0))

    def objective(trial):
        if trial.number % 2:
            raise TrialPruned
        return 1.0

    study.optimize(objective, n_trials=50, callbacks=[NoImprovement(trials=5)])
    assert len(study.trials) == 11


def test_trials_side_by_side_are_ended():
    study = tuner.create_study(sampler=RandomSampler(seed=0))
    study.optimize(lambda trial: 1.0, n_trials=50, n_jobs=3, callbacks=[NoImprovement(trials=5)])
    assert 6 <= len(study.trials) <= 9
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}


# ------------------------------------------------------------------------------------------------ no record


@pytest.mark.parametrize(("m", "p"), [(1, 0.1), (10, 0.05), (5, 0.5)])
def test_no_record_stops_at_the_first_count_with_so_small_a_probability(m, p):
    first = next(n for n in range(1, 1000) if m / (n + m) < p)
    rng = np.random.default_rng(0)
    assert run(list(rng.random(first + 20)), NoRecord(m, p)) == first


def test_the_probability_of_a_record_is_that_of_random_search():
    rng = np.random.default_rng(0)
    n, m, repetitions = 30, 6, 20_000
    draws = rng.standard_exponential((repetitions, n + m)) ** 3
    share = np.mean(draws[:, n:].min(axis=1) < draws[:, :n].min(axis=1))
    assert abs(share - m / (n + m)) < 4 * math.sqrt(share * (1 - share) / repetitions)


# ---------------------------------------------------------------------------------------------- by a model


def told(function, points, space=PLANE, direction="minimize"):
    """A study that was told the function's values at these points."""
    study = tuner.create_study(sampler=RandomSampler(seed=0), space=space, direction=direction)
    for point in points:
        study.enqueue_trial(dict(zip(space.names, point)))
        trial = study.ask()
        study.tell(trial, function(*point))
    return study


def grid(size=101):
    axis = np.linspace(0, 1, size)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def bowl(x, y):
    return 3 + (x - 0.3) ** 2 + 2 * (y - 0.6) ** 2


def model_of(count=15, direction="minimize"):
    sign = 1 if direction == "minimize" else -1
    points = np.random.default_rng(1).random((count, 2)).tolist()
    study = told(lambda x, y: sign * (math.sin(9 * x) + bowl(x, y)), points, direction=direction)
    return _Model(study, PLANE)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_regret_bound_is_that_of_a_search_through_a_grid(direction):
    model = model_of(direction=direction)
    b = 2 * math.log(2 * 15**2 * math.pi**2 / (6 * 0.1)) / 5
    mean, s = model.process.posterior(grid())
    tried, deviation = model.process.posterior(model.points)
    wanted = model.unit * ((tried + math.sqrt(b) * deviation).min() - (mean - math.sqrt(b) * s).min())
    assert wanted > 0
    assert wanted * 0.999 <= model.regret_bound() < wanted * 1.02


def test_the_expected_improvement_is_that_of_a_search_through_a_grid():
    model = model_of()
    best = model.process.posterior(model.points)[0].min()
    mean, s = model.process.posterior(grid())
    z = (best - mean) / s
    wanted = model.unit * (s * (z * norm.cdf(z) + norm.pdf(z))).max()
    assert wanted * 0.999 <= model.expected_improvement() < wanted * 1.05


def test_the_model_sees_the_noise_in_the_unit_of_the_values():
    rng = np.random.default_rng(0)
    study = told(lambda x, y: 100 * bowl(x, y) + 5 * rng.standard_normal(), rng.random((60, 2)).tolist())
    assert 3 < _Model(study, PLANE).noise < 8


@pytest.mark.parametrize(
    "terminator",
    [RegretBound(), RegretBound(noise=1e-9), ExpectedImprovement(1e-9)],
    ids=["regret", "regret, noise given", "improvement"],
)
def test_models_stop_soon_on_a_flat_function(terminator):
    assert run([1.0] * 50, terminator, space=PLANE) == 10


def test_models_stop_when_the_rest_is_noise_and_the_best_is_near():
    for terminator in (RegretBound(), ExpectedImprovement(0.01)):
        rng = np.random.default_rng(0)

        def objective(trial, rng=rng):
            return bowl(trial.params["x"], trial.params["y"]) + 0.05 * rng.standard_normal()

        study = tuner.create_study(sampler=GPSampler(seed=0), space=PLANE)
        study.optimize(objective, n_trials=100, callbacks=[terminator])
        assert 10 <= len(study.trials) < 100
        model = _Model(study, PLANE)
        best = model.points[model.process.posterior(model.points)[0].argmin()]
        assert bowl(*best) - 3 < 0.1


def test_models_do_not_stop_while_much_is_to_be_gained():
    study = tuner.create_study(sampler=RandomSampler(seed=0), space=PLANE)
    terminators = [RegretBound(noise=0.01, interval=1), ExpectedImprovement(1e-4, interval=1)]
    study.optimize(lambda t: bowl(t.params["x"], t.params["y"]), n_trials=14, callbacks=terminators)
    assert len(study.trials) == 14
    rugged = tuner.create_study(sampler=RandomSampler(seed=0), space=PLANE)
    rugged.optimize(
        lambda t: math.sin(40 * t.params["x"]) * math.cos(50 * t.params["y"]), n_trials=40, callbacks=terminators
    )
    assert len(rugged.trials) == 40


def test_the_noise_of_folds_counts_if_it_was_reported():
    def stops(spread, noise=None):
        def objective(trial):
            value = bowl(trial.params["x"], trial.params["y"])
            report_cross_validation_scores(trial, [value - spread, value, value + spread])
            return value

        study = tuner.create_study(sampler=RandomSampler(seed=0), space=PLANE)
        study.optimize(objective, n_trials=15, callbacks=[RegretBound(noise, n_startup=15)])
        return RegretBound(noise, n_startup=15).should_stop(study)

    assert stops(10.0)
    assert not stops(1e-6)
    assert stops(1e-6, noise=10.0)
    assert not stops(10.0, noise=lambda trial: trial.value * 1e-9)


def test_the_noise_of_a_mean_of_folds():
    scores = [0.9, 0.94, 0.92, 0.95, 0.89]
    assert math.isclose(cross_validation_noise(scores), math.sqrt((1 / 5 + 1 / 4) * np.var(scores, ddof=1)))
    with pytest.raises(ValueError, match="at least 2 folds, got 1"):
        cross_validation_noise([0.5])


def test_models_learn_the_space_and_bear_strange_values():
    study = tuner.create_study(sampler=RandomSampler(seed=0))
    values = [1e300, -1.0, math.inf, 0.5]

    def objective(trial):
        trial.suggest_int("n", 1, 9)
        if trial.suggest_categorical("kind", ["a", "b"]) == "a":
            trial.suggest_float("x", 1e-5, 1, log=True)
        return values[trial.number % 4] + trial.number / 100

    terminators = [RegretBound(interval=1), ExpectedImprovement(1e-12, interval=1)]
    study.optimize(objective, n_trials=16, callbacks=terminators)
    assert len(study.trials) == 16
    assert run([float(i % 3) for i in range(12)], RegretBound(), space=Space({"n": Int(3, 3)})) == 12


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoImprovement(0), "NoImprovement: trials must be a whole number >= 1, got 0"),
        (lambda: NoImprovement(3, -1.0), "min_improvement must be a number in \\[0, inf\\], got -1.0"),
        (lambda: NoRecord(1.5), "NoRecord: trials must be a whole number >= 1, got 1.5"),
        (lambda: NoRecord(3, 1.0), "probability must be a number in \\(0, 1\\), got 1.0"),
        (lambda: RegretBound(0), "noise must be a number > 0, a function or None, got 0"),
        (lambda: RegretBound(interval=0), "RegretBound: interval must be a whole number >= 1, got 0"),
        (lambda: ExpectedImprovement(0), "min_improvement must be a number > 0, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_objective_only():
    study = tuner.create_study(directions=["minimize", "minimize"])
    with pytest.raises(ValueError, match="one objective"):
        study.optimize(lambda trial: (0.0, 1.0), n_trials=3, callbacks=[NoRecord()])
