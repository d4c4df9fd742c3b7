"""Convolution, pooling and normalization as in PyTorch; their state, recording and errors."""

import numpy as np
import pytest
from tensors import placed

import nanonet
import nanonet.functional as F
from nanonet import nn, optim
from nanonet.errors import DtypeError, OptionError, RecordingError, ShapeError

torch = pytest.importorskip("torch")


def nhwc(tensor):
    """PyTorch's (n, c, ...) as (n, ..., c), in NumPy."""
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def images(shape, seed=0):
    """The same images for us and for PyTorch, in float64, and both ask for gradients."""
    array = np.random.default_rng(seed).normal(size=shape)
    theirs = torch.tensor(np.moveaxis(array, -1, 1).copy(), requires_grad=True)
    return placed(array, requires_grad=True), theirs


def agree(ours, theirs, x, x_theirs, pairs=()):
    """Outputs and gradients are the same; pairs: (our parameter, theirs, their gradient -> ours)."""
    g = np.random.default_rng(9).normal(size=ours.shape)
    np.testing.assert_allclose(ours.numpy(), nhwc(theirs), atol=1e-9)
    ours.backward(placed(g))
    theirs.backward(torch.tensor(np.moveaxis(g, -1, 1).copy()))
    np.testing.assert_allclose(x.grad.numpy(), nhwc(x_theirs.grad), atol=1e-9)
    for parameter, peer, turn in pairs:
        np.testing.assert_allclose(parameter.grad.numpy(), turn(peer.grad.numpy()), atol=1e-9)


def weighted(ours, peer):
    """Give the peer our convolution's weights."""
    axes = tuple(range(ours.weight.ndim))
    with torch.no_grad():
        peer.weight.copy_(torch.tensor(ours.weight.numpy().transpose(axes[-1], axes[-2], *axes[:-2])))
        if peer.bias is not None:
            peer.bias.copy_(torch.tensor(ours.bias.numpy()))
    back = (*axes[2:], 1, 0)
    pairs = [(ours.weight, peer.weight, lambda w: w.transpose(back))]
    return pairs if peer.bias is None else [*pairs, (ours.bias, peer.bias, lambda b: b)]


CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 5), "stride": (2, 1), "padding": (2, 0), "dilation": (1, 2)},
    {"kernel_size": 2, "groups": 2, "bias": False, "padding": "same"},
    {"kernel_size": 7, "stride": 2, "padding": 3, "groups": 4},
    {"kernel_size": 1, "stride": 3},
]


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # PyTorch's, about its speed
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_conv2d_is_pytorchs(options, backend_in_use):
    ours = nn.Conv2d(4, 8, **options, bias_init="normal").double()
    peer = torch.nn.Conv2d(4, 8, **options, dtype=torch.float64)
    pairs = weighted(ours, peer)
    x, theirs = images((2, 9, 11, 4))
    agree(ours(x), peer(theirs), x, theirs, pairs)


@pytest.mark.parametrize("options", [{"kernel_size": 3, "stride": 2, "padding": 2}, {"kernel_size": 4, "dilation": 2}])
def test_conv1d_is_pytorchs(options, backend_in_use):
    ours, peer = nn.Conv1d(3, 5, **options).double(), torch.nn.Conv1d(3, 5, **options, dtype=torch.float64)
    pairs = weighted(ours, peer)
    x, theirs = images((2, 12, 3))
    agree(ours(x), peer(theirs), x, theirs, pairs)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 4, "stride": 2, "padding": 1},
        {"kernel_size": (3, 2), "stride": (3, 2), "padding": (1, 0), "output_padding": (2, 1), "groups": 2},
        {"kernel_size": 3, "dilation": 2, "bias": False},
    ],
    ids=str,
)
def test_conv_transpose2d_is_pytorchs(options, backend_in_use):
    ours = nn.ConvTranspose2d(4, 6, **options).double()
    peer = torch.nn.ConvTranspose2d(4, 6, **options, dtype=torch.float64)
    pairs = weighted(ours, peer)
    x, theirs = images((2, 5, 4, 4))
    agree(ours(x), peer(theirs), x, theirs, pairs)


