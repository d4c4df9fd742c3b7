"""`TunerSearchCV` against scikit-learn's own searches, its estimator checks, and its promises of its own."""

import json
import pickle
import warnings

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

from joblib import parallel_config  # noqa: E402
from scipy import stats  # noqa: E402
from sklearn.base import BaseEstimator, ClassifierMixin, clone  # noqa: E402
from sklearn.datasets import load_diabetes, load_iris, make_blobs  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.exceptions import FitFailedWarning, NotFittedError  # noqa: E402
from sklearn.linear_model import LogisticRegression, Ridge  # noqa: E402
from sklearn.metrics import accuracy_score, make_scorer  # noqa: E402
from sklearn.model_selection import (  # noqa: E402
    GridSearchCV,
    GroupKFold,
    KFold,
    RandomizedSearchCV,
    ShuffleSplit,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.svm import SVC  # noqa: E402

import tuner  # noqa: E402
from tuner import Categorical, Float, Int, Ordinal, Space, SpaceError, StorageError, TunerSearchCV  # noqa: E402
from tuner.pruners import FoldPruner, NopPruner  # noqa: E402
from tuner.samplers import GridSampler, RandomSampler  # noqa: E402
from tuner.sklearn import domain_of  # noqa: E402
from tuner.space import domain_from_json  # noqa: E402
from tuner.trial import FrozenTrial, TrialState  # noqa: E402

X, Y = load_iris(return_X_y=True)
GRID = {"C": [0.01, 1.0, 30.0], "kernel": ["rbf", "linear"]}


def grid_search(estimator, grid, **options):
    options = {"pruner": NopPruner(), **options}
    return TunerSearchCV(estimator, grid, n_trials=None, sampler=GridSampler(), **options)


def by_params(search):
    """cv_results_ as {settings: {key: value}} without what depends on the clock or on the order of settings."""
    results = search.cv_results_
    keys = [key for key in results if "time" not in key and key not in ("params", "n_folds")]
    return {
        repr(sorted(params.items())): {key: results[key][i] for key in keys if not key.startswith("param_")}
        for i, params in enumerate(results["params"])
    }


# --------------------------------------------------------------------- the same as scikit-learn's own search


@pytest.mark.parametrize(
    "scoring", [None, "f1_macro", ["accuracy", "f1_macro"], {"a": "accuracy", "b": "recall_macro"}]
)
def test_a_grid_gives_what_grid_search_gives(scoring):
    refit = {list: "f1_macro", dict: "b"}.get(type(scoring), True)
    options = {"scoring": scoring, "refit": refit, "cv": 4, "return_train_score": True}
    ours, theirs = grid_search(SVC(), GRID, **options).fit(X, Y), GridSearchCV(SVC(), GRID, **options).fit(X, Y)
    assert set(ours.cv_results_) == {*theirs.cv_results_, "n_folds"}
    assert by_params(ours) == by_params(theirs)
    for key, column in theirs.cv_results_.items():
        assert type(ours.cv_results_[key]) is type(column)
        if key != "params":
            assert ours.cv_results_[key].dtype == column.dtype, key
    assert ours.best_score_ == theirs.best_score_
    assert ours.multimetric_ == theirs.multimetric_
    assert ours.n_splits_ == theirs.n_splits_ == 4
    assert type(ours.scorer_) is type(theirs.scorer_)
    assert ours.best_params_ == ours.cv_results_["params"][ours.best_index_]
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    assert ours.n_features_in_ == 4
    assert ours.refit_time_ >= 0
    if ours.best_params_ == theirs.best_params_:
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
        np.testing.assert_array_equal(ours.decision_function(X), theirs.decision_function(X))
        assert ours.score(X, Y) == theirs.score(X, Y)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_workers_change_no_score(n_jobs):
    grid = {"alpha": [0.01, 0.1, 1.0, 10.0, 100.0]}
    with parallel_config("threading"):
        ours = grid_search(Ridge(), grid, n_jobs=n_jobs, cv=3).fit(X, Y)
    assert by_params(ours) == by_params(GridSearchCV(Ridge(), grid, cv=3).fit(X, Y))


def test_groups_and_fit_parameters_are_passed_on():
    groups, weights = np.arange(len(Y)) % 7, np.linspace(0.1, 2.0, len(Y))
    options = {"cv": GroupKFold(3)}
    ours = grid_search(SVC(), GRID, **options).fit(X, Y, groups=groups, sample_weight=weights)
    theirs = GridSearchCV(SVC(), GRID, **options).fit(X, Y, groups=groups, sample_weight=weights)
    assert by_params(ours) == by_params(theirs)
    unweighted = GridSearchCV(SVC(), GRID, **options).fit(X, Y, groups=groups)
    assert by_params(ours) != by_params(unweighted)


@pytest.mark.parametrize(
    "scoring", [lambda e, x, y: {"hits": e.score(x, y), "ones": 1.0}, make_scorer(accuracy_score)], ids=["dict", "one"]
)
def test_a_callable_may_score(scoring):
    refit = "hits" if not hasattr(scoring, "_score_func") else True
    ours = grid_search(SVC(), GRID, scoring=scoring, refit=refit, cv=3).fit(X, Y)
    theirs = GridSearchCV(SVC(), GRID, scoring=scoring, refit=refit, cv=3).fit(X, Y)
    assert by_params(ours) == by_params(theirs)
    assert ours.score(X, Y) == theirs.score(X, Y)


def test_a_callable_may_choose():
    def simplest(results):
        return int(np.argmin(results["param_C"].astype(float)))

    search = grid_search(SVC(), GRID, refit=simplest, cv=3).fit(X, Y)
    assert search.best_params_["C"] == 0.01
    assert not hasattr(search, "best_score_")
    several = grid_search(SVC(), GRID, scoring=["accuracy", "f1_macro"], refit=simplest, cv=3).fit(X, Y)
    assert several.best_params_["C"] == 0.01


def test_without_refit_there_is_nothing_to_predict_with():
    search = grid_search(SVC(), GRID, refit=False, cv=3).fit(X, Y)
    assert search.best_params_
    assert not hasattr(search, "best_estimator_")
    assert not hasattr(search, "predict")
    with pytest.raises(NotFittedError):
        TunerSearchCV(SVC(), GRID).predict(X)


def test_methods_are_those_of_the_estimator():
    search = grid_search(PCA(), {"n_components": [1, 2]}, cv=3).fit(X)
    assert search.best_params_ == GridSearchCV(PCA(), {"n_components": [1, 2]}, cv=3).fit(X).best_params_
    np.testing.assert_array_equal(search.transform(X), search.best_estimator_.transform(X))
    assert search.inverse_transform(search.transform(X)).shape == X.shape
    assert not hasattr(search, "predict")
    logistic = grid_search(LogisticRegression(max_iter=1000), {"C": [1.0, 10.0]}).fit(X, Y)
    np.testing.assert_allclose(logistic.predict_proba(X).sum(axis=1), 1.0)
    np.testing.assert_array_equal(logistic.predict_log_proba(X), np.log(logistic.predict_proba(X)))


class Sometimes(ClassifierMixin, BaseEstimator):
    """Fails if told to, and otherwise knows the most frequent class."""

    def __init__(self, fails=False, level=0.0):
        self.fails = fails
        self.level = level

    def fit(self, x, y):
        if self.fails:
            raise RuntimeError("it was told to")
        self.classes_, counts = np.unique(y, return_counts=True)
        self.most_ = self.classes_[counts.argmax()]
        return self

    def predict(self, x):
        return np.full(len(x), self.most_)


def test_failing_settings_are_reported_as_scikit_learn_does():
    grid = {"fails": [False, True]}
    with pytest.warns(FitFailedWarning, match="3 fits failed out of a total of 6"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One or more")
        search = grid_search(Sometimes(), grid, cv=3).fit(X, Y)
    assert search.best_params_ == {"fails": False}
    assert [t.state for t in search.study_.trials].count(TrialState.FAIL) == 1
    with pytest.raises(RuntimeError, match="told to"):
        grid_search(Sometimes(), grid, cv=3, error_score="raise").fit(X, Y)
    with pytest.raises(ValueError, match="All the 3 fits failed"):
        grid_search(Sometimes(), {"fails": [True]}, cv=3).fit(X, Y)
    with pytest.warns(FitFailedWarning):
        search = grid_search(Sometimes(), grid, cv=3, error_score=-1.0).fit(X, Y)
    assert sorted(search.cv_results_["mean_test_score"])[0] == -1.0


@pytest.mark.parametrize("estimator", [LogisticRegression(), Ridge()], ids=["classifier", "regressor"])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_estimator_checks_pass(estimator):
    pytest.importorskip("sklearn", minversion="1.6")
    from sklearn.utils.estimator_checks import estimator_checks_generator

    name = "C" if isinstance(estimator, LogisticRegression) else "alpha"
    search = TunerSearchCV(estimator, {name: [0.1, 1.0]}, n_trials=2, cv=2, error_score="raise")
    checks = 0
    for instance, check in estimator_checks_generator(search):
        if "array_api" in check.func.__name__:  # asks for libraries that are not there
            continue
        check(instance)
        checks += 1
    assert checks > 30


# --------------------------------------------------------------------------------------------- its interface


def test_it_is_an_estimator_like_others():
    search = TunerSearchCV(make_pipeline(StandardScaler(), SVC()), {"svc__C": Float(0.1, 10, log=True)}, n_trials=3)
    twin = clone(search)
    assert twin.get_params()["param_distributions"] == {"svc__C": Float(0.1, 10, log=True)}
    assert twin.set_params(n_trials=2, estimator__svc__kernel="linear").estimator.named_steps["svc"].kernel == "linear"
    twin.fit(X, Y)
    assert len(twin.cv_results_["params"]) == 2
    assert sklearn.base.is_classifier(twin)
    again = pickle.loads(pickle.dumps(twin))
    np.testing.assert_array_equal(again.predict(X), twin.predict(X))
    assert not hasattr(again, "study_")
    assert "TunerSearchCV" in repr(twin)
    assert tuner.TunerSearchCV is TunerSearchCV


def test_nested_cross_validation_and_pipelines():
    search = TunerSearchCV(SVC(), {"C": Float(1e-2, 1e2, log=True)}, n_trials=3, cv=3, random_state=0)
    scores = cross_val_score(make_pipeline(StandardScaler(), search), X, Y, cv=3)
    assert scores.mean() > 0.9
    outer = Pipeline([("scale", StandardScaler()), ("search", search)]).fit(X, Y)
    assert outer.score(X, Y) > 0.9


def test_random_search_has_the_same_form():
    space = {"C": stats.loguniform(1e-2, 1e2), "kernel": ["rbf", "linear"]}
    theirs = RandomizedSearchCV(SVC(), space, n_iter=6, random_state=0, cv=3).fit(X, Y)
    ours = TunerSearchCV(
        SVC(), space, n_trials=6, sampler=RandomSampler(), random_state=0, cv=3, pruner=NopPruner()
    ).fit(X, Y)
    assert set(ours.cv_results_) == {*theirs.cv_results_, "n_folds"}
    assert len(ours.cv_results_["params"]) == 6
    again = clone(ours).fit(X, Y)
    assert again.cv_results_["params"] == ours.cv_results_["params"]
    assert clone(ours).set_params(random_state=1).fit(X, Y).cv_results_["params"] != ours.cv_results_["params"]
    for params in ours.cv_results_["params"]:  # each row can be had again by hand
        i = ours.cv_results_["params"].index(params)
        assert ours.cv_results_["mean_test_score"][i] == cross_val_score(SVC(**params), X, Y, cv=3).mean()


def test_the_estimators_own_settings_come_first():
    search = TunerSearchCV(SVC(C=3.5), {"C": Float(1e-2, 1e2, log=True)}, n_trials=2, cv=3).fit(X, Y)
    assert search.cv_results_["params"][0] == {"C": 3.5}


def test_conditional_spaces_leave_inactive_parameters_alone():
    space = Space(
        {"kernel": Categorical(["linear", "poly"]), "degree": Int(1, 4)},
        {"degree": {"parent": "kernel", "equals": "poly"}},
    )
    search = grid_search(SVC(), space, cv=3).fit(X, Y)
    assert len(search.cv_results_["params"]) == 5
    linear = [i for i, params in enumerate(search.cv_results_["params"]) if params["kernel"] == "linear"]
    assert linear and all(np.ma.is_masked(search.cv_results_["param_degree"][i]) for i in linear)


def test_lists_and_distributions_become_domains():
    assert domain_of([1, 10, 100]) == Ordinal([1, 10, 100])
    assert domain_of(np.array([0.5, 0.25])) == Ordinal([0.5, 0.25])
    assert domain_of([1, 10, 2]) == Categorical([1, 10, 2])
    assert domain_of([False, True]) == Categorical([False, True])
    assert domain_of(Float(0, 1)) == Float(0, 1)
    assert domain_of(stats.uniform(2, 3)) == Float(2, 5)
    assert domain_of(stats.loguniform(0.1, 10)) == Float(0.1, 10, log=True)
    assert domain_of(stats.randint(2, 6)) == Int(2, 5)
    for wrong in ("rbf", 3, {"low": 1}):
        with pytest.raises(TypeError, match=r"param_distributions\['C'\]"):
            domain_of(wrong, "C")


@pytest.mark.parametrize(
    "distribution",
    [
        stats.norm(3, 2),
        stats.expon(scale=100),
        stats.lognorm(s=3),
        stats.beta(2, 5),
        stats.gamma(0.5),
        stats.uniform(2, 3),
    ],
    ids=lambda d: d.dist.name,
)
def test_even_points_of_a_continuous_distributions_domain_are_its_quantiles(distribution):
    domain = domain_of(distribution)
    u = np.linspace(0.01, 0.99, 99)
    values = np.array([domain.decode(point) for point in u])
    np.testing.assert_allclose(distribution.cdf(values), u, atol=0.02)
    np.testing.assert_allclose([domain.encode(value) for value in values], u, atol=1e-6)
    assert domain_from_json(json.loads(json.dumps(domain.to_json()))) == domain


@pytest.mark.parametrize(
    "distribution", [stats.poisson(4), stats.binom(9, 0.3), stats.randint(-2, 5)], ids=lambda d: d.dist.name
)
def test_a_discrete_distributions_domain_draws_its_values_in_proportion(distribution):
    domain = domain_of(distribution)
    u = (np.arange(20000) + 0.5) / 20000
    values, counts = np.unique([domain.decode(point) for point in u], return_counts=True)
    np.testing.assert_allclose(counts / 20000, distribution.pmf(values), atol=1e-3)


def test_wrong_arguments_are_named():
    for options, name in (
        ({"n_trials": 0}, "n_trials"),
        ({"timeout": -1}, "timeout"),
        ({"sampler": "tpe"}, "sampler"),
        ({"pruner": "median"}, "pruner"),
    ):
        with pytest.raises(ValueError, match=name):
            TunerSearchCV(SVC(), GRID, **options).fit(X, Y)
    with pytest.raises(ValueError, match="n_trials and timeout"):
        TunerSearchCV(SVC(), {"C": Float(1, 2)}, n_trials=None).fit(X, Y)
    with pytest.raises(ValueError, match="scoring"):
        TunerSearchCV(SVC(), GRID, scoring=["accuracy", "f1_macro"]).fit(X, Y)
    with pytest.raises(ValueError, match="nothing"):
        TunerSearchCV(SVC(), {"nothing": [1, 2]}).fit(X, Y)
    with pytest.raises(SpaceError, match="choices is empty"):
        TunerSearchCV(SVC(), {"C": []}).fit(X, Y)


@pytest.mark.parametrize("n_trials", [25, None])
def test_a_space_that_is_used_up_ends_the_search(n_trials):
    search = TunerSearchCV(SVC(), GRID, n_trials=n_trials, cv=3, pruner=NopPruner()).fit(X, Y)
    assert by_params(search) == by_params(GridSearchCV(SVC(), GRID, cv=3).fit(X, Y))


def test_time_is_a_limit():
    search = TunerSearchCV(SVC(), {"C": Float(1e-2, 1e2, log=True)}, n_trials=None, timeout=0.3, cv=3).fit(X, Y)
    assert len(search.cv_results_["params"]) >= 1


# ------------------------------------------------------------------------------------------ early rejection


def test_bad_settings_end_after_their_first_folds_and_the_best_is_the_same():
    x, y = make_blobs(150, centers=3, cluster_std=2.5, random_state=1)
    space = {"C": Float(1e-3, 1e3, log=True), "gamma": Float(1e-4, 1e3, log=True)}
    options = {
        "n_trials": 24,
        "random_state": 0,
        "cv": KFold(5, shuffle=True, random_state=0),
        "sampler": RandomSampler(),
    }
    full = TunerSearchCV(SVC(), space, pruner=NopPruner(), **options).fit(x, y)
    early = TunerSearchCV(SVC(), space, **options).fit(x, y)
    assert early.best_params_ == full.best_params_
    assert early.best_score_ == full.best_score_
    folds = early.cv_results_["n_folds"]
    assert full.cv_results_["n_folds"].sum() == 120
    assert folds.sum() < 90
    rejected = folds < 5
    assert np.isnan(early.cv_results_["mean_test_score"][rejected]).all()
    assert early.cv_results_["rank_test_score"][rejected].min() > early.cv_results_["rank_test_score"][~rejected].max()
    for k in range(5):  # what was computed is what the full search has; what was not is NaN
        ours, theirs = early.cv_results_[f"split{k}_test_score"], full.cv_results_[f"split{k}_test_score"]
        np.testing.assert_array_equal(ours, np.where(folds > k, theirs, np.nan))
    states = [t.state for t in early.study_.trials]
    assert states.count(TrialState.PRUNED) == rejected.sum()


def folds_of(scores):
    means = np.cumsum(scores) / np.arange(1, len(scores) + 1)
    return dict(enumerate(means.tolist(), start=1))


def test_the_fold_pruner_compares_the_same_folds_and_leaves_a_margin():
    """Against the same rule, written with an analysis of variance over the table of scores."""
    rng = np.random.default_rng(0)
    effects, hard = rng.normal(0.8, 0.05, 9), np.array([-0.2, 0.0, 0.1, 0.05, 0.05])
    table = effects[:, None] + hard + rng.normal(0, 0.02, (9, 5))
    others = [FrozenTrial(i, TrialState.COMPLETE, [row.mean()], intermediate_values=folds_of(row))
              for i, row in enumerate(table)]  # fmt: skip
    grand, rows, columns = table.mean(), table.mean(1, keepdims=True), table.mean(0)
    deviation = np.sqrt(((table - rows - columns + grand) ** 2).sum() / (8 * 4))
    for done in range(1, 5):
        middle = np.median(table[:, :done].mean(1))
        edge = middle - 2.0 * deviation * np.sqrt(1 / done - 1 / 5)
        for shift, wanted in ((-1e-6, True), (1e-6, False)):
            trial = FrozenTrial(9, intermediate_values=folds_of([edge + shift] * done))
            assert FoldPruner(2.0).prune(trial, others, -1) is wanted
            *mirrored, negative = (
                FrozenTrial(t.number, t.state, intermediate_values={k: -v for k, v in t.intermediate_values.items()})
                for t in (*others, trial)
            )
            assert FoldPruner(2.0).prune(negative, mirrored, 1) is wanted
    few = others[:4]
    assert not FoldPruner(2.0).prune(FrozenTrial(9, intermediate_values={1: -5.0}), few, -1)
    with pytest.raises(ValueError, match="margin"):
        FoldPruner(-1.0)
    with pytest.raises(ValueError, match="n_startup_trials"):
        FoldPruner(n_startup_trials=1)


# --------------------------------------------------------------------------------------------- going on


class Counting(Ridge):
    fits = 0

    def fit(self, x, y, sample_weight=None):
        Counting.fits += 1
        return super().fit(x, y, sample_weight)


def test_a_search_in_a_file_goes_on_where_it_ended(tmp_path):
    x, y = load_diabetes(return_X_y=True)
    space = {"alpha": Float(1e-3, 1e2, log=True)}
    options = {"random_state": 0, "cv": 3, "pruner": NopPruner(), "refit": True}
    file = f"sqlite:///{tmp_path / 'study.db'}"
    Counting.fits = 0
    TunerSearchCV(Counting(), space, n_trials=4, storage=file, **options).fit(x, y)
    assert Counting.fits == 4 * 3 + 1
    both = TunerSearchCV(Counting(), space, n_trials=9, storage=file, **options).fit(x, y)
    assert Counting.fits == 9 * 3 + 2
    once = TunerSearchCV(Counting(), space, n_trials=9, **options).fit(x, y)
    assert both.cv_results_["params"] == once.cv_results_["params"]
    assert by_params(both) == by_params(once)
    assert pickle.loads(pickle.dumps(both)).study_.best_params == both.best_params_
    with pytest.raises(StorageError, match="data"):
        TunerSearchCV(Counting(), space, n_trials=9, storage=file, **options).fit(x[:300], y[:300])
    with pytest.raises(StorageError, match="cv"):
        TunerSearchCV(Counting(), space, storage=file, **{**options, "cv": ShuffleSplit(2)}).fit(x, y)


class Interrupted(Ridge):
    left = 0

    def fit(self, x, y, sample_weight=None):
        Interrupted.left -= 1
        if Interrupted.left == 0:
            raise KeyboardInterrupt
        return super().fit(x, y, sample_weight)


def test_an_interrupted_setting_is_tried_again(tmp_path):
    x, y = load_diabetes(return_X_y=True)
    space = {"alpha": Float(1e-3, 1e2, log=True)}
    options = {"random_state": 0, "cv": 3, "n_trials": 5, "storage": f"sqlite:///{tmp_path / 'study.db'}"}
    Interrupted.left = 8  # in the third setting
    with pytest.raises(KeyboardInterrupt):
        TunerSearchCV(Interrupted(), space, **options).fit(x, y)
    Interrupted.left = -1
    search = TunerSearchCV(Interrupted(), space, **options).fit(x, y)
    once = TunerSearchCV(Interrupted(), space, **{**options, "storage": None}).fit(x, y)
    assert by_params(search) == by_params(once)
    assert [t.number for t in search.study_.trials] == list(range(5))


def test_a_scikit_learn_without_what_is_needed_is_refused_by_name(monkeypatch):
    import importlib

    from sklearn.model_selection import _search

    from tuner import sklearn_private

    monkeypatch.delattr(_search.BaseSearchCV, "_format_results")
    with pytest.raises(ImportError, match=f"{sklearn.__version__}: BaseSearchCV has no _format_results"):
        importlib.reload(sklearn_private)
    monkeypatch.undo()
    importlib.reload(sklearn_private)
