"""A tuner: search over the settings of any function, and of training runs that can stop and go on.

    import tuner

    study = tuner.create_study(direction="minimize", storage="sqlite:///study.db")
    study.optimize(lambda trial: (trial.suggest_float("x", -1, 1) - 0.5) ** 2, n_trials=50)
    study.best_params

    result = tuner.tune(x, y, minutes=5)      # searches over nanonet's own training settings

All but `tune` works for any function and imports neither nanonet nor its kernels.
"""

from __future__ import annotations

from typing import Any

from . import (
    devices,
    errors,
    executors,
    importance,
    pruners,
    samplers,
    schedulers,
    space,
    storage,
    study,
    terminators,
    trial,
)
from .constraints import Constraint
from .errors import DuplicatedStudyError, SpaceError, SpaceExhausted, StorageError, TrialLost, TrialPruned
from .priors import Near, Weights
from .resumable import Resumable, Stackable
from .space import Categorical, Float, Int, Ordinal, Space
from .study import Study, create_study, load_study
from .trial import FrozenTrial, Trial, TrialState

__all__ = [
    "Categorical",
    "Constraint",
    "DuplicatedStudyError",
    "Float",
    "FrozenTrial",
    "Hypergradient",
    "Int",
    "Near",
    "Ordinal",
    "Resumable",
    "Space",
    "SpaceError",
    "SpaceExhausted",
    "Stackable",
    "StorageError",
    "Study",
    "Trial",
    "TrialLost",
    "TrialPruned",
    "TrialState",
    "TuneResult",
    "TunerSearchCV",
    "Weights",
    "build",
    "create_study",
    "devices",
    "errors",
    "executors",
    "gradient_tune",
    "importance",
    "load_study",
    "pruners",
    "report",
    "samplers",
    "schedulers",
    "space",
    "space_of",
    "storage",
    "study",
    "terminators",
    "trial",
    "tune",
]


#: What is imported when it is first asked for, glue to training and to scikit-learn among it: name -> module.
_LATER = {
    "TuneResult": "tune",
    "TunerSearchCV": "sklearn",
    "Hypergradient": "hypergradient",
    "build": "derived",
    "gradient_tune": "hypergradient",
    "report": "reporting",
    "space_of": "derived",
    "tune": "tune",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f".{_LATER[name]}", __name__)
    globals().update({known: getattr(module, known) for known, place in _LATER.items() if place == _LATER[name]})
    return globals()[name]
