"""Runs that are trained as one stack, against the same runs one by one."""

import gc
import weakref

import numpy as np
import pytest

from nanonet.errors import DataError, OptionError
from nanonet.settings import Settings
from nanonet.stacked import StackedRun, advance_together, shape, stackable
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
    "cut": [
        BASE.replace(clip_value=cut, clip_norm=limit, label_smoothing=smoothing, warmup=1.5)
        for cut, limit, smoothing in ((0.0, 0.0, 0.0), (0.01, 0.0, 0.2), (0.02, 0.03, 0.1))
    ],
    "initial weights": [BASE.replace(initializer=name, beta2=0.9) for name in ("he_uniform", "orthogonal")],
    "no hidden layer": [BASE.replace(hidden=(), seed=seed) for seed in range(2)],
}


def compare(stack, singles, tolerance=2e-3):
    for together, alone in zip(stack.history, (run.history for run in singles), strict=True):
        for ours, theirs in zip(together, alone, strict=True):
            assert ours.keys() == theirs.keys()
            assert ours == pytest.approx(theirs, rel=tolerance, abs=1e-5)


@pytest.mark.parametrize("settings", STACKS.values(), ids=STACKS.keys())
def test_a_stack_of_runs_is_each_of_them(settings, backend_in_use):
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


def assert_same_models(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        for name, value in other.model.state_dict().items():
            np.testing.assert_allclose(one.model.state_dict()[name], value, rtol=2e-3, atol=2e-4)


def test_runs_over_other_rows_with_other_numbers_of_epochs_are_each_of_them():
    parts = [(*rows(n, seed), rows(v, seed + 9)) for n, seed, v in ((70, 0, 30), (65, 1, 20), (68, 2, 31))]
    settings = [BASE.replace(learning_rate=0.005 * (k + 1), seed=k, schedule="cosine") for k in range(2)]

    def runs():
        return [Run(each, x, y, v, classes=3) for each in settings for x, y, v in parts]

    epochs = [1, 4, 2, 3, 0, 2]
    together, alone = runs(), runs()
    seen = []
    for each in (epochs, epochs[::-1]):
        found = advance_together(together, each, after=lambda i: seen.append((i, together[i].epoch)))
        assert [len(history) for history in found] == each
    for run, e, more in zip(alone, epochs, epochs[::-1], strict=True):
        run.advance(e)
        run.advance(more)
    assert_same_models(together, alone)
    for run, single in zip(together, alone, strict=True):
        assert run.history == [pytest.approx(epoch, rel=2e-3, abs=1e-5) for epoch in single.history]
        assert float(run.optimizer.param_groups[0].steps) == float(single.optimizer.param_groups[0].steps)
    assert sorted(seen) == [(i, e + 1) for i in range(6) for e in range(together[i].epoch)]


def test_a_run_goes_on_alone_from_where_a_stack_left_it():
    x, y = rows()
    settings = STACKS["adam"]
    together = [Run(each, x, y, (x, y)) for each in settings]
    for epochs in (2, 1):
        stack = StackedRun.of(together)
        stack.advance(epochs)
        stack.settle()
    restored = [Run.restore(run.state(), x, y, (x, y)) for run in together]
    alone = [Run(each, x, y, (x, y)) for each in settings]
    for run, single in zip(restored, alone, strict=True):
        run.advance(1)
        single.advance(4)
    assert_same_models(restored, alone)


def test_each_run_stops_early_by_itself():
    x, y = rows(60)
    validation = rows(20, seed=1)
    base = BASE.replace(learning_rate=0.1, hidden=(8,))
    settings = [base.replace(early_stopping=patience, seed=patience) for patience in (1, 2, 0, 4)]
    together, alone = ([Run(each, x, y, validation) for each in settings] for _ in range(2))
    stack = StackedRun.of(together)
    stack.advance(9)
    stack.settle()
    for run in alone:
        run.advance(9)
    assert [run.epoch for run in together] == [run.epoch for run in alone]
    assert len({run.epoch for run in alone}) > 1
    assert [run.best_epoch for run in together] == [run.best_epoch for run in alone]
    assert_same_models(together, alone)
    for run in (*together, *alone):
        run.restore_best()
    assert_same_models(together, alone)


def test_runs_whose_rows_do_not_fit_together_are_an_error_and_advance_all_the_same():
    settings = BASE.replace(batch_norm=True)
    runs = [Run(each, *rows(n)) for n, each in ((70, BASE), (85, BASE), (70, settings), (70, settings))]
    assert shape(settings) is None
    with pytest.raises(OptionError, match="their rows differ"):
        StackedRun.of(runs[:2])
    with pytest.raises(OptionError, match="batch_norm"):
        StackedRun.of(runs[2:])
    with pytest.raises(OptionError, match="empty"):
        StackedRun.of([])
    assert [len(found) for found in advance_together(runs, [2, 1, 2, 0])] == [2, 1, 2, 0]


def test_the_memory_of_a_stack_comes_back_with_it():
    stack = StackedRun(STACKS["adam"], *rows(), rows(20, seed=1))
    stack.advance(1)
    slices = weakref.ref(stack._slices)
    gc.collect()
    gc.disable()
    try:
        del stack
        assert slices() is None
    finally:
        gc.enable()


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
    lost = Run(settings[1], x, y, (x, y))
    lost.advance(2)
    assert len(stack.history[1]) == len(lost.history) == 1
    np.testing.assert_array_equal([*stack.history[1][0].values()], [*lost.history[0].values()])
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
        ({"optimizer": "sgd", "momentum": 0.0}, "optimizer"),
    ],
)
def test_settings_that_cannot_be_stacked_are_an_error_that_says_why(change, name):
    settings = [BASE, BASE.replace(**change)]
    assert name in stackable(settings)
    with pytest.raises(OptionError, match=f"cannot be stacked: {name}"):
        StackedRun(settings, *rows())
