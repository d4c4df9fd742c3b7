"""`TunerSearchCV`: scikit-learn's search interface, with this tuner's samplers behind it."""

from __future__ import annotations

import copy
import hashlib
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import clone, is_classifier
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state, indexable

from .errors import StorageError
from .pruners import FoldPruner, NopPruner, Pruner
from .samplers import AutoSampler, Sampler
from .sklearn_private import (
    BaseSearchCV,
    Interval,
    check_method_params,
    fit_and_score,
    insert_error_scores,
    warn_or_raise_about_fit_failures,
)
from .space import Categorical, Domain, Ordinal, Space
from .storage import MemoryStorage
from .storage.owner import new_owner
from .study import Study, create_study
from .trial import FrozenTrial, Trial, TrialState

__all__ = ["TunerSearchCV", "domain_of"]


class TunerSearchCV(BaseSearchCV):
    """Search over an estimator's parameters with cross-validation, in the manner of scikit-learn's own searches.

        search = TunerSearchCV(SVC(), {"C": tuner.Float(1e-2, 1e3, log=True), "kernel": ["rbf", "poly"]}, n_trials=40)
        search.fit(x, y).best_params_

    param_distributions: name -> a tuner domain, a list of values, or a frozen distribution of scipy.stats; or a `Space`
        (with conditions: a parameter that is inactive keeps the estimator's own value).
        A list of numbers in order is ordinal, any other one categorical.
    n_trials: how many settings to try in all, at most as many as there are; None for no other limit than that.
    timeout: seconds after which none is begun.
    sampler: AutoSampler unless given; it is first given the estimator's present parameters, if they are in the space.
    pruner: ends a setting's cross-validation early, by the mean score over the folds so far: a `FoldPruner` unless
        given. NopPruner() turns this off. Such a setting has NaN for the folds that were left out, and for its mean.
    random_state: of the sampler, unless that has a seed of its own.
    storage: a file (or "sqlite:///FILE") that keeps every finished setting: the same fit goes on where it was
        interrupted. Parameters must then be what JSON knows.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score: as in GridSearchCV. With several
        metrics the search maximizes the one that `refit` names, otherwise the first. With n_jobs > 1 so many settings
        are proposed at a time.

    All attributes of scikit-learn's searches: cv_results_, best_params_, best_score_, best_estimator_, best_index_,
    scorer_, n_splits_, refit_time_, multimetric_, classes_, n_features_in_, feature_names_in_. Beyond them
    cv_results_["n_folds"], how many folds each setting was tried on, and study_, the study (which a pickle
    leaves out unless it has a storage).
    """

    _parameter_constraints: dict = {  # noqa: RUF012 - scikit-learn's own form
        **BaseSearchCV._parameter_constraints,
        "param_distributions": [Mapping, Space],
        "n_trials": [Interval(Integral, 1, None, closed="left"), None],
        "timeout": [Interval(Real, 0, None, closed="neither"), None],
        "sampler": [Sampler, None],
        "pruner": [Pruner, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any,
        param_distributions: Mapping[str, Any] | Space,
        *,
        n_trials: int | None = 25,
        timeout: float | None = None,
        sampler: Sampler | None = None,
        pruner: Pruner | None = None,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: bool | str | Callable[[dict], int] = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        random_state: Any = None,
        error_score: float | str = np.nan,
        return_train_score: bool = False,
        storage: Any = None,
    ):
        super().__init__(
            estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_distributions = param_distributions
        self.n_trials = n_trials
        self.timeout = timeout
        self.sampler = sampler
        self.pruner = pruner
        self.random_state = random_state
        self.storage = storage

    def fit(self, X: Any, y: Any = None, **params: Any) -> TunerSearchCV:
        """Search, and with `refit` fit the best settings on all rows.

        X (n, ...), y (n,) or (n, outputs) or None; params: `groups` for the splitter, and what the estimator's fit
        takes (cut into folds where it has one entry per row). Raises ValueError if no fit succeeded or no limit is set.
        """
        self._validate_params()
        begin = time.monotonic()
        scorers, refit_metric = self._get_scorers()
        X, y = indexable(X, y)
        params = check_method_params(X, params=params)
        routed = self._get_routed_params_for_fit(params)
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        splits = list(splitter.split(X, y, **routed.splitter.split))
        if not splits:
            raise ValueError("cv gave no folds: no fits can be performed")
        self.n_splits_ = len(splits)
        base = clone(self.estimator)
        study = self._study(X, y)
        evaluation = {
            "scorer": scorers,
            "fit_params": routed.estimator.fit,
            "score_params": routed.scorer.score,
            "return_train_score": self.return_train_score,
            "return_n_test_samples": True,
            "return_times": True,
            "error_score": self.error_score,
            "verbose": self.verbose,
        }

        def folds(trials: Sequence[Trial], numbers: range) -> list[dict[str, Any]]:
            """The results of these folds, trial by trial."""
            return parallel(
                delayed(fit_and_score)(
                    clone(base),
                    X,
                    y,
                    train=splits[fold][0],
                    test=splits[fold][1],
                    parameters=trial.params,
                    split_progress=(fold, len(splits)),
                    candidate_progress=(trial.number, self.n_trials or trial.number + 1),
                    **evaluation,
                )
                for trial in trials
                for fold in numbers
            )

        with Parallel(n_jobs=self.n_jobs, pre_dispatch=self.pre_dispatch) as parallel:
            self._search(study, folds, begin)
        self.study_ = study
        tried = [t for t in study.get_trials() if "folds" in t.user_attrs]
        if not tried:
            raise ValueError("no fits were performed: there was no time, or the space is empty")
        results = self._results(tried)

        if callable(self.scoring) and self.multimetric_:
            self._check_refit_for_multimetric(tried[0].user_attrs["folds"][0]["test_scores"])
            refit_metric = self.refit
        if self.refit or not self.multimetric_:
            self.best_index_ = self._select_best_index(self.refit, refit_metric, results)
            if not callable(self.refit):
                self.best_score_ = results[f"mean_test_{refit_metric}"][self.best_index_]
            self.best_params_ = results["params"][self.best_index_]
        if self.refit:
            self.best_estimator_ = clone(base).set_params(**clone(self.best_params_, safe=False))
            start = time.time()
            self.best_estimator_.fit(X, *(() if y is None else (y,)), **routed.estimator.fit)
            self.refit_time_ = time.time() - start
            if hasattr(self.best_estimator_, "feature_names_in_"):
                self.feature_names_in_ = self.best_estimator_.feature_names_in_
        self.scorer_ = getattr(scorers, "_scorers", scorers) if not callable(self.scoring) else scorers
        self.cv_results_ = results
        return self

    def __sklearn_tags__(self) -> Any:
        """Those of scikit-learn's searches, and whether the estimator takes several targets."""
        from sklearn.utils import get_tags

        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = get_tags(self.estimator).target_tags.multi_output
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Without study_ if it is kept in memory, which cannot leave the process."""
        state = super().__getstate__()
        study = state.get("study_")
        return {k: v for k, v in state.items() if k != "study_" or not isinstance(study.storage, MemoryStorage)}

    # -------------------------------------------------------------------------------------- the search

    def _study(self, X: Any, y: Any) -> Study:
        space = self._space()
        sampler = copy.copy(self.sampler) if self.sampler is not None else AutoSampler()
        if sampler.seed is None and self.random_state is not None:
            sampler.seed = int(check_random_state(self.random_state).randint(2**31))
        if self.n_trials is None and self.timeout is None and sampler.limit(space) is None and space.size is None:
            raise ValueError("n_trials and timeout are both None; wanted a limit on the search")
        study = create_study(
            direction="maximize",
            sampler=sampler,
            pruner=FoldPruner() if self.pruner is None else self.pruner,
            space=space,
            storage=self.storage,
            study_name="TunerSearchCV",
            load_if_exists=True,
        )
        if self.storage is not None:
            self._check_same_search(study, X, y)
        return study

    def _space(self) -> Space:
        if isinstance(self.param_distributions, Space):
            return self.param_distributions
        parameters = {name: domain_of(values, name) for name, values in self.param_distributions.items()}
        present = self.estimator.get_params()
        default = {n: present[n] for n, d in parameters.items() if n in present and _holds(d, present[n])}
        return Space(parameters, defaults=[default] if default else [])

    def _search(self, study: Study, folds: Callable[..., list[dict[str, Any]]], begin: float) -> None:
        """Try settings, as many at a time as there are workers, until a limit is reached."""
        workers = effective_n_jobs(self.n_jobs)
        at_most = min((n for n in (self.n_trials, study.space.size) if n is not None), default=None)
        owner = new_owner()
        with study.storage.alive():
            study.storage.adopt_abandoned(study.study_id)
            try:
                while self.timeout is None or time.monotonic() - begin < self.timeout:
                    asked = (study._next_trial(owner, at_most) for _ in range(workers))
                    batch = [trial for trial in asked if trial is not None]
                    if not batch:
                        return
                    self._try(study, batch, folds, workers)
            finally:
                study.storage.release_all(study.study_id, owner)

    def _try(self, study: Study, batch: Sequence[Trial], folds: Callable[..., list], workers: int) -> None:
        """Cross-validate some settings side by side; a few folds at a time, after which bad ones end."""
        found: dict[int, list[dict[str, Any]]] = {trial.number: [] for trial in batch}
        alive, done = list(batch), 0
        patient = isinstance(study.pruner, NopPruner)
        while alive and done < self.n_splits_:
            more = self.n_splits_ - done if patient else max(1, workers // len(alive))
            numbers = range(done, min(done + more, self.n_splits_))
            results = folds(alive, numbers)
            done = numbers.stop
            going = []
            for position, trial in enumerate(alive):
                found[trial.number] += results[position * len(numbers) : (position + 1) * len(numbers)]
                mean = self._objective(found[trial.number])
                trial.report(mean, done)
                if done == self.n_splits_:
                    state = TrialState.FAIL if math.isnan(mean) else TrialState.COMPLETE
                    self._end(study, trial, found[trial.number], state, None if math.isnan(mean) else [mean])
                elif trial.should_prune():
                    self._end(study, trial, found[trial.number], TrialState.PRUNED, None)
                else:
                    going.append(trial)
            alive = going

    def _objective(self, results: Sequence[Mapping[str, Any]]) -> float:
        """What is maximized: the mean over these folds of the one metric, that named by `refit`, or the first."""
        scores = [result["test_scores"] for result in results]
        known = next((s for s in scores if isinstance(s, dict)), None)
        if known is not None:
            name = self.refit if isinstance(self.refit, str) and self.refit in known else next(iter(known))
            scores = [s[name] if isinstance(s, dict) else s for s in scores]
        return float(np.mean(scores))

    def _end(
        self, study: Study, trial: Trial, results: Sequence[Mapping[str, Any]], state: TrialState, values: Any
    ) -> None:
        trial.set_user_attr("folds", [_plain(result) for result in results])
        study._end(trial.number, trial._attempt, state, values, None)
        if self.verbose:
            print(f"trial {trial.number}: {state.name.lower()}, {self._objective(results):.6g}, {trial.params}")

    def _check_same_search(self, study: Study, X: Any, y: Any) -> None:
        """A study in a file goes on only with what it was begun with: otherwise its scores could not be compared."""
        now = {
            "estimator": repr(self.estimator),
            "space": study.space.to_json(),
            "cv": repr(self.cv),
            "scoring": repr(self.scoring),
            "refit": repr(self.refit),
            "train scores": self.return_train_score,
            "data": _digest(X) + _digest(y),
        }
        begun = study.user_attrs.get("search")
        if begun is None:
            study.set_user_attr("search", now)
            return
        changed = [name for name in now if begun.get(name) != now[name]]
        if changed:
            raise StorageError(f"{self.storage}: holds a search with another {', '.join(changed)}; name another file")

    # -------------------------------------------------------------------------------------- the results

    def _results(self, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        """cv_results_, with NaN for the folds that were left out."""
        ran = [fold for trial in trials for fold in trial.user_attrs["folds"]]
        warn_or_raise_about_fit_failures(ran, self.error_score)
        left_out = _missing(next(fold for fold in ran if fold["fit_error"] is None))
        out = []
        for trial in trials:
            folds = [dict(fold) for fold in trial.user_attrs["folds"]]
            out += [*folds, *(dict(left_out) for _ in range(self.n_splits_ - len(folds)))]
        if callable(self.scoring):
            insert_error_scores(out, self.error_score)
        self.multimetric_ = isinstance(out[0]["test_scores"], dict)
        counts = [len(trial.user_attrs["folds"]) for trial in trials]
        with warnings.catch_warnings():
            if min(counts) < self.n_splits_:
                warnings.filterwarnings("ignore", message="One or more of the (test|train) scores are non-finite")
            results = self._format_results([t.params for t in trials], self.n_splits_, out, {"n_folds": counts})
        return results


# ------------------------------------------------------------------------------------------ the space


def domain_of(values: Any, name: str = "values") -> Domain:
    """The domain that a search space's entry stands for: a domain itself, a list, or a frozen scipy distribution.

    Raises TypeError or SpaceError that name the parameter.
    """
    if isinstance(values, Domain):
        return values
    if hasattr(values, "ppf") and hasattr(values, "dist"):
        from .distributions import frozen

        return frozen(values)
    if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray)):
        raise TypeError(
            f"param_distributions[{name!r}] must be a tuner domain, a list of values or a frozen distribution of "
            f"scipy.stats, got {values!r}"
        )
    choices = [value.item() if isinstance(value, np.generic) else value for value in values]
    numbers = all(isinstance(c, Real) and not isinstance(c, bool) for c in choices)
    if numbers and len(choices) > 1:
        steps = np.diff(np.array(choices, dtype=float))
        if (steps > 0).all() or (steps < 0).all():
            return Ordinal(choices)
    return Categorical(choices)


def _holds(domain: Domain, value: Any) -> bool:
    try:
        return value in domain
    except Exception:  # comparing an estimator or an array to the choices
        return False


# --------------------------------------------------------------------------------------------- helpers


def _plain(result: Mapping[str, Any]) -> dict[str, Any]:
    """A fold's result without NumPy's types, ready for JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(v) for key, v in value.items()}
        return value.item() if isinstance(value, np.generic) else value

    kept = ("test_scores", "train_scores", "n_test_samples", "fit_time", "score_time", "fit_error")
    return {key: plain(result[key]) for key in kept if key in result}


def _missing(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a fold that was left out has in place of `result`."""
    return {
        key: dict.fromkeys(value, np.nan) if isinstance(value, Mapping) else np.nan for key, value in result.items()
    } | {"fit_error": None}


def _digest(array: Any) -> str:
    if hasattr(array, "tocsr"):
        array = array.tocsr()
        return "".join(map(_digest, (array.data, array.indices, array.indptr)))
    array = np.ascontiguousarray(array)
    data = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    return hashlib.sha256(data).hexdigest()[:16]
