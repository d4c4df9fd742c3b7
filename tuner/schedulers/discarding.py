"""Early discarding (Egele et al. 2024): the plain way, and the one to beat."""

from __future__ import annotations

from .brackets import Bracket, Brackets

__all__ = ["EarlyDiscarding"]


class EarlyDiscarding(Brackets):
    """Train `candidates` settings for `steps` steps each, and finish the best `keep` of them (arXiv 2404.04111).

    Rounds of `candidates` trials follow each other as long as trials may be started.
    """

    def __init__(self, candidates: int = 100, steps: int = 1, keep: int = 3):
        for name, value, least in (("candidates", candidates, 1), ("steps", steps, 1), ("keep", keep, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
        if keep > candidates:
            raise ValueError(f"keep must be at most candidates={candidates}, got {keep}")
        self.candidates, self.steps, self.keep = candidates, steps, keep

    def brackets(self, max_steps: int) -> list[Bracket]:
        if self.steps >= max_steps:
            return [Bracket((self.candidates,), (max_steps,))]
        return [Bracket((self.candidates, self.keep), (self.steps, max_steps))]
