"""Modules: what they hold, compute, save and refuse."""

import copy
import inspect
import types

import numpy as np
import pytest
from cases import LAYERS
from hypothesis import assume, given
from hypothesis import strategies as st
from tensors import Arrays, as_argument, plain

import nanonet
import nanonet.functional as F
from nanonet import Tensor, gradcheck, gradgradcheck, nn, optim
from nanonet.errors import CheckpointError, DtypeError, OptionError, ShapeError

SEEDS = st.integers(0, 2**32)


# ------------------------------------------------------------------------------- the table


def test_every_layer_has_a_row():
    kinds = {name for name in nn.__all__ if inspect.isclass(getattr(nn, name))}
    assert kinds - {"Module", "Parameter", "Buffer"} == {case.name for case in LAYERS}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", LAYERS, ids=str)
@given(data=st.data())
def test_layer_matches_its_oracle(case, dtype, backend_in_use, data):
    module = case.make().to(dtype)
    arguments = case.arguments(data.draw, Arrays(data.draw(SEEDS), dtype))
    found = module(*map(as_argument, arguments))
    weights = {name: array.astype(np.float64) for name, array in module.state_dict().items()}
    expected = np.asarray(case.oracle(types.SimpleNamespace(weights=weights), *map(plain, arguments)))
    assert found.shape == expected.shape and found.dtype == dtype
    error = {np.float32: 1e-5, np.float64: 1e-6 if case.name == "Dropout" else 1e-12}[dtype]
    np.testing.assert_allclose(found.numpy(), expected, rtol=error, atol=10 * error)


@pytest.mark.parametrize("case", [case for case in LAYERS if case.name != "Dropout"], ids=str)
@given(data=st.data())
def test_layer_derivatives_match_differences(case, backend_in_use, data):
    module = case.make().double()
    given_ = [as_argument(a, True) for a in case.arguments(data.draw, Arrays(data.draw(SEEDS)))]
    inputs = [a for a in given_ if isinstance(a, Tensor) and a.requires_grad]
    assume(0 < sum(x.size for x in inputs) <= 12)
    inputs += module.parameters()
    assert gradcheck(lambda *_: module(*given_), inputs)
    assert gradgradcheck(lambda *_: module(*given_), inputs)


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_layer_can_be_shown_copied_and_stored(case, tmp_path):
    module = case.make()
    assert repr(module).startswith(case.name)
    module.summary(print_fn=lambda text: None)
    twin = copy.deepcopy(module)
    for (name, p), (other, q) in zip(module.named_parameters(), twin.named_parameters(), strict=True):
        assert name == other and p is not q and np.array_equal(p.numpy(), q.numpy())
        assert not np.shares_memory(p.numpy(), q.numpy())
    module.save(tmp_path / "weights")
    assert twin.load(tmp_path / "weights") is twin


# ---------------------------------------------------------------------------------- finding


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.register_buffer("scale", np.ones(width))

    def forward(self, x):
        return self.inner(x) * self.scale


class Net(nn.Module):
    """Without super().__init__(): parameters, lists, tuples, dicts, a shared module, and what is no parameter."""

    def __init__(self):
        self.gate = nn.Parameter([1.0, 2.0])
        self.blocks = [Block(2), Block(2)]
        self.heads = {"left": nn.Linear(2, 1), "right": (nn.Linear(2, 1), nn.Dropout(0.5, rng=1))}
        self.again = self.blocks[0]
        self.cache = nanonet.ones(3)
        self.name = "net"
        self.sizes = [1, 2, 3]

    def forward(self, x):
        x = x * self.gate
        for block in self.blocks:
            x = block(x)
        linear, dropout = self.heads["right"]
        return self.heads["left"](x) + linear(dropout(x))


def test_parameters_buffers_modules_and_streams_are_found():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        "gate",
        "blocks.0.inner.weight",
        "blocks.0.inner.bias",
        "blocks.1.inner.weight",
        "blocks.1.inner.bias",
        "heads.left.weight",
        "heads.left.bias",
        "heads.right.0.weight",
        "heads.right.0.bias",
    ]
    assert [name for name, _ in net.named_buffers()] == ["blocks.0.scale", "blocks.1.scale"]
    assert [name for name, _ in net.named_streams()] == ["heads.right.1.stream"]
    assert [name for name, _ in net.named_modules()][:3] == ["", "blocks.0", "blocks.0.inner"]
    assert len(list(net.children())) == 6
    assert len(list(net.parameters())) == 9
    assert all(p.requires_grad for p in net.parameters()) and not any(b.requires_grad for b in net.buffers())


def test_apply_visits_children_first():
    seen = []
    Net().blocks[0].apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Linear", "Block"]


