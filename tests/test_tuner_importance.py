"""What matters in a study: against functions whose variances are known, and the forest against brute force."""

import itertools
import math

import numpy as np
import pytest

import tuner
from tuner import Categorical, Float, Int, Ordinal, Space, TrialPruned, importance
from tuner.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from tuner.importance.forest import grow
from tuner.importance.surrogate import Surrogate
from tuner.importance.table import CELLS, Table, estimated_finals, merged
from tuner.samplers import QMCSampler, RandomSampler


def cube(d):
    return Space({f"x{j}": Float(0.0, 1.0) for j in range(d)})


def study_of(function, space, trials, seed=0, direction="minimize"):
    """A study of `function(params)` at random points of the space, of which some may be the same."""
    study = tuner.create_study(space=space, direction=direction)
    for point in np.random.default_rng(seed).random((trials, space.dimensions)):
        study.enqueue_trial(space.decode(point))
    study.optimize(lambda trial: function(trial.params), n_trials=trials)
    return study


def table(points, losses, domains=None):
    names = [f"x{j}" for j in range(points.shape[1])]
    domains = domains or {name: Float(0.0, 1.0) for name in names}
    rows = [dict(zip(names, map(float, row), strict=True)) for row in points]
    return Table.of(rows, [domains] * len(rows), losses)


# ---------------------------------------------------------------------------------- known variances


def ishigami(x):
    z = 2 * np.pi * x - np.pi
    return np.sin(z[..., 0]) + 7 * np.sin(z[..., 1]) ** 2 + 0.1 * z[..., 2] ** 4 * np.sin(z[..., 0])


def g_function(x, a):
    return np.prod((np.abs(4 * x - 2) + a) / (1 + a), axis=-1)


def test_shares_of_ishigami():
    points = np.random.default_rng(0).random((700, 3))
    surrogate = Surrogate(table(points, ishigami(points)))
    parts = [0.5 * (1 + 0.1 * np.pi**4 / 5) ** 2, 7**2 / 8, 0.0]
    together = 0.1**2 * np.pi**8 * 8 / 225
    total = sum(parts) + together
    np.testing.assert_allclose(surrogate.main, np.array(parts) / total, atol=0.06)
    assert surrogate.pairs[0, 2] == pytest.approx(together / total, abs=0.06)
    assert surrogate.pairs[0, 1] < 0.03 and surrogate.pairs[1, 2] < 0.03
    assert surrogate.r2 > 0.85


def test_shares_of_the_g_function():
    a = np.array([0, 1, 4.5, 9, 99, 99])
    points = np.random.default_rng(1).random((700, 6))
    surrogate = Surrogate(table(points, g_function(points, a)))
    parts = 1 / (3 * (1 + a) ** 2)
    total = np.prod(1 + parts) - 1
    np.testing.assert_allclose(surrogate.main, parts / total, atol=0.06)
    assert surrogate.pairs[0, 1] == pytest.approx(parts[0] * parts[1] / total, abs=0.03)


def test_shares_of_an_additive_function_over_every_kind_of_parameter():
    space = Space(
        {
            "lr": Float(1e-4, 1.0, log=True),
            "width": Int(1, 5),
            "batch": Ordinal([16, 32, 64, 128]),
            "kind": Categorical(["a", "b", "c"]),
            "idle": Float(-1, 1),
        }
    )
    of_kind = {"a": 0.0, "b": 2.0, "c": -1.0}
    study = study_of(
        lambda p: math.log10(p["lr"]) + 0.7 * p["width"] + math.log2(p["batch"]) + of_kind[p["kind"]], space, 500
    )
    parts = {
        "lr": 4**2 / 12,
        "width": 0.7**2 * 2,
        "batch": float(np.var([4, 5, 6, 7])),
        "kind": float(np.var(list(of_kind.values()))),
        "idle": 0.0,
    }
    total = sum(parts.values())
    found = importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=1))
    assert found == pytest.approx({name: part / total for name, part in parts.items()}, abs=0.06)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) == pytest.approx(1)


