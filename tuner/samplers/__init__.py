"""Samplers: what to try next. A new one is one file, one row here and one in tests/cases.py."""

from .auto import AutoSampler
from .base import History, Observations, Sampler
from .cmaes import CmaEsSampler
from .gp import GPSampler
from .grid import GridSampler
from .interleaved import InterleavedSampler
from .nsga2 import NSGAIISampler
from .quasirandom import QMCSampler
from .regularized import RegularizedEvolutionSampler
from .tpe import TPESampler
from .uniform import RandomSampler

__all__ = [
    "SAMPLERS",
    "AutoSampler",
    "CmaEsSampler",
    "GPSampler",
    "GridSampler",
    "History",
    "InterleavedSampler",
    "NSGAIISampler",
    "Observations",
    "QMCSampler",
    "RandomSampler",
    "RegularizedEvolutionSampler",
    "Sampler",
    "TPESampler",
]

SAMPLERS: dict[str, type[Sampler]] = {
    sampler.__name__: sampler
    for sampler in (
        GridSampler,
        RandomSampler,
        QMCSampler,
        GPSampler,
        TPESampler,
        CmaEsSampler,
        RegularizedEvolutionSampler,
        NSGAIISampler,
        InterleavedSampler,
        AutoSampler,
    )
}
"""Every sampler by name."""