def test_a_module_that_holds_its_parent_is_walked_once():
    parent, child = nn.Sequential(nn.Linear(1, 1)), nn.Sequential()
    parent.child = child
    child.parent = parent
    assert len(list(parent.modules())) == 3
    assert len(list(child.parameters())) == 2


def test_forward_is_wanted():
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty: forward is missing"):
        Empty()(1)


# ------------------------------------------------------------------------------------- modes


def test_train_and_eval_reach_every_module():
    net = Net()
    assert all(module.training for module in net.modules())
    assert net.eval() is net and not any(module.training for module in net.modules())
    x = nanonet.ones(4, 2)
    assert np.array_equal(net(x).numpy(), net(x).numpy())
    net.train()
    assert all(module.training for module in net.modules())
    net.blocks[1].training = False
    assert not net.blocks[1].training and net.blocks[0].training


def test_requires_grad_freezes(backend_in_use):
    net = Net()
    net.blocks[0].requires_grad_(False)
    net(nanonet.ones(4, 2)).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == [
        "blocks.0.inner.weight",
        "blocks.0.inner.bias",
    ]
    net.zero_grad(set_to_none=False)
    assert not net.gate.grad.numpy().any()
    net.zero_grad()
    assert net.gate.grad is None


def test_dtype_and_device():
    net = Net().double()
    assert {t.dtype for t in (*net.parameters(), *net.buffers())} == {np.dtype(np.float64)}
    assert net(nanonet.ones(1, 2, dtype="float64")).dtype == np.float64
    assert net.to("cpu") is net and net.float().gate.dtype == np.float32
    with pytest.raises(nanonet.errors.BackendUnavailable, match="cuda"):
        net.to("cuda")
    with pytest.raises(DtypeError, match="float99"):
        net.to("float99")


# -------------------------------------------------------------------------------------- state


def test_state_is_a_copy_and_is_loaded_in_place(backend_in_use):
    net, other = Net(), Net()
    state = net.state_dict()
    memory = net.gate.array
    net.gate.data = [5.0, 5.0]
    assert state["gate"].tolist() == [1, 2]
    net.load_state_dict(state)
    assert net.gate.array is memory and net.gate.tolist() == [1, 2]
    other.load_state_dict({name: Tensor(array) for name, array in state.items()})
    x = nanonet.ones(3, 2)
    assert np.array_equal(net.eval()(x).numpy(), other.eval()(x).numpy())


def test_what_does_not_fit_is_named_and_nothing_is_loaded():
    net = Net()
    before = net.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    del state["blocks.1.scale"]
    state["more"] = np.zeros(1)
    state["heads.left.weight"] = np.zeros((3, 1))
    state["heads.left.bias"] = np.array(["a"])
    with pytest.raises(CheckpointError) as error:
        net.load_state_dict(state)
    for part in (
        "blocks.1.scale is missing",
        "more is unexpected",
        r"heads.left.weight has shape (3, 1), wanted (2, 1)",
        "heads.left.bias holds <U1, wanted numbers",
    ):
        assert part in str(error.value)
    assert all(np.array_equal(array, before[name]) for name, array in net.state_dict().items())
    del state["heads.left.weight"], state["heads.left.bias"]
    net.load_state_dict(state, strict=False)
    assert net.gate.tolist() == [2, 3]


def test_weights_on_disk(tmp_path):
    net, other = Net(), Net()
    net.save(tmp_path / "net")
    other.load(tmp_path / "net")
    assert np.array_equal(net.heads["left"].weight.numpy(), other.heads["left"].weight.numpy())
    nanonet.checkpoint.save(tmp_path / "newest", {"model": net.state_dict(), "epoch": 1})
    assert np.array_equal(Net().load(tmp_path / "newest").gate.numpy(), net.gate.numpy())
    nanonet.checkpoint.save(tmp_path / "other", {"kind": "run"})
    with pytest.raises(CheckpointError, match="holds no weights of a model"):
        net.load(tmp_path / "other")
    with pytest.raises(CheckpointError, match="gate is missing"):
        nn.Sequential(Net()).load(tmp_path / "net")


def test_random_streams_go_on_where_they_were(backend_in_use):
    x = nanonet.ones(50)
    layer = nn.Sequential(nn.Dropout(0.5))
    first = layer(x).numpy()
    state = layer.random_state()
    second = layer(x).numpy()
    assert not np.array_equal(first, second)
    layer.load_random_state(state)
    assert np.array_equal(layer(x).numpy(), second)
    with pytest.raises(CheckpointError, match="got streams .*'a'.*wanted .*'0.stream'"):
        layer.load_random_state({"a": np.zeros(3)})


