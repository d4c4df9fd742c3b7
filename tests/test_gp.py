"""The Gaussian process sampler: its parts against closed forms and other libraries, and what it finds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

import tuner
from tuner import Categorical, Float, Int, Ordinal, Space
from tuner.samplers import GPSampler, History, RandomSampler
from tuner.samplers.gp import model
from tuner.samplers.gp.acquisition import log_ehvi, log_improvement, log_probability, pareto_front
from tuner.samplers.gp.activity import activity
from tuner.samplers.gp.ascent import ascend
from tuner.samplers.gp.embedding import Embedding
from tuner.samplers.gp.model import GaussianProcess, Likelihood, matern
from tuner.samplers.gp.search import Search
from tuner.samplers.gp.warping import warp, warp_constraint

CUBE = Space({f"x{i}": Float(0, 1) for i in range(3)})
CONDITIONAL = Space(
    {
        "kind": Categorical(["a", "b", "c"]),
        "rate": Float(1e-4, 1, log=True),
        "width": Float(0, 1),
        "order": Categorical([1, 2, 3]),
        "n": Int(1, 5),
    },
    {"width": {"parent": "kind", "equals": "b"}, "order": {"parent": "kind", "in": ["a", "b"]}},
)


def points_of(space, count, seed=0):
    points = space.snap(np.random.default_rng(seed).random((count, space.dimensions)))
    return np.where(space.active(points), points, np.nan)


def difference(function, x, step=1e-6):
    """Central differences of a function of x (d,)."""
    return np.stack([(function(x + e) - function(x - e)) / (2 * step) for e in step * np.eye(len(x))], axis=-1)


# ------------------------------------------------------------------------------------ kernel and distances


def squared_distance(space, axis, x, y):
    """D_j as the docstring of Embedding has it, number by number."""
    name, domain = space.names[axis], list(space.parameters.values())[axis]
    if domain.kind == "categorical":
        return float(not (x == y or (math.isnan(x) and math.isnan(y))))
    if name not in space.conditions:
        return (x - y) ** 2
    if math.isnan(x) or math.isnan(y):
        return float(math.isnan(x) != math.isnan(y))
    return 2 - 2 * math.cos(x - y)


def test_distances_are_those_of_the_docstring_also_to_categories_never_seen():
    seen, others = points_of(CONDITIONAL, 6), points_of(CONDITIONAL, 9, seed=1)
    assert np.isnan(seen).any() and not np.isnan(seen).all(axis=1).any()
    embedding = Embedding(CONDITIONAL, seen)
    axes = range(CONDITIONAL.dimensions)
    wanted = [[squared_distance(CONDITIONAL, a, x[a], y[a]) for x, y in _pairs(seen)] for a in axes]
    np.testing.assert_allclose(embedding.distances(seen), wanted, atol=1e-12)
    vectors, squares = embedding(seen)
    other_vectors, other_squares = embedding(others)
    for a in axes:
        mine = embedding.owners == a
        product = other_vectors[:, mine] @ vectors[:, mine].T
        found = other_squares[:, a, None] + squares[:, a] - 2 * product
        wanted = [[squared_distance(CONDITIONAL, a, x[a], y[a]) for y in seen] for x in others]
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def _pairs(points):
    return [(points[i], points[j]) for i, j in zip(*np.triu_indices(len(points), 1), strict=True)]


def test_matern_and_its_slope():
    squared = np.linspace(1e-3, 30, 40)
    r = np.sqrt(5 * squared)
    k, slope = matern(squared)
    np.testing.assert_allclose(k, (1 + r + r**2 / 3) * np.exp(-r), rtol=1e-13)
    np.testing.assert_allclose(slope, (matern(squared + 1e-6)[0] - matern(squared - 1e-6)[0]) / 2e-6, rtol=1e-6)
    assert matern(np.zeros(1))[0] == 1


def problem(space, count=25, seed=0):
    points = points_of(space, count, seed)
    rng = np.random.default_rng(seed + 1)
    y = np.sin(3 * np.nan_to_num(points, nan=0.5)).sum(axis=1) + 0.1 * rng.standard_normal(count)
    return points, (y - y.mean()) / y.std()


def fitted(space, points, y, noisy=True):
    embedding = Embedding(space, points)
    theta = Likelihood(embedding, points, y, noisy).maximise()
    return GaussianProcess(embedding, theta, points, y, noisy)


def covariance(space, points, theta, others=None):
    """Of the function without noise and without s^2, entry by entry."""
    others = points if others is None else others
    weights = np.exp(-2 * theta[:-1])
    result = np.empty((len(points), len(others)))
    for i, x in enumerate(points):
        for j, y in enumerate(others):
            r = math.sqrt(5 * sum(w * squared_distance(space, a, x[a], y[a]) for a, w in enumerate(weights)))
            result[i, j] = (1 + r + r * r / 3) * math.exp(-r)
    return result


@pytest.mark.parametrize("noisy", [True, False])
def test_likelihood_is_a_multivariate_t_and_its_gradient_is_right(noisy):
    points, y = problem(CONDITIONAL)
    likelihood = Likelihood(Embedding(CONDITIONAL, points), points, y, noisy, warping=False)
    mean, deviation = model.lengthscale_prior(5)
    thetas = np.random.default_rng(3).normal(0, 1, (4, 6)) - [0, 0, 0, 0, 0, 3]
    offsets = []
    for theta in thetas:
        a = covariance(CONDITIONAL, points, theta) + (model.LEAST_NOISE + noisy * np.exp(theta[-1])) * np.eye(len(y))
        wanted = stats.multivariate_t(np.zeros(len(y)), model.RATE / model.SHAPE * a, df=2 * model.SHAPE).logpdf(y)
        wanted += stats.norm(mean, deviation).logpdf(theta[:-1]).sum()
        wanted += stats.norm(*model.NOISE_PRIOR).logpdf(theta[-1])
        value, gradient = likelihood(theta)
        offsets.append(value - wanted)
        np.testing.assert_allclose(gradient, difference(lambda t: likelihood(t)[0], theta), rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(offsets, offsets[0], rtol=1e-9)  # equal up to the constant


def test_posterior_is_the_textbooks_and_its_gradients_are_right():
    points, y = problem(CONDITIONAL)
    theta = np.log([0.8, 0.5, 0.7, 1.5, 0.9, 1e-3])
    process = GaussianProcess(Embedding(CONDITIONAL, points), theta, points, y)
    others = points_of(CONDITIONAL, 12, seed=8)
    a = covariance(CONDITIONAL, points, theta) + (model.LEAST_NOISE + 1e-3) * np.eye(len(y))
    cross = covariance(CONDITIONAL, others, theta, points)
    scale = (model.RATE + y @ np.linalg.solve(a, y) / 2) / (model.SHAPE + len(y) / 2)
    mean, deviation = process.posterior(others)
    np.testing.assert_allclose(mean, cross @ np.linalg.solve(a, y), rtol=1e-8, atol=1e-9)
    explained = np.einsum("mn,nm->m", cross, np.linalg.solve(a, cross.T))
    np.testing.assert_allclose(deviation**2, scale * (1 - explained), rtol=1e-6)
    again, deviation2, mean_slope, deviation_slope = process.slopes(others)
    np.testing.assert_array_equal((again, deviation2), (mean, deviation))
    for row, point in enumerate(others):
        for kind, slope in ((0, mean_slope), (1, deviation_slope)):
            numbers = [1, 2, 4]  # categories have no slope
            wanted = difference(lambda x, k=kind: process.posterior(x[None])[k][0], point, 1e-6)[numbers]
            wanted[np.isnan(point[numbers])] = 0
            np.testing.assert_allclose(slope[row, numbers], wanted, rtol=1e-4, atol=1e-6)
            assert (slope[row, [0, 3]] == 0).all()


def test_posterior_is_that_of_scikit_learn():
    learn = pytest.importorskip("sklearn.gaussian_process")
    points, y = problem(CUBE)
    theta = np.log([0.8, 0.3, 0.5, 1e-2])
    process = GaussianProcess(Embedding(CUBE, points), theta, points, y)
    scale = process.variance
    kernel = learn.kernels.ConstantKernel(scale) * learn.kernels.Matern(np.exp(theta[:-1]), nu=2.5)
    peer = learn.GaussianProcessRegressor(kernel, alpha=scale * (model.LEAST_NOISE + 1e-2), optimizer=None).fit(
        points, y
    )
    others = points_of(CUBE, 20, seed=5)
    mean, deviation = peer.predict(others, return_std=True)
    np.testing.assert_allclose(process.posterior(others), (mean, deviation), rtol=1e-6, atol=1e-8)


def test_fitting_finds_which_coordinates_matter_and_how_much_noise_there_is():
    rng = np.random.default_rng(0)
    points = rng.random((80, 3))
    for noise in (0.0, 0.3):
        y = np.sin(7 * points[:, 1]) + noise * rng.standard_normal(80)
        y = (y - y.mean()) / y.std()
        process = fitted(CUBE, points, y)
        assert process.theta[1] + 1 < min(process.theta[0], process.theta[2])
        found = math.sqrt(process.variance * math.exp(process.theta[3]))
        assert found < 0.03 if noise == 0 else 0.2 < found < 0.6
        clean = fitted(CUBE, points, y, noisy=False)
        assert abs(clean.posterior(points)[0] - y).max() < 1e-2


def test_spread_is_laplaces_approximation():
    points, y = problem(CUBE, 40)
    likelihood = Likelihood(Embedding(CUBE, points), points, y)
    theta = likelihood.maximise(evaluations=200)
    assert abs(likelihood(theta)[1]).max() < 0.05
    spread = likelihood.spread(theta)
    hessian = difference(lambda t: difference(lambda u: likelihood(u)[0], t, 1e-4), theta, 1e-4)
    wanted = np.linalg.eigvalsh(-hessian)
    np.testing.assert_allclose(np.linalg.eigvalsh(spread @ spread.T), np.sort(1 / np.maximum(wanted, 1)), rtol=1e-2)
    if (wanted > 1).all():
        np.testing.assert_allclose(spread @ spread.T, np.linalg.inv(-hessian), rtol=1e-2, atol=1e-3)
    far = model.bounded(np.array([-90.0, 90, 0, -90, 90, 0, 0, 0, 0, 0]), 3)
    np.testing.assert_array_equal(
        far, [*model.LENGTH_RANGE, 0, model.NOISE_RANGE[0], model.WARPING_RANGE[1], 0, 0, 0, 0, 0]
    )


def test_a_believer_keeps_its_mean_and_is_sure_of_it():
    points, y = problem(CUBE)
    process = fitted(CUBE, points, y)
    more, others = points_of(CUBE, 3, seed=4), points_of(CUBE, 30, seed=6)
    believer = process.believing(more)
    np.testing.assert_allclose(believer.posterior(others)[0], process.posterior(others)[0], atol=1e-6)
    assert (believer.posterior(more)[1] < 0.75 * process.posterior(more)[1]).all()
    assert process.believing(more[:0]) is process


# ----------------------------------------------------------------------------------------------- warping


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=40))
def test_warped_losses_keep_their_order_and_the_better_half_its_distances(values):
    losses = np.array(values) / 7
    y = warp(losses)
    order = np.sign(losses[:, None] - losses)
    median = np.median(losses)
    better = losses < median
    assert (np.sign(np.round(y[:, None] - y, 9)) * order >= 0).all()
    assert (np.sign(np.round(y[:, None] - y, 9)) == order)[better | (losses > median)][:, better].all()
    if np.ptp(losses) > 0:
        assert abs(y.mean()) < 1e-9 and abs(y.std() - 1) < 1e-9
    if better.sum() > 1 and np.ptp(losses[better]) > 0:
        slopes = np.polyfit(losses[better], y[better], 1)
        np.testing.assert_allclose(np.polyval(slopes, losses[better]), y[better], atol=1e-9)


def test_how_bad_a_bad_loss_is_does_not_matter():
    losses = np.array([0.3, 0.1, 0.2, 0.5, 0.9, 0.7])
    far = np.where(losses == 0.9, 1e200, losses)
    np.testing.assert_array_equal(warp(losses), warp(far))
    assert np.ptp(warp(np.full(5, 3.0))) == 0


def test_warped_constraints_keep_their_sign():
    excess = np.array([-1e308, -2.0, 0.0, 1e-3, 5.0, np.inf])
    y = warp_constraint(excess)
    assert (np.sign(y) == np.sign(excess)).all() and (np.diff(y) > 0).all() and np.isfinite(y).all()
    assert (warp_constraint(np.zeros(3)) == 0).all()


# ---------------------------------------------------------------------------------------------- climbing


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_ascent_reaches_the_top_of_a_bowl_within_bounds(seed, dimensions):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((dimensions, dimensions))
    bowl = root @ root.T + 0.3 * np.eye(dimensions)
    top = rng.uniform(-0.5, 1.5, dimensions)

    def function(x, rows):
        off = x - top
        return -0.5 * np.einsum("ki,ij,kj->k", off, bowl, off), -off @ bowl

    ends, values = ascend(function, rng.random((4, dimensions)), 0.0, 1.0, evaluations=200, tolerance=1e-6)
    from scipy.optimize import minimize

    wanted = minimize(
        lambda x: -function(x[None], None)[0][0], np.full(dimensions, 0.5),
        jac=lambda x: -function(x[None], None)[1][0], bounds=[(0, 1)] * dimensions, method="L-BFGS-B",
        options={"ftol": 1e-14, "gtol": 1e-10},
    )  # fmt: skip
    np.testing.assert_allclose(values, -wanted.fun, atol=1e-6 * max(1, np.abs(bowl).max()))
    np.testing.assert_allclose(values, function(ends, None)[0])
    assert ((ends >= 0) & (ends <= 1)).all()


# ------------------------------------------------------------------------------------------- acquisition


@pytest.mark.parametrize("z", [-30, -8, -2.5, -1, -1e-9, 0, 0.3, 2, 9])
def test_log_improvement_is_the_integral(z):
    deviation, best = 0.7, 0.2
    mean = best - z * deviation
    value, by_mean, by_deviation = log_improvement(np.array([mean]), np.array([deviation]), best)
    top = max(z, 0.0)  # integrand of E[(z - u)+] relative to its peak's scale, so that far tails do not vanish
    shift = 0.5 * min(z, 0.0) ** 2
    inner = integrate.quad(lambda t: t * math.exp(-0.5 * (z - t) ** 2 + shift), 0, top + 40, limit=400,
                           points=[top, top + 1, 1 / (1 + abs(z)), 5 / (1 + abs(z))])[0]  # fmt: skip
    wanted = math.log(deviation * inner / math.sqrt(2 * math.pi)) - shift
    np.testing.assert_allclose(value[0], wanted, rtol=1e-8, atol=1e-9)
    step = 1e-5
    for derivative, change in ((by_mean, (step, 0)), (by_deviation, (0, step))):
        high, low = (
            log_improvement(np.array([mean + s * change[0]]), np.array([deviation + s * change[1]]), best)[0][0]
            for s in (1, -1)
        )
        np.testing.assert_allclose(derivative[0], (high - low) / (2 * step), rtol=2e-6, atol=1e-7)


def test_log_improvement_is_smooth_to_the_end_of_the_numbers():
    z = -np.logspace(-2, 7, 2001)
    value, by_mean, _ = log_improvement(-z, np.ones(len(z)), 0.0)
    assert np.isfinite(value).all() and (np.diff(value) < 0).all()
    # The asymptote -z^2/2 - log(z^2 sqrt(2 pi)), and the slope -|z| - 2 / |z|.
    far = z < -1e4
    np.testing.assert_allclose(value[far], (-(z**2) / 2 - np.log(z**2 * math.sqrt(2 * math.pi)))[far], rtol=1e-14)
    np.testing.assert_allclose(by_mean[z < -50], (z - 2 / -z)[z < -50], rtol=1e-5)


def test_log_probability_and_its_slopes():
    mean, deviation = np.array([-1.0, 0.5, 30.0]), np.array([0.5, 2.0, 1.0])
    value, by_mean, by_deviation = log_probability(mean, deviation, 0.0)
    np.testing.assert_allclose(value, stats.norm.logcdf(-mean / deviation), rtol=1e-10)
    step = 1e-6
    for derivative, change in ((by_mean, (step, 0)), (by_deviation, (0, step))):
        high, low = (log_probability(mean + s * change[0], deviation + s * change[1], 0.0)[0] for s in (1, -1))
        np.testing.assert_allclose(derivative, (high - low) / (2 * step), rtol=1e-5, atol=1e-7)


def hypervolume(front, reference):
    """Area that points (n, 2) dominate below the reference, by sweeping."""
    area, bound = 0.0, reference[1]
    for x, y in sorted(map(tuple, front)):
        if x < reference[0] and y < bound:
            area += (reference[0] - x) * (bound - y)
            bound = y
    return area


@pytest.mark.parametrize("size", [1, 2, 6])
def test_expected_hypervolume_gain_agrees_with_monte_carlo(size):
    rng = np.random.default_rng(size)
    front = pareto_front(rng.random((3 * size, 2)))
    reference = np.array([1.1, 1.2])
    means, deviations = rng.random((4, 2)), rng.uniform(0.1, 0.5, (4, 2))
    value, by_mean, by_deviation = log_ehvi(means, deviations, front, reference)
    before = hypervolume(front, reference)
    for row in range(4):
        draws = means[row] + deviations[row] * rng.standard_normal((8000, 2))
        gains = [hypervolume([*front, draw], reference) - before for draw in draws]
        error = np.std(gains) / math.sqrt(len(gains))
        assert abs(math.exp(value[row]) - np.mean(gains)) < 4 * error
    step = 1e-6
    for axis in (0, 1):
        change = np.eye(2)[axis] * step
        for derivative, args in ((by_mean, (change, 0)), (by_deviation, (0, change))):
            high, low = (log_ehvi(means + s * args[0], deviations + s * args[1], front, reference)[0] for s in (1, -1))
            np.testing.assert_allclose(derivative[:, axis], (high - low) / (2 * step), rtol=1e-5, atol=1e-6)


def test_hypervolume_gain_stays_finite_where_there_is_next_to_none():
    front = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    value, by_mean, by_deviation = log_ehvi(np.array([[5.0, 9.0]]), np.full((1, 2), 1e-2), front, np.full(2, 1.1))
    assert value[0] < -1e4 and np.isfinite(by_mean).all() and np.isfinite(by_deviation).all()
    assert (by_mean < 0).all() and (by_deviation > 0).all()


def test_pareto_front_by_hand():
    losses = np.array([[1, 5], [2, 3], [2, 3], [3, 4], [4, 1], [1, 6.0]])
    np.testing.assert_array_equal(pareto_front(losses), [[1, 5], [2, 3], [4, 1]])


# --------------------------------------------------------------------------------------- searching a space


class Bumps:
    """-sum of distances to a secret point, of which categories count 1."""

    def __init__(self, embedding, secret):
        self.embedding, self.secret = embedding, secret
        self.vectors, self.squares = embedding(secret[None])

    def __call__(self, points):
        vectors, squares = self.embedding(points)
        return -(squares.sum(axis=1) + self.squares.sum() - 2 * (vectors @ self.vectors[0]))

    def slopes(self, points):
        vectors, squares = self.embedding.slopes(points)
        inner = np.zeros(squares.shape)
        np.add.at(inner.T, self.embedding.owners, (vectors * self.vectors[0]).T)
        return self(points), -(squares - 2 * inner)


@pytest.mark.parametrize("seed", range(4))
def test_search_finds_the_best_point_of_a_mixed_conditional_space(seed):
    space = Space(
        {
            "kind": Categorical(list("abcde")), "x": Float(0, 1), "n": Int(1, 300, log=True),
            "o": Ordinal([1, 2, 4, 8]), "w": Float(0, 1), "m": Int(0, 3),
        },
        {"w": {"parent": "kind", "in": ["b", "c"]}, "m": {"parent": "w", "at_least": 0.4}},
    )  # fmt: skip
    secret, good = points_of(space, 1, seed=seed)[0], points_of(space, 5, seed=seed + 100)
    embedding = Embedding(space, points_of(space, 60))
    search = Search(space, embedding, Bumps(embedding, secret), space.active, np.random.default_rng(seed))
    found = search.best(good, set())
    np.testing.assert_allclose(found, secret, atol=0.01)
    assert space.key(search.best(good, {space.key(found)})) != space.key(found)


def test_search_keeps_hard_constraints():
    space = Space({"x": Float(0, 1), "y": Float(0, 1)}, constraints=["x + y <= 0.8"])
    embedding = Embedding(space, points_of(space, 5))
    search = Search(space, embedding, Bumps(embedding, np.ones(2)), space.active, np.random.default_rng(0))
    found = search.best(np.array([[0.2, 0.2]]), set())
    assert 0.7 < found.sum() <= 0.8


def test_activity_is_learned_from_what_trials_asked_for():
    space = Space({"kind": Categorical(["line", "square", "cube"]), "slope": Float(0, 1), "size": Int(1, 4),
                   "extra": Float(0, 1)})  # fmt: skip
    settings = [
        ("line", 0.3, None, None),
        ("square", None, 1, None),
        ("square", None, 4, 0.2),
        ("square", None, 3, 0.1),
    ]
    points = np.array(
        [
            [np.nan if v is None else d.encode(v) for d, v in zip(space.parameters.values(), row, strict=True)]
            for row in settings
        ]
    )
    active = activity(space, points)
    place = [space.parameters["kind"].encode(k) for k in ("line", "square", "square", "cube")]
    sizes = [space.parameters["size"].encode(n) for n in (4, 1, 4, 4)]
    others = np.array([[k, 0.5, n, 0.5] for k, n in zip(place, sizes, strict=True)])
    np.testing.assert_array_equal(
        active(others),
        [[True, True, False, False], [True, False, True, False], [True, False, True, True], [True, True, True, True]],
    )


# -------------------------------------------------------------------------------------------- the sampler


def branin(trial):
    x, y = trial.suggest_float("x", -5, 10), trial.suggest_float("y", 0, 15)
    bend = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return bend**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def hartmann(trial):
    a = np.array([[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8],
                  [17, 8, 0.05, 10, 0.1, 14]])  # fmt: skip
    p = 1e-4 * np.array([[1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991],
                         [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381]])  # fmt: skip
    x = np.array([trial.suggest_float(f"x{i}", 0, 1) for i in range(6)])
    return -float(np.array([1, 1.2, 3, 3.2]) @ np.exp(-(a * (x - p) ** 2).sum(axis=1)))


def best(sampler, objective, n_trials, **options):
    study = tuner.create_study(sampler=sampler, **options)
    study.optimize(objective, n_trials=n_trials)
    return study.best_value


def test_it_beats_random_search_widely():
    gaps = [best(GPSampler(seed=s), branin, 30) - 0.397887 for s in range(3)]
    assert max(gaps) < 0.01
    assert np.mean([best(RandomSampler(seed=s), branin, 60) - 0.397887 for s in range(3)]) > 0.1
    ours = [best(GPSampler(seed=s), hartmann, 50) for s in range(3)]
    random = [best(RandomSampler(seed=s), hartmann, 300) for s in range(3)]
    assert max(ours) < -3.1 and np.mean(ours) < np.mean(random) - 0.4


def test_maximising_is_minimising_the_negative():
    low = tuner.create_study(sampler=GPSampler(seed=2))
    high = tuner.create_study(sampler=GPSampler(seed=2), direction="maximize")
    low.optimize(branin, n_trials=14)
    high.optimize(lambda trial: -branin(trial), n_trials=14)
    assert [t.params for t in low.trials] == [t.params for t in high.trials]


def test_a_restart_changes_no_proposal(tmp_path):
    def study(name):
        return tuner.create_study(
            storage=tmp_path / "study.db", study_name=name, sampler=GPSampler(seed=4), load_if_exists=True
        )

    study("whole").optimize(branin, n_trials=34)
    for total in (13, 27, 34):
        study("parts").optimize(branin, n_trials=total, total=True)
    assert [t.params for t in study("whole").trials] == [t.params for t in study("parts").trials]


def test_a_heavy_tail_and_failures_do_not_hide_the_optimum():
    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        if x > 0.6:  # of random points 40 % fail
            return math.nan
        return math.exp(12 * max(x - 0.35, 0)) * 1e3 ** (y > 0.8) + 10 * (x - 0.3) ** 2 + 10 * (y - 0.6) ** 2

    study = tuner.create_study(sampler=GPSampler(seed=0))
    study.optimize(objective, n_trials=40)
    assert study.best_value < 1.02
    late = [t for t in study.trials[15:] if t.state is tuner.TrialState.FAIL]
    assert len(late) <= 3


def test_proposals_side_by_side_differ_and_spread():
    study = tuner.create_study(sampler=GPSampler(seed=3), space=Space({"x": Float(-5, 10), "y": Float(0, 15)}))
    study.optimize(branin, n_trials=11)
    asked = np.array([list(study.ask().params.values()) for _ in range(5)])
    gaps = np.linalg.norm((asked[:, None] - asked) / 15, axis=2)[np.triu_indices(5, 1)]
    assert gaps.min() > 0.01


def test_constraints_are_learned():
    def objective(trial):
        return trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1)

    def constraint(trial):
        x, y = trial.params["x"], trial.params["y"]
        return [0.6 - x * 2 * y - x, y - 0.9]  # the unconstrained optimum is far from feasible

    study = tuner.create_study(sampler=GPSampler(seed=1, constraints_func=constraint))
    study.optimize(objective, n_trials=35)
    # On the boundary x (1 + 2 y) = 0.6.
    grid = np.linspace(0, 0.9, 10_001)
    wanted = (0.6 / (1 + 2 * grid) + grid).min()
    assert wanted - 1e-9 <= study.best_value < wanted + 0.02
    feasible = [t.feasible for t in study.trials[10:]]
    assert np.mean(feasible) > 0.25


def test_until_something_is_feasible_it_looks_for_that():
    def far(trial):
        return [(trial.params["x"] - 0.77) ** 2 + (trial.params["y"] - 0.2) ** 2 - 0.001]

    study = tuner.create_study(sampler=GPSampler(seed=0, constraints_func=far))
    study.optimize(lambda t: t.suggest_float("x", 0, 1) - t.suggest_float("y", 0, 1), n_trials=25)
    assert study.best_trial.feasible  # a part in 318 of the square


def front_of(study, reference):
    return hypervolume(np.array([t.values for t in study.best_trials]) * study.signs, reference)


@pytest.mark.parametrize("directions", [["minimize", "minimize"], ["minimize", "maximize"]])
def test_two_objectives_come_close_to_a_known_front(directions):
    sign = 1 if directions[1] == "minimize" else -1

    def objective(trial):  # Fonseca & Fleming 1995: the front is the diagonal between (-1, -1) / sqrt2 and its mirror
        x = np.array([trial.suggest_float("x", -4, 4), trial.suggest_float("y", -4, 4)])
        return [1 - math.exp(-((x - 2**-0.5) ** 2).sum()), sign * (1 - math.exp(-((x + 2**-0.5) ** 2).sum()))]

    studies = {}
    for sampler in (GPSampler(seed=1), RandomSampler(seed=1)):
        study = tuner.create_study(sampler=sampler, directions=directions)
        study.optimize(objective, n_trials=40)
        studies[type(sampler)] = front_of(study, (1, 1))
    t = np.linspace(-1, 1, 2001) * 2**-0.5
    ideal = hypervolume(
        np.stack([1 - np.exp(-2 * (t - 2**-0.5) ** 2), 1 - np.exp(-2 * (t + 2**-0.5) ** 2)], axis=1), (1, 1)
    )
    assert studies[GPSampler] > 0.75 * ideal
    assert studies[RandomSampler] < 0.6 * ideal


def test_three_objectives_are_searched_better_than_at_random():
    corners = np.array([[0.2, 0.2], [0.8, 0.3], [0.5, 0.8]])

    def objective(trial):
        x = np.array([trial.suggest_float(f"x{i}", 0, 1) for i in range(4)])
        return [float(((x[:2] - c) ** 2).sum() + 2 * ((x[2:] - 0.4) ** 2).sum()) for c in corners]

    means = []
    for sampler in (GPSampler(seed=1), RandomSampler(seed=1)):
        study = tuner.create_study(sampler=sampler, directions=["minimize"] * 3)
        study.optimize(objective, n_trials=30)
        means.append(np.mean([t.values for t in study.trials[15:]]))
    assert means[0] < 0.6 * means[1]


def test_branches_of_a_define_by_run_objective_are_told_apart():
    def objective(trial):
        kind = trial.suggest_categorical("kind", ["a", "b", "c"])
        if kind == "a":
            return 1 + trial.suggest_float("x", 0, 1)
        if kind == "b":
            return 0.5 + (trial.suggest_float("y", 0, 1) - 0.7) ** 2 + 0.1 * abs(trial.suggest_int("n", 1, 9) - 3)
        return 0.8

    study = tuner.create_study(sampler=GPSampler(seed=0))
    study.optimize(objective, n_trials=35)
    assert study.best_params["kind"] == "b" and study.best_params["n"] == 3
    assert study.best_value < 0.502


def test_a_small_space_is_searched_to_the_end():
    space = Space({"a": Int(0, 4), "b": Categorical(list("xyz"))})
    study = tuner.create_study(sampler=GPSampler(seed=0), space=space)
    study.optimize(lambda t: t.params["a"] + (t.params["b"] == "x"), n_trials=15)
    assert len({tuple(t.params.values()) for t in study.trials}) == 15


def test_thousands_of_categories():
    space = Space({"c": Categorical(list(range(5000))), "x": Float(0, 1)})
    study = tuner.create_study(sampler=GPSampler(seed=0), space=space)
    study.optimize(lambda t: abs(t.params["x"] - 0.3) + (t.params["c"] % 7) / 7, n_trials=30)
    late = [abs(t.params["x"] - 0.3) for t in study.trials[20:]]
    assert np.mean(late) < 0.1


def test_a_thousand_trials_are_learned_from_in_moderate_time():
    rng = np.random.default_rng(0)
    space = Space({f"x{i}": Float(0, 1) for i in range(4)})
    x = rng.random((1000, 4))
    trials = [
        tuner.FrozenTrial(
            number=i, state=tuner.TrialState.COMPLETE, values=[float(((row - 0.3) ** 2).sum())],
            params=dict(zip(space.names, map(float, row), strict=True)), distributions=space.parameters,
        )
        for i, row in enumerate(x)
    ]  # fmt: skip
    point = GPSampler(seed=0).propose(space, History(lambda: trials), 1000, 0)
    assert np.abs(point - 0.3).max() < 0.1


def test_the_defaults_come_first():
    space = Space({"x": Float(0, 1), "c": Categorical(["a", "b"])}, defaults=[{"x": 0.125}, {"c": "b", "x": 0.25}])
    study = tuner.create_study(sampler=GPSampler(seed=0), space=space)
    study.optimize(lambda t: t.params["x"], n_trials=3)
    assert [t.params["x"] for t in study.trials[:2]] == [0.125, 0.25]


def test_independent_sampler_answers_for_new_parameters():
    fixed = RandomSampler()
    fixed.coordinate = lambda name, *rest: 0.25
    study = tuner.create_study(sampler=GPSampler(seed=0, independent_sampler=fixed))
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=1)
    assert study.best_params == {"x": 0.25}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_startup_trials": -1}, "n_startup_trials must be a whole number >= 0, got -1"),
        ({"n_startup_trials": 2.5}, "got 2.5"),
        ({"independent_sampler": 3}, "independent_sampler must be a Sampler, got 3"),
        ({"constraints_func": 3}, "constraints_func must be a function, got 3"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        GPSampler(**options)
