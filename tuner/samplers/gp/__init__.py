"""The Gaussian process sampler. Only the sampler itself is imported at once; what needs SciPy is when it is used."""

from .sampler import GPSampler

__all__ = ["GPSampler"]
