from __future__ import annotations

import numpy as np

from nanonet.errors import OptionError
from nanonet.nn.module import Module
from nanonet.ops.random import Stream, dropout
from nanonet.tensor import Tensor


class Dropout(Module):
    """In training each element is set to 0 with probability p, the others grow by 1 / (1 - p) (Srivastava et al. 2014).

    Its random numbers are a stream of its own, keyed by `rng` (a seed, a generator that gives one, or a Stream; by
    default the next seed of the process), which goes on with each call. Raises OptionError unless 0 <= p < 1.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, rng: Stream | np.random.Generator | int | None = None):
        if isinstance(p, bool) or not isinstance(p, (int, float, np.number)) or not 0 <= p < 1:
            raise OptionError(f"Dropout: p is {p!r}, wanted 0 <= p < 1")
        self.p = float(p)
        if isinstance(rng, np.random.Generator):
            rng = int(rng.integers(2**63))
        self.stream = rng if isinstance(rng, Stream) else Stream(rng)

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training, self.stream)

    def extra_repr(self) -> str:
        return f"p={self.p}"
