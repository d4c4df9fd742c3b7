"""Losses: edges, errors, and PyTorch's numbers. Oracles and derivatives are rows of OPS, tested in test_ops.py."""

import itertools
import math

import numpy as np
import pytest

import nanonet
import nanonet.functional as F
from nanonet import losses, nn
from nanonet.errors import DtypeError, OptionError, RecordingError, ShapeError


def scores(n=4, c=3, seed=0):
    return nanonet.tensor(np.random.default_rng(seed).normal(size=(n, c)), requires_grad=True)


# ------------------------------------------------------------------------------ cross-entropy


def test_labels_one_hot_and_probabilities_agree(backend_in_use):
    x, labels = scores(), np.array([0, 2, 1, 1])
    one_hot = np.eye(3)[labels]
    expected = F.cross_entropy(x, labels).item()
    for target in (labels.tolist(), labels.astype(np.uint8), nanonet.tensor(labels), one_hot, one_hot.astype(int)):
        assert F.cross_entropy(x, target).item() == pytest.approx(expected, rel=1e-6)
    assert F.nll_loss(x.log_softmax(), labels).item() == pytest.approx(expected, rel=1e-6)
    assert F.sparse_categorical_cross_entropy(x.softmax(), labels).item() == pytest.approx(expected, rel=1e-5)
    assert F.sparse_categorical_cross_entropy(x.softmax(), labels[:, None]).item() == pytest.approx(expected, rel=1e-5)
    assert F.categorical_cross_entropy(x.softmax(), one_hot).item() == pytest.approx(expected, rel=1e-5)


def test_certain_scores_give_no_infinite_loss(backend_in_use):
    x = nanonet.tensor([[1000.0, -1000.0]], requires_grad=True)
    loss = F.cross_entropy(x, [1])
    loss.backward()
    assert loss.item() == 2000
    np.testing.assert_array_equal(x.grad.numpy(), [[1, -1]])
    p = nanonet.tensor([[1.0, 0.0]])
    assert F.sparse_categorical_cross_entropy(p, [1]).item() == pytest.approx(-math.log(1e-7))
    assert F.binary_cross_entropy(nanonet.tensor([0.0, 1.0]), [1.0, 0.0]).item() == 100
    assert F.binary_cross_entropy_with_logits(nanonet.tensor([-1e4, 1e4]), [1.0, 0.0]).item() == 1e4


def test_infinite_scores_of_other_classes_play_no_part(backend_in_use):
    x = nanonet.tensor([[0.0, -math.inf], [-math.inf, 0.0]])
    assert F.cross_entropy(x, [0, 1]).item() == 0
    assert F.nll_loss(x, [0, 1]).item() == 0


def test_probabilities_get_gradients(backend_in_use):
    x, q = scores(2), nanonet.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], requires_grad=True)
    F.cross_entropy(x, q).backward()
    np.testing.assert_allclose(q.grad.numpy(), -x.log_softmax().numpy() / 2, rtol=1e-6)


def test_the_mean_over_labels_takes_few_kernels(backend_in_use):
    step = nanonet.jit(F.cross_entropy)
    step(scores().detach(), np.array([0, 1, 2, 0]))
    assert step.plan.names[:2] == ["cross_entropy", "reduce"] and step.plan.names[2:] in ([], ["elementwise"])


# --------------------------------------------------------------------------- values and shapes


def test_a_last_axis_of_length_one_may_be_missing(backend_in_use):
    x, t = nanonet.tensor([[1.0], [2.0]]), np.array([1.0, 4.0])
    assert F.mse_loss(x, t).item() == F.mse_loss(x.squeeze(-1), t[:, None]).item() == 2
    with pytest.raises(ShapeError, match=r"mse_loss: target has shape \(2, 2\), x \(2, 1\)"):
        F.mse_loss(x, np.ones((2, 2)))


def test_targets_take_the_dtype_of_the_outputs(backend_in_use):
    x = nanonet.ones(3)
    for target in ([1, 2, 3], np.arange(3.0), np.array([True, False, True]), nanonet.tensor([1, 2, 3])):
        assert F.mse_loss(x, target).dtype == np.float32
    assert F.mse_loss(x.double(), np.arange(3.0)).dtype == np.float64
    assert F.mse_loss([1.0, 2.0], [1.0, 4.0]).item() == 2


