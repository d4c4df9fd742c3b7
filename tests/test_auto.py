"""AutoSampler: who proposes when, and that it finds what its parts alone may miss."""

import numpy as np
import pytest

import tuner
from tuner import Categorical, Float, FrozenTrial, Space, TrialState
from tuner.samplers import AutoSampler, CmaEsSampler, GPSampler, History, RandomSampler, TPESampler
from tuner.samplers.auto import FEW, STARTUP, WIDE

SEED = 3


def earlier(space, count, objectives=1):
    """A history of `count` random trials of a bowl."""
    points = np.random.default_rng(0).random((count, space.dimensions))
    trials = []
    for number, point in enumerate(points):
        params = space.decode(point)
        loss = float(((point - 0.3) ** 2).sum())
        values = [loss, *(float(point[0]) + i for i in range(objectives - 1))]
        trials.append(FrozenTrial(number, TrialState.COMPLETE, values, params, dict(space.parameters)))
    return History(lambda: trials, (1,) * objectives)


def cube(dimensions):
    return Space({f"x{i}": Float(0, 1) for i in range(dimensions)})


@pytest.mark.parametrize(
    ("number", "dimensions", "objectives", "expert"),
    [
        (STARTUP + 2, 3, 1, CmaEsSampler),
        (STARTUP + 3, 3, 1, GPSampler),
        (STARTUP + 4, 3, 1, GPSampler),
        (STARTUP + 2, 3, 2, GPSampler),
        (STARTUP + 3, 3, 3, TPESampler),
        (FEW + 1, 3, 1, TPESampler),
        (STARTUP + 3, WIDE + 1, 1, TPESampler),
    ],
)
def test_the_expert_that_fits_proposes(number, dimensions, objectives, expert):
    space = cube(dimensions)
    mine = AutoSampler(seed=SEED).propose(space, earlier(space, number, objectives), number, SEED)
    theirs = expert(seed=SEED).propose(space, earlier(space, number, objectives), number, SEED)
    np.testing.assert_array_equal(mine, theirs)


def test_the_first_points_are_the_defaults_and_then_lie_around_them():
    space = Space({"x": Float(0, 1), "k": Categorical(["a", "b"])}, defaults=[{"x": 0.25, "k": "b"}])
    sampler = AutoSampler(seed=SEED)
    assert space.decode(sampler.propose(space, History(list), 0, SEED)) == {"x": 0.25, "k": "b"}
    for number in range(1, STARTUP):
        point = sampler.propose(space, earlier(space, number), number, SEED)
        theirs = CmaEsSampler(seed=SEED).propose(space, earlier(space, number), number, SEED)
        np.testing.assert_array_equal(point, theirs)


def valley(x, y):
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def test_it_finds_the_floor_of_a_bent_valley_where_random_points_do_not():
    space = Space({"x": Float(-2, 2), "y": Float(-1, 3)})
    best = {}
    for name, sampler in (("auto", AutoSampler), ("random", RandomSampler)):
        found = []
        for seed in range(5):
            study = tuner.create_study(space=space, sampler=sampler(seed=seed))
            study.optimize(lambda trial: valley(**trial.params), n_trials=50)
            found.append(study.best_value)
        best[name] = np.median(found)
    assert best["auto"] < best["random"] / 5


def test_it_keeps_to_constraints_that_only_trials_tell():
    sampler = AutoSampler(seed=0, constraints_func=lambda trial: [0.5 - trial.params["x"]])
    study = tuner.create_study(space=Space({"x": Float(0, 1), "y": Float(0, 1)}), sampler=sampler)
    study.optimize(lambda trial: trial.params["x"] ** 2 + (trial.params["y"] - 0.7) ** 2, n_trials=40)
    assert study.best_trial.feasible
    assert study.best_value == pytest.approx(0.25, abs=0.03)
    late = [trial.feasible for trial in study.trials[20:]]
    assert np.mean(late) > 0.4
