"""Schedules against their equations and, where PyTorch has the same, against PyTorch."""

import math
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonet.errors import OptionError
from nanonet.optim import schedules
from nanonet.optim.schedules import (
    Chain,
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    InverseTime,
    LinearWarmup,
    MultiStep,
    OneCycle,
    Polynomial,
    ReduceOnPlateau,
    Sequential,
    Step,
)

EVERY = [
    Constant(),
    Step(3, 0.5),
    MultiStep([2, 5, 9], 0.1),
    Exponential(0.9),
    InverseTime(0.5),
    Polynomial(10, 2.0, 0.1),
    LinearWarmup(5),
    LinearWarmup(0),
    Cosine(10, 0.01),
    CosineRestarts(3),
    CosineRestarts(3, 2, 0.1),
    OneCycle(20),
    Chain([LinearWarmup(4), Cosine(12)]),
    Sequential([LinearWarmup(4), Exponential(0.5), Constant()], [4, 9]),
]


def torch_factors(make, steps):
    """PyTorch's learning rates over `steps` steps, for a base rate of 1."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make(torch.optim.lr_scheduler, optimizer)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


PEERS = {
    "step": (Step(4, 0.3), lambda s, o: s.StepLR(o, 4, 0.3)),
    "multi_step": (MultiStep([3, 7], 0.2), lambda s, o: s.MultiStepLR(o, [3, 7], 0.2)),
    "exponential": (Exponential(0.93), lambda s, o: s.ExponentialLR(o, 0.93)),
    "inverse_time": (InverseTime(0.3), lambda s, o: s.LambdaLR(o, lambda t: 1 / (1 + 0.3 * t))),
    "polynomial": (Polynomial(12, 1.7), lambda s, o: s.PolynomialLR(o, 12, 1.7)),
    "warmup": (LinearWarmup(6, 0.2), lambda s, o: s.LinearLR(o, 0.2, 1.0, 6)),
    "cosine": (Cosine(24, 0.1), lambda s, o: s.CosineAnnealingLR(o, 24, eta_min=0.1)),
    "restarts": (CosineRestarts(5, 1, 0.05), lambda s, o: s.CosineAnnealingWarmRestarts(o, 5, 1, 0.05)),
    "restarts, longer": (CosineRestarts(3, 2), lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2)),
    "one_cycle": (OneCycle(25), lambda s, o: s.OneCycleLR(o, max_lr=1.0, total_steps=25)),
    "one_cycle, other": (
        OneCycle(25, 0.5, 10.0, 100.0),
        lambda s, o: s.OneCycleLR(o, max_lr=1.0, total_steps=25, pct_start=0.5, div_factor=10, final_div_factor=100),
    ),
    "product": (
        LinearWarmup(6, 0.2) * Exponential(0.9),
        lambda s, o: s.ChainedScheduler([s.LinearLR(o, 0.2, 1.0, 6), s.ExponentialLR(o, 0.9)]),
    ),
    "sequence": (
        Sequential([LinearWarmup(5, 0.5), Exponential(0.9)], [5]),
        lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.5, 1.0, 5), s.ExponentialLR(o, 0.9)], [5]),
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_agrees_with_pytorch(name):
    ours, theirs = PEERS[name]
    np.testing.assert_allclose(ours(np.arange(24)), torch_factors(theirs, 24), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("schedule", EVERY, ids=str)
def test_an_array_of_steps_gives_what_each_step_gives(schedule):
    steps = np.arange(40).reshape(4, 10)
    one_by_one = np.array([[schedule(int(t)) for t in row] for row in steps])
    together = schedule(steps)
    assert together.dtype == np.float64
    np.testing.assert_array_equal(together, one_by_one)
    assert isinstance(schedule(3), float)
    assert schedule(np.arange(0)).shape == (0,)


@pytest.mark.parametrize("schedule", EVERY, ids=str)
@pytest.mark.parametrize("t", [-1, 0.5, [1, -2], "soon", None])
def test_steps_are_whole_numbers_from_0(schedule, t):
    with pytest.raises(OptionError, match="wanted integers of at least 0"):
        schedule(t)


def test_schedules_never_change():
    schedule = Step(3, 0.5)
    with pytest.raises(AttributeError, match="never changes"):
        schedule.gamma = 0.9
    assert schedule == Step(3, 0.5) == pickle.loads(pickle.dumps(schedule)) != Step(3, 0.4)
    assert hash(Chain([schedule])) == hash(Chain([Step(3, 0.5)]))
    assert repr(schedule) == "Step(step_size=3, gamma=0.5)"


@given(total=st.integers(1, 1000), end=st.floats(0, 1))
def test_decays_go_from_1_to_their_end_and_stay(total, end):
    for schedule in (Cosine(total, end), Polynomial(total, 2.0, end)):
        assert schedule(0) == pytest.approx(1)
        assert schedule(total) == pytest.approx(end)
        assert schedule(total + 1000) == schedule(total)


@given(total=st.integers(1, 200), share=st.floats(0, 1), div=st.floats(1, 100))
def test_one_cycle_stays_between_its_ends(total, share, div):
    factors = OneCycle(total, share, div, 1e3)(np.arange(total + 5))
    assert np.isfinite(factors).all()
    assert factors.max() <= 1 + 1e-12
    assert factors.min() >= 1 / (div * 1e3) * (1 - 1e-9)


def test_restarts_begin_at_1_each_time():
    starts = [0, 3, 9, 21, 45]
    np.testing.assert_array_equal(CosineRestarts(3, 2)(starts), np.ones(5))


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("cooldown", [0, 2])
def test_plateau_agrees_with_pytorch(mode, cooldown):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, factor=0.5, patience=2, threshold=1e-2, cooldown=cooldown, min_lr=0.1, eps=0.0
    )
    ours = ReduceOnPlateau(2, 0.5, 0.1, mode, 1e-2, cooldown)
    rng = np.random.default_rng(0)
    for value in [*(2 + rng.random(60)), math.nan, math.nan, math.nan, 9.0, 0.1]:
        theirs.step(value)
        assert ours.report(value) == pytest.approx(optimizer.param_groups[0]["lr"])
        assert ours(7) == ours.current


def test_plateau_goes_on_from_its_state():
    values = np.random.default_rng(1).random(40)
    whole, first, second = (ReduceOnPlateau(1, 0.9, cooldown=1) for _ in range(3))
    expected = [whole.report(value) for value in values]
    found = [first.report(value) for value in values[:17]]
    second.restore(first.state())
    assert found + [second.report(value) for value in values[17:]] == expected
    with pytest.raises(OptionError, match="wanted"):
        second.restore({"best": 1.0})


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("constant", {}, Constant),
        ("step", {"step_size": 3}, Step),
        ("multi_step", {"milestones": (1, 2)}, MultiStep),
        ("exponential", {"gamma": 0.5}, Exponential),
        ("inverse_time", {"decay": 0.5}, InverseTime),
        ("polynomial", {"total": 5}, Polynomial),
        ("linear_warmup", {"steps": 5}, LinearWarmup),
        ("cosine", {"total": 5}, Cosine),
        ("cosine_restarts", {"first": 5}, CosineRestarts),
        ("one_cycle", {"total": 5}, OneCycle),
        ("reduce_on_plateau", {"patience": 5}, ReduceOnPlateau),
    ],
)
def test_by_name(name, options, kind):
    made = schedules.get(name, **options)
    assert type(made) is kind
    assert schedules.get(made) is made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.get("cosin", total=3), "did you mean 'cosine'"),
        (lambda: schedules.get("cosine"), "total not given"),
        (lambda: schedules.get("cosine", total=3, gama=1), "'gama'"),
        (lambda: schedules.get(3), "schedule is 3"),
        (lambda: Step(0), "step_size is 0; wanted an integer of at least 1"),
        (lambda: Step(2.5), "step_size is 2.5"),
        (lambda: Step(2, -1.0), "gamma is -1.0; wanted a number in \\(0, inf\\)"),
        (lambda: Exponential(math.nan), "gamma is nan"),
        (lambda: MultiStep([3, 3]), "each above the one before"),
        (lambda: OneCycle(10, pct_start=2.0), "pct_start is 2.0; wanted a number in \\[0, 1\\]"),
        (lambda: Sequential([Constant()], [3]), "one milestone between"),
        (lambda: Chain([]), "one or more schedules"),
        (lambda: Constant() * 3, "one or more schedules"),
        (lambda: ReduceOnPlateau(mode="up"), "wanted one of min, max"),
        (lambda: ReduceOnPlateau(factor=1.0), "a number in \\(0, 1\\)"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(OptionError, match=message):
        make()
