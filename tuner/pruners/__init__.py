"""Pruners: which trials to end early. A new one is one file, one row here and one in tests/cases.py."""

from .base import Pruner
from .folds import FoldPruner
from .halving import SuccessiveHalvingPruner
from .nop import NopPruner
from .patient import PatientPruner
from .percentile import MedianPruner, PercentilePruner

__all__ = [
    "PRUNERS",
    "FoldPruner",
    "MedianPruner",
    "NopPruner",
    "PatientPruner",
    "PercentilePruner",
    "Pruner",
    "SuccessiveHalvingPruner",
]

PRUNERS: dict[str, type[Pruner]] = {
    pruner.__name__: pruner
    for pruner in (NopPruner, MedianPruner, PercentilePruner, PatientPruner, SuccessiveHalvingPruner, FoldPruner)
}
"""Every pruner by name."""