def conditional(fixed):
    """f = 1 for adam, and 3 momentum for sgd, of which 3 in 4 are none."""
    conditions = {"momentum": {"parent": "optimizer", "equals": "sgd"}}
    parameters = {"momentum": Float(0, 1), "optimizer": Categorical(["sgd", "adam"])}
    if fixed:
        return study_of(lambda p: 3 * p["momentum"] if "momentum" in p else 1.0, Space(parameters, conditions), 500)
    study = tuner.create_study(sampler=RandomSampler(seed=2))

    def objective(trial):
        if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "adam":
            return 1.0
        return 3 * trial.suggest_float("momentum", 0, 1)

    study.optimize(objective, n_trials=500)
    return study


@pytest.mark.parametrize("fixed", [True, False])
def test_shares_with_a_parameter_that_is_not_always_there(fixed):
    study = conditional(fixed)
    analysis = importance.Analysis(study)
    # Over the whole square: E[f | optimizer] is 1.5 or 1; E[f | momentum] = 0.5 + 1.5 momentum.
    optimizer, momentum = 0.25**2, 1.5**2 / 12
    together = 1.5**2 / 12  # what is left of 3 m and 1: +- (1.5 m - 0.75)
    total = optimizer + momentum + together
    assert analysis.importances == pytest.approx(
        {"momentum": momentum / total, "optimizer": optimizer / total}, abs=0.06
    )
    assert next(iter(analysis.interactions.values())) == pytest.approx(together / total, abs=0.06)
    # Where it is active, the mean goes from 0 to 3, not from 0.5 to 2.
    dependence = analysis.dependence("momentum")
    np.testing.assert_allclose(dependence.mean, 3 * dependence.values[0], atol=0.25)


def test_the_good_region_counts_with_a_quantile():
    space = cube(2)
    study = study_of(lambda p: 1e6 * p["x0"] if p["x0"] > 0.9 else p["x1"], space, 200)
    plain = importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    cut = importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0, quantile=0.8))
    assert plain["x0"] > 0.95
    assert cut["x1"] > 0.7


def test_infinite_values_and_maximizing():
    space = cube(2)
    study = study_of(lambda p: -math.inf if p["x0"] > 0.95 else -abs(p["x1"] - 0.3), space, 200, direction="maximize")
    found = importance.get_param_importances(study)
    assert found["x1"] > 0.6
    dependence = importance.partial_dependence(study, "x1")
    assert dependence.values[0][int(np.argmax(dependence.mean))] == pytest.approx(0.3, abs=0.1)


def test_against_optuna():
    optuna = pytest.importorskip("optuna")
    pytest.importorskip("sklearn")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    points = np.random.default_rng(3).random((80, 3))
    values = 3 * points[:, 0] + points[:, 1] ** 2
    theirs = optuna.create_study()
    domains = {f"x{j}": optuna.distributions.FloatDistribution(0, 1) for j in range(3)}
    study = tuner.create_study(space=cube(3))
    for row, value in zip(points, values, strict=True):
        params = {f"x{j}": float(u) for j, u in enumerate(row)}
        theirs.add_trial(optuna.create_trial(params=params, distributions=domains, value=value))
        study.enqueue_trial(params)
        study.tell(study.ask(), value)
    for name in ("FanovaImportanceEvaluator", "PedAnovaImportanceEvaluator"):
        wanted = optuna.importance.get_param_importances(theirs, evaluator=getattr(optuna.importance, name)())
        found = importance.get_param_importances(study, evaluator=getattr(importance, name)())
        assert next(iter(found)) == next(iter(wanted))
        assert found == pytest.approx(wanted, abs=0.12), name


# ------------------------------------------------------------------------------------------- PED-ANOVA


def test_ped_anova_of_a_line():
    """The best tenth of f = x lies in [0, 0.1]: gamma^2 * 9 for x, and nothing for the rest."""
    points = np.random.default_rng(0).random((2000, 3))
    space = table(points, points[:, 0])
    for local in (True, False):
        shares = PedAnovaImportanceEvaluator(evaluate_on_local=local).shares(space)
        assert shares[0] == pytest.approx(0.01 * 9, rel=0.15)
        assert shares[1:].max() < 0.003


