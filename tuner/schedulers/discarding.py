"""Early discarding (Egele et al. 2024): the plain way, and the one to beat."""

from __future__ import annotations

from ..checks import whole
from .brackets import Bracket, Brackets

__all__ = ["EarlyDiscarding"]


class EarlyDiscarding(Brackets):
    """Train `candidates` settings for `steps` steps each, and finish the best `keep` of them (arXiv 2404.04111).

    Rounds of `candidates` trials follow each other as long as trials may be started.
    """

    def __init__(self, candidates: int = 100, steps: int = 1, keep: int = 3):
        self.candidates, self.steps = whole("candidates", candidates, 1), whole("steps", steps, 1)
        self.keep = whole("keep", keep, 1)
        if keep > candidates:
            raise ValueError(f"keep must be at most candidates={candidates}, got {keep}")

    def brackets(self, max_steps: int) -> list[Bracket]:
        if self.steps >= max_steps:
            return [Bracket((self.candidates,), (max_steps,))]
        return [Bracket((self.candidates, self.keep), (self.steps, max_steps))]