def test_huber_is_squared_near_and_linear_far(backend_in_use):
    x = nanonet.tensor([0.5, 10.0])
    np.testing.assert_allclose(F.huber_loss(x, [0.0, 0.0], reduction="none").numpy(), [0.125, 9.5])
    np.testing.assert_allclose(F.huber_loss(x, [0.0, 0.0], "none", delta=0.1).numpy(), [0.045, 0.995], rtol=1e-6)


# -------------------------------------------------------------------------------------- names


def test_every_named_loss_is_a_function_of_functional():
    assert {function.__name__ for function in losses.LOSSES.values()} <= set(F.__all__)


def test_losses_by_name():
    assert losses.get("sparse_categorical_crossentropy") is F.sparse_categorical_cross_entropy
    assert losses.get("mse") is losses.get("mean_squared_error") is losses.get("mse_loss") is F.mse_loss
    assert losses.get(F.l1_loss) is F.l1_loss
    module = nn.MSELoss()
    assert losses.get(module) is module
    with pytest.raises(OptionError, match="loss is 'mes'.*did you mean 'mse'.*cross_entropy"):
        losses.get("mes")


# ------------------------------------------------------------------------------------- errors

X = nanonet.tensor(np.zeros((2, 3)))
LABELS = np.array([0, 3, 1, 1, 2, 0])
ERRORS = [
    (lambda: F.cross_entropy(X, [0, 3]), IndexError, "cross_entropy: target holds the label 3, wanted 0..2"),
    (lambda: F.cross_entropy(X, [-1, 0]), IndexError, "cross_entropy: target holds the label -1"),
    (lambda: F.nll_loss(X, [0, 3]), IndexError, "nll_loss: target holds the label 3"),
    (lambda: F.sparse_categorical_cross_entropy(X, [0, 3]), IndexError, "sparse_categorical.* label 3"),
    (lambda: F.cross_entropy(X, [0.0, 1.0]), DtypeError, "cross_entropy: target .* float32, wanted integer labels"),
    (lambda: F.cross_entropy(X, [True, False]), DtypeError, "cross_entropy: target .* bool, wanted integer labels"),
    (lambda: F.cross_entropy(X, [0]), ShapeError, r"cross_entropy: target has shape \(1,\), wanted \(2,\)"),
    (lambda: F.cross_entropy(X, np.zeros((2, 2))), ShapeError, r"target has shape \(2, 2\), wanted .* \(2, 3\)"),
    (lambda: F.cross_entropy(X[0], 1), ShapeError, r"x has shape \(3,\), wanted \(rows, classes\)"),
    (lambda: F.cross_entropy(X.long(), [0, 1]), DtypeError, "x is int64, wanted a float"),
    (lambda: F.cross_entropy(X.numpy(), [0, 1]), DtypeError, "x is float32, wanted a float32 or float64 tensor"),
    (lambda: F.cross_entropy(X, ["a", "b"]), DtypeError, "wanted numbers"),
    (lambda: F.cross_entropy(X, [0, 1], weight=[1.0]), ShapeError, r"weight has shape \(1,\), wanted \(3,\)"),
    (lambda: F.cross_entropy(X, [0, 1], label_smoothing=1.5), OptionError, "label_smoothing is 1.5"),
    (lambda: F.cross_entropy(X, [0, 1], reduction="avg"), OptionError, "reduction is 'avg'.*mean, sum, none"),
    (lambda: F.cross_entropy(X[:0], LABELS[:0]), ShapeError, "cross_entropy: there is no mean of no values.*empty"),
    (lambda: F.mse_loss(X[:0], X[:0]), ShapeError, "mse_loss: there is no mean of no values"),
    (lambda: F.mse_loss(X, X[0]), ShapeError, r"mse_loss: target has shape \(3,\), x \(2, 3\)"),
    (lambda: F.mse_loss(X.long(), X), DtypeError, "mse_loss: x is int64"),
    (lambda: F.mse_loss(X, X.double()), DtypeError, "got float32 and float64"),
    (lambda: F.huber_loss(X, X, delta=0), OptionError, "huber_loss: delta is 0"),
    (lambda: F.binary_cross_entropy(X, X, weight=np.ones((3, 2, 3))), ShapeError, "weight .* does not broadcast"),
    (lambda: F.binary_cross_entropy_with_logits(X, X, pos_weight=np.ones((3, 2, 3))), ShapeError, "pos_weight"),
    (lambda: nn.CrossEntropyLoss(reduction="avg"), OptionError, "reduction is 'avg'"),
    (lambda: nn.CrossEntropyLoss(label_smoothing=-0.1), OptionError, "label_smoothing is -0.1"),
    (lambda: nn.HuberLoss(delta=-1), OptionError, "HuberLoss: delta is -1"),
]