def test_ped_anova_of_choices():
    """The best fifth is all those with the first of five choices: q / p is 5, then 0."""
    study = study_of(
        lambda p: ["a", "b", "c", "d", "e"].index(p["c"]), Space({"c": Categorical(["a", "b", "c", "d", "e"])}), 1000
    )
    share = sum(t.params["c"] == "a" for t in study.trials) / 1000
    evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
    found = evaluator.evaluate(study)["c"]
    assert found == pytest.approx(share**2 * (1 / share - 1), rel=0.1)


def test_ped_anova_within_a_region():
    """x0 decides who is among the better half, x1 who is among the best of that half."""
    points = np.random.default_rng(0).random((3000, 2))
    space = table(points, 10 * (points[:, 0] > 0.5) + points[:, 1])
    whole = PedAnovaImportanceEvaluator(target_quantile=0.5).shares(space)
    region = PedAnovaImportanceEvaluator(target_quantile=0.05, region_quantile=0.5).shares(space)
    assert whole[0] > 20 * whole[1]
    assert region[1] > 20 * region[0]


def test_ped_anova_of_a_parameter_that_is_not_always_there():
    found = importance.get_param_importances(conditional(True), evaluator=PedAnovaImportanceEvaluator())
    assert found["momentum"] > 3 * found["optimizer"]


def test_older_name_of_the_quantile():
    assert PedAnovaImportanceEvaluator(baseline_quantile=0.2).target_quantile == 0.2


# ------------------------------------------------------------------------------------------- the forest


def one_tree(cells, y, categorical=False, **options):
    sizes = cells.max(axis=0) + 1
    options = {"min_leaf": 1, "features": 1.0, "rng": np.random.default_rng(0)} | options
    return grow(cells[None], y[None], sizes, np.full(len(sizes), categorical), trees=1, **options)


def squared_error(y, left):
    return sum(((part - part.mean()) ** 2).sum() for part in (y[left], y[~left]))


@pytest.mark.parametrize("seed", range(5))
def test_the_first_split_is_the_best_one(seed):
    rng = np.random.default_rng(seed)
    cells, y = rng.integers(0, 6, (30, 3)), rng.normal(size=30)
    forest = one_tree(cells, y, max_depth=1)
    best = min(
        squared_error(y, cells[:, j] <= c)
        for j in range(3)
        for c in range(5)
        if (cells[:, j] > c).any() and (cells[:, j] <= c).any()
    )
    found = forest.predict(cells)[0]
    assert ((y - found) ** 2).sum() == pytest.approx(best)
    forest = one_tree(cells, y, True, max_depth=1)
    subsets = [s for k in range(1, 6) for s in itertools.combinations(range(6), k)]
    sides = [np.isin(cells[:, j], s) for j in range(3) for s in subsets]
    best = min(squared_error(y, side) for side in sides if side.any() and not side.all())
    assert ((y - forest.predict(cells)[0]) ** 2).sum() == pytest.approx(best)


def test_a_full_tree_knows_its_rows_and_its_leaves_cover_the_cube_once():
    rng = np.random.default_rng(0)
    cells = rng.permutation(np.array(list(itertools.product(range(5), range(4), range(3)))))
    y = rng.normal(size=len(cells))
    for categorical in (False, True):
        forest = one_tree(cells, y, categorical)
        np.testing.assert_allclose(forest.predict(cells)[0], y)
        inside = [
            box[0, a] & box[1, b] & box[2, c] for a, b, c in cells for box in [forest.leaf_cells.transpose(1, 2, 0)]
        ]
        assert (np.sum(inside, axis=1) == 1).all()
        np.testing.assert_allclose(np.array(inside) @ forest.leaf_value, y)


