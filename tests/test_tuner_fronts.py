"""`study.best_trials` against brute force and against test problems whose Pareto front is known in closed form."""

import math

import numpy as np
import pytest

import tuner
from tuner import Float, Space, TrialState
from tuner.samplers import RandomSampler
from tuner.samplers.gp.proposal import reference_point


def zdt(h):
    """Zitzler, Deb & Thiele 2000: f2 = g h(f1, g), on the front with g = 1."""

    def problem(x):
        g = 1 + 9 * float(np.mean(x[1:]))
        return x[0], g * h(x[0], g)

    return problem


def dtlz2(x):
    """Deb, Thiele, Laumanns & Zitzler 2002: the front is the unit sphere's part with positive coordinates."""
    g = float(np.sum((x[2:] - 0.5) ** 2))
    a, b = x[0] * math.pi / 2, x[1] * math.pi / 2
    return (1 + g) * math.cos(a) * math.cos(b), (1 + g) * math.cos(a) * math.sin(b), (1 + g) * math.sin(a)


PROBLEMS = {
    "zdt1": (zdt(lambda f, g: 1 - math.sqrt(f / g)), lambda v: abs(v[1] - (1 - math.sqrt(v[0])))),
    "zdt2": (zdt(lambda f, g: 1 - (f / g) ** 2), lambda v: abs(v[1] - (1 - v[0] ** 2))),
    "zdt3": (
        zdt(lambda f, g: 1 - math.sqrt(f / g) - f / g * math.sin(10 * math.pi * f)),
        lambda v: abs(v[1] - (1 - math.sqrt(v[0]) - v[0] * math.sin(10 * math.pi * v[0]))),
    ),
    "dtlz2": (dtlz2, lambda v: abs(math.hypot(*v) - 1)),
}
#: f1 of the five pieces of ZDT3's front.
PIECES = [(0, 0.0830015349), (0.1822287280, 0.2577623634), (0.4093136748, 0.4538821041),
          (0.6183967944, 0.6525117038), (0.8233317983, 0.8518328654)]  # fmt: skip


def beaten(value, others, signs):
    """Whether one of the others is nowhere worse and somewhere better, one number at a time."""
    for other in others:
        pairs = [(s * o, s * v) for s, o, v in zip(signs, other, value, strict=True)]
        if all(o <= v for o, v in pairs) and any(o < v for o, v in pairs):
            return True
    return False


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_front_is_what_nobody_beats(name, direction):
    problem, distance = PROBLEMS[name]
    sign = 1 if direction == "minimize" else -1
    objectives = 3 if name == "dtlz2" else 2
    space = Space({f"x{j}": Float(0, 1) for j in range(5)})
    study = tuner.create_study(directions=[direction] * objectives, space=space, sampler=RandomSampler(seed=0))
    rng = np.random.default_rng(1)
    optimal = 0.5 if name == "dtlz2" else 0.0
    first = objectives - 1  # so many parameters say where on the front, the others how far from it
    for k in range(40):  # every second one is optimal
        row = rng.random(5)
        if k % 2:
            row[first:] = optimal
        study.enqueue_trial({f"x{j}": float(u) for j, u in enumerate(row)})
    study.optimize(lambda t: [sign * v for v in problem(np.array([t.params[f"x{j}"] for j in range(5)]))], n_trials=150)
    values = {t.number: t.values for t in study.trials}
    front = {t.number for t in study.best_trials}
    signs = [sign] * objectives
    assert front == {n for n, v in values.items() if not beaten(v, values.values(), signs)}
    on_it = {n for n, v in values.items() if distance([sign * x for x in v]) < 1e-9}
    assert len(on_it) == 20
    if name == "zdt3":  # of the curve only five pieces are the front
        inside = {n for n in on_it if any(a <= sign * values[n][0] <= b for a, b in PIECES)}
        assert inside <= front
        assert not any(n in front for n in on_it - inside if beaten(values[n], [values[m] for m in inside], signs))
    else:
        assert on_it <= front


def test_equal_values_are_all_on_the_front_and_failed_trials_never():
    study = tuner.create_study(directions=["minimize", "maximize"])
    for values in ([1, 1], [1, 1], [0, 0], [2, 0], [math.nan, 5], [math.inf, 9], [1, 0.5]):
        study.tell(study.ask(), values)
    study.tell(study.ask(), state=TrialState.FAIL)
    assert [t.number for t in study.best_trials] == [0, 1, 2, 5]


def test_the_gaussian_process_sees_beyond_the_worst_of_all_trials_and_not_of_the_front_alone():
    losses = np.array([[0.0, 1.0], [0.1, 0.9], [4.0, -1.0], [2.0, 3.0]])
    np.testing.assert_allclose(reference_point(losses), [4.4, 3.4])
    np.testing.assert_allclose(reference_point(losses[:1]), [0.1, 1.1])
