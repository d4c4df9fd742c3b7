"""Training runs: the same seed gives the same bits, and a run stored in the middle goes on as if it had not stopped."""

import threading

import numpy as np
import pytest

import kernels
from kernels.formula import Formula
from nanonet import checkpoint, data
from nanonet.errors import CheckpointError, DataError, OptionError, RecordingError
from nanonet.loop import Step
from nanonet.settings import Settings
from nanonet.training import Run

VARIANTS = [
    Settings(hidden=(32,), epochs=10),
    Settings(hidden=(32, 16), optimizer="sgd", nesterov=True, dropout=0.3, batch_norm=True, schedule="cosine"),
    Settings(hidden=(24,), optimizer="rmsprop", learning_rate=1e-3, activation="gelu", clip_norm=1.0, l1=1e-5),
    Settings(hidden=(16,), optimizer="adamw", schedule="one_cycle", label_smoothing=0.1, batch_size=50, epochs=10),
    Settings(hidden=(16,), optimizer="adam", early_stopping=4, batch_norm=True),
    Settings(hidden=(), optimizer="adagrad", learning_rate=0.1, clip_value=0.1, warmup=2, schedule="step"),
]


@pytest.fixture(scope="module")
def digits():
    found = data.load("digits")
    x = found.x.reshape(len(found.x), -1)[:500] / 16
    return x, found.y[:500], (x[:100], found.y[:100])


def weights(run):
    return {name: array.copy() for name, array in run.model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda s: s.optimizer)
def test_stopping_in_the_middle_changes_no_bit(settings, digits, tmp_path):
    x, y, validation = digits
    whole = Run(settings, x, y, validation)
    whole.advance(10)
    first = Run(settings, x, y, validation)
    first.advance(5)
    checkpoint.save(tmp_path / "run", first.state())
    second = Run.restore(checkpoint.load(tmp_path / "run"), x, y, validation)
    second.advance(5)
    assert same(weights(whole), weights(second))
    assert whole.history == second.history
    assert whole.best_epoch == second.best_epoch


def test_the_same_seed_gives_the_same_bits_side_by_side(digits):
    x, y, validation = digits
    runs = [Run(VARIANTS[1], x, y, validation) for _ in range(3)]
    runs[0].advance(4)
    threads = [threading.Thread(target=run.advance, args=(4,)) for run in runs[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same(weights(runs[0]), weights(runs[1])) and same(weights(runs[0]), weights(runs[2]))


def test_another_seed_gives_other_weights(digits):
    x, y, _ = digits
    runs = [Run(VARIANTS[0].replace(seed=seed), x, y) for seed in (0, 1)]
    for run in runs:
        run.advance(1)
    assert not same(weights(runs[0]), weights(runs[1]))


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda s: s.optimizer)
def test_training_learns(settings, digits):
    x, y, validation = digits
    run = Run(settings, x, y, validation)
    results = run.advance(10)
    assert results[-1]["loss"] < results[0]["loss"] < 4
    assert results[-1]["val_accuracy"] > 0.5
    assert [r["epoch"] for r in results] == list(range(1, len(results) + 1))


def test_regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)).astype(np.float32)
    y = (x @ np.arange(5.0) + 1).astype(np.float32)
    run = Run(Settings(hidden=(32,), learning_rate=0.01, weight_decay=0.0), x, y, (x[:50], y[:50]))
    results = run.advance(60)
    assert run.task == "regression" and run.predict(x).shape == (400, 1)
    assert results[-1]["val_loss"] < 0.05 * y.var() and results[-1]["val_mae"] < 1


def test_divergence_ends_the_run(digits):
    x, y, _ = digits
    run = Run(Settings(hidden=(32,), optimizer="sgd", learning_rate=1e30, momentum=0.9, weight_decay=0.0), x, y)
    results = run.advance(10)
    assert run.diverged and run.stopped and len(results) < 10
    assert run.advance(3) == []


