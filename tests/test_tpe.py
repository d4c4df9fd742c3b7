"""The tree-structured Parzen estimator: its densities, its split of the trials, and what it finds."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import truncnorm

import tuner
from tuner import Categorical, Float, Int, Ordinal, Space, SpaceError, Weights
from tuner.samplers import Observations, RandomSampler, TPESampler
from tuner.samplers.parzen import MANY, Axes, Kernels, Parzen, bandwidths
from tuner.samplers.split import hypervolume_order, split

# ---------------------------------------------------------------------------------------------- densities

MIXED = Space(
    {
        "x": Float(0, 1),
        "n": Int(1, 5, log=True),
        "c": Categorical(["a", "b", "c"], prior=Weights([1, 2, 3])),
        "y": Float(1e-3, 1, log=True),
        "one": Int(4, 4),
    }
)


def density(space, points, weights, prior, widths, stray):
    axes = Axes(space)
    kernels = Kernels(axes, axes.code(points), widths, np.broadcast_to(stray, len(points)))
    parzen = Parzen(kernels, weights, prior)
    return parzen, lambda at: np.exp(parzen.log_density(kernels.logs(axes.code(np.atleast_2d(at)))))


def random_density(seed, count=6):
    """Kernels at random points of MIXED, some of which lack coordinates; bandwidths that tables hold exactly."""
    rng = np.random.default_rng(seed)
    points = MIXED.snap(rng.random((count, 5)))
    points[rng.random(points.shape) < 0.2] = np.nan
    weights, prior, stray = rng.random(count) + 0.1, rng.random(), rng.uniform(0.1, 1, count)
    widths = np.array([rng.uniform(0.03, 1), rng.uniform(0.03, 1), 2.0 ** rng.integers(-4, 1)])
    return points, weights, prior, widths, stray


@given(st.integers(0, 2**32))
def test_densities_integrate_to_one(seed):
    points, weights, prior, widths, stray = random_density(seed)
    _, p = density(MIXED, points, weights, prior, widths, stray)
    grid = (np.arange(40) + 0.5) / 40
    x, y = (part.ravel() for part in np.meshgrid(grid, grid))
    total = 0.0
    for (n, share), (c, other) in itertools.product(cells(MIXED.parameters["n"]), cells(MIXED.parameters["c"])):
        at = np.stack([x, np.full(1600, n), np.full(1600, c), y, np.full(1600, 0.5)], axis=1)
        total += share * other * p(at).mean()
    assert total == pytest.approx(1, abs=2e-2 if widths[:2].min() < 0.05 else 3e-3)


def cells(domain):
    return list(zip(domain.places, np.diff(domain.edges), strict=True))


@given(st.integers(0, 2**32))
def test_a_density_is_scipys_mixture_of_truncated_normals(seed):
    points, weights, prior, widths, stray = random_density(seed)
    _, p = density(MIXED, points, weights, prior, widths, stray)
    at = MIXED.snap(np.random.default_rng(seed + 1).random(5))
    edges, middle = MIXED.parameters["n"].edges, lambda place: edges[cell(place)] / 2 + edges[cell(place) + 1] / 2

    def cell(place):
        return int(np.flatnonzero(MIXED.parameters["n"].places == place)[0])

    def normal(mean, width):
        return truncnorm(-mean / width, (1 - mean) / width, mean, width)

    low, high = edges[cell(at[1])], edges[cell(at[1]) + 1]
    label_share = dict(cells(MIXED.parameters["c"]))[at[2]]
    expected = prior
    for centre, weight, b in zip(points, weights, stray, strict=True):
        kernel = weight
        for axis, width in ((0, widths[0]), (3, widths[1])):  # the smooth axes
            kernel *= 1 if np.isnan(centre[axis]) else normal(centre[axis], width).pdf(at[axis])
        if not np.isnan(centre[1]):
            stepped = normal(middle(centre[1]), widths[2])
            kernel *= (stepped.cdf(high) - stepped.cdf(low)) / (high - low)
        if not np.isnan(centre[2]):
            kernel *= b + (1 - b) / label_share * (centre[2] == at[2])
        expected += kernel
    assert p(at)[0] == pytest.approx(expected / (weights.sum() + prior), rel=1e-8)


def test_draws_follow_the_density():
    points, weights, prior, widths, stray = random_density(3)
    parzen, p = density(MIXED, points, weights, prior, widths, stray)
    drawn = MIXED.snap(parzen.sample(40_000, np.random.default_rng(0)))
    uniform = MIXED.snap(np.random.default_rng(1).random((40_000, 5)))
    ratio = p(uniform)
    for axis, parts in ((0, 5), (1, 5), (2, 3), (3, 5)):
        edges = np.linspace(0, 1, parts + 1) if axis in (0, 3) else MIXED.parameters["nc"[axis - 1]].edges
        share = np.histogram(drawn[:, axis], edges)[0] / 40_000
        expected = np.histogram(uniform[:, axis], edges, weights=ratio)[0] / 40_000
        np.testing.assert_allclose(share, expected, atol=0.02)


def test_what_is_inactive_does_not_count():
    space = Space({"a": Float(0, 1), "b": Float(0, 1)})
    both, _ = np.array([[0.2, 0.9], [0.4, 0.1]]), None
    _, p = density(space, both, np.ones(2), 1.0, np.array([0.1, 0.1]), 0.5)
    alone = Space({"a": Float(0, 1)})
    _, q = density(alone, both[:, :1], np.ones(2), 1.0, np.array([0.1]), 0.5)
    assert p([0.3, np.nan]) == pytest.approx(q([0.3]))


def test_many_values_are_read_as_a_smooth_axis():
    space = Space({"few": Int(1, MANY), "many": Int(1, MANY + 1), "huge": Int(0, 10**9), "f": Float(0, 1, step=0.25)})
    axes = Axes(space)
    assert axes.smooth.tolist() == [1, 2] and axes.stepped.tolist() == [0, 3]


def test_bandwidths_shrink_as_points_gather_and_keep_to_their_bounds():
    axes = Axes(Space({"a": Float(0, 1), "b": Float(0, 1)}))
    rng = np.random.default_rng(0)
    few, many = (np.clip(rng.normal([0.5, 0.5], [0.3, 0.01], (n, 2)), 0, 1) for n in (4, 400))
    wide, narrow = (bandwidths(axes, points, np.ones(len(points)), 0.03) for points in (few, many))
    assert (narrow < wide).all() and narrow[1] == 0.03 < narrow[0] and (wide <= 1).all()
    none = bandwidths(axes, np.empty((0, 2)), np.empty(0), 0.03)
    assert (wide < none).all() and (none < 12**-0.5).all()


# -------------------------------------------------------------------------------------------------- split


def seen(losses, violations=None, failed=None):
    losses = np.asarray(losses, dtype=float)
    losses = losses[:, None] if losses.ndim == 1 else losses
    n = len(losses)
    return Observations(
        np.arange(n),
        np.zeros((n, 1)),
        losses,
        np.zeros(n) if violations is None else np.asarray(violations, dtype=float),
        np.zeros(n, dtype=bool) if failed is None else np.asarray(failed),
        np.zeros(n, dtype=int),
    )


def test_good_trials_weigh_what_they_improve():
    parts = split(seen([5.0, 1.0, 3.0, 4.0, 2.0]), 2, True)
    assert parts.good.tolist() == [1, 4] and parts.bad.tolist() == [0, 2, 3]
    np.testing.assert_allclose(parts.good_weights, np.array([2, 1]) / 1.5)


@pytest.mark.parametrize("losses", [[-np.inf, 3.0, 4.0, 5.0], [[1.0, 2.0], [1.5, 1.5], [9.0, 9.0], [8.0, 8.0]]])
def test_good_trials_weigh_by_their_rank_where_there_is_no_improvement(losses):
    weights = np.log([3, 1.5])
    np.testing.assert_allclose(split(seen(losses), 2, True).good_weights, weights / weights.mean())


def test_failed_trials_are_bad_and_pending_ones_if_wanted():
    nan = np.nan
    trials = seen([nan, 1.0, nan, 2.0], failed=[True, False, False, False])
    assert split(trials, 1, True).bad.tolist() == [0, 2, 3]
    assert split(trials, 1, False).bad.tolist() == [0, 3]


def test_a_pending_trial_makes_up_for_a_good_one():
    parts = split(seen([1.0, 2.0, *range(3, 11), np.nan]), 2, True)
    assert parts.bad_weights.tolist() == [1] * 8 + [4]


def test_trials_that_keep_their_constraints_rank_first_then_those_that_break_them_least():
    trials = seen([1.0, 5.0, 2.0, 6.0], violations=[3.0, 0.0, 0.5, 0.0])
    assert [split(trials, count, True).good.tolist() for count in (1, 2, 3)] == [[1], [1, 3], [1, 3, 2]]


@pytest.mark.parametrize("losses", [[1.0, 1.0, 1.0], [np.inf, np.inf, 0.0], [-np.inf, 0.0, 1.0], [2.0]])
def test_weights_are_finite_and_of_mean_one(losses):
    parts = split(seen(losses), 2, True)
    assert np.isfinite(parts.good_weights).all() and parts.good_weights.mean() == pytest.approx(1)


def area(points):
    """Of the union of boxes from each point to (1.1, 1.1), by a grid of all coordinates."""
    points = np.asarray(points).reshape(-1, 2)
    xs, ys = (np.unique(np.append(points[:, axis], 1.1)) for axis in (0, 1))
    total = 0.0
    for x, dx in zip(xs, np.diff(xs), strict=False):
        for y, dy in zip(ys, np.diff(ys), strict=False):
            total += dx * dy * ((points[:, 0] <= x) & (points[:, 1] <= y)).any()
    return total


@given(st.integers(0, 2**32))
def test_rows_of_a_front_are_taken_by_the_area_that_they_add(seed):
    losses = np.random.default_rng(seed).random((12, 2))
    losses[:2] = [[0, 1], [1, 0]]  # so that the unit square is their range
    rows = hypervolume_order(losses, 12).tolist()
    ranks = [front(losses, row) for row in range(12)]
    assert sorted(rows) == list(range(12)) and [ranks[row] for row in rows] == sorted(ranks)
    for count in range(12):
        added = {row: area(losses[[*rows[:count], row]]) for row in rows[count:] if ranks[row] == ranks[rows[count]]}
        assert added[rows[count]] == pytest.approx(max(added.values()))


def front(losses, row):
    """How often fronts are taken off until the row is on one."""
    left, rank = set(range(len(losses))), 0
    while True:
        first = {
            i for i in left if not any((losses[j] <= losses[i]).all() and (losses[j] < losses[i]).any() for j in left)
        }
        if row in first:
            return rank
        left, rank = left - first, rank + 1


def test_of_a_front_that_does_not_fit_the_rows_are_taken_that_add_most():
    x = np.linspace(0, 1, 101)
    front = np.stack([x, 1 - x], axis=1)
    rows = hypervolume_order(front, 3)
    assert rows[0] == 50 and {abs(rows[1] - 50) // 5, abs(rows[2] - 50) // 5} <= {5, 6}
    assert (rows[1] - 50) * (rows[2] - 50) < 0


def test_three_objectives_keep_the_best_of_each_and_a_middle():
    corners = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0.3, 0.3, 0.3], [0.9, 0.9, 0.9]], dtype=float)
    rows = hypervolume_order(corners, 4)
    assert rows[0] == 3 and set(rows.tolist()) == {0, 1, 2, 3}


# ------------------------------------------------------------------------------------------------ searches


def best(sampler, space, function, trials):
    study = tuner.create_study(sampler=sampler, space=space)
    study.optimize(lambda trial: function(trial.params), n_trials=trials)
    return study.best_value


def sphere(p):
    return sum((p[f"x{i}"] - 0.3 - 0.1 * i) ** 2 for i in range(5))


def mixed(p):
    return (
        (np.log10(p["lr"]) + 2) ** 2
        + (p["kind"] != "b")
        + abs(p["depth"] - 3)
        + (p["batch"] != 32) * 0.5
        + (p.get("momentum", 0.9) - 0.9) ** 2
    )


SEARCHES = {
    "sphere": (Space({f"x{i}": Float(0, 1) for i in range(5)}), sphere),
    "mixed and conditional": (
        Space(
            {
                "lr": Float(1e-5, 1, log=True),
                "kind": Categorical(["a", "b", "c", "d"]),
                "depth": Int(1, 8),
                "batch": Ordinal([8, 16, 32, 64]),
                "momentum": Float(0, 0.99),
            },
            {"momentum": {"parent": "kind", "equals": "b"}},
        ),
        mixed,
    ),
}


@pytest.mark.parametrize("options", [{}, {"multivariate": False}, {"group": False}], ids=str)
@pytest.mark.parametrize(("space", "function"), SEARCHES.values(), ids=SEARCHES.keys())
def test_it_beats_random_search_by_a_wide_margin(space, function, options):
    ours = [best(TPESampler(seed=seed, **options), space, function, 60) for seed in range(4)]
    random = [best(RandomSampler(seed=seed), space, function, 60) for seed in range(4)]
    assert np.mean(ours) < np.mean(random) / (2 if options.get("multivariate", True) else 1)


def branches(trial):
    if trial.suggest_categorical("kind", ["near", "far"]) == "near":
        return (trial.suggest_float("a", 0, 1) - 0.7) ** 2
    return 1 + trial.suggest_float("b", 0, 1) + trial.suggest_float("c", 0, 1)


def test_define_by_run_branches_are_groups_that_learn_from_their_own_trials():
    study = tuner.create_study(sampler=TPESampler(seed=1))
    study.optimize(branches, n_trials=40)
    space = study._seen_space(40)
    groups = study.sampler._groups(space, study._history(40).observations(space))
    named = {tuple(space.names[axis] for axis in group) for group in groups}
    assert {frozenset(g) for g in named} == {frozenset(["kind"]), frozenset(["a"]), frozenset(["b", "c"])}
    late = study.trials[20:]
    assert sum(t.params["kind"] == "near" for t in late) > 12
    assert study.best_value < 1e-3


def test_parallel_proposals_keep_apart():
    space = Space({"x": Float(0, 1), "y": Float(0, 1)})

    def spread(liar):
        study = tuner.create_study(sampler=TPESampler(seed=3, constant_liar=liar), space=space)
        study.optimize(lambda trial: (trial.params["x"] - 0.5) ** 2 + (trial.params["y"] - 0.5) ** 2, n_trials=30)
        points = np.array([list(study.ask().params.values()) for _ in range(8)])
        distances = np.linalg.norm(points[:, None] - points, axis=2)
        return distances[np.triu_indices(8, 1)].mean()

    assert spread(True) > 1.5 * spread(False)


def test_parallel_proposals_are_never_the_same():
    study = tuner.create_study(sampler=TPESampler(seed=0, n_startup_trials=2), space=Space({"n": Int(1, 30)}))
    study.optimize(lambda trial: trial.params["n"], n_trials=6)
    asked = [study.ask().params["n"] for _ in range(24)]
    assert len({*asked, *(t.params["n"] for t in study.trials)}) == 30


def test_it_goes_on_when_every_trial_failed_or_gave_the_same():
    space = Space({"x": Float(0, 1), "c": Categorical([1, 2])})
    for result in (np.nan, 1.0, np.inf, -np.inf):
        study = tuner.create_study(sampler=TPESampler(seed=0, n_startup_trials=3), space=space)
        study.optimize(lambda trial, result=result: result, n_trials=8)
        assert len({t.params["x"] for t in study.trials}) == 8


def test_without_a_prior_the_search_stays_near_the_good_trials():
    space, sampler = Space({f"x{i}": Float(0, 1) for i in range(3)}), TPESampler(seed=0, consider_prior=False)
    study = tuner.create_study(sampler=sampler, space=space)
    study.optimize(lambda trial: round(sum(trial.params.values()), 1), n_trials=60)  # with ties, which weigh nothing
    assert np.mean([t.value for t in study.trials[40:]]) < 0.5


def test_thousands_of_categories_are_learned():
    space = Space({"c": Categorical([f"c{i}" for i in range(3000)]), "x": Float(0, 1)})
    study = tuner.create_study(sampler=TPESampler(seed=0), space=space)
    study.optimize(lambda trial: trial.params["x"] - (trial.params["c"] == "c7"), n_trials=15)
    study.enqueue_trial({"c": "c7", "x": 0.5})
    study.optimize(lambda trial: trial.params["x"] - (trial.params["c"] == "c7"), n_trials=25)
    assert sum(t.params["c"] == "c7" for t in study.trials) > 5
    assert study.best_value < -0.8


def test_hard_constraints_are_kept_and_soft_ones_learned_from_values():
    space = Space({"x": Float(0, 1), "y": Float(0, 1)}, constraints=["x + y <= 1"])
    study = tuner.create_study(sampler=TPESampler(seed=0), space=space)
    study.optimize(lambda trial: -trial.params["x"] - 2 * trial.params["y"], n_trials=40)
    assert all(t.params["x"] + t.params["y"] <= 1 for t in study.trials)
    assert study.best_value < -1.9

    free, values = Space({"x": Float(0, 1), "y": Float(0, 1)}), []
    for seed in range(3):
        sampler = TPESampler(seed=seed, constraints_func=lambda t: [t.params["x"] + t.params["y"] - 0.3])
        study = tuner.create_study(sampler=sampler, space=free)
        study.optimize(lambda trial: -trial.params["x"] - 2 * trial.params["y"], n_trials=60)
        assert sum(t.feasible for t in study.trials[30:]) > 2 * sum(t.feasible for t in study.trials[:10])
        values.append(study.best_value)
    assert np.mean(values) < -0.4


def test_two_objectives_fill_the_front():
    space = Space({"x": Float(0, 1), "y": Float(0, 1), "z": Float(0, 1)})

    def share_near(sampler):
        study = tuner.create_study(sampler=sampler, space=space, directions=["minimize", "maximize"])

        def objective(trial):
            x, y, z = trial.params.values()
            return x + y**2 + z**2, np.sqrt(x) - y**2 - z**2

        study.optimize(objective, n_trials=80)
        late = study.trials[40:]
        first = np.array([t.values[0] for t in study.best_trials])
        return np.mean([t.params["y"] ** 2 + t.params["z"] ** 2 < 0.05 for t in late]), np.ptp(first)

    near, width = share_near(TPESampler(seed=0))
    assert near > 4 * share_near(RandomSampler(seed=0))[0]
    assert width > 0.5


def test_it_takes_pruned_curves_into_account():
    def objective(trial):
        for step in range(1, 10):
            trial.report(trial.params["x"] + 1 / step, step)
            if trial.params["x"] > 0.2 and step == 3:
                raise tuner.TrialPruned
        return trial.params["x"] + 1 / 9

    study = tuner.create_study(sampler=TPESampler(seed=0), space=Space({"x": Float(0, 1)}))
    study.optimize(objective, n_trials=40)
    assert np.mean([t.params["x"] for t in study.trials[20:]]) < 0.2


# ----------------------------------------------------------------------------------------------- arguments


def test_gamma_and_weights_are_asked_by_the_number_of_trials():
    asked = {"gamma": set(), "weights": set()}

    def gamma(n):
        asked["gamma"].add(n)
        return 3

    def weights(n):
        asked["weights"].add(n)
        return np.arange(1, n + 1)

    study = tuner.create_study(
        sampler=TPESampler(seed=0, gamma=gamma, weights=weights), space=Space({"x": Float(0, 1)})
    )
    study.optimize(lambda trial: trial.params["x"], n_trials=13)
    assert asked == {"gamma": {10, 11, 12}, "weights": {3, 7, 8, 9}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_startup_trials": -1}, "n_startup_trials must be a whole number >= 0, got -1"),
        ({"n_ei_candidates": 0}, "n_ei_candidates must be a whole number >= 1, got 0"),
        ({"n_ei_candidates": 1.5}, "n_ei_candidates must be"),
        ({"prior_weight": -1.0}, "prior_weight must be a number in \\[0, inf\\), got -1.0"),
        ({"gamma": 3}, "gamma must be a function"),
        ({"weights": [1]}, "weights must be a function"),
        ({"constraints_func": 3}, "constraints_func must be a function"),
        ({"seed": 0.5}, "seed must be a whole number"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        TPESampler(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": lambda n: -1}, r"gamma\(4\) must be at least 0, got -1"),
        ({"weights": lambda n: [-1.0] * n}, "numbers of at least 0, not all 0"),
        ({"weights": lambda n: [1.0]}, r"weights\(3\) must give 3 numbers"),
    ],
)
def test_functions_that_give_nonsense_are_named(options, message):
    study = tuner.create_study(
        sampler=TPESampler(seed=0, n_startup_trials=4, **options), space=Space({"x": Float(0, 1)})
    )
    with pytest.raises((ValueError, SpaceError), match=message):
        study.optimize(lambda trial: trial.params["x"], n_trials=6)


def test_a_study_in_optunas_words_runs():
    optuna = pytest.importorskip("optuna")
    import inspect

    theirs = inspect.signature(optuna.samplers.TPESampler.__init__).parameters
    assert set(theirs) <= set(inspect.signature(TPESampler.__init__).parameters)