def test_integrals_against_sums_over_all_cells():
    rng = np.random.default_rng(0)
    domains = {"x0": Float(0, 1), "x1": Int(1, 6, log=True), "x2": Categorical([0.0, 1.0, 2.0])}
    points = np.stack([rng.random(60), rng.integers(1, 7, 60), rng.integers(0, 3, 60)], axis=1)
    losses = points[:, 0] * points[:, 1] + (points[:, 2] == 1)
    surrogate = Surrogate(table(points, losses, domains), trees=8)
    sizes = [axis.cells for axis in surrogate.table.axes]
    grid = np.array(list(itertools.product(*map(range, sizes))))
    weights = np.prod([surrogate.weights[j][grid[:, j]] for j in range(3)], axis=0)
    values = surrogate.predict(grid).reshape(sizes)
    weights = weights.reshape(sizes)
    assert weights.sum() == pytest.approx(1)
    mean = (values * weights).sum()
    variance = ((values - mean) ** 2 * weights).sum()
    alone = []
    for j in range(3):
        others = tuple(k for k in range(3) if k != j)
        marginal = (values * weights).sum(axis=others) / weights.sum(axis=others)
        alone.append(marginal)
        share = ((marginal - mean) ** 2 * weights.sum(axis=others)).sum() / variance
        assert surrogate.main[j] * surrogate.variance == pytest.approx(share * variance, rel=1e-6)
        np.testing.assert_allclose(surrogate.marginal([j]).mean(axis=0)[: sizes[j]], marginal)
    both = (values * weights).sum(axis=1) / weights.sum(axis=1)
    rest = both - alone[0][:, None] - alone[2] + mean
    share = (rest**2 * weights.sum(axis=1)).sum() / variance
    assert surrogate.pairs[0, 2] * surrogate.variance == pytest.approx(share * variance, rel=1e-3)
    np.testing.assert_allclose(surrogate.marginal([0, 2]).mean(axis=0)[: sizes[0], : sizes[2]], both)
    assert surrogate.variance == pytest.approx(variance, rel=0.1)


def test_equal_rows_and_equal_values_make_no_splits():
    forest = one_tree(np.zeros((10, 2), int), np.arange(10.0))
    assert len(forest.leaf_value) == 1 and forest.leaf_value[0] == pytest.approx(4.5)
    assert len(one_tree(np.arange(10)[:, None], np.full(10, 3.0)).leaf_value) == 1


# --------------------------------------------------------------------------------- trials as a table


def test_ranges_that_changed():
    assert merged([Float(0, 1), Float(-2, 0.5)]) == Float(-2, 1)
    assert merged([Int(1, 5), Int(3, 9)]) == Int(1, 9)
    assert merged([Categorical(["a"]), Categorical(["b", "a"])]) == Categorical(["a", "b"])
    with pytest.raises(ValueError, match="numeric in some trials"):
        merged([Float(0, 1), Categorical(["a"])])
    study = tuner.create_study(sampler=RandomSampler(seed=0))
    study.optimize(lambda t: t.suggest_float("x", 0, 1 + t.number % 3) + t.suggest_float("y", 0, 0.1), n_trials=40)
    assert importance.get_param_importances(study)["x"] > 0.9


def test_thousands_of_choices_and_a_single_one():
    space = Space({"many": Categorical(list(range(5000))), "one": Categorical(["only"]), "x": Float(0, 1)})
    study = study_of(lambda p: p["x"], space, 100)
    found = importance.get_param_importances(study)
    assert found["x"] > 0.9 and found["one"] == 0
    assert Table.of(
        [t.params for t in study.trials], [t.distributions for t in study.trials], [0.0] * 100
    ).axes[0].cells == CELLS  # fmt: skip
    assert importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())["x"] > 0.5
    analysis = importance.Analysis(study)
    assert len(analysis.dependence("many").values[0]) == CELLS - 1


def test_what_trials_that_ended_early_would_have_come_to():
    curves = [
        {1: 10.0, 2: 7.0, 3: 5.0, 4: 4.0},
        {1: 12.0, 2: 9.0, 3: 8.0, 4: 6.0},
        {1: 11.0, 2: 10.0},  # gains what the two above did from 2 to 4: 3 in the median
        {1: 20.0},  # and from 1 to 2, where all three went on: 3
        {},
    ]
    np.testing.assert_allclose(estimated_finals(curves), [4, 6, 7, 14, np.nan])
    assert len(estimated_finals([])) == 0


