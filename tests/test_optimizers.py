"""Every optimizer against its equations in float64 and against PyTorch, eager and recorded; clipping."""

import copy

import numpy as np
import pytest
from cases import OPTIMIZERS
from tensors import placed

from kernels.updates import BY_NAME
from nanonet import checkpoint, jit, optim
from nanonet.errors import CheckpointError, DtypeError, OptionError, ShapeError
from nanonet.optim import SGD, Adam, clip_grad_norm_, clip_grad_value_

SHAPES = [(3, 4), (), (5,)]
STEPS = 12

cases = pytest.mark.parametrize("case", OPTIMIZERS, ids=str)
peers = pytest.mark.parametrize("case", [case for case in OPTIMIZERS if case.peer], ids=str)


def problem(dtype=np.float64):
    """Weights and their goals: the loss is sum(scale (w - goal)^2) / 2, with the gradient scale (w - goal)."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(dtype) for shape in SHAPES]
    goals = [rng.normal(size=shape).astype(dtype) for shape in SHAPES]
    scales = [rng.uniform(0.5, 2.0, size=shape).astype(dtype) for shape in SHAPES]
    return weights, goals, scales


class Descent:
    """The problem under one of our optimizers."""

    def __init__(self, case, dtype=np.float64, groups=None):
        weights, goals, scales = problem(dtype)
        self.weights = [placed(w, requires_grad=True) for w in weights]
        self.goals, self.scales = [placed(g) for g in goals], [placed(s) for s in scales]
        self.optimizer = optim.get(case.name)(groups(self.weights) if groups else self.weights, **case.options)

    def loss(self):
        parts = zip(self.weights, self.goals, self.scales, strict=True)
        return sum(((w - goal) * (w - goal) * scale).sum() for w, goal, scale in parts) * 0.5

    def step(self):
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()

    def run(self, steps=STEPS):
        for _ in range(steps):
            self.step()
        return self.values()

    def values(self):
        return [w.numpy().copy() for w in self.weights]


def same(found, wanted, rtol=0.0):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


# -------------------------------------------------------------------- the equations, in plain NumPy
#
# Each takes the weight w, its gradient g, the update's number t from 1, a dict of states that it keeps, and options.


def sgd(w, g, t, state, lr, momentum=0.0, dampening=0.0, nesterov=False, weight_decay=0.0, l1=0.0):
    g = g + weight_decay * w + l1 * np.sign(w)
    if momentum:
        v = state["v"] = g if t == 1 else momentum * state["v"] + (1 - dampening) * g
        g = g + momentum * v if nesterov else v
    return w - lr * g


def adam(w, g, t, state, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, l1=0.0):
    b1, b2 = betas
    g = g + weight_decay * w + l1 * np.sign(w)
    m = state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
    v = state["v"] = b2 * state.get("v", 0) + (1 - b2) * g**2
    return w - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)


def adamw(w, g, t, state, lr, weight_decay=1e-2, **options):
    return adam(w, g, t, state, lr, **options) - lr * weight_decay * w


def rmsprop(w, g, t, state, lr, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, l1=0.0):
    g = g + weight_decay * w + l1 * np.sign(w)
    v = state["v"] = alpha * state.get("v", 0) + (1 - alpha) * g**2
    b = state["b"] = momentum * state.get("b", 0) + g / (np.sqrt(v) + eps)
    return w - lr * b


def adagrad(w, g, t, state, lr, lr_decay=0.0, weight_decay=0.0, eps=1e-10, l1=0.0):
    g = g + weight_decay * w + l1 * np.sign(w)
    s = state["s"] = state.get("s", 0) + g**2
    return w - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(s) + eps)


EQUATIONS = {"sgd": sgd, "adam": adam, "adamw": adamw, "rmsprop": rmsprop, "adagrad": adagrad}


def by_the_equations(case, steps=STEPS):
    weights, goals, scales = problem()
    states = [{} for _ in weights]
    for t in range(1, steps + 1):
        parts = zip(weights, goals, scales, states, strict=True)
        weights = [EQUATIONS[case.name](w, scale * (w - goal), t, s, **case.options) for w, goal, scale, s in parts]
    return weights


# --------------------------------------------------------------------------------- the conformance suite


def test_every_optimizer_has_a_row():
    assert {case.name for case in OPTIMIZERS} == set(optim.OPTIMIZERS) == set(EQUATIONS)


def test_every_update_rule_has_a_row():
    used = {group.rule.name for case in OPTIMIZERS for group in Descent(case).optimizer.param_groups}
    assert used == set(BY_NAME)


@cases
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-10), (np.float32, 1e-4)], ids=["float64", "float32"])
def test_follows_its_equations(case, dtype, rtol, backend_in_use):
    found = Descent(case, dtype).run()
    same(found, by_the_equations(case), rtol)
    assert {w.dtype for w in found} == {np.dtype(dtype)}


@peers
def test_agrees_with_pytorch(case):
    torch = pytest.importorskip("torch")
    arrays, goals, scales = problem()
    weights = [torch.nn.Parameter(torch.tensor(w)) for w in arrays]
    theirs = getattr(torch.optim, case.peer)(weights, **case.options)
    for _ in range(STEPS):
        theirs.zero_grad()
        parts = zip(weights, goals, scales, strict=True)
        sum((torch.tensor(s) * (w - torch.tensor(g)) ** 2).sum() / 2 for w, g, s in parts).backward()
        theirs.step()
    same(Descent(case).run(), [w.detach().numpy() for w in weights], 1e-10)


@cases
def test_recorded_steps_give_the_same_bits(case, backend_in_use):
    descent = Descent(case, np.float32)
    step = jit(descent.step)
    for _ in range(STEPS):
        step()
    same(descent.values(), Descent(case, np.float32).run())


@cases
def test_minimises_a_quadratic(case):
    plain = {name: value for name, value in case.options.items() if name not in ("l1", "weight_decay")}
    descent = Descent(type(case)(case.name, plain | ({"weight_decay": 0.0} if case.name == "adamw" else {})))
    start = descent.loss().item()
    step = jit(descent.step)
    for _ in range(300):
        step()
    assert descent.loss().item() < 1e-3 * start


@cases
def test_goes_on_from_its_state(case, tmp_path):
    whole, first, second = Descent(case), Descent(case), Descent(case)
    first.run(5)
    checkpoint.save(tmp_path / "state", {"weights": first.values(), "optimizer": first.optimizer.state_dict()})
    saved = checkpoint.load(tmp_path / "state")
    second.optimizer.lr = 77.0  # comes back with the state
    second.optimizer.load_state_dict(saved["optimizer"])
    for w, array in zip(second.weights, saved["weights"], strict=True):
        w.array[...] = array
    same(second.run(STEPS - 5), whole.run(STEPS))
    assert second.optimizer.lr == case.options["lr"]


@cases
def test_weights_without_a_gradient_stay(case):
    descent = Descent(case)
    before = descent.values()
    descent.optimizer.step()
    same(descent.values(), before)
    descent.weights[2].sum().backward()
    descent.optimizer.step()
    same(descent.values()[:2], before[:2])
    assert (descent.values()[2] != before[2]).all()


# ------------------------------------------------------------------------------------------- groups


def own_groups(weights):
    return [{"params": weights[:1]}, {"params": weights[1:], "lr": 0.01, "weight_decay": 0.3}]


@cases
def test_groups_have_options_of_their_own(case):
    found = Descent(case, groups=own_groups).run()
    same(found[:1], by_the_equations(case)[:1], 1e-10)
    other = type(case)(case.name, {**case.options, "lr": 0.01, "weight_decay": 0.3})
    same(found[1:], by_the_equations(other)[1:], 1e-10)


def test_a_group_reads_like_a_dict():
    group = Descent(OPTIMIZERS[3]).optimizer.param_groups[0]
    assert set(group) == {"params", "lr", "momentum", "dampening", "nesterov", "weight_decay", "l1"}
    assert dict(group)["momentum"] == 0.9
    assert len(group["params"]) == len(SHAPES)


def test_a_group_added_later():
    a, b = placed(np.ones(2), requires_grad=True), placed(np.ones(2), requires_grad=True)
    optimizer = SGD([a], lr=0.1)
    optimizer.add_param_group({"params": [b], "lr": 0.5})
    (a + b).sum().backward()
    optimizer.step()
    same([a.numpy(), b.numpy()], [np.full(2, 0.9), np.full(2, 0.5)])


def test_weights_of_two_dtypes():
    a = placed(np.ones(2, np.float32), requires_grad=True)
    b = placed(np.ones(2, np.float64), requires_grad=True)
    optimizer = SGD([a, b], lr=0.5)
    a.sum().backward()
    b.sum().backward()
    optimizer.step()
    same([a.numpy(), b.numpy()], [np.full(2, 0.5)] * 2)


# ------------------------------------------------------------------------- options changed on the way


@pytest.mark.parametrize("recorded", [False, True])
def test_a_rate_set_from_outside_is_seen(recorded):
    w = placed(np.zeros(1), requires_grad=True)
    optimizer = SGD([w], lr=1.0)

    def step():
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    step = jit(step) if recorded else step
    for rate in (1.0, 1.0, 0.5, 0.25):
        optimizer.lr = rate
        step()
    optimizer.param_groups[0]["lr"] = 0.125
    step()
    assert w.numpy()[0] == -2.875


@pytest.mark.parametrize("recorded", [False, True])
def test_momentum_set_from_outside_is_seen(recorded):
    case = OPTIMIZERS[0]
    descent, plain = Descent(case), Descent(case)
    step = jit(descent.step) if recorded else descent.step
    step()
    step()
    plain.run(2)
    same(descent.values(), plain.values())
    descent.optimizer.param_groups[0]["momentum"] = 0.9
    for _ in range(3):
        step()
    weights, states = plain.values(), [{"v": 0.0} for _ in SHAPES]
    _, goals, scales = problem()
    for t in (3, 4, 5):
        parts = zip(weights, goals, scales, states, strict=True)
        weights = [sgd(w, scale * (w - goal), t, s, 0.1, momentum=0.9) for w, goal, scale, s in parts]
    same(descent.values(), weights, 1e-12)


def test_closure():
    descent = Descent(OPTIMIZERS[0])

    def closure():
        descent.optimizer.zero_grad()
        loss = descent.loss()
        loss.backward()
        return loss

    before = descent.loss().item()
    assert descent.optimizer.step(closure).item() == before
    assert descent.loss().item() < before


def test_zero_grad():
    descent = Descent(OPTIMIZERS[0])
    descent.loss().backward()
    descent.optimizer.zero_grad(set_to_none=False)
    assert all((w.grad.numpy() == 0).all() for w in descent.weights)
    descent.optimizer.zero_grad()
    assert all(w.grad is None for w in descent.weights)


# --------------------------------------------------------------------------------------- bad options


def weight(*shape):
    return placed(np.ones(shape), requires_grad=True)


@cases
@pytest.mark.parametrize("option", ["lr", "weight_decay", "l1"])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_options_out_of_range(case, option, value):
    with pytest.raises(OptionError, match=f"{option} is {value}, wanted a number >= 0"):
        optim.get(case.name)([weight(2)], **{**case.options, option: value})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.get("adma"), OptionError, "'adma' is unknown, wanted one of sgd, adam"),
        (lambda: SGD([]), OptionError, "params is empty"),
        (lambda: SGD([np.ones(2)]), DtypeError, r"params\[0\] is .* wanted a float leaf tensor"),
        (lambda: SGD([placed(np.ones(2, np.int64))]), DtypeError, r"params\[0\]"),
        (lambda: SGD([weight(2) * 2]), DtypeError, "wanted a float leaf tensor"),
        (lambda: SGD([w := weight(2), w]), OptionError, r"params\[1\] .*is there twice"),
        (lambda: SGD([{"params": [weight(2)], "rate": 1}]), OptionError, "'rate' is no option of SGD; there are lr"),
        (lambda: SGD([weight(2)], momentum=1.5), OptionError, r"momentum is 1.5, wanted a number in \[0, 1\]"),
        (lambda: SGD([weight(2)], nesterov=True), OptionError, "nesterov"),
        (lambda: SGD([weight(2)], momentum=0.9, dampening=0.1, nesterov=True), OptionError, "nesterov"),
        (lambda: Adam([weight(2)], betas=(0.9, 1.0)), OptionError, "betas is .* wanted two numbers in"),
        (lambda: Adam([weight(2)], eps=-1), OptionError, "eps is -1"),
        (lambda: Adam([weight(2)]).param_groups[0].__setitem__("lr", -1), OptionError, "lr is -1"),
    ],
)
def test_bad_options_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_an_option_set_out_of_range_leaves_all_as_it_was():
    optimizer = Adam([weight(2)], lr=0.5)
    with pytest.raises(OptionError, match="lr is -1"):
        optimizer.lr = -1
    with pytest.raises(OptionError, match="'momentum' is no option of Adam"):
        optimizer.param_groups[0]["momentum"] = 0.9
    assert optimizer.lr == 0.5


def test_a_state_of_something_else():
    sgd, adam = SGD([weight(2)]), Adam([weight(2)])
    with pytest.raises(CheckpointError, match="the state is of SGD"):
        adam.load_state_dict(sgd.state_dict())
    with pytest.raises(CheckpointError, match="2 groups, wanted 1 groups"):
        sgd.load_state_dict(SGD([{"params": [weight(2)]}, {"params": [weight(2)]}]).state_dict())
    with pytest.raises(ShapeError, match="shapes of state 'm'"):
        adam.load_state_dict(Adam([weight(3)]).state_dict())


# ------------------------------------------------------------------------------------------ clipping


def with_gradients(dtype=np.float64):
    rng = np.random.default_rng(3)
    weights = [placed(np.zeros(shape, dtype), requires_grad=True) for shape in SHAPES]
    gradients = [rng.normal(size=shape).astype(dtype) for shape in SHAPES]
    for w, g in zip(weights, gradients, strict=True):
        (w * placed(g)).sum().backward()
    return weights, gradients


@pytest.mark.parametrize("limit", [0.01, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping_by_norm(limit, dtype, backend_in_use):
    weights, gradients = with_gradients(dtype)
    norm = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradients))
    found = clip_grad_norm_((w for w in weights), limit)
    assert found.item() == pytest.approx(norm, rel=1e-5)
    same([w.grad.numpy() for w in weights], [g * min(1, limit / norm) for g in gradients], 2e-5)


def test_clipping_by_norm_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    weights, gradients = with_gradients()
    theirs = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in gradients]
    for w, g in zip(theirs, gradients, strict=True):
        w.grad = torch.tensor(g)
    norm = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    assert clip_grad_norm_(weights, 0.5).item() == pytest.approx(norm.item(), rel=1e-12)
    same([w.grad.numpy() for w in weights], [w.grad.numpy() for w in theirs], 1e-12)


def test_clipping_by_value(backend_in_use):
    weights, gradients = with_gradients()
    clip_grad_value_(weights, 0.5)
    same([w.grad.numpy() for w in weights], [np.clip(g, -0.5, 0.5) for g in gradients])


def test_clipping_skips_what_has_no_gradient():
    assert clip_grad_norm_(weight(2), 1.0).item() == 0
    clip_grad_value_([weight(2)], 1.0)


def test_clipping_keeps_nan():
    w = weight(2)
    (w * placed(np.array([np.nan, 1.0]))).sum().backward()
    assert np.isnan(clip_grad_norm_(w, 1.0).item())
    assert np.isnan(w.grad.numpy()).all()


def test_clipping_within_a_recorded_step():
    w, scale = weight(2), placed(np.array([30.0, 40.0]))
    optimizer = SGD([w], lr=1.0)

    @jit
    def step(limit):
        optimizer.zero_grad()
        (w * scale).sum().backward()
        clip_grad_norm_([w], limit)
        clip_grad_value_([w], 0.7)
        optimizer.step()

    for _ in range(3):
        step(1.0)
    same([w.numpy()], [1 - 3 * np.array([0.6, 0.7])], 1e-6)


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_limits_out_of_range(limit):
    with pytest.raises(OptionError, match="max_norm is .*wanted a number > 0"):
        clip_grad_norm_([weight(2)], limit)
    with pytest.raises(OptionError, match="clip_value is .*wanted a number > 0"):
        clip_grad_value_([weight(2)], limit)


def test_a_deep_copy_steps_like_the_original():
    parameter = placed(np.ones(3, np.float32), requires_grad=True)
    optimizer = optim.Adam([parameter], lr=0.1)
    copied, twin = copy.deepcopy((optimizer, parameter))
    for opt, p in ((optimizer, parameter), (copied, twin)):
        for _ in range(3):
            p.grad = placed(np.array([1.0, -2.0, 3.0], np.float32))
            opt.step()
    np.testing.assert_array_equal(parameter.array, twin.array)
    assert float(copied.param_groups[0].steps) == 3 and copied.lr == 0.1
