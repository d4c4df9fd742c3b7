"""The learning-rate range test."""

import numpy as np
import pytest

import nanonet
from nanonet import data, nn, optim
from nanonet.errors import OptionError
from nanonet.lr_range import judged
from nanonet.settings import Settings
from nanonet.training import Run


@pytest.fixture(scope="module")
def digits():
    found = data.load("digits")
    return (found.x.reshape(len(found.x), -1) / 16).astype(np.float32), found.y


def network(rng=0):
    generator = np.random.default_rng(rng)
    return nn.Sequential(nn.Linear(64, 32, rng=generator), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10, rng=generator))


def test_losses_are_those_of_a_loop_written_out():
    """Gradient descent on y = w x by hand, in float64, in the order of a batch that holds every row."""
    x = np.linspace(-1, 1, 16, dtype=np.float32)[:, None]
    model = nn.Sequential(nn.Linear(1, 1, bias=False, rng=0))
    w = float(model.layers[0].weight.numpy()[0, 0])
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    found = nanonet.lr_range_test(model, optimizer, "mse", x, 3 * x, batch_size=16, low=1e-2, high=2.0, steps=40)
    expected = []
    for rate in np.geomspace(1e-2, 2.0, 40):
        expected.append(float(np.mean((x * (w - 3)).astype(np.float64) ** 2)))
        w -= rate * float(np.mean(2 * x.astype(np.float64) ** 2)) * (w - 3)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-2, 2.0, 40))
    assert optimizer.lr == 0.5


def test_a_model_of_float64_is_tested_in_float64(digits):
    x, y = digits
    losses = []
    for model in (nn.Sequential(nn.Linear(64, 10, rng=0)), nn.Sequential(nn.Linear(64, 10, rng=0)).double()):
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        losses.append(nanonet.lr_range_test(model, optimizer, "cross_entropy", x, y, steps=40, high=1.0).losses)
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert not np.array_equal(*losses)


def test_the_model_and_the_optimizer_are_as_before(digits):
    x, y = digits
    model = network().eval()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    before = model.state_dict(), model.random_state(), optimizer.state_dict()
    first = nanonet.lr_range_test(model, optimizer, "cross_entropy", x, y, steps=60)
    again = nanonet.lr_range_test(model, optimizer, "cross_entropy", x, y, steps=60)
    np.testing.assert_array_equal(first.losses, again.losses)
    after = model.state_dict(), model.random_state(), optimizer.state_dict()
    assert repr(before) == repr(after)
    assert not model.training
    assert not np.array_equal(
        first.losses, nanonet.lr_range_test(model, optimizer, "cross_entropy", x, y, steps=60, seed=1).losses
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_suggestion_trains_well_and_ten_times_less_or_more_does_not(optimizer, digits):
    x, y = digits
    settings = Settings(optimizer=optimizer, hidden=(32,), batch_size=64)
    found = Run(settings, x, y).lr_range_test()

    def loss(factor):
        run = Run(settings.replace(learning_rate=found.suggestion * factor), x, y)
        return run.advance(4)[-1]["loss"]

    best = loss(1.0)
    assert best < 0.2
    assert best < 0.7 * loss(0.1)
    assert best < 0.7 * loss(10.0)


def test_a_run_is_left_alone(digits):
    x, y = digits
    runs = [Run(Settings(schedule="cosine", dropout=0.2, warmup=1, epochs=4), x[:400], y[:400]) for _ in range(2)]
    for run in runs:
        run.advance(1)
    found = runs[0].lr_range_test(steps=50)
    assert len(found.losses) <= 50
    for run in runs:
        run.advance(2)
    assert runs[0].history == runs[1].history


def test_where_a_made_up_curve_is_lowest_and_steepest():
    rates = np.geomspace(1e-5, 10, 241)  # forty steps a decade
    place = np.log10(rates)
    curve = 1 - 1 / (1 + np.exp(-6 * (place + 2.5))) + np.maximum(0, place + 1) ** 2
    rng = np.random.default_rng(0)
    found = judged(rates, 3 * (curve + 0.02 * rng.standard_normal(241)))
    assert 10**-1.5 < found.lowest < 10**-0.75
    assert 10**-2.75 < found.steepest < 10**-2.25
    assert found.suggestion == found.lowest / 2.5
    nan = judged(rates[:170], np.append(3 * curve[:169], np.nan))
    assert nan.lowest < rates[169]


def test_divergence_ends_the_test_early(digits):
    x, y = digits
    found = Run(Settings(hidden=(32,), optimizer="sgd"), x, y).lr_range_test(high=1e6, steps=300)
    assert len(found.losses) == len(found.rates) == len(found.smoothed) < 250
    assert found.suggestion < 1


def test_wrong_arguments_are_named(digits):
    x, y = digits
    run = Run(Settings(hidden=(8,)), x[:100], y[:100])
    for options, message in (
        ({"low": 0.0}, "low"),
        ({"low": 1.0, "high": 0.1}, "high"),
        ({"steps": 3}, "steps"),
        ({"low": 50.0, "high": 60.0}, "never falls"),
    ):
        with pytest.raises(OptionError, match=message):
            run.lr_range_test(**options)
