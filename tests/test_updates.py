"""The update and advance slots of every backend, and the rules of the table against PyTorch's optimizers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import plan
from kernels.reference import reference
from kernels.updates import BY_NAME, TABLE, Update

ORACLE = reference(np)
#: A value for each number that rules take.
VALUES = {
    **{"t": 3, "lr": 0.05, "decay": 0.01, "l1": 0.003, "momentum": 0.9, "dampening": 0.1, "b1": 0.9, "b2": 0.999},
    **{"eps": 1e-8, "alpha": 0.99, "lr_decay": 0.01},
}


def group(rule: Update, shapes, dtype, seed=0):
    """parameters, gradients, states, values."""
    rng = np.random.default_rng(seed)
    parameters = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    gradients = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    states = [[rng.uniform(0, 1, shape).astype(dtype) for shape in shapes] for _ in rule.states]
    return parameters, gradients, states, np.array([VALUES[name] for name in rule.values], np.float64)


def copies(arrays, dtype=None):
    return [np.array(x, dtype) if isinstance(x, np.ndarray) else copies(x, dtype) for x in arrays]


def assert_all_close(got, want, **tolerance):
    for x, y in zip(got, want, strict=True):
        if isinstance(x, np.ndarray):
            np.testing.assert_allclose(x, y, **tolerance)
        else:
            assert_all_close(x, y, **tolerance)


@given(
    shapes=st.lists(st.lists(st.integers(0, 19), max_size=2).map(tuple), max_size=5),
    t=st.sampled_from([1, 2, 1000]),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BY_NAME)
def test_update_equals_the_oracle(backend, name, dtype, shapes, t, seed):
    rule = BY_NAME[name]
    parameters, gradients, states, values = group(rule, shapes, dtype, seed)
    values[rule.values.index("t")] = t
    wide = copies([parameters, gradients, states], np.float64)
    ORACLE.update(rule, *wide, values)
    before = copies(gradients)
    backend.update(rule, parameters, gradients, states, values)
    eps = np.finfo(dtype).eps
    assert_all_close([parameters, states], [wide[0], wide[2]], rtol=50 * eps, atol=50 * eps)
    assert_all_close(gradients, before, rtol=0)


def test_values_are_read_at_every_replay(backend):
    rule = BY_NAME["adam"]
    parameters, gradients, states, values = group(rule, [(5, 7), (7,)], "float32")
    step = values[0:1].reshape(())
    wide = copies([parameters, gradients, states], np.float64)

    def follow(t):
        ORACLE.update(rule, wide[0], copies(gradients, np.float64), wide[2], np.array([t, *values[1:]]))

    step[...] = 1
    with plan.recording(plan.Recorder()) as recorder:
        backend.update(rule, parameters, gradients, states, values)
        backend.advance(step, 1)
    follow(1)
    recorded = recorder.plan()
    for t, lr in [(2, 0.05), (3, 0.5), (4, 0.01)]:
        values[1] = lr
        gradients[0][...] = -t
        assert step == t
        recorded.run()
        follow(t)
        assert_all_close([parameters, states], [wide[0], wide[2]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.name)
def test_threads_do_not_change_a_bit(rule, monkeypatch):
    pytest.importorskip("numba")
    from kernels.numba_cpu import threads, updates

    results = []
    for parts in (1, 2, 3):
        monkeypatch.setattr(threads, "parts_for", lambda *_, parts=parts: parts)
        parameters, gradients, states, values = group(rule, [(333, 101), (7,), (0,), (50, 3)], "float32")
        updates.update(rule, parameters, gradients, states, values)
        results.append([parameters, states])
    for other in results[1:]:
        assert_all_close(results[0], other, rtol=0)


def test_more_parameters_than_one_call_takes_arguments(backend):
    rule = BY_NAME["adam"]
    group_of_many = group(rule, [(3, k) for k in range(1, 40)], "float32")
    wide = copies(group_of_many[:3], np.float64)
    ORACLE.update(rule, *wide, group_of_many[3])
    backend.update(rule, *group_of_many)
    assert_all_close(group_of_many[0], wide[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype,amount", [("int64", 3), ("int64", -1), ("float64", 0.25), ("float64", 1)])
def test_advance(backend, dtype, amount):
    counter = np.array(2**40, dtype)
    backend.advance(counter, amount)
    assert counter == 2**40 + amount


# ------------------------------------------------------------------------------------------------ PyTorch

OTHERS = [
    ("sgd", "SGD", {}),
    ("momentum", "SGD", {"momentum": 0.9, "dampening": 0.1}),
    ("nesterov", "SGD", {"momentum": 0.9, "nesterov": True}),
    ("adam", "Adam", {"betas": (0.9, 0.999), "eps": 1e-8}),
    ("adamw", "AdamW", {"betas": (0.9, 0.999), "eps": 1e-8}),
    ("rmsprop", "RMSprop", {"alpha": 0.99, "eps": 1e-8}),
    ("rmsprop_momentum", "RMSprop", {"alpha": 0.99, "eps": 1e-8, "momentum": 0.9}),
    ("adagrad", "Adagrad", {"lr_decay": 0.01, "eps": 1e-8}),
]


@pytest.mark.parametrize("name,theirs,options", OTHERS)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_same_steps_as_pytorch(backend, name, theirs, options, decay):
    torch = pytest.importorskip("torch")
    rule = BY_NAME[name]
    values = np.array(
        [{"decay": decay, "l1": 0.0, "dampening": options.get("dampening", 0.0)}.get(n, VALUES[n]) for n in rule.values]
    )
    rng = np.random.default_rng(0)
    shapes = [(4, 6), (6,)]
    parameters = [rng.standard_normal(shape) for shape in shapes]
    states = [[np.zeros(shape) for shape in shapes] for _ in rule.states]
    tensors = [torch.tensor(w, requires_grad=True) for w in parameters]
    other = getattr(torch.optim, theirs)(tensors, lr=VALUES["lr"], weight_decay=decay, **options)
    for step in range(1, 6):
        gradients = [rng.standard_normal(shape) for shape in shapes]
        values[0] = step
        backend.update(rule, parameters, gradients, states, values)
        for tensor, g in zip(tensors, gradients, strict=True):
            tensor.grad = torch.tensor(g)
        other.step()
        assert_all_close(parameters, [tensor.detach().numpy() for tensor in tensors], rtol=1e-12, atol=1e-14)


def test_every_rule_has_a_peer():
    assert {row[0] for row in OTHERS} == set(BY_NAME)
