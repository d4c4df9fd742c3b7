"""Data: loading, splitting, scaling and handing it out in batches. Plain NumPy arrays throughout.

digits = data.load("digits")
parts = data.split(digits.x, digits.y, validation=0.2, test=0.2, seed=0)
scale = data.Standardizer().fit(parts.train.x)
for rows in data.batches(len(parts.train.y), 32, seed=0, epoch=3): ...
"""

from nanonet.data.batching import Batches, batches, one_hot, order
from nanonet.data.dataset import Column, Dataset, from_arrays
from nanonet.data.idx import read_idx
from nanonet.data.loading import digits, load, read_npz
from nanonet.data.scaling import Standardizer
from nanonet.data.splitting import (
    GroupKFold,
    KFold,
    Part,
    Parts,
    StratifiedKFold,
    TimeSeriesSplit,
    split,
    split_groups,
    split_rows,
    train_test_split,
)
from nanonet.data.tables import read_csv

__all__ = [
    "Batches",
    "Column",
    "Dataset",
    "GroupKFold",
    "KFold",
    "Part",
    "Parts",
    "Standardizer",
    "StratifiedKFold",
    "TimeSeriesSplit",
    "batches",
    "digits",
    "from_arrays",
    "load",
    "one_hot",
    "order",
    "read_csv",
    "read_idx",
    "read_npz",
    "split",
    "split_groups",
    "split_rows",
    "train_test_split",
]
