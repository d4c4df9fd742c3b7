"""Ending a study when improvement is no longer likely: callbacks of `Study.optimize`.

    study.optimize(objective, n_trials=500, callbacks=[tuner.terminators.RegretBound()])

Each is a function of the study's history. For ask and tell, `should_stop(study)` says the same. Studies with one
objective only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import number, whole
from .trial import FrozenTrial, Trial, TrialState

if TYPE_CHECKING:
    from .study import Study

__all__ = [
    "ExpectedImprovement",
    "NoImprovement",
    "NoRecord",
    "RegretBound",
    "Terminator",
    "cross_validation_noise",
    "report_cross_validation_scores",
]

SCORES = "cross_validation_scores"
MOST = 300
"""A model learns from at most so many trials."""


class Terminator(ABC):
    """Stops `Study.optimize` after the trial at whose end `should_stop` is true; trials that run are ended."""

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        if trial.state.is_finished() and self.should_stop(study):
            study.stop()

    @abstractmethod
    def should_stop(self, study: Study) -> bool:
        """Whether improvement is no longer likely."""


class NoImprovement(Terminator):
    """The last `trials` complete trials have not brought the best value forward by more than `min_improvement`."""

    def __init__(self, trials: int = 30, min_improvement: float = 0.0):
        whole("NoImprovement: trials", trials, 1)
        number("NoImprovement: min_improvement", min_improvement, "[0, inf]")
        self.trials, self.min_improvement = trials, min_improvement

    def should_stop(self, study: Study) -> bool:
        losses = [loss for _, loss in _complete(study)]
        if len(losses) <= self.trials:
            return False
        return min(losses[: -self.trials]) - min(losses[-self.trials :]) <= self.min_improvement


class NoRecord(Terminator):
    """For random search: the next `trials` trials hold a better one than all so far with less than `probability`.

    The best of n + m independent draws is as likely any of them, whatever their distribution, so it is among the
    last m with probability m / (n + m) (ties make it less). Pruned and failed trials count as draws, too.
    """

    def __init__(self, trials: int = 10, probability: float = 0.05):
        whole("NoRecord: trials", trials, 1)
        self.trials, self.probability = trials, number("NoRecord: probability", probability, "(0, 1)")

    def should_stop(self, study: Study) -> bool:
        _complete(study)
        done = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
        return self.trials / (done + self.trials) < self.probability


# ----------------------------------------------------------------------------------- by a model of the objective


class ModelTerminator(Terminator):
    """Asks a Gaussian process of the complete trials, after every `interval`-th of them from `n_startup` on."""

    def __init__(self, n_startup: int | None = None, interval: int = 5):
        if n_startup is not None:
            whole(f"{type(self).__name__}: n_startup", n_startup, 1)
        whole(f"{type(self).__name__}: interval", interval, 1)
        self.n_startup, self.interval = n_startup, interval

    def should_stop(self, study: Study) -> bool:
        complete = _complete(study)
        losses = [loss for _, loss in complete]
        space = study.space or study._seen_space(len(study.get_trials(deepcopy=False)))
        least = max(10, 2 * space.dimensions + 2) if self.n_startup is None else self.n_startup
        if len(losses) < max(least, 2) or len(losses) % self.interval:
            return False
        if min(losses) == max(losses):
            return True  # nothing that was tried makes a difference
        model = _Model(study, space)
        return model.usable and self.judge(model, complete)

    @abstractmethod
    def judge(self, model: _Model, complete: Sequence[tuple[FrozenTrial, float]]) -> bool:
        """Whether to stop."""


class ExpectedImprovement(ModelTerminator):
    """No settings promise to improve the best value by `min_improvement` (in the objective's unit) or more.

    The improvement that the model expects at the settings that promise most, over its mean at the best ones tried.
    """

    def __init__(self, min_improvement: float, n_startup: int | None = None, interval: int = 5):
        super().__init__(n_startup, interval)
        if not min_improvement > 0:
            raise ValueError(f"ExpectedImprovement: min_improvement must be a number > 0, got {min_improvement!r}")
        self.min_improvement = min_improvement

    def judge(self, model: _Model, complete: Sequence[tuple[FrozenTrial, float]]) -> bool:
        return model.expected_improvement() < self.min_improvement


class RegretBound(ModelTerminator):
    """What is still to be gained is, with high probability, less than the noise of the values (Makarova et al. 2022).

        min over tried settings of (mean + sqrt(b) s)  -  min over all settings of (mean - sqrt(b) s)  <  noise

    with b = 2 / 5 log(d n^2 pi^2 / (6 delta)), delta = 0.1, for n trials of d parameters.

    noise: standard deviation of a value: a number, or a function of the best trial. None takes it from the scores that
        `report_cross_validation_scores` gave for the best trial, and without them from the model.
    """

    def __init__(
        self,
        noise: float | Callable[[FrozenTrial], float] | None = None,
        n_startup: int | None = None,
        interval: int = 5,
    ):
        super().__init__(n_startup, interval)
        if noise is not None and not callable(noise) and not noise > 0:
            raise ValueError(f"RegretBound: noise must be a number > 0, a function or None, got {noise!r}")
        self.noise = noise

    def judge(self, model: _Model, complete: Sequence[tuple[FrozenTrial, float]]) -> bool:
        best, _ = min(complete, key=lambda pair: (pair[1], pair[0].number))
        if callable(self.noise):
            noise = float(self.noise(best))
        elif self.noise is not None:
            noise = self.noise
        elif SCORES in best.user_attrs:
            noise = cross_validation_noise(best.user_attrs[SCORES])
        else:
            noise = model.noise
        return model.regret_bound() < noise


def report_cross_validation_scores(trial: Trial, scores: Sequence[float]) -> None:
    """Keep the scores of the folds, at least two, of which the objective's value is the mean."""
    cross_validation_noise(scores)
    trial.set_user_attr(SCORES, [float(score) for score in scores])


def cross_validation_noise(scores: Sequence[float]) -> float:
    """The standard deviation of the mean of k folds' scores: s sqrt(1 / k + 1 / (k - 1)) (Nadeau & Bengio 2003)."""
    k = len(scores)
    if k < 2:
        raise ValueError(f"scores must be those of at least 2 folds, got {k}")
    return float(np.std(scores, ddof=1)) * math.sqrt(1 / k + 1 / (k - 1))


class _Model:
    """A Gaussian process of a study's losses, in their unit. Losses far above the others are brought near to them."""

    def __init__(self, study: Study, space: Any):
        from .samplers.gp.activity import activity
        from .samplers.gp.embedding import Embedding
        from .samplers.gp.model import GaussianProcess, Likelihood

        seen = study._history(len(study.get_trials(deepcopy=False))).observations(space)
        rows = np.flatnonzero(seen.done & ~seen.failed & np.isfinite(seen.losses).all(axis=1))
        order = np.argsort(seen.losses[rows, 0], kind="stable")
        self.space, self.points, losses = space, seen.points[rows[order]][:MOST], seen.losses[rows[order], 0][:MOST]
        self.usable = (
            len(losses) >= 2 and losses[0] < losses[-1] and any(d.size != 1 for d in space.parameters.values())
        )
        if not self.usable:
            return
        ordinary = losses[(len(losses) - 1) // 2] - losses[0] or losses[losses > losses[0]][0] - losses[0]
        losses = np.minimum(losses - losses[0], 10 * ordinary) / ordinary
        self.unit = ordinary * losses.std()
        self._embedding = Embedding(space, seen.points)
        self._active = activity(space, seen.points)
        self._seed = study.seed
        y = (losses - losses.mean()) / losses.std()
        theta = Likelihood(self._embedding, self.points, y, warping=False).maximise()
        self.process = GaussianProcess(self._embedding, theta, self.points, y)

    @property
    def noise(self) -> float:
        """Standard deviation of a loss about the function."""
        return self.unit * math.sqrt(self.process.variance * math.exp(self.process.theta[-1]))

    @property
    def root(self) -> float:
        """sqrt(b) of `RegretBound`."""
        n, d = len(self.points), len(self._embedding.axes)
        return math.sqrt(0.4 * math.log(d * n * n * math.pi**2 / (6 * 0.1)))

    def regret_bound(self) -> float:
        """The left side of the condition in `RegretBound`."""
        root = self.root
        mean, deviation = self.process.posterior(self.points)

        def lower(means: np.ndarray, deviations: np.ndarray):
            ones = np.ones_like(means)
            return (root * deviations - means)[:, 0], -ones, root * ones

        lowest = min((mean - root * deviation).min(), -self._largest(lower))
        return self.unit * float((mean + root * deviation).min() - lowest)

    def expected_improvement(self) -> float:
        """The largest one, in the losses' unit."""
        from .samplers.gp.acquisition import log_improvement

        best = self.process.posterior(self.points)[0].min()

        def improvement(means: np.ndarray, deviations: np.ndarray):
            value, by_mean, by_deviation = log_improvement(means[:, 0], deviations[:, 0], best)
            return value, by_mean[:, None], by_deviation[:, None]

        return self.unit * math.exp(self._largest(improvement))

    def _largest(self, function: Callable[..., Any]) -> float:
        """The largest value over the space of a function of the posterior, see `Term`."""
        from .samplers.base import keyed_integer
        from .samplers.gp.proposal import Term
        from .samplers.gp.search import Search

        term = Term([self.process], function)
        rng = np.random.default_rng(keyed_integer(self._seed, len(self.points), "terminator"))
        point = Search(self.space, self._embedding, term, self._active, rng).best(self.points[:5], frozenset())
        return -math.inf if point is None else float(term(point[None])[0])


def _complete(study: Study) -> list[tuple[FrozenTrial, float]]:
    """Complete trials in their order, and their losses: values with the sign that makes small ones good."""
    if len(study.directions) > 1:
        raise ValueError("terminators are for studies with one objective")
    sign = study.signs[0]
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [(trial, sign * trial.value) for trial in trials if trial.value is not None]