POOLS = [
    ("MaxPool2d", (2,), {}),
    ("MaxPool2d", (3, 2, 1), {"ceil_mode": True}),
    ("MaxPool2d", ((2, 3), (1, 2)), {}),
    ("AvgPool2d", (3, 2, 1), {}),
    ("AvgPool2d", (3, 2, 1), {"ceil_mode": True, "count_include_pad": False}),
    ("AvgPool2d", (3, 2, 1), {"ceil_mode": True}),
    ("AvgPool2d", (2, 1), {"divisor_override": 3}),
    ("AdaptiveAvgPool2d", ((3, None),), {}),
    ("AdaptiveAvgPool2d", (5,), {}),
    ("MaxPool1d", (3, 2, 1), {"ceil_mode": True}),
    ("AvgPool1d", (3, 2, 1), {"ceil_mode": True}),
    ("AdaptiveAvgPool1d", (4,), {}),
]


@pytest.mark.parametrize(("name", "args", "options"), POOLS)
def test_pools_are_pytorchs(name, args, options, backend_in_use):
    x, theirs = images((2, 10, 3) if name.endswith("1d") else (2, 10, 8, 3))
    agree(getattr(nn, name)(*args, **options)(x), getattr(torch.nn, name)(*args, **options)(theirs), x, theirs)


@pytest.mark.parametrize(
    ("name", "shape"), [("BatchNorm1d", (6, 3)), ("BatchNorm1d", (2, 5, 3)), ("BatchNorm2d", (2, 3, 4, 3))]
)
def test_batch_norm_and_its_running_statistics_are_pytorchs(name, shape, backend_in_use):
    ours, peer = getattr(nn, name)(3).double(), getattr(torch.nn, name)(3, dtype=torch.float64)
    for seed in range(3):
        x, theirs = images(shape, seed)
        for p in (*ours.parameters(), *peer.parameters()):
            p.grad = None
        pairs = [(ours.weight, peer.weight, lambda w: w), (ours.bias, peer.bias, lambda b: b)]
        agree(ours(x), peer(theirs), x, theirs, pairs)
        np.testing.assert_allclose(ours.running_mean.numpy(), peer.running_mean.numpy())
        np.testing.assert_allclose(ours.running_var.numpy(), peer.running_var.numpy())
    ours.eval()
    peer.eval()
    x, theirs = images(shape, 7)
    before = ours.running_mean.numpy().copy()
    agree(ours(x), peer(theirs), x, theirs)
    np.testing.assert_array_equal(ours.running_mean.numpy(), before)


def test_group_layer_and_rms_norm_are_pytorchs(backend_in_use):
    x, theirs = images((2, 3, 4, 6))
    agree(nn.GroupNorm(3, 6).double()(x), torch.nn.GroupNorm(3, 6, dtype=torch.float64)(theirs), x, theirs)
    rows = np.random.default_rng(0).normal(size=(4, 5, 6))
    for ours, peer in (
        (nn.LayerNorm((5, 6)), torch.nn.LayerNorm((5, 6))),
        (nn.LayerNorm(6, bias=False), torch.nn.LayerNorm(6, bias=False)),
        (nn.RMSNorm(6), torch.nn.RMSNorm(6)),
    ):
        found = ours.double()(placed(rows)).numpy()
        np.testing.assert_allclose(found, peer.double()(torch.tensor(rows)).detach().numpy(), atol=1e-9)


def test_initial_weights_have_pytorchs_scale():
    for layer, fan in (
        (nn.Conv2d(32, 64, 3, rng=0), 32 * 9),
        (nn.Conv2d(32, 64, 3, groups=8, rng=0), 4 * 9),
        (nn.ConvTranspose2d(32, 64, 3, rng=0), 64 * 9),
        (nn.Conv1d(64, 64, 5, rng=0), 64 * 5),
    ):
        largest = np.abs(layer.weight.numpy()).max()
        assert 0.98 / fan**0.5 < largest <= 1 / fan**0.5
        assert not layer.bias.numpy().any()


# ---------------------------------------------------------------------- state and recording


