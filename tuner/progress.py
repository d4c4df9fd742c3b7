"""A progress bar for `Study.optimize`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .study import Study
    from .trial import FrozenTrial

__all__ = ["Progress"]


class Progress:
    """Counts ended trials and shows the best value. Needs rich, which is imported on `start`."""

    def __init__(self, n_trials: int | None):
        self.n_trials = n_trials
        self._bar: Any = None

    def start(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=self.n_trials)

    def show(self, study: Study, trial: FrozenTrial) -> None:
        """One trial or segment more."""
        best = ""
        with suppress(ValueError, RuntimeError):
            best = f"best {study.best_value:.6g} (trial {study.best_trial.number})"
        self._bar.update(self._task, advance=int(trial.state.is_finished()), description=best)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
