"""Learning rates from range tests as the first settings that a search tries."""

import numpy as np
import pytest

import tuner
from nanonet import data
from nanonet.settings import Settings
from nanonet.training import Run
from tuner import Categorical, Float, Space
from tuner.range_test import settings_by_range_test
from tuner.tuning.parts import Parts


@pytest.fixture(scope="module")
def part():
    found = data.load("digits")
    dataset = data.from_arrays(found.x[:500], found.y[:500])
    return Parts.of(dataset, "split", 0.2, 0)


def test_each_optimizer_gets_the_rate_of_its_own_test(part):
    base = Settings(hidden=(32,))
    space = tuner.space_of(base, names=["optimizer", "learning_rate", "dropout"])
    found = settings_by_range_test(space, base, part)
    assert [point["optimizer"] for point in found] == ["sgd", "adam", "adamw"]
    assert all(point["dropout"] == 0.0 for point in found)
    fold = part.folds[0]
    for point in found:
        name = "learning_rate_sgd" if point["optimizer"] == "sgd" else "learning_rate"
        run = Run(base.replace(optimizer=point["optimizer"]), fold.x, fold.y)
        low, high = space.parameters[name].low, space.parameters[name].high
        assert point[name] == np.clip(run.lr_range_test().suggestion, low, high)
        assert space.encode(point).shape == (space.dimensions,)


def test_spaces_without_optimizers_or_rates(part):
    (only,) = settings_by_range_test(Space({"learning_rate": Float(1e-5, 1e-4, log=True)}), Settings(), part)
    assert only == {"learning_rate": 1e-4}  # the end of the range
    assert settings_by_range_test(Space({"activation": Categorical(["relu", "tanh"])}), Settings(), part) == []
    extreme = Space({"learning_rate": Float(1e-5, 1.0, log=True)})
    assert settings_by_range_test(extreme, Settings(optimizer="sgd", l1=1e9), part) == []


def test_tune_tries_them_after_the_defaults():
    found = data.load("digits")
    x, y = found.x[:300], found.y[:300]
    options = {"trials": 5, "max_epochs": 3, "n_jobs": 1, "validation": "split", "seed": 0}
    plain, tested = (tuner.tune(x, y, lr_test=lr_test, **options) for lr_test in (False, True))
    defaults = 2  # the usual settings, and a larger network
    assert [t.params["optimizer"] for t in tested.study.trials][defaults:] == ["sgd", "adam", "adamw"]
    first = range(defaults)
    assert [tested.study.trials[i].params for i in first] == [plain.study.trials[i].params for i in first]
    assert tested.study.trials[defaults].params["learning_rate_sgd"] != Settings.field("learning_rate").default
    assert len(tested.study.trials) == 5