def block():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False, rng=0),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding="same", rng=1), nn.BatchNorm2d(4)), activation="relu"),
        nn.AvgPool2d(2, 1),
        nn.GroupNorm(2, 4),
        nn.GlobalAvgPool2d(),
        nn.LayerNorm(4),
        nn.Linear(4, 3, rng=2),
    )


def test_a_recorded_step_is_the_eager_one_and_moves_the_running_statistics(backend_in_use):
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(6, 8, 8, 2)).astype(np.float32), rng.integers(0, 3, 6)) for _ in range(5)]
    found = []
    for record in (False, True):
        model = block()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x, y, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = nanonet.jit(step) if record else step
        losses = [run(nanonet.tensor(x), nanonet.tensor(y)).item() for x, y in batches]
        assert not record or len(run.recordings) == 1
        if record and backend_in_use.name == "numba_cpu":
            assert not any(instruction.call for instruction in run.plan.instructions), "a kernel is not compiled"
        model.eval()
        found.append((losses, model(batches[0][0]).numpy(), model.state_dict()))
    (eager, outputs, state), (recorded, replayed, other) = found
    assert eager == recorded
    np.testing.assert_array_equal(outputs, replayed)
    for name in state:
        np.testing.assert_array_equal(state[name], other[name])
    assert state["1.running_mean"].any() and (state["1.running_var"] != 1).all()


def test_fit_trains_and_a_file_brings_back_the_running_statistics(tmp_path, backend_in_use):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = rng.normal(size=(60, 8, 8, 2)).astype(np.float32) + y[:, None, None, None]
    model = block()
    model.compile(optim.Adam(model.parameters(), lr=0.02), "cross_entropy", ["accuracy"])
    history = model.fit(x, y, batch_size=16, epochs=3, verbose=0, validation_data=(x, y))
    assert history.history["loss"][-1] < history.history["loss"][0]
    model.save(tmp_path / "model")
    twin = block().load(tmp_path / "model").eval()
    np.testing.assert_array_equal(twin(x).numpy(), model.eval()(x).numpy())
    assert model.state_dict()["1.running_mean"].any()


def test_a_running_statistic_that_is_an_argument_of_a_recorded_step_is_refused():
    @nanonet.jit
    def step(x, mean, var):
        return F.batch_norm(x, mean, var, training=True)

    with pytest.raises(RecordingError, match="an argument of the step is overwritten"):
        step(nanonet.ones(3, 2), nanonet.zeros(2), nanonet.ones(2))


def test_a_batch_of_one_value_has_no_variance_to_speak_of(backend_in_use):
    layer = nn.BatchNorm1d(2)
    assert layer(nanonet.tensor([[3.0, 4.0]])).tolist() == [[0, 0]]
    assert np.isfinite(layer.running_var.numpy()).all()


@pytest.mark.parametrize(
    ("layer", "activation"),
    [
        (lambda: nn.Conv2d(2, 3, 3, rng=0), nn.Tanh),
        (lambda: nn.Conv2d(2, 3, 3, rng=0), nn.GELU),
        (lambda: nn.ConvTranspose2d(2, 3, 3, rng=0), nn.Sigmoid),
        (lambda: nn.BatchNorm2d(2), nn.ReLU),
        (lambda: nn.BatchNorm2d(2), nn.Tanh),
        (lambda: nn.BatchNorm2d(2).eval(), nn.ReLU),
    ],
)
def test_a_layer_and_its_activation_in_one_kernel_give_the_same(layer, activation, backend_in_use):
    first = layer()
    x, gradients, outputs = np.random.default_rng(0).normal(size=(2, 5, 5, 2)), [], []
    for model in (nn.Sequential(first, activation()), lambda x: activation()(first(x))):
        given = nanonet.tensor(x, requires_grad=True)
        out = model(given)
        (out * out).sum().backward()
        outputs.append(out.numpy())
        gradients.append(given.grad.numpy())
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-4)


def test_a_kind_made_from_a_layer_is_called_itself():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    model = nn.Sequential(Doubled(1, 1, 1, rng=0), nn.ReLU())
    x = nanonet.ones(1, 2, 2, 1)
    plain = nn.Conv2d(1, 1, 1, rng=0)(x).relu() * 2
    np.testing.assert_array_equal(model(x).numpy(), plain.numpy())


