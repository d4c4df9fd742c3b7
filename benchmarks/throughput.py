"""python -m benchmarks.throughput: trials per second of one worker, and of two side by side.

Trials are real trainings on the digits by the tuner's own `TrainingRuns`, with random settings from its default space,
the same ones for every number of workers. Where the system tells (Linux), the time is given too that threads spent
waiting for a core that other programs held: it says nothing about us, and without it the measured ratio is that of a
machine with two cores to itself.
"""

import argparse
import hashlib
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import tuner
from nanonet import Settings, data, set_num_threads
from tuner.executors import cores
from tuner.tuning.course import Course
from tuner.tuning.objectives import make
from tuner.tuning.parts import Parts
from tuner.tuning.runs import TrainingRuns
from tuner.tuning.space import settings_space

RESULTS = Path(__file__).parent / "results" / "throughput.md"
GOAL = 1.8
EPOCHS = 54
CASES = {"hold-out": "split", "four folds": 4}


@dataclass(frozen=True)
class Measured:
    """One study.

    seconds: from its start until a worker ends its last trial, on average: in a long study the end hardly counts.
    busy: of its workers together, without their waits for a core.
    """

    trials: int
    seconds: float
    busy: float | None


class Timed(TrainingRuns):
    """Notes for every segment how long its thread ran or waited for a lock, but not how long it waited for a core."""

    def advance(self, state, steps):
        wait, start = waited(), time.perf_counter()
        result = super().advance(state, steps)
        self.ends[threading.get_ident()] = time.perf_counter()
        if wait is not None:
            self.busy.append(time.perf_counter() - start - (waited() - wait))
        return result

    def start(self, trial):
        start = time.perf_counter()
        result = super().start(trial)
        self.busy.append(time.perf_counter() - start)
        return result


def waited() -> float | None:
    """Seconds that this thread has waited for a core since it began; None where the system does not tell."""
    try:
        text = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text()
    except OSError:
        return None
    return int(text.split()[1]) / 1e9


def training_runs(validation: str | int) -> TrainingRuns:
    """The digits with that validation, timed."""
    digits = data.load("digits")
    parts = Parts.of(digits, validation, 0.2, 0)
    metric = make("accuracy", None, digits.task, digits.outputs)
    runs = Timed([parts], [metric], Settings(), Course(len(parts.folds), [EPOCHS], False))
    runs.busy, runs.ends = [], {}
    return runs


def measure(work: TrainingRuns, trials: int, workers: int, storage: str | None = None) -> Measured:
    """Run that many trials in full."""
    study = tuner.create_study(
        direction="maximize",
        storage=storage,
        space=settings_space(),
        sampler=tuner.samplers.RandomSampler(seed=0),
        pruner=tuner.pruners.NopPruner(),
    )
    work.busy.clear()
    work.ends.clear()
    start = time.perf_counter()
    study.optimize(work, n_trials=trials, n_jobs=workers)
    seconds = mean(work.ends.values()) - start
    assert len(study.get_trials(states=(tuner.TrialState.COMPLETE, tuner.TrialState.FAIL))) == trials
    return Measured(trials, seconds, sum(work.busy) if waited() is not None else None)


def machine_ratio(seconds: float = 0.5) -> float:
    """How much more two threads get done here and now than one, with work that holds no lock at all."""
    block = bytes(1 << 20)

    def hashes(counts: list[int], end: float) -> None:
        count = 0
        while time.perf_counter() < end:
            hashlib.sha256(block).digest()
            count += 1
        counts.append(count)

    done = []
    for workers in (1, 2):
        counts: list[int] = []
        end = time.perf_counter() + seconds
        threads = [threading.Thread(target=hashes, args=(counts, end)) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.append(sum(counts))
    return done[1] / done[0]


def table(rounds: int, trials: int) -> str:
    """Both numbers of workers in turn, for each kind of validation, as a Markdown table."""
    lines = [
        "| validation | one worker | two workers | ratio | two threads that share nothing | with two cores to itself |",
        "| ---------- | ---------- | ----------- | ----- | ------------------------------ | ------------------------ |",
    ]
    for name, validation in CASES.items():
        work = training_runs(validation)
        measure(work, 4, 2)  # compiles what there is to compile
        pairs, limits = [], []
        for number in range(rounds):
            order = (1, 2) if number % 2 == 0 else (2, 1)
            found = {workers: measure(work, trials, workers) for workers in order}
            pairs.append((found[1], found[2]))
            limits.append(machine_ratio())
        ratio = median(one.seconds / two.seconds for one, two in pairs)
        rates = [median(pair[i].trials / pair[i].seconds for pair in pairs) for i in range(2)]
        own = "not told"
        if pairs[0][0].busy is not None:
            own = f"{median(2 * one.busy / two.busy for one, two in pairs):.2f} x"
        lines.append(
            f"| {name} | {rates[0]:.2f} trials/s | {rates[1]:.2f} trials/s | {ratio:.2f} x | "
            f"{median(limits):.2f} x | {own} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and keep the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=24, help="of each study")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if cores() < 2:
        print("two workers want two cores; this process may use one", file=sys.stderr)
        return 1
    set_num_threads(1)  # of these small networks one worker alone is faster so, too
    text = (
        "# Trials side by side\n\n"
        f"`python -m benchmarks.throughput`: digits, {options.trials} trials of {EPOCHS} epochs with random settings "
        f"from the default space, threads, {cores()} cores, one "
        f"thread in each kernel; medians of {options.rounds} rounds. Goal: {GOAL:g} x.\n\n"
        f"{table(options.rounds, options.trials)}\n\n"
        "*Two threads that share nothing* is what the machine gave in the same minutes to two threads that only hash; "
        "other programs may have been running. *With two cores to itself* leaves out the time in which a worker was "
        "ready and had no core. A worker's time ends with its last trial, not with that of the other.\n"
    )
    print(text)
    options.results.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
