"""`tuner.schedulers.GrowingBrackets`, with trials whose curves are known."""

from itertools import pairwise

import numpy as np
import pytest

import tuner
from tuner.pruners import NopPruner
from tuner.samplers import RandomSampler
from tuner.schedulers import GrowingBrackets
from tuner.tuning.course import Course, rungs


class Brackets(NopPruner):
    def __init__(self, *arguments, **options):
        self.made = GrowingBrackets(*arguments, **options)

    def scheduler(self):
        return self.made


class Curves(tuner.Resumable):
    """Trials worth x at every step; with folds, the mean over folds so far of x and a known disturbance of each."""

    def __init__(self, max_steps, folds=1, noise=0.0):
        self.max_steps, self.folds, self.noise = max_steps, folds, noise
        self.log = []

    def start(self, trial):
        rng = np.random.default_rng(trial.number)
        x = trial.suggest_float("x", 0, 1)
        return [trial.number, 0, x + self.noise * rng.standard_normal(self.folds) + np.arange(self.folds)]

    def advance(self, state, steps):
        number, done, scores = state
        self.log.append((number, done + steps))
        each = max(self.max_steps // self.folds, 1)
        values = [
            float(np.mean(scores[: min((s - 1) // each + 1, self.folds)])) for s in range(done + 1, done + steps + 1)
        ]
        return [number, done + steps, scores], values


def study(pruner, seed=0):
    return tuner.create_study(sampler=RandomSampler(seed=seed), pruner=pruner)


def test_brackets_grow_and_then_stay():
    scheduler = GrowingBrackets([2, 6, 18, 54], largest=9)
    assert [scheduler.bracket(n) for n in (0, 1, 3, 4, 12, 13, 21, 22)] == [
        (0, 1), (1, 3), (1, 3), (4, 9), (4, 9), (13, 9), (13, 9), (22, 9),
    ]  # fmt: skip
    assert GrowingBrackets([1, 3]).bracket(4) == (4, 3)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_best_of_each_bracket_go_on(workers):
    made = study(Brackets([2, 6, 18]))
    task = Curves(18)
    made.optimize(task, n_trials=22, n_jobs=workers)
    x = np.array([t.params["x"] for t in made.trials])
    steps = np.array([t.steps for t in made.trials])
    for begin, size in ((0, 1), (1, 3), (4, 9), (13, 9)):
        order = begin + np.argsort(x[begin : begin + size])
        wanted = np.full(size, 2)
        wanted[: max(size // 3, 1)] = 6
        wanted[: max(size // 9, 1)] = 18
        assert steps[order].tolist() == wanted.tolist()
    if workers == 1:
        assert task.log[:3] == [(0, 2), (0, 6), (0, 18)]  # the first trial is done before the second begins


def test_a_search_that_goes_on_ends_as_if_it_had_not_stopped(tmp_path):
    whole = study(Brackets([2, 6]))
    whole.optimize(Curves(6), n_trials=13)
    for total in (2, 7, 13):
        made = tuner.create_study(
            storage=tmp_path / "study.db", study_name="a", load_if_exists=True,
            sampler=RandomSampler(seed=0), pruner=Brackets([2, 6]),
        )  # fmt: skip
        made.optimize(Curves(6), n_trials=total, total=True, timeout=None)
        made.storage.close()
    # A bracket that was cut off by the number of trials is decided with those that were there.
    assert len(made.trials) == 13
    assert sum(t.steps == 6 for t in made.trials) >= 3
    assert [t.params for t in made.trials] == [t.params for t in whole.trials]


def expected(means, now, promoted, folds, margin):
    """Which of `now` go on, by the formula in the docstring, worked out in another way: least squares."""
    scores = np.diff(np.asarray(means) * np.arange(1, folds + 1), axis=1, prepend=0.0)
    rows, columns = np.indices(scores.shape)
    design = np.concatenate([np.eye(len(scores))[rows.ravel()], np.eye(folds)[columns.ravel()][:, 1:]], axis=1)
    rest = scores.ravel() - design @ np.linalg.lstsq(design, scores.ravel(), rcond=None)[0]
    deviation = np.sqrt(np.sum(rest**2) / ((len(scores) - 1) * (folds - 1)))
    return now <= np.sort(now)[promoted - 1] + margin * deviation * np.sqrt(1 - 1 / folds) + 1e-12


class FoldByFold(Curves):
    """The first rung is `folds` steps, one for each fold; from there on the mean over all folds."""

    def advance(self, state, steps):
        number, done, scores = state
        values = [float(np.mean(scores[: min(s, self.folds)])) for s in range(done + 1, done + steps + 1)]
        return [number, done + steps, scores], values


@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_the_margin_is_that_of_the_folds_own_spread(noise):
    folds, margin = 4, 1.0
    made = study(Brackets([folds, 3 * folds, 9 * folds], folds=folds, margin=margin))
    made.optimize(FoldByFold(9 * folds, folds, noise), n_trials=13, n_jobs=2)
    trials = made.trials
    assert all(t.steps >= folds for t in trials[:4])  # too few to know the spread
    earlier = [[t.intermediate_values[k] for k in range(1, folds + 1)] for t in trials[:4]]
    now = np.array([t.intermediate_values[1] for t in trials[4:]])
    go_on = expected(earlier, now, 3, folds, margin)
    assert [t.steps > 1 for t in trials[4:]] == go_on.tolist()
    assert go_on.sum() >= 3
    if noise < 0.1:
        assert go_on.sum() < 9  # it would be no test otherwise


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rungs": []}, "rungs must be"),
        ({"rungs": [3, 3]}, "rungs must be"),
        ({"rungs": [3, 9], "eta": 1}, "eta must be at least 2, got 1"),
        ({"rungs": [3, 9], "folds": 2}, "folds must divide the first rung, 3, got 2"),
        ({"rungs": [3, 9], "margin": -1}, "margin"),
        ({"rungs": [3, 9], "largest": 0}, "largest"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        GrowingBrackets(**options)


def test_the_last_rung_is_where_trials_end():
    with pytest.raises(ValueError, match="the last rung is 6, max_steps is 18"):
        study(Brackets([2, 6])).optimize(Curves(18), n_trials=1)


# ------------------------------------------------------------------------------------------- the course


@pytest.mark.parametrize(
    ("max_epochs", "rows"), [(54, 1077), (54, 48000), (54, 100), (1, 10), (2, 10), (28, 10**6), (10, 7)]
)
def test_rungs_rise_to_the_last_epoch_and_the_first_is_worth_a_start(max_epochs, rows):
    ends = rungs(max_epochs, rows)
    assert ends[-1] == max_epochs
    assert all(b > a for a, b in pairwise(ends))
    assert all(b == 3 * a for a, b in pairwise(ends[:-1]))
    assert max_epochs == 1 or len(ends) > 1
    assert ends[0] * rows >= 5000 or ends[0] == max(max_epochs // 3, 1)


def test_a_course_goes_fold_after_fold_from_end_to_end():
    course = Course(3, [2, 6], True)
    assert course.steps == 18
    assert course.rungs == [6, 18]
    before = [0, 0, 0]
    for step in range(1, 19):
        now = course.epochs(step)
        assert sum(now) == step
        assert sorted(b - a for a, b in zip(before, now, strict=True)) == [0, 0, 1]
        grown = next(i for i in range(3) if now[i] > before[i])
        assert course.counts(step)[grown]
        before = now
    assert course.epochs(6) == [2, 2, 2] and course.counts(6) == [True] * 3
    assert course.epochs(8) == [4, 2, 2] and course.counts(8) == [True, False, False]
    together = Course(3, [2, 6], False)
    assert (together.steps, together.rungs, together.epochs(4)) == (6, [2, 6], [4, 4, 4])
