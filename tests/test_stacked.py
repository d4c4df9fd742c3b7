"""Runs that are trained as one stack, against the same runs one by one."""

import numpy as np
import pytest

from nanonet.errors import DataError, OptionError
from nanonet.settings import Settings
from nanonet.stacked import StackedRun, stackable
from nanonet.training import Run


def rows(n=70, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 5)).astype(np.float32)
    return x, (x @ rng.standard_normal((5, classes))).argmax(axis=1)


BASE = Settings(hidden=(8, 6), batch_size=16, epochs=4)
STACKS = {
    "adam": [
        BASE.replace(learning_rate=0.01),
        BASE.replace(learning_rate=0.002, weight_decay=0.1, seed=3, schedule="cosine"),
        BASE.replace(learning_rate=0.05, beta1=0.7, l1=0.01, schedule="step", schedule_step=1, seed=1),
    ],
    "sgd": [
        BASE.replace(optimizer="sgd", learning_rate=rate, momentum=momentum, seed=seed, activation="tanh")
        for rate, momentum, seed in ((0.1, 0.9, 0), (0.02, 0.5, 1))
    ],
    "clipped": [
        BASE.replace(optimizer="adamw", clip_norm=limit, label_smoothing=0.1, initializer="xavier_normal", hidden=(4,))
        for limit in (0.05, 1.0)
    ],
    "no hidden layer": [BASE.replace(hidden=(), seed=seed) for seed in range(2)],
}


def compare(stack, singles, tolerance=2e-3):
    for together, alone in zip(stack.history, (run.history for run in singles), strict=True):
        for ours, theirs in zip(together, alone, strict=True):
            assert ours.keys() == theirs.keys()
            assert ours == pytest.approx(theirs, rel=tolerance, abs=1e-5)


@pytest.mark.parametrize("settings", STACKS.values(), ids=STACKS.keys())
def test_a_stack_of_runs_is_each_of_them(settings):
    x, y = rows()
    validation = rows(30, seed=1)
    stack = StackedRun(settings, x, y, validation)
    stack.advance(1)
    results = stack.advance(2)
    assert [len(each) for each in results] == [2] * len(settings)
    singles = [Run(each, x, y, validation) for each in settings]
    for run in singles:
        run.advance(3)
    compare(stack, singles)
    for k, run in enumerate(singles):
        for name, value in run.model.state_dict().items():
            np.testing.assert_allclose(stack.state_dict(k)[name], value, rtol=2e-3, atol=2e-4)


def test_regression_is_stacked_too():
    x, _ = rows()
    y = x[:, :2] * 2
    settings = [BASE.replace(learning_rate=rate) for rate in (0.01, 0.03)]
    stack = StackedRun(settings, x, y, (x, y))
    stack.advance(2)
    singles = [Run(each, x, y, (x, y)) for each in settings]
    for run in singles:
        run.advance(2)
    compare(stack, singles)


def test_an_unknown_task_is_an_error():
    with pytest.raises(DataError, match="task: 'ranking'"):
        StackedRun([BASE], *rows(), task="ranking")


def test_each_run_has_its_own_dropout():
    x, y = rows(200)
    settings = [BASE.replace(dropout=rate, hidden=(64,), learning_rate=0.01) for rate in (0.0, 0.5)]
    stack = StackedRun(settings, x, y)
    stack.advance(3)
    alone = Run(settings[0], x, y)
    alone.advance(3)
    assert stack.history[0] == [pytest.approx(epoch, rel=2e-3) for epoch in alone.history]
    again = StackedRun(settings, x, y)
    again.advance(3)
    assert again.history == stack.history
    assert stack.history[1][-1]["loss"] > stack.history[0][-1]["loss"]


def test_a_run_that_diverges_leaves_the_others_alone():
    x, y = rows()
    settings = [BASE.replace(optimizer="sgd", momentum=0.5, learning_rate=rate) for rate in (0.05, 1e30)]
    stack = StackedRun(settings, x, y, (x, y))
    stack.advance(2)
    assert np.isnan(stack.history[1][-1]["val_loss"])
    alone = Run(settings[0], x, y, (x, y))
    alone.advance(2)
    assert stack.history[0] == [pytest.approx(epoch, rel=2e-3) for epoch in alone.history]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"hidden": (3,)}, "hidden"),
        ({"batch_size": 8}, "batch_size"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"batch_norm": True}, "batch_norm"),
        ({"early_stopping": 3}, "early_stopping"),
    ],
)
def test_settings_that_cannot_be_stacked_are_an_error_that_says_why(change, name):
    settings = [BASE, BASE.replace(**change)]
    assert name in stackable(settings)
    with pytest.raises(OptionError, match=f"cannot be stacked: {name}"):
        StackedRun(settings, *rows())