def test_a_copy_of_a_dropout_draws_on_its_own(backend_in_use):
    x = nanonet.ones(50)
    layer = nn.Dropout(0.5)
    layer(x)
    twin = copy.deepcopy(layer)
    after = layer(x).numpy()
    assert np.array_equal(twin(x).numpy(), after)
    assert not np.array_equal(twin(x).numpy(), after)


def test_the_same_seed_gives_the_same_model(backend_in_use):
    found = []
    for _ in range(2):
        nanonet.seed(7)
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Dense(2))
        found.append(model(nanonet.ones(5, 3)).numpy())
    assert np.array_equal(*found)


def test_copies_are_independent(backend_in_use):
    net = Net()
    net(nanonet.ones(1, 2)).sum().backward()
    twin = copy.deepcopy(net)
    assert twin.again is twin.blocks[0] and type(twin.gate) is nn.Parameter and twin.gate.requires_grad
    assert np.array_equal(twin.gate.grad.numpy(), net.gate.grad.numpy())
    optim.SGD(twin.parameters(), lr=1.0).step()
    assert net.gate.tolist() == [1, 2] and twin.gate.tolist() != [1, 2]
    with pytest.raises(RuntimeError, match="only a leaf"):
        copy.deepcopy(net.gate * 2)


# ------------------------------------------------------------------------------------- linear


def test_weights_start_at_torchs_scale():
    weight = nn.Linear(400, 300, rng=0).weight.numpy()
    assert abs(weight).max() <= 1 / 20 and abs(weight).max() > 0.049
    assert weight.std() == pytest.approx(1 / 20 / 3**0.5, rel=0.02)
    assert not nn.Linear(4, 3).bias.numpy().any()
    assert np.array_equal(nn.Linear(3, 2, rng=5).weight.numpy(), nn.Linear(3, 2, rng=5).weight.numpy())
    ones = nn.Linear(3, 2, weight_init="ones", bias_init=lambda shape, rng: np.full(shape, 4.0))
    assert ones(nanonet.ones(3)).tolist() == [7, 7]
    assert nn.Dense(4, kernel_initializer="random_normal", input_dim=3).weight.shape == (3, 4)


def test_dense_makes_its_weights_at_the_first_input(backend_in_use):
    model = nn.Sequential(nn.Dense(4, activation="relu"), nn.Dense(2))
    assert not model.built
    with pytest.raises(RuntimeError, match=r"0: Dense\(4.* has no weights before it knows its inputs"):
        optim.SGD(model.parameters(), lr=0.1)
    assert model(nanonet.ones(5, 3)).shape == (5, 2)
    assert model.built and [p.shape for p in model.parameters()] == [(3, 4), (4,), (4, 2), (2,)]
    assert nn.Sequential(nn.Dense(4), nn.Dense(2)).build((3,)).built
    with pytest.raises(ShapeError, match=r"x \(5, 4\) has 4 features, weight \(3, 4\) wants 3"):
        model(nanonet.ones(5, 4))


def test_input_shape_builds_the_whole_model():
    model = nn.Sequential(
        [nn.Flatten(input_shape=(8, 8)), nn.Dense(16, "relu"), nn.Dropout(0.2), nn.Dense(10, "softmax")]
    )
    assert model.built and sum(p.size for p in model.parameters()) == 64 * 16 + 16 + 16 * 10 + 10
    model = nn.Sequential()
    model.add(nn.Dense(32, input_shape=(64,)))
    model.add(nn.Dense(10))
    assert model.built and model.layers[1].weight.shape == (32, 10)
    assert all(module.training for module in model.modules())


def test_dense_takes_a_function_as_activation(backend_in_use):
    layer = nn.Dense(2, activation=F.square, input_dim=1, kernel_initializer="ones")
    assert layer(nanonet.tensor([[3.0]])).tolist() == [[9, 9]]
    assert layer.scores(nanonet.tensor([[3.0]])).tolist() == [[3, 3]]


# --------------------------------------------------------------------------------- sequential


def test_sequential_is_a_list_of_layers(backend_in_use):
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert len(model) == 3 and [type(layer).__name__ for layer in model] == ["Linear", "ReLU", "Linear"]
    assert model[-1].weight.shape == (3, 1) and len(model[:2]) == 2 and model[:2][0] is model[0]
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    model[1] = nn.Tanh()
    model.append(nn.Sigmoid())
    x = nanonet.ones(4, 2)
    expected = ((x @ model[0].weight + model[0].bias).tanh() @ model[2].weight + model[2].bias).sigmoid()
    np.testing.assert_allclose(model(x).numpy(), expected.numpy(), rtol=1e-6)
    named = nn.Sequential({"hidden": nn.Linear(2, 3), "out": nn.Linear(3, 1)})
    assert [name for name, _ in named.named_children()] == ["hidden", "out"] and named.out is named[1]
    assert nn.Sequential()(x) is x
    relu = nn.ReLU()
    assert len(nn.Sequential(relu, nn.Linear(2, 2), relu)) == 3
    with pytest.raises(TypeError, match="Sequential: layer 1 is a function, wanted a Module"):
        nn.Sequential(nn.ReLU(), F.relu)