@pytest.mark.parametrize("call, error, message", ERRORS, ids=[message[:40] for _, _, message in ERRORS])
def test_errors_name_the_loss_and_what_is_wanted(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_labels_of_a_recorded_step_are_arguments():
    labels = np.array([0, 1])
    with pytest.raises(RecordingError, match=r"test_losses.py:\d+.*argument of the step"):
        nanonet.jit(lambda x: F.cross_entropy(x, labels))(X)
    step = nanonet.jit(F.cross_entropy)
    assert step(X, labels).item() == pytest.approx(math.log(3))
    assert math.isnan(step(X, np.array([0, 7])).item())


def test_the_sum_of_no_rows_is_zero(backend_in_use):
    x = nanonet.zeros(0, 3)
    assert F.cross_entropy(x, LABELS[:0], reduction="sum").item() == 0
    assert F.cross_entropy(x, LABELS[:0], reduction="none").shape == (0,)


# -------------------------------------------------------------------------------------- PyTorch

REDUCTIONS = ("mean", "sum", "none")
ROWS = np.random.default_rng(5).normal(size=(6, 4))
MIXED = np.random.default_rng(6).dirichlet(np.ones(4), 6)
WEIGHT = np.array([0.5, 1.0, 2.0, 0.1])


def compare(name, x, target, **options):
    """Loss and gradient against torch.nn.functional, in float64."""
    torch = pytest.importorskip("torch")
    ours = nanonet.tensor(x, dtype="float64", requires_grad=True)
    theirs = torch.tensor(x, requires_grad=True)
    arrays = {k: v for k, v in options.items() if isinstance(v, np.ndarray)}
    loss = getattr(F, name)(ours, nanonet.tensor(target, dtype=target.dtype), **options)
    expected = getattr(torch.nn.functional, name)(
        theirs, torch.tensor(target), **{**options, **{k: torch.tensor(v) for k, v in arrays.items()}}
    )
    np.testing.assert_allclose(loss.numpy(), expected.detach().numpy(), rtol=1e-12)
    loss.sum().backward()
    expected.sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weighted"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_class_losses_are_as_in_torch(reduction, weight):
    for target, smoothing in itertools.product((LABELS, MIXED), (0.0, 0.2)):
        compare("cross_entropy", ROWS, target, weight=weight, label_smoothing=smoothing, reduction=reduction)
    compare("nll_loss", ROWS, LABELS, weight=weight, reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_other_losses_are_as_in_torch(reduction):
    targets = np.random.default_rng(7).random((6, 4))
    compare("mse_loss", ROWS, targets, reduction=reduction)
    compare("l1_loss", ROWS, targets, reduction=reduction)
    compare("huber_loss", ROWS, targets, reduction=reduction, delta=0.7)
    compare("binary_cross_entropy", MIXED, targets, reduction=reduction)
    compare("binary_cross_entropy", MIXED, targets, reduction=reduction, weight=WEIGHT)
    compare("binary_cross_entropy_with_logits", ROWS, targets, reduction=reduction)
    compare("binary_cross_entropy_with_logits", ROWS, targets, reduction=reduction, weight=WEIGHT, pos_weight=WEIGHT)
