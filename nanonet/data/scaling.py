"""Standardization: mean 0 and standard deviation 1, as measured on the training part."""

import numpy as np

from nanonet.errors import DataError, DtypeError, OptionError, ShapeError
from nanonet.options import unknown

__all__ = ["Standardizer"]

_ROWS = 4096  # rows at a time, so that a pass in float64 needs little memory


class Standardizer:
    """x -> (x - mean) / scale, with the mean and standard deviation of what it was fitted on.

    per: "feature", each of its own (the default for x (n, features)); "channel", one per entry of the last axis
    (the default for images (n, h, w, channels)); "all", one for everything. What was constant becomes 0 there:
    its scale is 1.

    Fit it on the training part only: anything else lets the validation and test parts leak into training.
    """

    def __init__(self, per: str | None = None):
        if per not in (None, "feature", "channel", "all"):
            raise unknown("per", per, ("feature", "channel", "all"))
        self.per = per
        self.mean: np.ndarray | None = None
        self.scale: np.ndarray | None = None

    def fit(self, x) -> "Standardizer":
        """Measure x (n, ...). Raises ShapeError, DtypeError, and DataError for no rows or NaN."""
        x = _numbers(x)
        if len(x) == 0:
            raise DataError(f"x has shape {x.shape}; wanted at least one row to measure")
        per = self.per or ("feature" if x.ndim <= 2 else "channel")
        shape = {"feature": x.shape[1:], "channel": x.shape[-1:] if x.ndim > 1 else (), "all": ()}[per]
        axes = tuple(range(x.ndim - len(shape)))
        count = x.size // max(int(np.prod(shape)), 1)
        blocks = [slice(at, at + _ROWS) for at in range(0, len(x), _ROWS)]
        mean = sum(x[rows].sum(axis=axes, dtype=np.float64) for rows in blocks) / count
        variance = sum(((x[rows].astype(np.float64) - mean) ** 2).sum(axis=axes) for rows in blocks) / count
        if not np.isfinite(variance).all():
            raise DataError("x holds NaN or infinity; wanted finite numbers")
        low, high = x.min(axis=axes), x.max(axis=axes)
        constant = low == high
        self.mean = np.where(constant, low, mean).astype(np.float64)
        self.scale = np.where(constant | (variance == 0), 1.0, np.sqrt(variance))
        return self

    def transform(self, x, out: np.ndarray | None = None) -> np.ndarray:
        """(x - mean) / scale; float64 stays float64, all else becomes float32.

        out: an array of that shape and dtype to write into, which may be x itself.
        """
        x, mean, scale = self._prepare(x)
        out = np.subtract(x, mean, out=out)
        return np.divide(out, scale, out=out) if isinstance(out, np.ndarray) else out / scale

    def inverse(self, x) -> np.ndarray:
        """x * scale + mean: what `transform` was given."""
        x, mean, scale = self._prepare(x)
        return x * scale + mean

    def fit_transform(self, x) -> np.ndarray:
        """Measure x, and transform it."""
        return self.fit(x).transform(x)

    def state(self) -> dict[str, np.ndarray]:
        """What `from_state` needs: {"mean", "scale"}, float64."""
        if self.mean is None:
            raise OptionError("this Standardizer is not fitted; call fit first")
        return {"mean": self.mean, "scale": self.scale}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> "Standardizer":
        """The Standardizer that gave this `state`."""
        made = cls()
        made.mean, made.scale = np.asarray(state["mean"], np.float64), np.asarray(state["scale"], np.float64)
        return made

    def _prepare(self, x) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mean, scale = self.state().values()
        x = _numbers(x)
        dtype = np.float64 if x.dtype == np.float64 else np.float32
        if mean.ndim and x.shape[-mean.ndim :] != mean.shape:
            raise ShapeError(f"x has shape {x.shape}; this Standardizer was fitted on (n, ..., {mean.shape[-1]})")
        return x.astype(dtype, copy=False), mean.astype(dtype), scale.astype(dtype)


def _numbers(x) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise DtypeError(f"x has dtype {x.dtype}; wanted real numbers")
    if x.ndim == 0:
        raise ShapeError("x is a single number; wanted (n, ...)")
    return x
