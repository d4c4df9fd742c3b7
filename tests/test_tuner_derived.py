"""Spaces derived from settings, models and optimizers, and models built again from them."""

import copy

import numpy as np
import pytest

import nanonet
import nanonet.functional as F
import tuner
from nanonet import data, nn, optim
from nanonet.settings import Settings
from nanonet.training import Run
from tuner import SpaceError, build, space_of
from tuner.samplers import RandomSampler


def network():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 32, rng=0),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(0.2, rng=1),
        nn.Sequential(nn.Linear(32, 16, weight_init="he_normal", rng=2), nn.Tanh(), nn.LayerNorm(16)),
        nn.Linear(16, 10, rng=3),
        nn.Softmax(),
    )


# --------------------------------------------------------------------------------------------- of models


def test_a_models_settings_are_found_and_stand_first():
    model = network()
    space = space_of(model, optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3))
    assert space.names == [
        "1.out_features", "3.activation", "4.p", "5.0.out_features", "5.1.activation", "lr", "weight_decay", "momentum"
    ]  # fmt: skip
    (default,) = space.defaults
    assert default["1.out_features"] == 32
    assert default["5.0.out_features"] == 16
    assert (default["3.activation"], default["5.1.activation"]) == ("relu", "tanh")
    assert (default["4.p"], default["lr"], default["weight_decay"], default["momentum"]) == (0.2, 0.1, 1e-3, 0.9)
    assert tuner.Space.from_json(space.to_json()) == space
    adam = space_of(model, optim.Adam(model.parameters(), lr=1e-2, betas=(0.85, 0.99)))
    assert adam.names[-4:] == ["lr", "weight_decay", "beta1", "beta2"]
    assert space_of(model, names=["4.p"]).names == ["4.p"]


def test_draws_of_the_prior_lie_around_the_present_values():
    model = network()
    space = space_of(model, optim.SGD(model.parameters(), lr=0.1))
    points = np.random.default_rng(0).random((2000, space.dimensions))
    drawn = [space.decode(point) for point in points]
    rates = np.log10([settings["lr"] for settings in drawn])
    assert abs(np.median(rates) + 1) < 0.05
    assert np.mean(np.abs(rates + 1) < 0.5) > 0.6  # of a range of 1.5 up and down: a third without a prior
    assert np.mean([settings["1.out_features"] in range(20, 52) for settings in drawn]) > 0.5
    assert 0.4 < np.mean([settings["3.activation"] == "relu" for settings in drawn]) < 0.55


@pytest.mark.parametrize("seed", range(5))
def test_a_model_built_again_has_the_settings_and_trains(seed):
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    before = model.state_dict()
    space = space_of(model, optimizer)
    params = space.decode(np.random.default_rng(seed).random(space.dimensions))
    new, its = build(model, params, optimizer)
    found = space_of(new, its).defaults[0]
    assert {n: v for n, v in found.items() if n != "lr"} == {n: v for n, v in params.items() if n != "lr"}
    assert its.lr == pytest.approx(params["lr"])
    assert {id(p) for group in its.param_groups for p in group["params"]} == {id(p) for p in new.parameters()}
    assert repr(model.state_dict()) == repr(before)
    alone = build(model, {name: params[name] for name in space_of(model).names})
    assert [p.shape for p in alone.parameters()] == [p.shape for p in new.parameters()]
    x, y = nanonet.randn(8, 64), np.arange(8) % 10
    weights = new.state_dict()
    F.nll_loss(new(x).log(), nanonet.tensor(y)).backward()
    its.step()
    assert new(x).shape == (8, 10)
    assert any(not np.array_equal(weights[name], after) for name, after in new.state_dict().items())


def test_layers_that_keep_their_shape_keep_their_weights():
    model = network()
    same, wider = build(model, space_of(model).defaults[0]), build(model, {"1.out_features": 40})
    assert repr(same.state_dict()) == repr(model.state_dict())
    old, new = model.state_dict(), wider.state_dict()
    changed = {name.rpartition(".")[0] for name in old if not np.array_equal(old[name], new[name])}
    assert changed == {"1", "2", "5.0"}
    assert new["1.weight"].shape == (64, 40) and new["5.0.weight"].shape == (40, 16)
    assert abs(new["5.0.weight"].std() * np.sqrt(40 / 2) - 1) < 0.15  # he_normal, as the layer was made with
    again = build(model, {"1.out_features": 40}).state_dict()
    assert repr(again) == repr(new)
    assert not np.array_equal(build(model, {"1.out_features": 40}, rng=1).state_dict()["1.weight"], new["1.weight"])
    double = build(copy.deepcopy(model).double(), {"1.out_features": 40})
    assert {p.dtype for p in double.parameters()} == {np.dtype(np.float64)}