def test_linear_and_activation_are_one_kernel_unless_watched(backend_in_use):
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 1), nn.ReLU())
    x, one = nanonet.ones(4, 2), nanonet.ones(1, 1)

    def kernels():
        step = nanonet.jit(model)
        step(x)
        return len(step.plan.names)

    with nanonet.no_grad():
        assert kernels() == 4
        fused = model(x).numpy()
        seen = []
        removes = [model[0].register_forward_hook(lambda m, args, out: seen.append(out))]
        removes.append(model[5].register_forward_hook(lambda m, args, out: out @ one))
        np.testing.assert_allclose(model(x).numpy(), fused, rtol=1e-6)
        assert kernels() == 7
        for remove in removes:
            remove()
        assert kernels() == 4
        assert [out.shape for out in seen] == [(4, 3)] * 2


def test_arrays_are_taken_as_inputs(backend_in_use):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    assert model(np.ones((3, 2, 2))).dtype == np.float32
    assert nn.Flatten()(np.ones((3, 2, 2))).shape == (3, 4)


# ------------------------------------------------------------------------------- what is shown


def test_repr_is_nested():
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Dropout(0.2)))
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Linear(in_features=2, out_features=3, bias=True)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Dropout(p=0.2)\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Parameter([1.0])) == "Parameter tensor([1.], requires_grad=True)"
    assert "features=None" in repr(nn.Dense(3))


def test_summary_shows_shapes_and_counts(capsys):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    model[1].requires_grad_(False)
    model.summary((8, 8))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "parameters"]
    assert [line.split() for line in lines[2:6]] == [
        ["0", "Flatten", "(n,", "64)", "0"],
        ["1", "Linear", "(n,", "128)", "8,320"],
        ["2", "ReLU", "(n,", "128)", "0"],
        ["3", "Linear", "(n,", "10)", "1,290"],
    ]
    assert lines[-1] == "9,610 parameters, 1,290 of them trained"
    assert not any(module._hooks for module in model.modules())
    nn.Dense(3).summary()
    assert "not built" in capsys.readouterr().out


# -------------------------------------------------------------------------------------- errors

ERRORS = [
    (lambda: nn.Linear(0, 3), "Linear: in_features is 0, wanted a positive integer"),
    (lambda: nn.Linear(3, 2.5), "Linear: out_features is 2.5"),
    (lambda: nn.Linear(3, 2, weight_init="he"), "initializer is 'he'"),
    (lambda: nn.Dense(True), "Dense: units is True"),
    (lambda: nn.Dense(3, input_shape=()), "Dense: input_shape is ()"),
    (lambda: nn.Dense(3, activation="rleu"), "activation is 'rleu' .did you mean 'relu'"),
    (lambda: nn.activation("swiss"), "activation is 'swiss' .did you mean 'swish'"),
    (lambda: nn.Dropout(1), "Dropout: p is 1, wanted 0 <= p < 1"),
    (lambda: nn.Dropout("a"), "Dropout: p is 'a'"),
]


@pytest.mark.parametrize("call, message", ERRORS, ids=[message[:30] for _, message in ERRORS])
def test_errors_name_the_argument_and_what_is_wanted(call, message):
    with pytest.raises(OptionError, match=message):
        call()


def test_every_activation_has_a_name():
    for name, kind in nn.ACTIVATIONS.items():
        assert type(nn.activation(name)) is kind


# ------------------------------------------------------------------------------------- PyTorch


def test_a_network_computes_what_torchs_does():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(6, 5))
    for name in ("ReLU", "LeakyReLU", "ELU", "GELU", "SiLU", "Sigmoid", "Tanh", "Softplus"):
        ours = nn.Sequential(nn.Linear(5, 7), getattr(nn, name)(), nn.Linear(7, 3), nn.LogSoftmax(dim=1)).double()
        theirs = torch.nn.Sequential(
            torch.nn.Linear(5, 7), getattr(torch.nn, name)(), torch.nn.Linear(7, 3), torch.nn.LogSoftmax(dim=1)
        ).double()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.data = q.detach().numpy().T
        found = ours(nanonet.tensor(x, dtype="float64"))
        expected = theirs(torch.tensor(x))
        np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=1e-12)
        (found * found).sum().backward()
        (expected * expected).sum().backward()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy().T, rtol=1e-10, atol=1e-12)
