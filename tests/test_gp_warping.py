"""What the Gaussian process does to inputs and losses before it learns from them, and when."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import tuner
from tuner import Categorical, Float, Int, Space
from tuner.samplers import GPSampler
from tuner.samplers.gp.embedding import Embedding
from tuner.samplers.gp.input_warping import INSET, InputWarping
from tuner.samplers.gp.model import GaussianProcess, Likelihood
from tuner.samplers.gp.proposal import Fits
from tuner.samplers.gp.warping import standard, warp

SPACE = Space(
    {
        "kind": Categorical(["a", "b", "c"]),
        "rate": Float(1e-4, 1, log=True),
        "width": Float(0, 1),
        "n": Int(1, 9),
        "switch": Int(0, 1),
    },
    {"width": {"parent": "kind", "equals": "b"}},
)


def difference(function, x, step=1e-6):
    """Central differences of a function of x (d,)."""
    return np.stack([(function(x + e) - function(x - e)) / (2 * step) for e in step * np.eye(len(x))], axis=-1)


def points_of(space, count, seed=0):
    points = space.snap(np.random.default_rng(seed).random((count, space.dimensions)))
    return np.where(space.active(points), points, np.nan)


# ----------------------------------------------------------------------------------------------- the function


@given(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5))
def test_a_warped_axis_rises_and_its_derivatives_are_right(log_a, log_b):
    x = np.linspace(0, 1, 41)[:, None]
    warping = InputWarping(np.array([0]), np.array([log_a, log_b]))
    assert (np.diff(warping(x)[:, 0]) > 0).all()
    inside = x[1:-1]
    slopes = (warping(inside + 1e-6) - warping(inside - 1e-6)) / 2e-6
    np.testing.assert_allclose(warping.slopes(inside), slopes, rtol=1e-5, atol=1e-6)
    logs = np.array([log_a, log_b])
    by_logs = difference(lambda at: InputWarping(np.array([0]), at)(x), logs)
    np.testing.assert_allclose(np.moveaxis(warping.by_logs(x), 0, -1), by_logs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("a", [0.3, 1.0, 4.0])
def test_with_one_parameter_at_one_it_is_the_betas_distribution_function(a):
    x = np.linspace(0, 1, 21)[:, None]
    inner = INSET + (1 - 2 * INSET) * x
    for logs, beta in (([math.log(a), 0], stats.beta(a, 1)), ([0, math.log(a)], stats.beta(1, a))):
        wanted = (beta.cdf(inner) - INSET) / (1 - 2 * INSET)
        np.testing.assert_allclose(InputWarping(np.array([0]), np.array(logs))(x), wanted, rtol=1e-9, atol=1e-12)


def test_without_parameters_points_stay_as_they_are_and_so_do_other_columns_and_nan():
    points = np.array([[0.0, 0.3, np.nan], [0.7, 1.0, 0.5]])
    np.testing.assert_array_equal(InputWarping(np.array([0, 2]), np.zeros(4))(points), points)
    warped = InputWarping(np.array([0, 2]), np.array([0.5, 0.5, 0, 0]))(points)
    np.testing.assert_array_equal(warped[:, 1], points[:, 1])
    np.testing.assert_array_equal(np.isnan(warped), np.isnan(points))
    assert warped[1, 0] < 0.6


# ------------------------------------------------------------------------------------------------- the model


def test_only_numbers_of_more_than_two_values_are_warped():
    embedding = Embedding(SPACE, points_of(SPACE, 20))
    assert [SPACE.names[embedding.axes[j]] for j in embedding.ordered] == ["rate", "width", "n"]
    free = Space(SPACE.parameters)  # as define-by-run gives it: a parameter's absence shows after a while only
    points = points_of(free, 20)
    early = Embedding(free, points).ordered
    points[-1, 1] = np.nan
    np.testing.assert_array_equal(Embedding(free, points).ordered, early)


def test_gradients_of_the_likelihood_and_of_the_posterior_go_through_the_warping():
    points = points_of(SPACE, 30)
    rng = np.random.default_rng(1)
    y = standard(np.sin(4 * np.nan_to_num(points, nan=0.5) ** 2).sum(axis=1) + 0.1 * rng.standard_normal(30))
    likelihood = Likelihood(Embedding(SPACE, points), points, y)
    theta = rng.normal(0, 0.4, 5 + 1 + 2 * 3) - 3 * (np.arange(12) == 5)
    wanted = difference(lambda t: likelihood(t)[0], theta)
    np.testing.assert_allclose(likelihood(theta)[1], wanted, rtol=2e-5, atol=1e-5)
    process = GaussianProcess(likelihood.embedding, theta, points, y)
    others = points_of(SPACE, 8, seed=3)
    _, _, mean_slope, deviation_slope = process.slopes(others)
    for kind, slope in ((0, mean_slope), (1, deviation_slope)):
        for row, point in enumerate(others):
            wanted = difference(lambda x, k=kind: process.posterior(x[None])[k][0], point)
            numbers = [1, 2, 3, 4]
            np.testing.assert_allclose(slope[row, numbers], np.nan_to_num(wanted)[numbers], rtol=1e-4, atol=1e-6)


def test_what_is_foretold_of_a_target_is_the_posterior_without_it():
    space = Space({"x": Float(0, 1), "y": Float(0, 1)})
    points = points_of(space, 12)
    y = standard(np.cos(5 * points[:, 0]) + points[:, 1])
    theta = np.log([0.4, 0.9, 1e-2])
    whole = GaussianProcess(Embedding(space, points), theta, points, y)
    for left in range(12):
        rest = np.arange(12) != left
        part = GaussianProcess(Embedding(space, points), theta, points[rest], y[rest])
        mean, deviation = part.posterior(points[[left]])
        # s^2 as the whole has it
        variance = whole.variance * ((deviation / math.sqrt(part.variance)) ** 2 + 1e-2 + 1e-6)
        wanted = stats.norm(mean[0], math.sqrt(variance[0])).logpdf(y[left])
        assert whole.foretold()[left] == pytest.approx(wanted, rel=1e-6)


SQUARE = Space({"x": Float(0, 1), "y": Float(0, 1)})


def errors(function, seed):
    """Root mean squared errors without and with warping, of a function learned from 50 points."""
    points, others = points_of(SQUARE, 50, seed), points_of(SQUARE, 400, seed + 100)
    values = function(np.concatenate([points, others]))
    y, truth, found = values[:50], values[50:], []
    for warping in (False, True):
        likelihood = Likelihood(Embedding(SQUARE, points), points, standard(y), warping=warping)
        process = GaussianProcess(likelihood.embedding, likelihood.maximise(), points, standard(y))
        guess = process.posterior(others)[0] * y.std() + y.mean()
        found.append(math.sqrt(((guess - truth) ** 2).mean()))
    return found


def waves(a, b):
    """A function that changes evenly along what a beta's distribution function makes of x."""
    return lambda p: np.sin(9 * stats.beta(a, b).cdf(p[:, 0])) + np.cos(3 * p[:, 1])