def test_what_cannot_be_changed_safely_is_left_alone():
    shared = nn.Linear(8, 8)
    twice = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(8, 2))
    assert space_of(twice).names == ["1.activation", "3.activation", "5.activation"]
    images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 6), nn.Linear(6, 2), nn.Sigmoid())
    assert space_of(images).names == ["1.activation", "3.out_features"]
    residual = nn.Sequential(nn.Linear(4, 8), nn.Residual(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8))))
    assert space_of(residual).names == ["1.body.0.out_features", "1.body.1.activation"]
    assert build(residual, {"1.body.0.out_features": 12})(nanonet.ones(3, 4)).shape == (3, 8)

    class Own(nn.Module):
        def __init__(self):
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return self.second(self.drop(self.first(x)))

    assert space_of(Own()).names == ["drop.p"]
    assert build(Own(), {"drop.p": 0.25}).drop.p == 0.25
    assert space_of(nn.Linear(3, 2)).dimensions == 0


def test_groups_of_an_optimizer_keep_their_ratios():
    model = network()
    names = dict(model.named_parameters())
    optimizer = optim.AdamW(
        [
            {"params": [names["1.weight"]], "lr": 0.01, "weight_decay": 0.1},
            {"params": [names["1.bias"]], "lr": 0.03, "weight_decay": 0.0},
        ]
    )
    new, its = build(model, {"lr": 0.02, "weight_decay": 0.05, "beta1": 0.95, "1.out_features": 20}, optimizer)
    first, second = its.param_groups
    assert (first["lr"], first["weight_decay"]) == pytest.approx((0.02, 0.05))
    assert (second["lr"], second["weight_decay"]) == pytest.approx((0.06, 0.0))
    assert first["betas"] == second["betas"] == (0.95, 0.999)
    assert first["params"][0] is dict(new.named_parameters())["1.weight"]
    assert first["params"][0].shape == (64, 20)


def test_a_study_of_a_model_finds_better_settings():
    found = data.load("digits")
    x, y = (found.x.reshape(len(found.x), -1) / 16).astype(np.float32), found.y
    model = nn.Sequential(nn.Linear(64, 16, rng=0), nn.Sigmoid(), nn.Dropout(0.5, rng=0), nn.Linear(16, 10, rng=1))
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    def accuracy(trial):
        new, its = build(model, trial.params, optimizer)
        new.compile(its, "cross_entropy", metrics=["accuracy"])
        new.fit(x[:1000], y[:1000], epochs=2, verbose=0)
        return new.evaluate(x[1000:], y[1000:])[1]

    study = tuner.create_study(direction="maximize", sampler=RandomSampler(seed=0), space=space_of(model, optimizer))
    study.enqueue_trial(study.space.defaults[0])
    study.optimize(accuracy, n_trials=8)
    assert study.best_value > study.trials[0].value + 0.1


# ------------------------------------------------------------------------------------------- of settings


def test_settings_give_the_tuners_own_space_around_them():
    settings = Settings(learning_rate=1e-2, hidden=(100, 60), dropout=0.3, activation="tanh", optimizer="adamw")
    space = space_of(settings)
    assert space.names == [row["name"] for row in Settings.search_space(base=settings)]
    (default,) = space.defaults
    assert Settings.from_search(default, settings) == settings
    rates = [space.parameters["learning_rate"].decode(u) for u in np.linspace(0, 1, 501)]
    assert abs(np.log10(np.median(rates)) + 2) < 0.15
    tanh = [space.parameters["activation"].decode(u) for u in np.linspace(0, 1, 501)].count("tanh")
    assert 0.4 < tanh / 501 < 0.55
    assert space_of(Run(settings, np.eye(4), np.arange(4))) == space
    assert space_of(settings, names=["dropout"]).names == ["dropout"]


def test_ranges_are_widened_to_hold_what_is_there():
    settings = Settings(learning_rate=1.0, batch_size=48, activation="elu", dropout=0.7, hidden=(1000,))
    (default,) = space_of(settings).defaults
    assert Settings.from_search(default, settings) == settings


def test_wrong_arguments_are_named():
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="wanted Settings, a Run or a Module, got str"):
        space_of("model")
    with pytest.raises(TypeError, match="optimizer"):
        space_of(Settings(), optimizer)
    with pytest.raises(SpaceError, match="no setting 'depth'; there are 1.out_features"):
        build(model, {"depth": 3})
    with pytest.raises(SpaceError, match="no setting 'lr'"):
        build(model, {"lr": 0.1})
    with pytest.raises(SpaceError, match=r"lr=100 is not in Float"):
        build(model, {"lr": 100}, optimizer)
    with pytest.raises(SpaceError, match="no setting 'depth'"):
        space_of(model, names=["depth"])
