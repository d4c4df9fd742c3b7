"""A trained model with all that it takes to use it: scaling, class names, and what the inputs are called.

predictor = Predictor.load("nanonet-runs/digits")
predictor.predict(x)            # class numbers, or values
predictor.names(x)              # class names
predictor.evaluate(x, y)        # {"loss": ..., "accuracy": ...}
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nanonet import checkpoint, metrics, nn
from nanonet.data import Dataset, Standardizer
from nanonet.data.dataset import features
from nanonet.errors import CheckpointError, DataError, ShapeError
from nanonet.settings import Settings

__all__ = ["MODEL_FILE", "Predictor", "load_model", "save_model"]

#: The model's name in the folder that a training leaves.
MODEL_FILE = "model.safetensors"
_KIND = "nanonet predictor 1"


class Predictor:
    """A model of `nanonet.training.build_model`, and how data gets into it and out again.

    schema: the `Dataset.schema` of the training data. standardizer: fitted on the training inputs. target_scale: for
    regression, fitted on the training targets. scores: what is to be remembered of the training, by name.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        schema: Mapping[str, Any],
        standardizer: Standardizer | None = None,
        target_scale: Standardizer | None = None,
        scores: Mapping[str, float] | None = None,
    ):
        self.model, self.settings, self.schema = model, settings, dict(schema)
        self.standardizer, self.target_scale = standardizer, target_scale
        self.scores = dict(scores or {})

    # ---------------------------------------------------------------------------------- what it is

    @property
    def task(self) -> str:
        """ "classification" or "regression"."""
        return self.schema["task"]

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The name of class 0, 1, ...; None for regression."""
        names = self.schema["class_names"]
        return None if names is None else tuple(names)

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The name of each input, if they have names."""
        if self.schema["columns"] is None:
            return None
        return tuple(
            f"{name}={category}" if category is not None else name
            for name, categories in self.schema["columns"]
            for category in (categories or [None])
        )

    def __repr__(self) -> str:
        what = self.task if self.class_names is None else f"{len(self.class_names)} classes"
        return f"Predictor({what}, inputs {tuple(self.schema['shape'])}, hidden {self.settings.hidden})"

    # ------------------------------------------------------------------------------------- using it

    def outputs(self, x: Any) -> np.ndarray:
        """The network's own outputs for rows x: scores (n, classes), or values (n, targets) in the targets' unit.

        x (n, ...), in the unit of the training data. Raises ShapeError, DtypeError or DataError.
        """
        from nanonet.fitting import predict

        x = features("x", x, tuple(self.schema["shape"]))
        found = predict(self.model, x if self.standardizer is None else self.standardizer.transform(x))
        if self.target_scale is None:
            return found
        scale = self.target_scale
        return scale.inverse(found[:, 0])[:, None] if scale.mean.ndim == 0 else scale.inverse(found)

    def probabilities(self, x: Any) -> np.ndarray:
        """(n, classes), rows that sum to 1. Raises DataError for regression."""
        if self.class_names is None:
            raise DataError("probabilities: the model predicts numbers; wanted a classification model")
        scores = self.outputs(x).astype(np.float64)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def predict(self, x: Any) -> np.ndarray:
        """Class numbers, int64 (n,); or values, (n,) for one target and else (n, targets)."""
        found = self.outputs(x)
        if self.class_names is not None:
            return found.argmax(axis=1)
        return found[:, 0] if found.shape[1] == 1 else found

    def names(self, x: Any) -> np.ndarray:
        """Class names (n,). Raises DataError for regression."""
        if self.class_names is None:
            raise DataError("names: the model predicts numbers; wanted a classification model")
        return np.array(self.class_names)[self.predict(x)]

    def evaluate(self, x: Any, y: Any) -> dict[str, float]:
        """How well it does on rows x with class numbers or values y.

        Keys: loss (mean cross-entropy) and accuracy; or loss (mean squared error), mae and r2 (NaN for a single row).
        """
        y = np.asarray(y)
        if y.ndim == 0 or len(y) != len(x):
            raise ShapeError(f"y has shape {y.shape} and x {len(x)} rows; wanted as many")
        if self.class_names is not None:
            classes = len(self.class_names)
            if y.dtype.kind not in "iu" or y.ndim != 1 or (y.size and not 0 <= y.min() <= y.max() < classes):
                raise DataError(f"y has dtype {y.dtype}, shape {y.shape}; wanted class numbers 0 to {classes - 1}")
            likely = self.probabilities(x)
            loss = -np.log(np.maximum(likely[np.arange(len(y)), y], np.finfo(np.float64).tiny)).mean()
            return {"loss": float(loss), "accuracy": metrics.accuracy(y, likely)}
        found = self.predict(x)
        r2 = metrics.r2(y, found) if len(y) > 1 else float("nan")
        return {"loss": metrics.mse(y, found), "mae": metrics.mae(y, found), "r2": r2}

    def evaluate_on(self, data: Dataset) -> dict[str, float]:
        """`evaluate` on loaded data. Raises DataError if it has no targets, or other classes than the model."""
        if data.y is None:
            raise DataError(f"{data.name}: has no targets; wanted the column {self.schema['target'] or 'y'!r}")
        if data.class_names != self.class_names:
            raise DataError(f"{data.name}: has the classes {data.class_names}; the model has {self.class_names}")
        return self.evaluate(data.x, data.y)

    # --------------------------------------------------------------------------------------- on disk

    def save(self, path: str | os.PathLike) -> Path:
        """Write it to a file, or into a folder as MODEL_FILE, whole or not at all; the path of the file."""
        path = Path(path)
        path = path / MODEL_FILE if path.is_dir() else path
        checkpoint.save(
            path,
            {
                "kind": _KIND,
                "settings": self.settings.to_dict(),
                "schema": self.schema,
                "standardizer": self.standardizer and self.standardizer.state(),
                "target_scale": self.target_scale and self.target_scale.state(),
                "scores": {name: float(value) for name, value in self.scores.items()},
                "weights": self.model.state_dict(),
            },
        )
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> Predictor:
        """From a file, or from the folder that a training left. Raises CheckpointError."""
        from nanonet.training import build_model

        path = Path(path)
        path = path / MODEL_FILE if path.is_dir() else path
        try:
            state = checkpoint.load(path)
        except FileNotFoundError:
            raise CheckpointError(
                f"{path}: there is no such file; wanted a model, or the folder that `nanonet tune` or `train` left"
            ) from None
        if not isinstance(state, dict) or state.get("kind") != _KIND:
            raise CheckpointError(f"{path}: is not a saved model; wanted a file that a Predictor wrote")
        try:
            settings, schema = Settings.from_dict(state["settings"]), state["schema"]
            names = schema["class_names"]
            scale = state["target_scale"] and Standardizer.from_state(state["target_scale"])
            outputs = len(names) if names is not None else _last_width(state["weights"])
            model = build_model(settings, tuple(schema["shape"]), outputs)
            model.load_state_dict(state["weights"])
            model.eval()
            inputs = state["standardizer"] and Standardizer.from_state(state["standardizer"])
            return cls(model, settings, schema, inputs, scale, state["scores"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: is not a model of this version ({error})") from error


def _last_width(weights: Mapping[str, np.ndarray]) -> int:
    """The number of outputs: the length of the last bias."""
    return len([array for name, array in weights.items() if name.endswith("bias")][-1])


def save_model(path: str | os.PathLike, predictor: Predictor) -> Path:
    """Write a predictor to a file or into a folder. See `Predictor.save`."""
    return predictor.save(path)


def load_model(path: str | os.PathLike) -> Predictor:
    """Read a predictor from a file or a folder. See `Predictor.load`."""
    return Predictor.load(path)
