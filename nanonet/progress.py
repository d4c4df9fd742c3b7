"""The progress of a training on the screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from nanonet.callbacks import Callback, Logs
from nanonet.errors import OptionError

__all__ = ["Progress", "results"]

#: Seconds between two looks at the bar.
REFRESH_SECONDS = 0.1


def results(logs: Mapping[str, float], separator: str = " - ") -> str:
    """The results of an epoch in one line: "loss: 0.3121 - accuracy: 0.9062"."""
    return separator.join(f"{name}: {_short(value)}" for name, value in logs.items() if name != "epoch")


def _short(value: float) -> str:
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.3g}"


class Progress(Callback):
    """verbose: 0 shows nothing, 2 a line per epoch, 1 a live bar on a terminal and elsewhere the same as 2.

    file: where to, by default the standard output as it is when training begins.
    """

    def __init__(self, verbose: int = 1, file: TextIO | None = None):
        if verbose not in (0, 1, 2):
            raise OptionError(f"verbose is {verbose!r}; wanted 0 (silent), 1 (a bar) or 2 (a line per epoch)")
        self.verbose = int(verbose)
        self._file = file
        self._bar: Any = None

    def on_train_begin(self, logs: Logs = None) -> None:
        self._out = self._file or sys.stdout
        self._live = self.verbose == 1 and self._out.isatty()
        self._results = ""
        self._shown = 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._start = time.perf_counter()
        self._title = f"Epoch {epoch + 1:{len(str(self.params['epochs']))}d}/{self.params['epochs']}"
        if self._live and self._bar is None:
            total = (self.params["epochs"] - epoch) * self.params["steps"]
            self._first = epoch
            self._bar = _bar(self._out)
            self._task = self._bar.add_task(self._title, total=total, results="")
            self._bar.start()
        if self._bar is not None:
            self._done = (epoch - self._first) * self.params["steps"]

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self._bar is not None:
            self._show(self._done + batch + 1)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._results = results(logs or {})
        if self._bar is not None:
            self._done += self.params["steps"]
            self._show(self._done)
        elif self.verbose:
            seconds = time.perf_counter() - self._start
            print(f"{self._title} - {seconds:.2f}s - {self._results}", file=self._out, flush=True)

    def on_train_end(self, logs: Logs = None) -> None:
        if self._bar is not None:
            self._shown = 0.0
            self._show(self._done)
            self._bar.stop()
            self._bar = None

    def _show(self, done: int) -> None:
        if time.perf_counter() - self._shown > REFRESH_SECONDS:
            self._bar.update(self._task, completed=done, description=self._title, results=self._results)
            self._bar.refresh()
            self._shown = time.perf_counter()


def _bar(file: TextIO) -> Any:
    """A rich progress bar that is refreshed by hand: no thread of its own takes time from the training."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeRemainingColumn(),
        TextColumn("{task.fields[results]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        console=Console(file=file),
        auto_refresh=False,
        expand=True,
    )
