"""Timing candidates side by side, and the table of what came out."""

import importlib.util
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import numpy as np

Candidate = Callable[[int], object]
"""run(times): do the work `times` times, and wait until it is done."""


def installed(library: str) -> bool:
    """Whether a peer can be imported."""
    return importlib.util.find_spec(library) is not None


def repeat(call: Callable[[], object]) -> Candidate:
    """A candidate that calls a function which is done when it returns."""

    def run(times: int) -> None:
        for _ in range(times):
            call()

    return run


# ------------------------------------------------------------------------------------------------- timing


#: Seconds of pause before a turn.
PAUSE = 0.02


def interleave(
    candidates: Mapping[str, Candidate], rounds: int = 15, turn: float = 0.03, warm_up: float = 0.2
) -> dict[str, np.ndarray]:
    """Seconds per repetition of each candidate, one number for each round.

    Every round gives each candidate a turn of about `turn` seconds, so that all of them meet the same disturbances.
    The order is reversed from round to round. Before a turn comes a pause, in which the threads of the one before stop
    waiting actively, and one repetition that is not timed.
    """
    times = {name: _warm(run, turn, warm_up) for name, run in candidates.items()}
    samples = {name: np.empty(rounds) for name in candidates}
    for number in range(rounds):
        for name in list(candidates)[:: 1 if number % 2 == 0 else -1]:
            run, count = candidates[name], times[name]
            time.sleep(PAUSE)
            run(1)
            start = time.perf_counter()
            run(count)
            samples[name][number] = (time.perf_counter() - start) / count
    return samples


def _warm(run: Candidate, turn: float, warm_up: float) -> int:
    """Repeat for `warm_up` seconds, at least three times; return how many repetitions fill a turn."""
    spent, count, fastest = 0.0, 1, math.inf
    calls = 0
    while calls < 3 or spent < warm_up:
        start = time.perf_counter()
        run(count)
        seconds = time.perf_counter() - start
        spent += seconds
        calls += 1
        fastest = min(fastest, seconds / count)
        count = max(1, min(2 * count, round(turn / max(fastest, 1e-9))))
    return max(1, round(turn / max(fastest, 1e-9)))


def ratio(theirs: np.ndarray, ours: np.ndarray) -> float:
    """How many times faster ours is: the median of the ratios within each round."""
    return float(np.median(theirs / ours))


# -------------------------------------------------------------------------------------------------- table


@dataclass
class Row:
    """One measured case.

    seconds: our median. flop: floating-point operations. limit: seconds that the machine needs at its peak, measured
    in the same rounds. peers: name -> (its median in seconds, how many times faster we are). goal: what is to be
    reached, in words, and met: whether it was.
    """

    case: str
    seconds: float
    flop: float | None = None
    limit: float | None = None
    peers: dict[str, tuple[float, float]] = field(default_factory=dict)
    goal: str = ""
    met: bool | None = None

    @classmethod
    def of(
        cls,
        case: str,
        samples: Mapping[str, np.ndarray],
        *,
        ours: str = "nanonet",
        peers: Mapping[str, str] | None = None,
        **rest: Any,
    ) -> "Row":
        """A row from the samples of `interleave`. peers maps a candidate's name to that of its column; where several
        candidates (settings of one library) share a column, the fastest stands for them."""
        best: dict[str, tuple[float, float]] = {}
        for name, column in (peers or {}).items():
            if name in samples:
                entry = (median(samples[name]), ratio(samples[name], samples[ours]))
                if column not in best or entry[1] < best[column][1]:
                    best[column] = entry
        return cls(case, median(samples[ours]), peers=best, **rest)

    def want(self, faster_than: Mapping[str, float] | None = None, of_limit: float = 0.0, under: float = math.inf):
        """Set the goal: a ratio for each peer, a share of the limit, seconds. A peer that is missing is not judged."""
        words, kept = [], []
        for peer, wanted in (faster_than or {}).items():
            words.append(f"{wanted:g} x {peer}")
            if peer in self.peers:
                kept.append(self.peers[peer][1] >= wanted)
        if of_limit:
            words.append(f"{of_limit:.0%} of the limit")
            kept.append(self.share >= of_limit)
        if under < math.inf:
            words.append(f"under {duration(under)}")
            kept.append(self.seconds < under)
        self.goal, self.met = ", ".join(words), all(kept) if kept else None
        return self

    @property
    def share(self) -> float:
        """Which part of the machine's peak is reached."""
        return self.limit / self.seconds if self.limit else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        peers = {name: {"seconds": seconds, "ratio": times} for name, (seconds, times) in self.peers.items()}
        return {**asdict(self), "peers": peers}


def mean_row(rows: list[Row], *peers: str) -> Row:
    """The geometric means of the rows' times, and of their ratios to each peer."""

    def mean(values: list[float]) -> float:
        return math.exp(sum(map(math.log, values)) / len(values))

    means = {}
    for peer in peers:
        entries = [row.peers[peer] for row in rows if peer in row.peers]
        if entries:
            means[peer] = tuple(mean([entry[i] for entry in entries]) for i in range(2))
    return Row("geometric mean", mean([row.seconds for row in rows]), peers=means)


def from_dict(data: Mapping[str, Any]) -> Row:
    """The row that `Row.as_dict` gave."""
    peers = {name: (peer["seconds"], peer["ratio"]) for name, peer in data["peers"].items()}
    return Row(**{**data, "peers": peers})


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table. Columns in which no row has an entry are left out."""
    columns: dict[str, list[str]] = {
        "case": [row.case for row in rows],
        "nanonet": [duration(row.seconds) for row in rows],
        "GFLOP/s": [f"{row.flop / row.seconds / 1e9:.1f}" if row.flop else "" for row in rows],
        "of the limit": [f"{row.share:.0%}" if row.limit else "" for row in rows],
    }
    for peer in dict.fromkeys(name for row in rows for name in row.peers):
        entries = [row.peers.get(peer) for row in rows]
        columns[peer] = [f"{duration(entry[0])} ({entry[1]:.2f} x)" if entry else "" for entry in entries]
    columns["goal"] = [row.goal for row in rows]
    columns["met"] = [{True: "yes", False: "no", None: ""}[row.met] for row in rows]
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    widths = [max(len(text) for text in (name, *cells)) for name, cells in columns.items()]
    body = [list(columns), ["-" * width for width in widths], *zip(*columns.values())]
    return "\n".join("| " + " | ".join(text.ljust(w) for text, w in zip(line, widths)) + " |" for line in body)


def duration(seconds: float) -> str:
    """Three digits and a unit: 1.23 ms."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
