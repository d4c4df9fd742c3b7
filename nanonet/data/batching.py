"""Mini-batches, in an order that depends only on the seed and the epoch."""

from collections.abc import Iterator

import numpy as np

from nanonet.errors import DataError, ShapeError
from nanonet.options import count
from nanonet.random import generator

__all__ = ["Batches", "batches", "one_hot", "order"]


def order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The rows 0 to n - 1 in the order of that epoch, int64 (n,). The same on every machine."""
    return generator(seed, "batches", epoch).permutation(count("n", n, least=0))


def batches(
    n: int, batch_size: int, *, seed: int = 0, epoch: int = 0, shuffle: bool = True, drop_last: bool = False
) -> Iterator[np.ndarray]:
    """The rows of each batch of one epoch, int64 (batch_size,); the last is shorter if they do not divide n.

    batch_size n (or more) is full-batch descent, 1 single-sample. Raises OptionError.
    """
    batch_size = count("batch_size", batch_size)
    rows = order(n, seed, epoch) if shuffle else np.arange(count("n", n, least=0))
    end = n - n % batch_size if drop_last else n
    return (rows[at : at + batch_size] for at in range(0, end, batch_size))


class Batches:
    """(x, y) batch by batch, for a loop of one's own; each time round is the next epoch, newly shuffled.

        for x, y in data.Batches(x_train, y_train, batch_size=32, seed=0): ...

    Without y it gives x alone. `epoch` counts the epochs begun; set it to start elsewhere.
    """

    def __init__(self, x, y=None, batch_size: int = 32, shuffle: bool = True, seed: int = 0, drop_last: bool = False):
        self.x = np.asarray(x)
        self.y = None if y is None else np.asarray(y)
        if self.x.ndim == 0 or len(self.x) == 0:
            raise DataError(f"x has shape {self.x.shape}; wanted at least one row")
        if self.y is not None and self.y.shape[:1] != self.x.shape[:1]:
            raise ShapeError(f"x has shape {self.x.shape} and y {self.y.shape}; wanted the same number of rows")
        self.batch_size = count("batch_size", batch_size)
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last
        self.epoch = 0

    def __len__(self) -> int:
        """How many batches there are in an epoch."""
        n = len(self.x)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        options = {"seed": self.seed, "epoch": epoch, "shuffle": self.shuffle, "drop_last": self.drop_last}
        for rows in batches(len(self.x), self.batch_size, **options):
            yield self.x[rows] if self.y is None else (self.x[rows], self.y[rows])


def one_hot(y, classes: int | None = None, dtype=np.float32) -> np.ndarray:
    """Labels (n,) of 0 to classes - 1 as rows (n, classes) of zeros with a one.

    Without `classes` there are as many as the highest label asks for. Raises ShapeError, DataError.
    """
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise ShapeError(f"y has shape {labels.shape}; wanted (n,)")
    if labels.dtype.kind not in "biu" and not (labels.dtype.kind == "f" and (labels == np.trunc(labels)).all()):
        raise DataError(f"y has dtype {labels.dtype}; wanted whole numbers")
    labels = labels.astype(np.int64)
    if classes is None:
        classes = int(labels.max(initial=-1)) + 1
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"y holds {labels[row]} in row {row}; wanted labels from 0 to {classes - 1}")
    hot = np.zeros((len(labels), classes), dtype=dtype)
    hot[np.arange(len(labels)), labels] = 1
    return hot