def even(seed):
    """A draw from a stationary Gaussian process."""

    def function(p):
        r = math.sqrt(5) * np.linalg.norm((p[:, None] - p) / [0.3, 0.6], axis=2)
        covariance = (1 + r + r * r / 3) * np.exp(-r) + 1e-8 * np.eye(len(p))
        return np.linalg.cholesky(covariance) @ np.random.default_rng(seed).standard_normal(len(p))

    return function


@pytest.mark.parametrize(("a", "b"), [(0.3, 1.0), (1.0, 0.3), (6.0, 3.0)])
def test_a_function_that_is_even_only_after_a_betas_warp_is_better_foretold_with_warping(a, b):
    plain, warped = np.mean([errors(waves(a, b), seed) for seed in range(3)], axis=0)
    assert warped < 0.6 * plain


def test_where_nothing_is_to_be_warped_it_does_no_harm():
    plain, warped = np.mean([errors(even(seed), seed) for seed in range(8)], axis=0)
    assert warped < 1.1 * plain


# ------------------------------------------------------------------------------------------------ the choice


def fit(space, points, losses, transforms=(warp, standard)):
    return Fits().find(space, points, losses, transforms, True, True)


def test_inputs_are_warped_where_that_helps_and_not_always():
    warped = []
    for make in (lambda seed: waves(0.3, 1.0), even):
        for seed in range(8):
            points = points_of(SQUARE, 50, seed)
            warped.append(len(fit(SQUARE, points, make(seed)(points)).theta) > 3)
    assert all(warped[:8])
    assert np.mean(warped[8:]) < 0.5


def test_smooth_losses_are_taken_as_they_are_and_those_with_a_heavy_tail_by_their_ranks():
    points = points_of(SQUARE, 40)
    bowl = ((points - 0.3) ** 2).sum(axis=1)
    assert fit(SQUARE, points, bowl**2).transform is standard
    rng = np.random.default_rng(0)
    tail = np.where(points[:, 0] > 0.6, 10 ** rng.uniform(0, 6, 40), bowl)
    assert fit(SQUARE, points, tail).transform is warp
    assert fit(SQUARE, points, np.where(points[:, 0] > 0.6, 1e200, bowl)).transform is warp
    flat = fit(SQUARE, points, np.zeros(40))
    assert flat.transform is warp and np.isfinite(flat.theta).all()


def test_a_range_that_should_have_been_logarithmic_is_searched_better_with_warping():
    space = Space({f"x{i}": Float(0, 1) for i in range(3)})

    def loss(trial):  # best at 1e-2
        return sum((math.log10(x + 1e-4) + 2) ** 2 for x in trial.params.values())

    medians = []
    for warping in (False, True):
        found = []
        for seed in range(3):
            study = tuner.create_study(space=space, sampler=GPSampler(seed=seed, input_warping=warping))
            study.optimize(loss, n_trials=45)
            found.append(study.best_value)
        medians.append(np.median(found))
    assert medians[1] < medians[0] / 2