def steps(run):
    return int(run.optimizer.param_groups[0].steps)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_run_that_explodes_ends_with_the_step_that_shows_it(optimizer, digits):
    """The first step blows the weights up, the second one's loss shows it: there are no more of sixteen a epoch."""
    x, y, validation = digits
    run = Run(Settings(optimizer=optimizer, learning_rate=1e6), x, y, validation)
    (epoch,) = run.advance(5)
    assert steps(run) == 2
    assert run.diverged and run.stopped
    assert all(np.isnan(epoch[name]) for name in ("loss", "accuracy", "val_loss", "val_accuracy"))
    assert run.advance(5) == []
    again = Run.restore(checkpoint.loads(checkpoint.dumps(run.state())), x, y, validation)
    assert again.diverged and again.advance(1) == [] and steps(again) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_data_that_is_not_finite_ends_a_run_with_its_step(task, value, digits):
    x, y, _ = digits
    x = x.copy()
    run = Run(Settings(hidden=(8,)), x, y if task == "classification" else x[:, 20], task=task)
    run.advance(2)
    assert steps(run) == 32 and not run.diverged
    run._training._x[run._training._order[0]] = value  # in every epoch's order another place
    run.advance(3)
    order = np.flatnonzero(~np.isfinite(run._training._x[run._training._order]).all(axis=1))[0]
    assert steps(run) == 32 + order // 32 + 1
    assert run.diverged and run.epoch == 3


def test_the_first_step_may_be_the_last(digits):
    x, y, _ = digits
    run = Run(Settings(batch_size=500), x.copy(), y)
    run._training._x[:] = np.inf
    run.advance(3)
    assert steps(run) == 1 and run.diverged


def test_a_run_that_recovers_is_left_alone(digits):
    """Adam at a rate of 10: losses in the thousands in the first epoch, and a few after some more."""
    x, y, validation = digits
    run = Run(Settings(learning_rate=10.0), x, y, validation)
    run.advance(4)
    assert run.history[0]["loss"] > 300
    assert run.epoch == 4 and not run.diverged


@pytest.mark.parametrize("recorded", [True, False])
def test_a_step_that_asks_for_it_is_the_last(recorded):
    count, stop = np.zeros((), np.int64), np.zeros(())

    def function():
        if not recorded:
            raise_in_recordings()
        backend = kernels.registry.backend_of(count)
        backend.advance(count, 1)
        backend.elementwise(Formula.of("where(x < 4, 0, 1)", "x"), count, out=stop)

    step = Step(function, stop)
    assert step.run(3) == 3
    assert step.run(5) == 1
    assert count == 4
    count[...] = stop[...] = 0
    assert [step.run(2), step.run(2), step.run(0)] == [2, 2, 0]
    assert Step(lambda: function(), np.zeros(())).run(6) == 6


def raise_in_recordings():
    if kernels.plan.current() is not None:
        raise RecordingError("this step reads a value")


def test_early_stopping_keeps_the_best_weights(digits):
    x, y, validation = digits
    settings = Settings(hidden=(64,), learning_rate=0.05, early_stopping=3, epochs=200)
    run = Run(settings, x, y, (validation[0][::-1].copy(), np.roll(validation[1], 7)))
    run.advance(200)
    assert run.stopped and run.epoch == run.best_epoch + 3
    run.restore_best()
    best = Run(settings, x, y, (validation[0][::-1].copy(), np.roll(validation[1], 7)))
    best.advance(run.best_epoch)
    assert same(weights(run), weights(best))


def test_schedule_moves_the_learning_rate(digits):
    x, y, _ = digits
    settings = Settings(hidden=(8,), schedule="exponential", schedule_gamma=0.5, learning_rate=0.01)
    rates = [r["lr"] for r in Run(settings, x, y).advance(3)]
    batches = -(-len(x) // settings.batch_size)
    expected = [0.01 * 0.5 ** ((e * batches + batches - 1) / batches) for e in range(3)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_bad_data_and_states_are_named(digits):
    x, y, _ = digits
    with pytest.raises(DataError, match="x: holds NaN"):
        Run(Settings(), np.where(x > 0.9, np.nan, x), y)
    with pytest.raises(DataError, match="at least one row"):
        Run(Settings(), x[:0], y[:0])
    with pytest.raises(DataError, match="label -1"):
        Run(Settings(), x, y - 1)
    with pytest.raises(DataError, match="task"):
        Run(Settings(), x, y, task="ranking")
    with pytest.raises(CheckpointError, match="not that of a training run"):
        Run.restore({"weights": 1}, x, y)
    with pytest.raises(OptionError):
        Settings(optimizer="adamm")
