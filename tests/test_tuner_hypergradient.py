"""Gradients through training steps, against finite differences of real training; and what they are good for."""

import numpy as np
import pytest

import nanonet
import tuner
from kernels.updates import TABLE
from nanonet import data, losses, nn, optim
from nanonet.errors import OptionError
from nanonet.settings import Settings
from nanonet.training import Run
from tuner import Hypergradient, gradient_tune

STEPS = 5
rng = np.random.default_rng(0)
XS, YS = rng.standard_normal((STEPS, 8, 5)), rng.integers(0, 3, (STEPS, 8))
XV, YV = rng.standard_normal((20, 5)), rng.integers(0, 3, 20)

DECAY = {"weight_decay": 0.01}
#: For each row of the table of updates: an optimizer that uses it, and the settings to differentiate for.
CASES = {
    "sgd": (optim.SGD, {"lr": 0.1, "l1": 1e-3, **DECAY}, ("lr", "weight_decay", "l1")),
    "momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9, **DECAY}, ("lr", "weight_decay", "momentum")),
    "nesterov": (optim.SGD, {"lr": 0.1, "momentum": 0.8, "nesterov": True, **DECAY}, ("momentum", "lr")),
    "adam": (optim.Adam, {"lr": 0.01, **DECAY}, ("lr", "weight_decay", "beta1", "beta2")),
    "adamw": (optim.AdamW, {"lr": 0.01, **DECAY}, ("lr", "weight_decay", "beta1", "beta2")),
    "rmsprop": (optim.RMSprop, {"lr": 0.01, **DECAY}, ("lr", "weight_decay")),
    "rmsprop_momentum": (optim.RMSprop, {"lr": 0.01, "momentum": 0.5, **DECAY}, ("lr", "weight_decay", "momentum")),
    "adagrad": (optim.Adagrad, {"lr": 0.05, **DECAY}, ("lr", "weight_decay")),
}


def network():
    return nn.Sequential(nn.Linear(5, 7, rng=0), nn.Tanh(), nn.Linear(7, 3, rng=1)).double()


def trained(model, optimizer, settings):
    """The validation loss after the steps, by the optimizer itself."""
    betas = list(optimizer.param_groups[0].get("betas", ()))
    for name, value in settings.items():
        if name in ("beta1", "beta2"):
            betas[int(name[-1]) - 1] = value
        else:
            optimizer.param_groups[0][name] = value
    if betas:
        optimizer.param_groups[0]["betas"] = tuple(betas)
    for x, y in zip(XS, YS, strict=True):
        optimizer.zero_grad()
        loss(model, x, y).backward()
        optimizer.step()
    model.eval()
    return float(loss(model, XV, YV).item())


def loss(model, x, y):
    return losses.cross_entropy(model(nanonet.tensor(x, dtype=nanonet.float64)), nanonet.tensor(y))


def differences(function, theta, step=1e-5):
    return np.array([(function(theta + e) - function(theta - e)) / (2 * step) for e in step * np.eye(len(theta))])


def test_every_update_has_a_case():
    assert set(CASES) == {row.name for row in TABLE}


@pytest.mark.parametrize("row", CASES)
def test_the_hypergradient_is_that_of_finite_differences(row):
    kind, options, names = CASES[row]
    model = network()
    optimizer = kind(model.parameters(), **options)
    assert optimizer.param_groups[0].rule.name == row
    function = Hypergradient(model, optimizer, losses.cross_entropy, XS, YS, (XV, YV), names)

    def value(theta):
        fresh = network()
        return trained(fresh, kind(fresh.parameters(), **options), function.settings(theta))

    for shift in (0.0, 0.3):  # the second is a replay
        theta = function.theta + shift
        found, gradient = function(theta)
        assert found == pytest.approx(value(theta), rel=1e-12)
        np.testing.assert_allclose(gradient, differences(value, theta), rtol=1e-5, atol=1e-9)
    assert function.settings(function.theta) == pytest.approx({n: dict(options, **_betas(optimizer))[n] for n in names})


def _betas(optimizer):
    return dict(zip(("beta1", "beta2"), optimizer.param_groups[0].get("betas", ()), strict=False))


def test_it_starts_from_the_present_weights_and_state_and_leaves_them():
    def warm():
        model = network()
        optimizer = optim.Adam(model.parameters(), lr=0.02, weight_decay=0.01)
        trained(model, optimizer, {})
        return model.train(), optimizer

    model, optimizer = warm()
    function = Hypergradient(model, optimizer, losses.cross_entropy, XS, YS, (XV, YV))
    before = repr((model.state_dict(), optimizer.state_dict(), model.training))
    first = function(function.theta)
    assert repr((model.state_dict(), optimizer.state_dict(), model.training)) == before
    again = function(function.theta)
    assert first[0] == again[0] and np.array_equal(first[1], again[1])
    assert first[0] == pytest.approx(trained(*warm(), {}), rel=1e-12)
    optimizer.zero_grad()
    loss(model, XS[0], YS[0]).backward()
    optimizer.step()  # now it starts elsewhere
    assert function(function.theta)[0] != first[0]
    assert function.untrained() == pytest.approx(float(loss(model, XV, YV).item()), rel=1e-12)


