"""CMA-ES, regularized evolution and NSGA-II, and what they are made of."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

import tuner
from tuner import Categorical, Float, Int, Ordinal, Space
from tuner.pareto import hypervolume
from tuner.samplers import CmaEsSampler, NSGAIISampler, RandomSampler, RegularizedEvolutionSampler, cmaes, surrogate
from tuner.samplers.history import Observations
from tuner.samplers.learning_rate import LearningRate
from tuner.samplers.ranking import ranks
from tuner.samplers.search_distribution import SearchDistribution, fold
from tuner.samplers.variation import Variation

MIXED = Space(
    {
        "x": Float(0, 1),
        "n": Int(1, 9),
        "o": Ordinal([1, 2, 4]),
        "c": Categorical(["a", "b", "d"]),
        "only": Float(3, 3),
        "when": Int(0, 20),
    },
    {"when": {"parent": "c", "equals": "a"}},
)


def observed(losses, violations=None, failed=None, points=None):
    losses = np.array(losses, dtype=float).reshape(len(losses), -1)
    count = len(losses)
    return Observations(
        np.arange(count),
        np.zeros((count, 1)) if points is None else points,
        losses,
        np.zeros(count) if violations is None else np.array(violations, dtype=float),
        np.zeros(count, dtype=bool) if failed is None else np.array(failed),
        np.zeros(count, dtype=np.int64),
    )


def unit_space(dimensions):
    return Space({f"x{i}": Float(0, 1) for i in range(dimensions)})


def values(study):
    return np.array([t.value for t in study.trials])


# ------------------------------------------------------------------------------------------------- ranks


def test_feasible_trials_rank_first_then_those_that_break_less_then_failed_ones():
    nan = math.nan
    trials = observed(
        [3, 1, nan, 0, 2, nan, 3], [0, 0, 0, 2, 1, 0, 0], [False, False, True, False, False, False, False]
    )
    np.testing.assert_array_equal(ranks(trials), [1.5, 0, 6 - 1, 4, 3, nan, 1.5])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_equal_losses_share_the_mean_of_their_places(losses):
    np.testing.assert_array_equal(ranks(observed(losses)), stats.rankdata(losses) - 1)


def test_with_several_objectives_fronts_come_in_order():
    losses = np.random.default_rng(0).random((30, 2))
    places = ranks(observed(losses))
    for i, j in np.ndindex(30, 30):
        if (losses[i] <= losses[j]).all() and (losses[i] < losses[j]).any():
            assert places[i] < places[j]
    assert sorted(places) == list(range(30))


# -------------------------------------------------------------------------------- the search distribution


@pytest.mark.parametrize("adaptive", [False, True])
def test_updates_are_those_of_the_reference_implementation(adaptive):
    reference = pytest.importorskip("cmaes")
    n, population, sigma = 5, 8, 0.05 if adaptive else 0.2
    theirs = reference.CMA(mean=np.full(n, 0.5), sigma=sigma, population_size=population, seed=0, lr_adapt=adaptive)
    mine = SearchDistribution(np.full(n, 0.5), sigma, [], population, adaptive=adaptive)
    np.testing.assert_allclose(mine.weights[: population // 2], theirs._weights[: population // 2], rtol=1e-12)
    np.testing.assert_allclose(
        [mine.c_1, mine.c_sigma, mine.c_c], [theirs._c1, theirs._c_sigma, theirs._cc], rtol=1e-12
    )
    mine.c_mu, mine.weights = theirs._cmu, theirs._weights  # theirs follow an earlier edition of the tutorial
    rng, scale = np.random.default_rng(1), 10.0 ** np.arange(n)
    for _ in range(12):
        normals = rng.standard_normal((population, n))
        normals *= np.minimum(1, 3 / np.linalg.norm(normals, axis=1))[:, None]
        points = mine.mean + mine.sigma * (normals * mine.D) @ mine.B.T
        losses = ((points - 0.45) ** 2) @ scale + adaptive * 1e3 * rng.standard_normal(population)
        theirs.tell(list(zip(points, losses, strict=True)))
        mine.update(points, np.empty((population, 0), dtype=int), stats.rankdata(losses) - 1)
        close = 1e-6 if adaptive else 1e-9  # theirs adds 1e-8 to lengths, which C^(-1/2) makes larger
        np.testing.assert_allclose(mine.mean, theirs.mean, rtol=close)
        np.testing.assert_allclose(mine.sigma, theirs._sigma, rtol=close)
        np.testing.assert_allclose(mine.C, theirs._C, rtol=100 * close, atol=1e-12)
    assert mine.rate < 0.95 if adaptive else mine.rate == 1


def test_with_adapted_rates_noise_does_not_stop_the_search():
    ends = {}  # at first 0.45 is to be gained, in noise of deviation 1
    for adaptive in (False, True):
        rng = np.random.default_rng(0)
        search = SearchDistribution(np.full(5, 0.6), 0.2, [], 8, adaptive=adaptive)
        for _ in range(600):
            points = search.mean + search.sigma * (rng.standard_normal((8, 5)) * search.D) @ search.B.T
            losses = ((points - 0.3) ** 2).sum(axis=1) + rng.standard_normal(8)
            search.update(points, np.empty((8, 0), dtype=int), stats.rankdata(losses) - 1)
        ends[adaptive] = ((search.mean - 0.3) ** 2).sum()
    assert ends[True] < 0.03 < 0.1 < ends[False]


def test_with_adapted_rates_the_sampler_comes_nearer_to_a_noisy_optimum():
    def miss(adaptive, seed):
        rng = np.random.default_rng(seed)
        sampler = CmaEsSampler(seed=seed, surrogate=False, lr_adapt=adaptive)
        study = tuner.create_study(space=unit_space(5), sampler=sampler)
        study.optimize(lambda t: sum((x - 0.3) ** 2 for x in t.params.values()) + 0.3 * rng.standard_normal(), 600)
        late = np.array([list(t.params.values()) for t in study.trials[-160:]])
        return ((late.mean(axis=0) - 0.3) ** 2).sum()

    assert miss(True, 0) + miss(True, 1) < 0.5 * (miss(False, 0) + miss(False, 1))


def test_a_rate_stays_at_one_while_steps_agree_and_falls_while_they_do_not():
    steady, noisy = LearningRate(0.1), LearningRate(0.1)
    rng = np.random.default_rng(0)
    for _ in range(200):
        steady.adapt(np.array([1.0, -2.0]))
        noisy.adapt(rng.standard_normal(2))
    assert steady.rate == 1
    assert noisy.rate < 0.3


def test_samples_have_the_mean_and_covariance_that_the_distribution_says():
    C = np.array([[1.0, 0.6], [0.6, 0.5]])
    search = SearchDistribution([0.5, 0.4], 0.1, [np.array([0.2, 0.5, 0.3])], 6, C)
    rng = np.random.default_rng(0)
    numbers, categories = search.sample(rng.standard_normal((20_000, 2)), rng.random((20_000, 1)))
    np.testing.assert_allclose(numbers.mean(axis=0), [0.5, 0.4], atol=4e-3)
    np.testing.assert_allclose(np.cov(numbers.T), 0.01 * C, atol=4e-4)
    np.testing.assert_allclose(np.bincount(categories[:, 0]) / 20_000, [0.2, 0.5, 0.3], atol=0.015)


@given(st.floats(-5, 5))
def test_folding_reflects_at_the_ends(x):
    inside = x
    while not 0 <= inside <= 1:
        inside = -inside if inside < 0 else 2 - inside
    assert fold(np.array(x)) == pytest.approx(inside, abs=1e-12)


@given(st.floats(0, 1), st.floats(1e-12, 0.5), st.integers(2, 30))
def test_the_margin_leaves_the_nearest_other_value_a_chance(mean, sigma, size):
    edges = np.arange(size + 1) / size
    shares = [np.array([1.0, 0.0, 0.0])]
    search = SearchDistribution([mean, 0.5], sigma, shares, 10)
    search.keep_margin([edges, None])
    away = np.abs(edges[1:-1] - mean).min()
    chance = stats.norm.sf(away / search.deviations[0])
    assert chance >= 1 / (2 * 10) - 1e-9
    assert search.deviations[0] >= sigma * (1 - 1e-9)
    assert search.deviations[1] == pytest.approx(sigma)
    assert search.shares[0].sum() == pytest.approx(1)
    np.testing.assert_allclose(search.shares[0][1:], 1 / 30)


def test_good_categories_gain_and_others_lose():
    search = SearchDistribution([], 0.2, [np.full(4, 0.25)], 6)
    for _ in range(10):
        search.update(np.empty((6, 0)), np.array([[2], [2], [0], [1], [3], [-1]]), np.arange(6.0))
    assert search.shares[0][2] > 0.6
    assert search.shares[0].sum() == pytest.approx(1)


def test_steps_become_longer_on_a_plateau_and_injected_points_do_not_burst_them():
    flat = SearchDistribution([0.5, 0.5], 0.01, [], 6)
    points = np.random.default_rng(0).normal(0.5, 0.01, (6, 2))
    flat.update(points, np.empty((6, 0), dtype=int), np.full(6, 2.5))
    assert flat.sigma > 0.011
    far = SearchDistribution([0.5, 0.5], 1e-4, [], 6)
    far.update(np.random.default_rng(0).random((6, 2)), np.empty((6, 0), dtype=int), np.arange(6.0))
    assert far.sigma < 1e-3
    assert np.abs(far.mean - 0.5).max() < 1e-3


# -------------------------------------------------------------------------------------------- surrogate


def data(n, seed=0):
    rng = np.random.default_rng(seed)
    numbers, categories = rng.random((n, 2)), rng.integers(0, 3, (n, 1))
    return numbers, categories, np.sin(6 * numbers[:, 0]) + (categories[:, 0] == 1) + 0.1 * rng.standard_normal(n)


def test_the_surrogate_is_the_gaussian_process_of_scikit_learn():
    process = pytest.importorskip("sklearn.gaussian_process")
    kernels = process.kernels
    numbers, categories, scores = data(25)
    codes = np.eye(3)[categories[:, 0]] / math.sqrt(2)  # different categories are one apart
    theta = np.log([0.4, 0.9, 0.7, 0.05])
    scale = [0.4, 0.9, 0.7, 0.7, 0.7]
    kernel = kernels.ConstantKernel(0.95) * kernels.Matern(scale, nu=2.5) + kernels.WhiteKernel(0.05 + surrogate.JITTER)
    peer = process.GaussianProcessRegressor(kernel, optimizer=None, alpha=0).fit(np.hstack([numbers, codes]), scores)
    others, kinds, _ = data(9, 1)
    mean, deviation = peer.predict(np.hstack([others, np.eye(3)[kinds[:, 0]] / math.sqrt(2)]), return_std=True)
    found = surrogate.Surrogate(numbers, categories, scores, theta).predict(others, kinds)
    np.testing.assert_allclose(found[0], mean, rtol=1e-7)
    np.testing.assert_allclose(found[1] ** 2, deviation**2 - 0.05, rtol=1e-5, atol=1e-8)  # without the noise


def test_the_fit_is_a_stationary_point_and_finds_what_matters(monkeypatch):
    numbers, categories, scores = data(40)
    seen, original = {}, optimize.minimize

    def minimize(objective, start, **options):
        seen["objective"] = objective
        return original(objective, start, **{**options, "options": {"maxiter": 200}})

    plain = surrogate.fit(numbers, categories, scores)
    assert plain[0] < plain[1]  # the first number matters, the second does not
    monkeypatch.setattr("scipy.optimize.minimize", minimize)
    theta = surrogate.fit(numbers, categories, scores)
    np.testing.assert_allclose(seen["objective"](theta)[1], 0, atol=0.02)
    at = theta + 0.1
    exact = seen["objective"](at)[1]
    for axis in range(len(at)):
        step = np.eye(len(at))[axis] * 1e-5
        slope = (seen["objective"](at + step)[0] - seen["objective"](at - step)[0]) / 2e-5
        assert exact[axis] == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("mean", [-1.0, 0.0, 0.9, 3.0, 12.0])
def test_log_expected_improvement_is_the_logarithm_of_the_integral(mean):
    deviation, best = 0.7, 0.5
    low = best - 12
    integral = integrate.quad(
        lambda y: (best - y) * stats.norm.pdf(y, mean, deviation), low, best, epsabs=0, limit=200, points=[best - 1]
    )[0]
    found = surrogate.log_expected_improvement(np.array([mean]), np.array([deviation]), best)[0]
    assert found == pytest.approx(math.log(integral), rel=1e-6)
    far = surrogate.log_expected_improvement(np.array([50.0, 100.0, 1e6]), np.ones(3), 0.0)
    assert (np.diff(far) < 0).all()
    assert np.isfinite(far).all()


def test_scores_keep_the_order_are_standard_and_see_a_step_in_noise():
    rng = np.random.default_rng(0)
    losses = np.append(0.693 + 1e-4 * rng.standard_normal(30), [0.4, 2.0])
    scores = surrogate.scores(observed(losses))
    assert (np.argsort(scores) == np.argsort(losses)).all()
    assert scores.mean() == pytest.approx(0, abs=1e-12)
    assert scores.std() == pytest.approx(1)
    plain = stats.norm.ppf((np.arange(2) + 0.625) / 32.25)  # of places alone
    assert np.diff(np.sort(scores)[:2])[0] > 3 * np.diff(plain)[0]
    assert np.abs(scores).max() < 4
    np.testing.assert_array_equal(surrogate.scores(observed([5, 5, 5])), 0)
    assert np.isfinite(surrogate.scores(observed([1, np.inf, 2, np.nan], failed=[False, False, False, True]))).all()


# ----------------------------------------------------------------------------------------------- CMA-ES


def ellipsoid(trial):
    x = np.array(list(trial.params.values()))
    return float(((x - 0.3 - 0.05 * np.arange(len(x))) ** 2) @ 10.0 ** np.arange(len(x)))


@pytest.mark.parametrize("options", [{}, {"surrogate": False}, {"lr_adapt": True}])
def test_cma_es_converges_on_an_ellipsoid(options):
    study = tuner.create_study(space=unit_space(3), sampler=CmaEsSampler(seed=1, **options))
    study.optimize(ellipsoid, n_trials=100 if not options else 250)
    assert values(study).min() < 1e-2
    assert np.median(values(study)[-20:]) < 0.1 * np.median(values(study)[:20])


def test_cma_es_is_ahead_of_optunas_at_small_budgets():
    optuna = pytest.importorskip("optuna")
    pytest.importorskip("cmaes")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def loss(x, n, c):
        return (x - 0.7) ** 2 + 0.05 * abs(n - 7) + {"a": 0.3, "b": 0.0, "d": 0.5}[c]

    space = Space({"x": Float(0, 1), "n": Int(1, 9), "c": Categorical(["a", "b", "d"])})
    mine, theirs = [], []
    for seed in range(5):
        study = tuner.create_study(space=space, sampler=CmaEsSampler(seed=seed))
        study.optimize(lambda t: loss(**t.params), n_trials=25)
        mine.append(study.best_value)
        peer = optuna.create_study(sampler=optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False))
        peer.optimize(
            lambda t: loss(
                t.suggest_float("x", 0, 1), t.suggest_int("n", 1, 9), t.suggest_categorical("c", ["a", "b", "d"])
            ),
            n_trials=25,
        )
        theirs.append(peer.best_value)
    assert np.mean(mine) < 0.5 * np.mean(theirs)


def test_the_search_begins_where_it_is_told_else_at_a_default_else_in_the_middle():
    space = Space({"x": Float(0, 1), "c": Categorical(["a", "b", "d"])}, defaults=[{"x": 0.9, "c": "a"}, {"c": "d"}])

    def first(space, count=1, **options):
        study = tuner.create_study(space=space, sampler=CmaEsSampler(seed=0, **options))
        study.optimize(lambda trial: trial.params["x"], n_trials=count)
        return [t.params for t in study.trials]

    assert first(space, 2) == [{"x": 0.9, "c": "a"}, {"x": 0.5, "c": "d"}]
    assert first(space, x0={"x": 0.25}) == [{"x": 0.25, "c": "b"}]
    assert first(Space(space.parameters)) == [{"x": 0.5, "c": "b"}]
    near = [p["x"] for p in first(Space(space.parameters), 6, x0={"x": 0.25}, sigma0=0.01)]
    assert max(abs(x - 0.25) for x in near) < 0.06
    study = tuner.create_study(sampler=CmaEsSampler(seed=0, x0={"x": 0.25}))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1), n_trials=1)
    assert study.trials[0].params == {"x": 0.25, "y": 0.5}


def test_after_startup_trials_the_search_begins_at_the_best_of_them():
    study = tuner.create_study(space=unit_space(2), sampler=CmaEsSampler(seed=0, n_startup_trials=20, sigma0=0.01))
    study.optimize(lambda t: (t.params["x0"] - 0.9) ** 2 + (t.params["x1"] - 0.1) ** 2, n_trials=24)
    points = np.array([list(t.params.values()) for t in study.trials])
    assert points[1:20].std(axis=0).min() > 0.2
    best = points[values(study)[:20].argmin()]
    assert np.abs(points[20:] - best).max() < 0.08


def test_a_warm_start_begins_where_a_similar_study_was_good():
    source = tuner.create_study(space=unit_space(2), sampler=RandomSampler(seed=0))
    source.optimize(lambda t: (t.params["x0"] - 0.8) ** 2 + (t.params["x1"] - 0.2) ** 2, n_trials=100)
    sampler = CmaEsSampler(seed=0, source_trials=source.trials)
    study = tuner.create_study(space=unit_space(2), sampler=sampler)
    study.optimize(lambda trial: trial.params["x0"], n_trials=6)
    points = np.array([list(t.params.values()) for t in study.trials])
    assert np.abs(points.mean(axis=0) - [0.8, 0.2]).max() < 0.12
    mean, sigma, C = cmaes.warm_start(cmaes.Axes(unit_space(2)), source.trials)
    best = sorted(source.trials, key=lambda t: t.value)[:10]
    cloud = np.array([list(t.params.values()) for t in best])
    np.testing.assert_allclose(mean, cloud.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(sigma**2 * C, np.cov(cloud.T, bias=True) + 0.01 * np.eye(2), atol=1e-9)
    assert np.linalg.det(C) == pytest.approx(1)
    with pytest.raises(ValueError, match="none of source_trials"):
        cmaes.warm_start(cmaes.Axes(Space({"z": Float(0, 1)})), source.trials)


@pytest.mark.parametrize("strategy", ["ipop", "bipop", None])
def test_a_search_that_makes_no_progress_starts_anew(strategy):
    axes = cmaes.Axes(unit_space(2))
    points = np.full((600, 2), 0.5)
    trials = observed(np.r_[0.0, np.ones(599)], points=points)
    sampler = CmaEsSampler(seed=0, restart_strategy=strategy, surrogate=False)
    run = sampler._run(axes, trials, 0)
    assert run.used > 560
    if strategy is None:
        assert run.populations == [6]
    elif strategy == "ipop":
        assert run.populations[:3] == [6, 12, 24]
        assert run.search.generation < 30
    else:
        assert run.populations[:2] == [6, 12]
        assert len(run.populations) >= 3
        assert run.populations[2] <= 6


def test_the_state_is_the_same_from_a_cache_as_from_the_beginning():
    def study(forgetful):
        sampler = CmaEsSampler(seed=2)
        made = tuner.create_study(space=MIXED, sampler=sampler)
        for _ in range(40):
            if forgetful:
                sampler._cache.clear()
            made.optimize(lambda t: t.params["x"] + t.params["n"] + t.params.get("when", 5), n_trials=1)
        return [t.params for t in made.trials]

    assert study(True) == study(False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CmaEsSampler(sigma0=0), "sigma0 must be a number in \\(0, inf\\), got 0"),
        (lambda: CmaEsSampler(popsize=2), "popsize must be a whole number >= 3, got 2"),
        (lambda: CmaEsSampler(n_startup_trials=-1), "n_startup_trials must be a whole number >= 0, got -1"),
        (lambda: CmaEsSampler(restart_strategy="never"), "'ipop', 'bipop' or None, got 'never'"),
        (lambda: CmaEsSampler(inc_popsize=0), "inc_popsize must be at least 1, got 0"),
        (lambda: CmaEsSampler(x0={}, source_trials=[]), "either source_trials or x0"),
        (lambda: NSGAIISampler(population_size=1), "population_size must be a whole number >= 2, got 1"),
        (lambda: NSGAIISampler(population_size=7.5), "population_size must be a whole number >= 2, got 7.5"),
        (lambda: NSGAIISampler(crossover="blend"), "crossover must be one of uniform, sbx, got 'blend'"),
        (lambda: NSGAIISampler(mutation_prob=1.5), "mutation_prob must be a number in \\[0, 1\\], got 1.5"),
        (lambda: RegularizedEvolutionSampler(0), "population_size must be a whole number >= 1, got 0"),
        (lambda: RegularizedEvolutionSampler(5, 6), "at most population_size, got 6 and 5"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -------------------------------------------------------------------------------------------- variation


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6), st.integers(0, 5), st.integers(0, 99))
def test_a_mutation_changes_exactly_what_was_chosen(point, axis, seed):
    point = MIXED.snap(np.array(point))
    vary = Variation(MIXED, np.random.default_rng(seed))
    assert vary.varied.tolist() == [0, 1, 2, 3, 5]
    child = vary.mutate(point, [axis] if axis in vary.varied else [])
    assert ((child >= 0) & (child <= 1)).all()
    differs = [d.decode(a) != d.decode(b) for d, a, b in zip(MIXED.parameters.values(), point, child, strict=True)]
    assert differs == [axis == i and i != 4 for i in range(6)]
    names = list(MIXED.parameters)
    assert names[4] == "only"


def test_mutated_categories_are_all_the_others_alike_and_whole_numbers_move_to_both_sides():
    vary = Variation(MIXED, np.random.default_rng(0))
    point = MIXED.encode({"x": 0.5, "n": 5, "o": 2, "c": "b", "only": 3})
    children = [MIXED.decode(vary.mutate(point, [1, 3])) for _ in range(600)]
    counts = [sum(c["c"] == kind for c in children) for kind in "abd"]
    assert counts[1] == 0
    assert min(counts[0], counts[2]) > 240
    assert {4, 6} <= {c["n"] for c in children}
    assert 5 not in {c["n"] for c in children}


def test_simulated_binary_crossover_has_its_spread_and_keeps_the_middle():
    space = unit_space(1)
    vary = Variation(space, np.random.default_rng(0), spread=4.0)
    a, b = np.array([0.49]), np.array([0.51])  # far from the bounds
    children = np.array([vary.simulated_binary(a, b, 0.5)[0] for _ in range(8000)])
    beta = np.abs(children - 0.5) / 0.01
    mixed = beta[np.abs(beta - 1) > 1e-9]
    assert len(mixed) == pytest.approx(4000, abs=200)
    assert children.mean() == pytest.approx(0.5, abs=5e-4)
    grid = np.array([0.6, 0.8, 0.9, 1.0, 1.2, 1.5])
    wanted = np.where(grid <= 1, 0.5 * grid**5, 1 - 0.5 * grid**-5.0)  # Deb & Agrawal 1995, spread 4
    np.testing.assert_allclose([(mixed <= g).mean() for g in grid], wanted, atol=0.03)


def test_children_take_what_one_parent_lacks_from_the_other():
    vary = Variation(MIXED, np.random.default_rng(0))
    a, b = np.full(6, 0.25), np.full(6, 0.75)
    a[5] = np.nan
    for cross in (vary.uniform, vary.simulated_binary):
        for _ in range(20):
            child = cross(a, b, 0.5)
            assert child[5] == 0.75
            assert child[3] in (0.25, 0.75)
            assert not np.isnan(cross(a, np.where(np.isnan(a), np.nan, b), 0.5)).any()


# ------------------------------------------------------------------------------- regularized evolution


def test_children_differ_in_one_parameter_from_the_best_of_those_that_live():
    space = Space({"x": Float(0, 1), "y": Float(0, 1), "n": Int(0, 1000), "c": Categorical(list(range(50)))})
    sampler = RegularizedEvolutionSampler(6, 6, seed=3)
    study = tuner.create_study(space=space, sampler=sampler)
    study.optimize(lambda t: sum(space.encode(t.params)) + (t.number < 3) * -9, n_trials=40)
    trials = study.trials
    for child in trials[6:]:
        parent = min(trials[child.number - 6 : child.number], key=lambda t: t.value)
        same = [child.params[name] == pytest.approx(parent.params[name], abs=1e-9) for name in space.names]
        assert sum(same) == 3


def test_the_oldest_die_even_if_they_are_the_best():
    study = tuner.create_study(space=unit_space(2), sampler=RegularizedEvolutionSampler(5, 5, seed=0))
    study.optimize(lambda t: -100.0 if t.number == 0 else t.params["x0"], n_trials=30)
    first = study.trials[0].params
    shares = [any(t.params[n] == first[n] for n in first) for t in study.trials[1:]]
    assert all(shares[4:5])
    assert not any(shares[10:])


# --------------------------------------------------------------------------------------------- NSGA-II


def zdt1(x):
    g = 1 + 9 * np.mean(x[1:])
    return float(x[0]), float(g * (1 - math.sqrt(x[0] / g)))


def test_nsga2_is_ahead_of_optunas_on_zdt1():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    mine, theirs = [], []
    for seed in range(2):
        study = tuner.create_study(
            space=unit_space(6), sampler=NSGAIISampler(seed=seed, population_size=20), directions=["minimize"] * 2
        )
        study.optimize(lambda t: zdt1(list(t.params.values())), n_trials=250)
        mine.append(hypervolume(np.array([t.values for t in study.trials]), (2, 2)))
        peer = optuna.create_study(
            sampler=optuna.samplers.NSGAIISampler(seed=seed, population_size=20), directions=["minimize"] * 2
        )
        peer.optimize(lambda t: zdt1([t.suggest_float(f"x{i}", 0, 1) for i in range(6)]), n_trials=250)
        theirs.append(hypervolume(np.array([t.values for t in peer.trials]), (2, 2)))
    most = 4 - 1 / 3  # the area below (2, 2) that the true front dominates, 1 + 4 - 2 + ... = 4 - integral of the front
    assert np.mean(theirs) < np.mean(mine) < most


def test_nsga2_keeps_to_what_is_feasible():
    study = tuner.create_study(
        space=unit_space(2),
        sampler=NSGAIISampler(seed=0, population_size=10, constraints_func=lambda t: [0.6 - t.params["x1"]]),
        directions=["minimize"] * 2,
    )
    study.optimize(lambda t: (t.params["x0"], t.params["x1"]), n_trials=120)
    assert np.mean([t.feasible for t in study.trials[-40:]]) > 0.8
    assert all(t.params["x1"] >= 0.6 for t in study.best_trials)
    assert min(t.params["x1"] for t in study.best_trials) < 0.65


def test_parents_are_the_best_whoever_ended_first():
    def study(order):
        made = tuner.create_study(
            space=MIXED, sampler=NSGAIISampler(seed=4, population_size=6), directions=["minimize", "maximize"]
        )
        trials = [made.ask() for _ in range(12)]
        for i in order:
            made.tell(trials[i], (trials[i].params["x"], float(trials[i].params["n"])))
        return made.ask().params

    assert study(range(12)) == study(reversed(range(12)))
