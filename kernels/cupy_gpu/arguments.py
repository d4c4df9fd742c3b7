"""The arguments of a launch, as CUDA's driver takes them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

__all__ = ["Arguments"]


class Arguments:
    """Copies of values side by side in memory, each at a multiple of 8 bytes.

    words: that memory, as 64-bit words; starts: at which word each value begins; pointers: the address of a table of
    the values' addresses. They are good as long as the object lives.
    """

    __slots__ = ("_table", "pointers", "starts", "words")

    def __init__(self, values: Sequence[np.generic | np.ndarray]):
        ends = list(accumulate(-(-value.nbytes // 8) for value in values))
        self.starts = [0, *ends[:-1]]
        self.words = (ctypes.c_uint64 * (ends[-1] if ends else 1))()
        base = ctypes.addressof(self.words)
        places = [base + 8 * start for start in self.starts[: len(ends)]]
        for place, value in zip(places, values, strict=True):
            ctypes.memmove(place, value.tobytes(), value.nbytes)
        self._table = (ctypes.c_void_p * max(1, len(places)))(*places)
        self.pointers = ctypes.addressof(self._table)