def test_groups_keep_their_ratios_and_dropout_its_random_numbers():
    def made():
        model = nn.Sequential(nn.Linear(5, 7, rng=0), nn.Tanh(), nn.Dropout(0.3, rng=5), nn.Linear(7, 3, rng=1))
        model = model.double()
        weights, others = ([p for p in model.parameters() if (p.ndim > 1) == wide] for wide in (True, False))
        groups = [{"params": weights, "weight_decay": 0.02}, {"params": others, "lr": 0.2, "weight_decay": 0.0}]
        return model, optim.SGD(groups, lr=0.1, momentum=0.9)

    model, optimizer = made()
    function = Hypergradient(model, optimizer, losses.cross_entropy, XS, YS, (XV, YV))

    def value(theta):
        fresh, its = made()
        rate, decay = np.exp(theta)
        its.param_groups[1]["lr"] = 2 * rate
        return trained(fresh, its, {"lr": rate, "weight_decay": decay})

    found, gradient = function(function.theta)
    assert found == pytest.approx(value(function.theta), rel=1e-12)
    np.testing.assert_allclose(gradient, differences(value, function.theta), rtol=1e-5, atol=1e-9)


def test_weights_without_a_gradient_do_no_harm():
    """An input that is always 0: Adam divides 0 by the root of 0 there, whose derivative is infinite."""
    model = network()
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    xs = XS.copy()
    xs[..., 2] = 0
    found, gradient = Hypergradient(model, optimizer, losses.cross_entropy, xs, YS, (XV, YV))(np.log([0.01, 0.01]))
    assert np.isfinite(found) and np.isfinite(gradient).all() and np.abs(gradient).min() > 0


# ------------------------------------------------------------------------------------------ tuning with it


@pytest.fixture(scope="module")
def digits():
    found = data.load("digits")
    x = (found.x.reshape(len(found.x), -1) / 16).astype(np.float32)
    return x[:800], found.y[:800], (x[800:1200], found.y[800:1200]), (x[1200:], found.y[1200:])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("rate", [1e-6, 30.0])
def test_a_bad_learning_rate_becomes_a_good_one(optimizer, rate, digits):
    x, y, validation, test = digits
    settings = Settings(optimizer=optimizer, learning_rate=rate, hidden=(32,))

    def accuracy(settings):
        run = Run(settings, x, y, test)
        return run.advance(10)[-1]["val_accuracy"]

    found = gradient_tune(settings, x, y, validation, steps=50)
    assert not accuracy(settings) > 0.5
    assert accuracy(found.settings) > 0.85
    assert len(found.history) <= 30
    assert min(h["loss"] for h in found.history) < 0.6
    assert found.settings.replace(learning_rate=rate, weight_decay=settings.weight_decay) == settings


def test_regression_and_other_settings():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((400, 6)).astype(np.float32)
    y = np.sin(2 * x[:, 0]) + x[:, 1] + 0.3 * generator.standard_normal(400)
    settings = Settings(optimizer="sgd", learning_rate=1e-4, hidden=(16,), momentum=0.5)
    found = gradient_tune(
        settings, x[:300], y[:300], (x[300:], y[300:]), names=["learning_rate", "momentum"], steps=40, rounds=12
    )
    assert found.history[-1].keys() == {"learning_rate", "momentum", "loss"}
    assert len(found.history) <= 12
    assert min(h["loss"] for h in found.history) < 0.5 * found.history[0]["loss"]
    assert found.settings.learning_rate > 1e-3 and 0 <= found.settings.momentum < 1


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_steps_are_those_of_a_run_labels_smoothed(digits, smoothing):
    x, y, validation, _ = digits
    x, y = x[:320], y[:320]
    settings = Settings(label_smoothing=smoothing, learning_rate=0.01, batch_size=32)
    found = gradient_tune(settings, x, y, validation, names=["learning_rate"], steps=10, rounds=1)
    (epoch,) = Run(settings, x, y, validation).advance(1)
    assert found.history[0]["loss"] == pytest.approx(epoch["val_loss"], rel=1e-3)


def test_wrong_arguments_are_named(digits):
    x, y, validation, _ = digits
    for settings, options, message in (
        (Settings(), {"names": ["dropout"]}, "dropout"),
        (Settings(weight_decay=0.0), {}, "weight_decay is 0"),
        (Settings(), {"names": ["momentum"]}, "Adam with these options has no momentum"),
        (Settings(), {"steps": 0}, "steps"),
        (Settings(), {"rounds": 0}, "rounds"),
    ):
        with pytest.raises(OptionError, match=message):
            gradient_tune(settings, x, y, validation, **options)

    class Listed(nn.Module):
        def __init__(self):
            self.parts = [nn.Linear(5, 3).weight]

        def forward(self, x):
            return x @ self.parts[0]

    model = Listed()
    function = Hypergradient(
        model, optim.SGD(model.parameters(), lr=0.1), losses.cross_entropy, XS, YS, (XV, YV), ("lr",)
    )
    with pytest.raises(OptionError, match="elsewhere than as attributes"):
        function(function.theta)
    assert tuner.gradient_tune is gradient_tune