def test_trials_that_ended_early_count():
    study = tuner.create_study(sampler=RandomSampler(seed=0), space=cube(2))

    def objective(trial):
        for step in range(5):
            trial.report(10 - step + trial.params["x0"], step)
            if step == 1 and trial.number % 4:
                raise TrialPruned
        return 6 + trial.params["x0"]

    study.optimize(objective, n_trials=60)
    analysis = importance.Analysis(study)
    assert analysis.trials == 60
    assert analysis.importances["x0"] > 0.95
    np.testing.assert_allclose(np.sort(analysis.surrogate.losses), np.sort([6 + t.params["x0"] for t in study.trials]))


# ------------------------------------------------------------------------------------------- the words


def network(p):
    value = (math.log10(p["lr"]) + 2) ** 2 + {"sgd": 1.0, "adam": 0.0, "adamw": 0.05}[p["optimizer"]]
    return value - 0.4 * math.log2(p["width"]) + 0.001 * p["idle"]


NETWORK = Space(
    {
        "lr": Float(1e-4, 1.0, log=True),
        "optimizer": Categorical(["sgd", "adam", "adamw"]),
        "width": Int(8, 256, log=True),
        "idle": Float(0, 1),
    }
)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_summary_says_what_matters_and_where_it_is_good(direction):
    sign = 1 if direction == "minimize" else -1
    told = importance.summary(study_of(lambda p: sign * network(p), NETWORK, 250, direction=direction))
    first, *others = told.sentences
    assert first.startswith("lr matters most: 0.")
    assert f"{told.importances['lr']:.2f} of the variance; good between 0.00" in first
    low, high = told.good["lr"]
    assert 1e-3 < low < 8e-3 and 1.2e-2 < high < 1e-1
    assert told.good["optimizer"] in (["adam", "adamw"], ["adamw", "adam"])
    assert any("optimizer" in s and "good: adam" in s for s in others)
    assert "idle hardly matters." in others
    assert told.warnings == ["width is best at the upper end of its range (256): widen it if you can."]
    assert told.good["width"][1] == 256
    assert str(told).count("\n") == len(told.sentences)
    assert told.to_dict()["importances"] == told.importances


def test_a_summary_tells_interactions():
    study = study_of(lambda p: (p["x0"] - 0.5) * (p["x1"] - 0.5), cube(3), 300)
    told = importance.summary(study)
    assert any(s.startswith("x0 and x1 depend on each other: 0.") for s in told.sentences)
    assert next(iter(told.interactions)) == ("x0", "x1")
    assert not any("x0" in s and "hardly" in s for s in told.sentences)


def test_a_summary_says_when_it_cannot_tell():
    few = importance.summary(study_of(network, NETWORK, 6))
    assert few.sentences == [] and "only 6 trials for 4 parameters: too few" in str(few)
    some = importance.summary(study_of(lambda p: p["lr"], NETWORK, 15))
    assert some.sentences and "too few to tell for sure" in str(some)
    none = importance.summary(tuner.create_study())
    assert none.sentences == [] and "no trial has a value" in str(none)
    one = importance.summary(study_of(network, NETWORK, 1))
    assert one.sentences == [] and "at least 2" in str(one)
    equal = importance.summary(study_of(lambda p: 1.0, NETWORK, 40))
    assert equal.sentences == ["All trials came to the same value."]
    noise = np.random.default_rng(0)
    told = importance.summary(study_of(lambda p: float(noise.normal()), NETWORK, 60))
    assert told.sentences == [] and "the values are noisy" in str(told)
    assert "widen" not in str(importance.summary(study_of(lambda p: (p["x0"] - 0.5) ** 2, cube(1), 60)))


def test_a_summary_is_the_same_each_time():
    study = study_of(network, NETWORK, 40)
    assert importance.summary(study) == importance.summary(study)


# ------------------------------------------------------------------------------------- partial dependence


def test_partial_dependence_of_one_and_two():
    study = study_of(lambda p: p["x0"] + 2 * p["x1"] + p["x0"] * p["x1"], cube(3), 400)
    one = importance.partial_dependence(study, "x0", points=20)
    assert one.mean.shape == one.spread.shape == (20,)
    np.testing.assert_allclose(one.values[0], np.linspace(0, 1, 20))
    np.testing.assert_allclose(one.mean[2:-2], (1.5 * one.values[0] + 1)[2:-2], atol=0.15)
    two = importance.partial_dependence(study, "x0", "x1", points=8)
    assert two.mean.shape == (8, 8)
    a, b = np.meshgrid(*two.values, indexing="ij")
    np.testing.assert_allclose(two.mean[1:-1, 1:-1], (a + 2 * b + a * b)[1:-1, 1:-1], atol=0.35)
    assert (two.spread >= 0).all()