def test_a_residual_of_leaves_gives_each_a_gradient_of_its_own(backend_in_use):
    a, b = (nanonet.tensor([1.0, -2.0, 3.0], requires_grad=True) for _ in range(2))
    F.add_relu(a, b).sum().backward()
    F.add_relu(a, nanonet.zeros(3)).sum().backward()
    assert a.grad.tolist() == [2, 0, 2] and b.grad.tolist() == [1, 0, 1]
    c = a * 2
    F.add_relu(c, c).sum().backward()
    assert a.grad.tolist() == [6, 0, 6]


def test_sizes_that_are_not_known_before_are_built_at_the_first_input(backend_in_use):
    model = nn.Sequential(
        nn.Conv2D(4, 3, activation="relu"), nn.BatchNormalization(), nn.MaxPooling2D(), nn.Flatten(), nn.Dense(2)
    )
    assert not model.built
    model.build((8, 8, 3))
    assert [p.shape for p in model.parameters()] == [(3, 3, 3, 4), (4,), (4,), (4,), (36, 2), (2,)]
    assert model(nanonet.zeros(5, 8, 8, 3)).shape == (5, 2)


# ------------------------------------------------------------------------------------ errors

X = nanonet.zeros(1, 5, 5, 4)
W = nanonet.zeros(3, 3, 4, 6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.conv2d(X, nanonet.zeros(3, 3, 2, 6)),
            ShapeError,
            r"x \(1, 5, 5, 4\) has 4 channels, weight wants 2",
        ),
        (lambda: F.conv2d(X, W, groups=2), ShapeError, "weight wants 8 .*groups 2"),
        (lambda: F.conv2d(X, nanonet.zeros(3, 3, 2, 5), groups=2), ShapeError, "gives 5 channels, wanted a multiple"),
        (lambda: F.conv2d(X[0], W), ShapeError, r"conv2d: x is \(5, 5, 4\), wanted \(n, h, w, c\)"),
        (lambda: F.conv2d(X, W, nanonet.zeros(4)), ShapeError, r"bias is \(4,\), wanted \(6,\)"),
        (lambda: F.conv2d(X, W, stride=0), OptionError, "conv2d: stride is 0; wanted an integer of at least 1 or 2"),
        (
            lambda: F.conv2d(X, W, padding=-1),
            OptionError,
            "conv2d: padding is -1; wanted an integer, 2 integers, 2 pairs",
        ),
        (lambda: F.conv2d(X, W, padding="full"), OptionError, "padding is 'full'"),
        (lambda: F.conv2d(X, W, dilation=3), ShapeError, "the window wants 7"),
        (lambda: F.conv2d(X, W.double()), DtypeError, "x is float32, weight is float64"),
        (
            lambda: F.conv2d(X, W, activation="gelu"),
            OptionError,
            "conv2d: activation 'gelu', wanted None or one of relu",
        ),
        (lambda: F.conv_transpose2d(X, W), ShapeError, "x .* has 4 channels, weight .* wants 6"),
        (lambda: F.conv_transpose2d(X, W.transpose(2, 3), output_padding=1), OptionError, "less than stride"),
        (lambda: F.max_pool2d(X, 2, padding=2), OptionError, "wanted less than kernel_size"),
        (
            lambda: F.max_pool2d(X, 6),
            ShapeError,
            r"max_pool2d: x has size 5 along an axis of its \(5, 5\); the window wants 6",
        ),
        (lambda: F.max_pool2d(X, 2, dilation=2), OptionError, "dilation is 2; wanted 1"),
        (lambda: F.avg_pool2d(X, (2, 2, 2)), OptionError, "kernel_size is"),
        (lambda: F.adaptive_avg_pool2d(X, 0), OptionError, "adaptive_avg_pool2d: output_size"),
        (lambda: F.adaptive_avg_pool2d(X, (1, 2, 3)), OptionError, "adaptive_avg_pool2d: output_size"),
        (lambda: F.batch_norm(X, None, None), ShapeError, "running_mean or running_var is None"),
        (lambda: F.batch_norm(X, None, None, nanonet.zeros(3), training=True), ShapeError, r"weight is \(3,\)"),
        (lambda: F.batch_norm(X[:0], None, None, training=True), ShapeError, "at least one value"),
        (lambda: F.group_norm(X, 3), ShapeError, "4 channels, wanted a multiple of num_groups 3"),
        (lambda: F.layer_norm(X, (5, 3)), ShapeError, r"layer_norm: x is \(1, 5, 5, 4\), wanted \(..., 5, 3\)"),
        (lambda: F.pad(X, (1, 2, 3)), OptionError, r"pad: pad is \(1, 2, 3\)"),
        (lambda: F.pad(X, (1, 1), mode="reflect"), OptionError, "mode is 'reflect'"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), OptionError, "Conv2d: in_channels is 3; wanted a multiple of groups 2"),
        (lambda: nn.Conv2d(0, 4, 3), OptionError, "Conv2d: in_channels is 0"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="circular"), OptionError, "padding_mode is 'circular'"),
        (
            lambda: nn.BatchNorm2d(4)(nanonet.zeros(3, 4)),
            ShapeError,
            r"BatchNorm2d: x is \(3, 4\), wanted \(n, h, w, c\)",
        ),
        (lambda: nn.BatchNorm1d(3)(nanonet.zeros(3, 4)), ShapeError, "wanted 3 channels"),
        (lambda: nn.GroupNorm(3, 4), OptionError, "GroupNorm: num_channels is 4; wanted a multiple of num_groups 3"),
        (lambda: nn.Conv2d(3, 4, 3, padding="smae"), OptionError, "Conv2d: padding is 'smae'; wanted an integer"),
        (lambda: nn.Conv2D(4, 3, padding=-1), OptionError, "Conv2D: padding is -1"),
        (lambda: nn.Conv2D(3, 3, groups=2), OptionError, "Conv2D: filters is 3; wanted a multiple of groups 2"),
        (lambda: nn.Conv1D(3, 3, input_shape=(8,)), OptionError, r"Conv1D: input_shape is \(8,\); .* \(n, l, c\)"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, padding="same"), OptionError, "padding is 'same'; wanted integers"),
        (
            lambda: nn.ConvTranspose2d(3, 4, 3, output_padding=1),
            OptionError,
            "output_padding is 1; .* than stride",
        ),
        (lambda: nn.MaxPool2d(0), OptionError, "MaxPool2d: kernel_size is 0"),
        (lambda: nn.MaxPool1d(2, dilation=2), OptionError, "MaxPool1d: dilation is 2; wanted 1"),
        (lambda: nn.AvgPool2d(2, stride=-1), OptionError, "AvgPool2d: stride is -1"),
        (lambda: nn.AvgPool2d(2, padding=2), OptionError, "AvgPool2d: padding is .*; wanted less than kernel_size"),
        (lambda: nn.AvgPool2d(2, divisor_override=0), OptionError, "AvgPool2d: divisor_override is 0"),
        (lambda: nn.MaxPooling1D((2, 2)), OptionError, r"MaxPooling1D: kernel_size is \(2, 2\)"),
        (lambda: nn.AdaptiveAvgPool2d((1, 2, 3)), OptionError, r"AdaptiveAvgPool2d: output_size is \(1, 2, 3\)"),
        (lambda: nn.AdaptiveAvgPool1d(-1), OptionError, "AdaptiveAvgPool1d: output_size is -1"),
        (
            lambda: F.conv2d(nanonet.zeros(1, 4, 5, 5), W),
            ShapeError,
            r"channels come last, \(n, h, w, c\): x.transp",
        ),
        (lambda: nn.Conv1d(2, 3, 1)(nanonet.zeros(1, 2, 5)), ShapeError, r"channels come last, \(n, l, c\)"),
        (lambda: nn.BatchNorm2d(4)(nanonet.zeros(1, 4, 5, 5)), ShapeError, "channels come last"),
        (lambda: nn.GroupNorm(2, 4)(nanonet.zeros(1, 4, 5, 5)), ShapeError, "channels come last"),
        (lambda: nn.Residual(nn.Linear(4, 3))(X), ShapeError, "Residual: body gives .* the shortcut"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()
