"""Folders of IDX files, the format in which MNIST and its kin are given out."""

import gzip
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nanonet.data.dataset import Dataset, from_arrays
from nanonet.errors import DataError

__all__ = ["read_idx"]

# The third byte of a file says what its numbers are; they are big-endian.
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(folder: str | os.PathLike, *, schema: Mapping | None = None) -> Dataset:
    """The images and labels in a folder, as MNIST's own files have them, with .gz or without:

        train-images-idx3-ubyte  train-labels-idx1-ubyte  t10k-images-idx3-ubyte  t10k-labels-idx1-ubyte

    Images (n, h, w) become x (n, h, w, 1), values as they are (0 to 255). The t10k files, if there, become
    x_test and y_test. Raises DataError naming the file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder; wanted one with train-images-idx3-ubyte and train-labels-idx1-ubyte")
    train, test = (_read_part(folder, part) for part in ("train", "t10k"))
    if train is None:
        raise DataError(f"{folder}: has no train-images-idx3-ubyte and train-labels-idx1-ubyte, with .gz or without")
    x_test, y_test = test or (None, None)
    try:
        return from_arrays(*train, "classification", schema=schema, x_test=x_test, y_test=y_test, name=folder.name)
    except ValueError as error:
        raise DataError(f"{folder}: {error}") from None


def _read_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(x, y) of the training or the test files; None if neither is there."""
    files = [_find(folder, f"{part}-images-idx3-ubyte"), _find(folder, f"{part}-labels-idx1-ubyte")]
    if files == [None, None]:
        return None
    if None in files:
        kind = "images" if files[0] is None else "labels"
        raise DataError(f"{folder}: has no {part}-{kind} file beside {files[0] or files[1]}; wanted both")
    x, y = map(_read, files)
    if y.ndim != 1 or x.ndim < 2 or len(x) != len(y):
        raise DataError(f"{files[0]}: has shape {x.shape} and {files[1].name} {y.shape}; wanted (n, h, w) and (n,)")
    return (x[..., None] if x.ndim == 3 else x), y


def _find(folder: Path, name: str) -> Path | None:
    spellings = (name, name.replace("-idx", ".idx"))
    for file in (folder / (spelling + end) for spelling in spellings for end in ("", ".gz")):
        if file.is_file():
            return file
    return None


def _read(file: Path) -> np.ndarray:
    """The array in one IDX file: two zero bytes, the dtype, the number of axes, their sizes, the numbers."""
    content = file.read_bytes()
    if file.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{file}: is no whole gzip file ({error})") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in DTYPES or content[3] == 0:
        raise DataError(f"{file}: begins with {content[:4].hex(' ')!r}; wanted an IDX file, which begins 00 00 08 03")
    dtype, axes = np.dtype(DTYPES[content[2]]), content[3]
    begin = 4 + 4 * axes
    if len(content) < begin:
        raise DataError(f"{file}: has {len(content)} bytes; wanted {begin} for the sizes of its {axes} axes alone")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", axes, 4))
    wanted = begin + math.prod(shape) * dtype.itemsize
    if len(content) != wanted:
        raise DataError(f"{file}: has {len(content)} bytes; wanted {wanted} for shape {shape} of {dtype.name}")
    return np.frombuffer(content, dtype, offset=begin).reshape(shape)
