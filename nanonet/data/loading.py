"""Data by name or path."""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from nanonet.data.dataset import Column, Dataset, from_arrays
from nanonet.data.idx import read_idx
from nanonet.data.tables import read_csv
from nanonet.errors import DataError, DtypeError

__all__ = ["digits", "load", "read_npz"]


def load(
    source: str | os.PathLike, target: str | None = None, *, task: str | None = None, schema: Mapping | None = None
) -> Dataset:
    """The data set that `source` means:

        digits             the shipped handwritten digits
        FILE.csv, .tsv     a table with a header; `target` names the column to predict
        FILE.npz           arrays x and y
        FOLDER             MNIST's own IDX files

    `task` overrides the guess of "classification" or "regression". With `schema` (the `Dataset.schema` of
    training data) other rows of the same kind are read, with or without targets.
    Raises DataError naming the file, or OptionError.
    """
    if source == "digits":
        return digits()
    path = Path(source)
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return read_csv(path, target, task=task, schema=schema)
    if path.suffix.lower() == ".npz":
        return read_npz(path, task=task, schema=schema)
    if path.is_dir():
        return read_idx(path, schema=schema)
    raise DataError(
        f"{path}: wanted digits, a .csv file with a header, an .npz file with x and y, or a folder of IDX files"
    )


def digits(images: bool = False) -> Dataset:
    """1797 handwritten digits of 8 x 8 pixels, values 0 to 16: x (1797, 64), or (1797, 8, 8, 1) as images.

    The test part of "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, UCI, CC BY 4.0; see
    DIGITS.md), the same as scikit-learn's load_digits, in the same order.
    """
    x, y = _shipped()
    columns = [Column(f"pixel_{row}_{column}") for row in range(8) for column in range(8)]
    x = x.reshape(-1, 8, 8, 1) if images else x
    return from_arrays(x, y, "classification", columns=None if images else columns, target="digit", name="digits")


@lru_cache(maxsize=1)
def _shipped() -> tuple[np.ndarray, np.ndarray]:
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        return file["x"], file["y"]


def read_npz(path: str | os.PathLike, *, task: str | None = None, schema: Mapping | None = None) -> Dataset:
    """The arrays x and y (or x_train and y_train), and x_test and y_test if there, of an .npz file.

    With `schema` y may be absent. Nothing pickled is read. Raises DataError naming the file.
    """
    where = os.fspath(path)
    try:
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"{where}: there is no such file") from None
    except Exception as error:  # of a dozen kinds, as the damage may be
        raise DataError(f"{where}: is no .npz file of plain arrays ({error})") from None
    found = ", ".join(arrays) or "nothing"
    x = arrays.get("x", arrays.get("x_train"))
    y = arrays.get("y", arrays.get("y_train"))
    if x is None or (y is None and schema is None):
        raise DataError(f"{where}: holds {found}; wanted the arrays x and y")
    test = {"x_test": arrays.get("x_test"), "y_test": arrays.get("y_test")}
    try:
        return from_arrays(x, y, task, schema=schema, name=Path(path).stem, **test)
    except (ValueError, DtypeError) as error:
        raise DataError(f"{where}: {error}") from None
