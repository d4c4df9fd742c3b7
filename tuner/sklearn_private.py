"""What `tuner.sklearn` uses of scikit-learn beyond its public interface, in one place.

A search of one's own has no public base class: `cross_validate` cannot run a few folds of several settings at a time,
nor say which fit failed, and nothing public makes `cv_results_`. The tests of TunerSearchCV hold with scikit-learn
VERSIONS. Another version that lacks one of these names is refused when this is imported.
"""

from __future__ import annotations

import sklearn

__all__ = [
    "VERSIONS",
    "BaseSearchCV",
    "Interval",
    "check_method_params",
    "fit_and_score",
    "insert_error_scores",
    "warn_or_raise_about_fit_failures",
]

VERSIONS = "1.6 to 1.9"
METHODS = (
    "_check_refit_for_multimetric",
    "_format_results",
    "_get_routed_params_for_fit",
    "_get_scorers",
    "_parameter_constraints",
    "_select_best_index",
    "_validate_params",
)
"""Of BaseSearchCV, in use by TunerSearchCV."""

try:
    from sklearn.model_selection._search import BaseSearchCV
    from sklearn.model_selection._validation import _fit_and_score as fit_and_score
    from sklearn.model_selection._validation import _insert_error_scores as insert_error_scores
    from sklearn.model_selection._validation import (
        _warn_or_raise_about_fit_failures as warn_or_raise_about_fit_failures,
    )
    from sklearn.utils._param_validation import Interval
    from sklearn.utils.validation import _check_method_params as check_method_params

    missing = [name for name in METHODS if not hasattr(BaseSearchCV, name)]
    if missing:
        raise ImportError(f"BaseSearchCV has no {', '.join(missing)}")
except ImportError as error:
    raise ImportError(
        f"TunerSearchCV works with scikit-learn {VERSIONS}, and not with {sklearn.__version__}: {error}"
    ) from error
