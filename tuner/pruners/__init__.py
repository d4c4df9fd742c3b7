"""Pruners: which trials to end early. A new one is one file, one row here and one in tests/cases.py."""

from .asynchronous import AsynchronousHalvingPruner, ProgressiveHalvingPruner
from .auto import AutoPruner
from .base import Pruner
from .discarding import EarlyDiscardingPruner
from .folds import FoldPruner
from .freeze_thaw import FreezeThawPruner
from .halving import SuccessiveHalvingPruner
from .hyperband import HyperbandPruner
from .nop import NopPruner
from .patient import PatientPruner
from .percentile import MedianPruner, PercentilePruner
from .population import PopulationTrainingPruner

__all__ = [
    "PRUNERS",
    "AsynchronousHalvingPruner",
    "AutoPruner",
    "EarlyDiscardingPruner",
    "FoldPruner",
    "FreezeThawPruner",
    "HyperbandPruner",
    "MedianPruner",
    "NopPruner",
    "PatientPruner",
    "PercentilePruner",
    "PopulationTrainingPruner",
    "ProgressiveHalvingPruner",
    "Pruner",
    "SuccessiveHalvingPruner",
]

PRUNERS: dict[str, type[Pruner]] = {
    pruner.__name__: pruner
    for pruner in (
        NopPruner,
        MedianPruner,
        PercentilePruner,
        PatientPruner,
        EarlyDiscardingPruner,
        SuccessiveHalvingPruner,
        HyperbandPruner,
        AsynchronousHalvingPruner,
        ProgressiveHalvingPruner,
        PopulationTrainingPruner,
        AutoPruner,
        FreezeThawPruner,
        FoldPruner,
    )
}
"""Every pruner by name."""
