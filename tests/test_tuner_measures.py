"""What `tuner.tune` measures of a network, against closed forms."""

import pickle

import numpy as np
import pytest

from nanonet.errors import OptionError
from nanonet.settings import Settings
from nanonet.training import Run, build_model
from tuner.tuning.limits import Limits
from tuner.tuning.normalized import Normalizer
from tuner.tuning.objectives import FGSM, Latency, Noise, Parameters, attacked, count_parameters, make
from tuner.tuning.parts import Fold, Parts


def clouds(rows=150, classes=3, features=4, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    centres = 2.0 * rng.standard_normal((classes, features))
    return (centres[y] + rng.standard_normal((rows, features))).astype(np.float32), y


def trained(epochs=5, **settings):
    x, y = clouds()
    fold = Fold(x[:100], y[:100], x[100:], y[100:], 1.0)
    run = Run(Settings(**settings), fold.x, fold.y, (fold.x_validation, fold.y_validation))
    return run, run.advance(epochs)[-1], fold


def softmax(scores):
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# -------------------------------------------------------------------------------------------- robustness


def test_fgsm_moves_inputs_along_the_sign_of_the_slope():
    """For a linear model the slope of the cross-entropy is W (softmax - onehot) / n."""
    run, epoch, fold = trained(hidden=())
    x, y = fold.x_validation, fold.y_validation
    layer = run.model.layers[-1]
    w, b = np.asarray(layer.weight.numpy(), np.float64), np.asarray(layer.bias.numpy(), np.float64)
    slope = (softmax(x @ w + b) - np.eye(3)[y]) @ w.T
    moved = attacked(run.model, x, y, 0.25)
    np.testing.assert_allclose(moved, x + 0.25 * np.sign(slope), rtol=0, atol=1e-6)
    right = np.mean((moved @ w + b).argmax(axis=1) == y)
    assert FGSM(0.25).measure(run, epoch, fold) == right < epoch["val_accuracy"]
    assert FGSM(0.0).measure(run, epoch, fold) == epoch["val_accuracy"]


def test_noise_is_the_same_for_everybody_and_costs_accuracy():
    run, epoch, fold = trained()
    assert Noise(0.0).measure(run, epoch, fold) == epoch["val_accuracy"]
    values = [Noise(std).measure(run, epoch, fold) for std in (0.5, 3.0, 30.0)]
    assert values == [Noise(std).measure(run, epoch, fold) for std in (0.5, 3.0, 30.0)]
    assert epoch["val_accuracy"] > values[1] > values[2]
    assert Noise(3.0, seed=1).measure(run, epoch, fold) != values[1]


def test_measuring_leaves_the_run_alone():
    """Dropout's stream, gradients, mode: a run that is measured after each epoch goes on with the same bits."""
    settings = {"hidden": (16, 8), "dropout": 0.3, "activation": "tanh"}
    plain, _, _ = trained(6, **settings)
    run, epoch, fold = trained(1, **settings)
    for _ in range(5):
        for objective in (FGSM(0.1), Noise(0.2), Parameters(), Latency(3)):
            objective.measure(run, epoch, fold)
        (epoch,) = run.advance(1)
    for a, b in zip(plain.model.state_dict().values(), run.model.state_dict().values()):
        np.testing.assert_array_equal(a, b)


# -------------------------------------------------------------------------------------- size and speed


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("hidden", [(), (7,), (9, 4)])
def test_parameters_are_counted_without_a_model(hidden, batch_norm):
    settings = Settings(hidden=hidden, batch_norm=batch_norm)
    model = build_model(settings, (3, 5), 4)
    assert count_parameters(settings, (3, 5), 4) == sum(p.size for p in model.parameters())
    run, epoch, fold = trained(1, hidden=hidden, batch_norm=batch_norm)
    assert Parameters().measure(run, epoch, fold) == count_parameters(settings, (4,), 3)


def test_latency_is_seconds_of_one_row():
    latency = Latency(21)
    small, large = (latency.of(Settings(hidden=hidden), (64,), 10) for hidden in ((8,), (4096, 4096)))
    assert 0 < small < 0.01
    assert large > 5 * small  # 17 million multiplications against 600
    again = latency.of(Settings(hidden=(8,), learning_rate=0.1, batch_size=7), (64,), 10)
    assert again == small
    assert pickle.loads(pickle.dumps(latency)).repeats == 21


# --------------------------------------------------------------------------------------------- by name


def test_names_make_objectives():
    assert make("noise(0.5)", None, "classification", 3).std == 0.5
    assert make("fgsm(1e-1)", None, "classification", 3).eps == 0.1
    assert make("parameters", None, "regression", 1).direction == "minimize"
    assert make("mae", None, "regression", 1).whole_epochs
    assert make("f1", None, "classification", 3).test(np.array([0, 1, 2]), np.eye(3)) == 1.0
    assert make("loss", "maximize", "classification", 3).direction == "maximize"


@pytest.mark.parametrize(
    ("metric", "direction", "task", "message"),
    [
        ("noise(much)", None, "classification", r"metric is 'noise\(much\)'; wanted a number in the brackets"),
        ("noise(-1)", None, "classification", "noise: std"),
        ("fgsm(0.1)", None, "regression", "about classes"),
        (len, None, "classification", "direction is None"),
        ("accuracy", "up", "classification", "direction is 'up'"),
        ("acuracy", None, "classification", "acuracy"),
    ],
)
def test_wrong_names_are_refused(metric, direction, task, message):
    with pytest.raises(OptionError, match=message):
        make(metric, direction, task, 3)


# -------------------------------------------------------------------------- limits and several data sets


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({"parameters": "< 5"}, "'parameters' is '< 5'; wanted '<= number' or '>= number'"),
        ({"parameters": 5}, "wanted '<= number'"),
        ({"parameters": "<= few"}, "wanted '<= number'"),
        ({"acuracy": ">= 0.5"}, "constraints: .*acuracy"),
        ({"fgsm(much)": ">= 0.5"}, r"constraints: metric is 'fgsm\(much\)'; wanted a number in the brackets"),
    ],
)
def test_wrong_constraints_are_refused(constraints, message):
    with pytest.raises(OptionError, match=message):
        Limits(constraints, [make("accuracy", None, "classification", 3)], "classification", 3)


def test_scores_are_taken_relative_to_the_answer_that_sees_nothing():
    y = np.array([0] * 8 + [1] * 2)
    x = np.zeros((10, 2), np.float32)
    fold = Fold(x, y, x, y, 1.0)
    part = Parts("classification", x, y, x, y, [fold], 2)
    accuracy, loss, size = (Normalizer(part, make(m, None, part.task, 2)) for m in ("accuracy", "loss", "parameters"))
    assert [accuracy(v) for v in (0.8, 1.0, 0.6)] == pytest.approx([0, 1, -1])
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    assert [loss(v) for v in (entropy, 0.0, 2 * entropy)] == pytest.approx([1, 0, 2], rel=1e-5)
    assert size(123.0) == 123.0
    values = np.array([-1.0, 1.0, -1.0, 1.0], np.float32)
    fold = Fold(x[:4], values, x[:4], 2 * values, 1.0)
    part = Parts("regression", x[:4], values, x, y, [fold], None)
    assert Normalizer(part, make("loss", None, "regression", 1))(4.0) == pytest.approx(1.0)
    assert Normalizer(part, make("mae", None, "regression", 1))(1.0) == pytest.approx(0.5)
