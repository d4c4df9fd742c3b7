"""Learning-rate schedulers against PyTorch's, and against their equations."""

import warnings

import numpy as np
import pytest

from nanonet import jit
from nanonet.errors import CheckpointError, OptionError, RecordingError
from nanonet.optim import SGD, Adagrad, Adam, lr_scheduler, schedules
from nanonet.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    InverseTimeLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from nanonet.tensor import Tensor

STEPS = 30


def optimizer(kind=SGD, **options):
    """Two groups with learning rates 0.5 and 0.1."""
    groups = [{"params": [Tensor(np.zeros(1), requires_grad=True)], "lr": lr} for lr in (0.5, 0.1)]
    return kind(groups, lr=1.0, **options)


def torch_optimizer(kind="SGD", **options):
    torch = pytest.importorskip("torch")
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.5, 0.1)]
    return torch.optim.lr_scheduler, getattr(torch.optim, kind)(groups, lr=1.0, **options)


def run(optimizer, schedulers, steps=STEPS, option="lr"):
    """Each step's value of an option in each group, (steps, groups)."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(steps):
            found.append([group[option] for group in optimizer.param_groups])
            optimizer.step()
            for scheduler in schedulers:
                scheduler.step()
    return np.array(found)


#: The same text is run with ours and with PyTorch's classes: `s` is the module, `o` the optimizer.
PEERS = [
    lambda s, o: s.StepLR(o, step_size=4, gamma=0.3),
    lambda s, o: s.MultiStepLR(o, milestones=[3, 7, 20], gamma=0.2),
    lambda s, o: s.ConstantLR(o),
    lambda s, o: s.ConstantLR(o, factor=0.5, total_iters=8),
    lambda s, o: s.LinearLR(o),
    lambda s, o: s.LinearLR(o, start_factor=0.2, end_factor=0.9, total_iters=6),
    lambda s, o: s.ExponentialLR(o, gamma=0.93),
    lambda s, o: s.PolynomialLR(o, total_iters=12, power=1.7),
    lambda s, o: s.LambdaLR(o, lambda t: 1 / (1 + 0.3 * t)),
    lambda s, o: s.LambdaLR(o, lr_lambda=[lambda t: 0.9**t, lambda t: 1 / (1 + t)]),
    lambda s, o: s.CosineAnnealingLR(o, T_max=12),
    lambda s, o: s.CosineAnnealingLR(o, T_max=40, eta_min=0.01),
    lambda s, o: s.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2, eta_min=0.02),
    lambda s, o: s.CosineAnnealingWarmRestarts(o, 7),
    lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.1, 1.0, 5), s.ExponentialLR(o, 0.9)], milestones=[5]),
    lambda s, o: s.SequentialLR(
        o, [s.ConstantLR(o, 0.5, 2), s.CosineAnnealingLR(o, 10, 0.01), s.ConstantLR(o, 0.1, 99)], [4, 14]
    ),
]


@pytest.mark.parametrize("make", PEERS)
def test_agrees_with_pytorch(make):
    mine = optimizer()
    found = run(mine, [make(lr_scheduler, mine)])
    module, theirs = torch_optimizer()
    np.testing.assert_allclose(found, run(theirs, [make(module, theirs)]), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("kind", "options", "option"), [("SGD", {"momentum": 0.9}, "momentum"), ("Adam", {}, "betas")])
@pytest.mark.parametrize(
    "about",
    [
        {"max_lr": 0.4, "total_steps": STEPS},
        {"max_lr": [0.4, 0.2], "epochs": 3, "steps_per_epoch": 10, "pct_start": 0.5, "max_momentum": 0.9},
        {"max_lr": 0.4, "total_steps": STEPS, "div_factor": 10, "final_div_factor": 100, "cycle_momentum": False},
    ],
)
def test_one_cycle_agrees_with_pytorch(kind, options, option, about):
    for watched in ("lr", option):
        mine = optimizer({"SGD": SGD, "Adam": Adam}[kind], **options)
        found = run(mine, [OneCycleLR(mine, **about)], STEPS - 1, watched)
        module, theirs = torch_optimizer(kind, **options)
        wanted = run(theirs, [module.OneCycleLR(theirs, **about)], STEPS - 1, watched)
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "max", "factor": 0.5, "patience": 2, "threshold": 0.01, "cooldown": 2},
        {"factor": 0.3, "patience": 0, "min_lr": [0.05, 0.02]},
        {"factor": 0.1, "patience": 0, "eps": 1e-3},
    ],
)
def test_plateau_agrees_with_pytorch(options):
    module, theirs = torch_optimizer()
    mine = optimizer()
    ours, peer = ReduceLROnPlateau(mine, **options), module.ReduceLROnPlateau(theirs, **options)
    for value in 2 + np.random.default_rng(0).random(60):
        ours.step(value)
        peer.step(value)
        assert ours.get_last_lr() == pytest.approx([group["lr"] for group in theirs.param_groups])


def test_several_on_one_optimizer_multiply_as_in_pytorch():
    mine = optimizer()
    found = run(mine, [LinearLR(mine, 0.2, 1.0, 6), ExponentialLR(mine, 0.9)])
    module, theirs = torch_optimizer()
    wanted = run(theirs, [module.LinearLR(theirs, 0.2, 1.0, 6), module.ExponentialLR(theirs, 0.9)])
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


# ------------------------------------------------------------------------------------------ equations


def test_inverse_time():
    mine = optimizer()
    found = run(mine, [InverseTimeLR(mine, 0.5)])
    np.testing.assert_allclose(found, np.outer(1 / (1 + 0.5 * np.arange(STEPS)), [0.5, 0.1]))


def test_any_schedule_will_do():
    mine = optimizer()
    schedule = schedules.LinearWarmup(4) * schedules.Cosine(20)
    found = run(mine, [LRScheduler(mine, schedule)])
    np.testing.assert_allclose(found, np.outer(schedule(np.arange(STEPS)), [0.5, 0.1]))


def test_a_rate_changed_from_outside_stays_changed():
    mine = optimizer()
    scheduler = StepLR(mine, 2, 0.5)
    scheduler.step()
    mine.param_groups[0]["lr"] = 8.0
    scheduler.step()
    assert scheduler.get_last_lr() == [4.0, 0.05]
    assert [group["lr"] for group in mine.param_groups] == [4.0, 0.05]


def test_step_to_an_epoch():
    mine = optimizer()
    scheduler = ExponentialLR(mine, 0.5)
    scheduler.step(4)
    assert mine.lr == 0.5 / 16
    scheduler.step()
    assert (scheduler.last_epoch, mine.lr) == (5, 0.5 / 32)


# ----------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("make", [*PEERS, lambda s, o: s.OneCycleLR(o, 0.4, STEPS, cycle_momentum=False)])
def test_goes_on_from_its_state(make):
    whole, first, second = optimizer(), optimizer(), optimizer()
    expected = run(whole, [make(lr_scheduler, whole)])
    stopped = make(lr_scheduler, first)
    found = run(first, [stopped], 11)
    again = make(lr_scheduler, second)
    again.load_state_dict(stopped.state_dict())
    np.testing.assert_array_equal(np.concatenate([found, run(second, [again], STEPS - 11)]), expected)


def test_plateau_goes_on_from_its_state():
    values = np.random.default_rng(1).random(40)
    first, second = optimizer(), optimizer()
    one, two = ReduceLROnPlateau(first, patience=1), ReduceLROnPlateau(second, patience=1)
    for value in values[:17]:
        one.step(value)
    two.load_state_dict(one.state_dict())
    for value in values[17:]:
        one.step(value)
        two.step(value)
        assert one.get_last_lr() == two.get_last_lr()


@pytest.mark.parametrize("state", [{}, {"kind": "StepLR"}, 3, None])
def test_a_state_of_something_else(state):
    scheduler = ExponentialLR(optimizer(), 0.5)
    with pytest.raises(CheckpointError, match="wanted that of a ExponentialLR"):
        scheduler.load_state_dict(state)
    with pytest.raises(CheckpointError, match="wanted that of a ReduceLROnPlateau"):
        ReduceLROnPlateau(optimizer()).load_state_dict(state)


# --------------------------------------------------------------------------------------------- recorded


def test_a_recorded_step_sees_the_rate():
    w = Tensor(np.ones(1), requires_grad=True)
    mine = SGD([w], lr=1.0)
    scheduler = StepLR(mine, 1, 0.5)

    @jit
    def step():
        mine.zero_grad()
        (w * 1.0).sum().backward()
        mine.step()

    for _ in range(4):
        step()
        scheduler.step()
    assert w.numpy()[0] == 1 - (1 + 1 / 2 + 1 / 4 + 1 / 8)
    assert len(step.recordings) <= 2


def test_stepping_within_a_recorded_step_is_an_error():
    for scheduler, about in ((StepLR(optimizer(), 1), ()), (ReduceLROnPlateau(optimizer()), (1.0,))):
        with pytest.raises(RecordingError, match="step within a recorded step would run only once"):
            jit(lambda scheduler=scheduler, about=about: scheduler.step(*about))()


# ----------------------------------------------------------------------------------------- bad options


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: StepLR("adam", 3), "optimizer is 'adam'; wanted a nanonet.optim.Optimizer"),
        (lambda o: CosineAnnealingLR(None, 3, 0.1), "optimizer is None"),
        (lambda o: StepLR(o, 0), "step_size is 0"),
        (lambda o: LambdaLR(o, 0.5), "schedule is 0.5; wanted a schedule or a function"),
        (lambda o: LambdaLR(o, [lambda t: 1.0]), "schedule has 1 entries; wanted 2, one a group"),
        (lambda o: LinearLR(o, total_iters=0), "total_iters is 0"),
        (lambda o: CosineAnnealingLR(o, 0), "CosineAnnealingLR: T_max is 0; wanted an integer of at least 1"),
        (lambda o: CosineAnnealingWarmRestarts(o, 2.5), "T_0 is 2.5"),
        (lambda o: PolynomialLR(o, 0), "total_iters is 0"),
        (lambda o: OneCycleLR(o, 0.1), "wanted total_steps, or epochs and steps_per_epoch"),
        (lambda o: OneCycleLR(optimizer(Adagrad), 0.1, 10), "Adagrad has neither momentum nor betas"),
        (lambda o: SequentialLR(o, [], []), r"schedulers are \[\]"),
        (lambda o: SequentialLR(o, [StepLR(optimizer(), 3)], []), "wanted schedulers of this optimizer"),
        (lambda o: SequentialLR(o, [OneCycleLR(o, 0.1, 9)], []), "none a OneCycleLR"),
        (lambda o: SequentialLR(o, [StepLR(o, 3)], [3]), r"milestones are \[3\] for 1 schedulers"),
        (lambda o: ReduceLROnPlateau(o, mode="up"), "wanted one of min, max"),
        (lambda o: ReduceLROnPlateau(o, min_lr=[0.1]), "min_lr has 1 entries"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(OptionError, match=message):
        make(optimizer())