def test_partial_dependence_in_the_parameters_own_unit():
    dependence = importance.Analysis(study_of(network, NETWORK, 100)).dependence("optimizer", "lr")
    assert dependence.values[0] == ["sgd", "adam", "adamw"]
    assert dependence.values[1][0] == pytest.approx(1e-4) and dependence.values[1][-1] == pytest.approx(1.0)
    assert (dependence.mean[0] > dependence.mean[1]).all()


# -------------------------------------------------------------------------------------------- arguments


def test_parameters_and_targets():
    study = study_of(network, NETWORK, 60)
    assert list(importance.get_param_importances(study, params=["idle", "lr"])) == ["lr", "idle"]
    assert sum(importance.get_param_importances(study, params=["idle", "lr"]).values()) == pytest.approx(1)
    assert sum(importance.get_param_importances(study, normalize=False).values()) < 1
    found = importance.get_param_importances(study, target=lambda t: t.params["idle"])
    assert found["idle"] > 0.95
    assert next(iter(importance.get_interactions(study))) in itertools.combinations(NETWORK.names, 2)


def test_several_objectives_want_a_target():
    study = tuner.create_study(directions=["minimize", "maximize"], space=cube(2), sampler=QMCSampler(seed=0))
    study.optimize(lambda t: (t.params["x0"], t.params["x1"]), n_trials=40)
    for ask in (importance.get_param_importances, importance.summary, importance.Analysis):
        with pytest.raises(ValueError, match="2 objectives; give target"):
            ask(study)
    assert importance.get_param_importances(study, target=lambda t: t.values[1])["x1"] > 0.95
    second = importance.summary(study, objective=1)
    assert second.sentences[0].startswith("x1 matters most") and second.good["x1"][1] == 1.0
    with pytest.raises(ValueError, match="objective must be in 0 to 1, got 2"):
        importance.Analysis(study, objective=2)


def test_trials_that_ended_early_count_with_several_objectives():
    study = tuner.create_study(directions=["minimize", "maximize"], space=cube(2), sampler=RandomSampler(seed=0))

    def objective(trial):
        for step in range(4):
            trial.report([trial.params["x0"] - step, trial.params["x1"] + step], step)
            if step == 1 and trial.number % 4:
                raise TrialPruned
        return trial.params["x0"] - 3, trial.params["x1"] + 3

    study.optimize(objective, n_trials=48)
    for k, name in enumerate(("x0", "x1")):
        analysis = importance.Analysis(study, objective=k)
        assert analysis.trials == 48
        assert analysis.importances[name] > 0.95
        wanted = [t.params["x0"] - 3 if k == 0 else -t.params["x1"] - 3 for t in study.trials]
        np.testing.assert_allclose(np.sort(analysis.surrogate.losses), np.sort(wanted))


def test_errors_name_the_argument():
    study = study_of(network, NETWORK, 10)
    with pytest.raises(ValueError, match="params names 'depth', which no trial has; they have lr, "):
        importance.get_param_importances(study, params=["depth"])
    with pytest.raises(ValueError, match="no trial has a value"):
        importance.get_param_importances(tuner.create_study())
    with pytest.raises(TypeError, match="evaluator must be"):
        importance.get_param_importances(study, evaluator="fanova")
    with pytest.raises(ValueError, match=r"n_trees must be a whole number of at least 1, got 0"):
        FanovaImportanceEvaluator(n_trees=0)
    with pytest.raises(ValueError, match=r"quantile must be a number in \(0, 1\], got 0"):
        FanovaImportanceEvaluator(quantile=0)
    with pytest.raises(ValueError, match="target_quantile must be below region_quantile"):
        PedAnovaImportanceEvaluator(target_quantile=0.5, region_quantile=0.5)
    with pytest.raises(ValueError, match="one or two different parameters of lr, "):
        importance.partial_dependence(study, "lr", "lr")
