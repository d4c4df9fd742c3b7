"""How the steps of a trial are spread over folds and epochs."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Course", "rungs"]

ETA = 3
#: Rows that the first segment of a trial passes at least: to start a trial costs as much as to train on thousands.
LEAST_ROWS = 5000


def rungs(max_epochs: int, rows: int, eta: int = ETA) -> list[int]:
    """The epochs at which trials over so many rows are compared: first, first * eta, ... and max_epochs.

    The first is max_epochs / eta^k, the smallest of these for which that many epochs pass LEAST_ROWS rows, and at most
    a third of max_epochs.
    """
    first = max_epochs
    while first > 1 and (max(first // eta, 1) * rows >= LEAST_ROWS or first == max_epochs):
        first = max(first // eta, 1)
    ends = [first]
    while 2 * ends[-1] * eta <= 2 * max_epochs - ends[-1] * eta:  # the last stretch is no stump
        ends.append(ends[-1] * eta)
    return ends if ends[-1] == max_epochs else [*ends, max_epochs]


class Course:
    """Where the folds of a trial are after each step.

    fold by fold: up to the first of `ends` (epochs), fold after fold is trained that far, one epoch a step, then fold
    after fold up to the second, and so on. Otherwise a step is an epoch of every fold.
    """

    def __init__(self, folds: int, ends: Sequence[int], fold_by_fold: bool):
        self.folds, self.ends, self.fold_by_fold = folds, list(ends), fold_by_fold and folds > 1
        self.steps = self.ends[-1] * folds if self.fold_by_fold else self.ends[-1]

    def epochs(self, step: int) -> list[int]:
        """How many epochs each fold is trained for when so many steps are done."""
        if not self.fold_by_fold:
            return [step] * self.folds
        begin, end, whole, part = self._place(step)
        return [begin + (end - begin if k < whole else part if k == whole else 0) for k in range(self.folds)]

    def counts(self, step: int) -> list[bool]:
        """Whether each fold has trained in this stretch: those that have not are behind the others."""
        if not self.fold_by_fold:
            return [True] * self.folds
        _, _, whole, part = self._place(step)
        return [k < whole or (k == whole and part > 0) for k in range(self.folds)]

    def _place(self, step: int) -> tuple[int, int, int, int]:
        """(begin and end of the stretch in epochs, folds that have come to its end, epochs of the next one in it)."""
        begin = end = 0
        for end in self.ends:
            if step <= end * self.folds:
                break
            begin = end
        return begin, end, *divmod(step - begin * self.folds, max(end - begin, 1))

    @property
    def rungs(self) -> list[int]:
        """The steps at which all folds have come to one of the ends."""
        return [end * self.folds for end in self.ends] if self.fold_by_fold else list(self.ends)
