"""Every operation against NumPy, and its first and second derivatives against differences."""

import math

import numpy as np
import pytest
from cases import CONSTANTS, ELEMENTWISE, OPS
from hypothesis import assume, given
from hypothesis import strategies as st
from tensors import Arrays, as_argument, plain

import nanonet
import nanonet.functional as F
from kernels.elementwise import TABLE
from nanonet import Tensor, gradcheck, gradgradcheck, ops
from nanonet.errors import DtypeError, OptionError, ShapeError

SEEDS = st.integers(0, 2**32)
CLOSE = {np.float32: 1e-5, np.float64: 1e-12}


# ------------------------------------------------------------------------------- the table


def test_every_function_has_a_row():
    assert set(F.__all__) == {case.name for case in OPS if hasattr(F, case.name)}


def test_every_row_of_the_elementwise_table_has_an_oracle_and_a_function():
    assert {row.name for row in TABLE} == set(ELEMENTWISE)
    assert set(ELEMENTWISE) <= set(F.__all__)


def test_every_method_of_a_tensor_is_a_function_with_a_row():
    functions = {getattr(F, case.name) for case in OPS if hasattr(F, case.name)}
    without = {name for name, method in ops._METHODS.items() if method not in functions}
    assert without == {"float", "double", "long", "to"}


# ----------------------------------------------------------------------------- conformance


@pytest.mark.parametrize("strided", [False, True], ids=["", "strided"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", OPS, ids=str)
@given(data=st.data())
def test_op_matches_its_oracle(case, dtype, strided, backend_in_use, data):
    arguments = case.arguments(data.draw, Arrays(data.draw(SEEDS), dtype))
    found = case.function(*(as_argument(a, strided=strided) for a in arguments))
    expected = np.asarray(case.oracle(*map(plain, arguments)))
    assert found.shape == expected.shape
    assert not found.requires_grad
    error = CLOSE[dtype if case.derivatives else np.float32]
    np.testing.assert_allclose(found.numpy(), expected, rtol=error, atol=10 * error)


@pytest.mark.parametrize("case", [case for case in OPS if case.derivatives], ids=str)
@given(data=st.data())
def test_derivatives_match_differences(case, backend_in_use, data):
    arguments = case.arguments(data.draw, Arrays(data.draw(SEEDS)))
    given_, inputs = _differentiated(arguments)
    assume(0 < sum(x.size for x in inputs) <= 24)

    def function(*varied):
        varied = iter(varied)
        return case.function(*(next(varied) if isinstance(a, Tensor) and a.requires_grad else a for a in given_))

    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("case", [case for case in OPS if case.derivatives], ids=str)
@given(data=st.data())
def test_gradients_have_the_shape_and_dtype_of_the_input(case, backend_in_use, data):
    """Also for empty tensors, and where the input is a strided view."""
    arguments = case.arguments(data.draw, Arrays(data.draw(SEEDS), np.float32))
    given_ = [as_argument(a, True, strided=True) for a in arguments]
    inputs = [a for a in given_ if isinstance(a, Tensor) and a.requires_grad]
    case.function(*given_).sum().backward()
    for x in inputs:
        assert x.grad.shape == x.shape
        assert x.grad.dtype == np.float32
        assert np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("case", [case for case in OPS if case.derivatives], ids=str)
@given(data=st.data())
def test_gradients_that_can_be_differentiated_again_are_the_same(case, backend_in_use, data):
    """`create_graph` computes them by other operations."""
    given_, inputs = _differentiated(case.arguments(data.draw, Arrays(data.draw(SEEDS))))
    assume(inputs)
    out = case.function(*given_)
    weights = nanonet.tensor(np.random.default_rng(0).normal(size=out.shape), dtype="float64")
    options = {"grad_outputs": weights, "allow_unused": True}
    again = nanonet.grad(out, inputs, create_graph=True, **options)
    for once, twice in zip(nanonet.grad(out, inputs, **options), again, strict=True):
        assert (once is None) == (twice is None)
        if once is not None:
            np.testing.assert_allclose(once.numpy(), twice.numpy(), rtol=1e-9, atol=1e-9)


def _differentiated(arguments):
    given_ = [as_argument(a, True) for a in arguments]
    return given_, [a for a in given_ if isinstance(a, Tensor) and a.requires_grad]


def test_the_derivative_check_finds_a_wrong_derivative():
    @nanonet.autograd.op
    def wrong(x):
        return x.detach() * x.detach()

    wrong.rule = lambda g, out, x: (lambda: g * x,)
    with pytest.raises(AssertionError, match="input 0 at"):
        gradcheck(wrong, nanonet.tensor([1.0, 2.0], dtype="float64", requires_grad=True))


# ---------------------------------------------------------------------- NaN, infinity, edges

UNARY = [row.name for row in TABLE if row.inputs == ("x",) or row.name in CONSTANTS]


@pytest.mark.parametrize("name", UNARY)
def test_nan_goes_through(name, backend_in_use):
    x = nanonet.tensor([1.0, math.nan, 0.5] * 7)
    found = getattr(F, name)(x, *CONSTANTS.get(name, ())).numpy()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(x.numpy()))


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "logsumexp", "softmax"])
def test_nan_goes_through_reductions(name, backend_in_use):
    x = nanonet.tensor([[1.0, math.nan, 0.5] * 7])
    assert np.isnan(getattr(F, name)(x, -1).numpy()).all()


def test_extremes_do_not_overflow(backend_in_use):
    x = nanonet.tensor([[1e4, -1e4, 0.0]])
    np.testing.assert_allclose(x.softmax().numpy(), [[1, 0, 0]])
    np.testing.assert_allclose(x.log_softmax().numpy(), [[0, -2e4, -1e4]])
    np.testing.assert_allclose(x.logsumexp().numpy(), [1e4])
    np.testing.assert_allclose(x.sigmoid().numpy(), [[1, 0, 0.5]])
    np.testing.assert_allclose(x.softplus().numpy(), [[1e4, 0, math.log(2)]], rtol=1e-6)
    infinite = nanonet.tensor([[-math.inf, 0.0], [-math.inf, -math.inf], [math.inf, 0.0]])
    np.testing.assert_array_equal(infinite.logsumexp().numpy(), [0, -math.inf, math.inf])


def test_equal_largest_values_share_the_gradient(backend_in_use):
    x = nanonet.tensor([2.0, 1.0, 2.0], requires_grad=True)
    x.max().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0.5, 0, 0.5])
    y, z = nanonet.tensor([1.0], requires_grad=True), nanonet.tensor([1.0], requires_grad=True)
    nanonet.maximum(y, z).sum().backward()
    assert y.grad.item() == z.grad.item() == 0.5


def test_rows_taken_twice_gather_both_gradients(backend_in_use):
    x = nanonet.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    (x[nanonet.tensor([1, 1, 0])] * nanonet.tensor([[1.0], [10.0], [100.0]])).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[100, 100], [11, 11]])


# ------------------------------------------------------------------------- tensors and numbers


def test_operators_take_numbers_arrays_and_lists_on_both_sides(backend_in_use):
    x = nanonet.tensor([1.0, 2.0])
    np.testing.assert_array_equal((3 - x * 2 + np.array([1.0, 1.0])).numpy(), [2, 0])
    np.testing.assert_array_equal((np.array([4.0, 4.0]) / x).numpy(), [4, 2])
    np.testing.assert_array_equal((2**x).numpy(), [2, 4])
    numbers = [1, 2]
    np.testing.assert_array_equal((x + numbers).numpy(), [2, 4])
    np.testing.assert_array_equal((x >= 2).numpy(), [False, True])
    np.testing.assert_array_equal((-x).abs().numpy(), [1, 2])
    assert (np.ones((2, 2)) @ x).shape == (2,)
    assert (x + 1).dtype == (x + np.float64(1)).dtype == (x + np.ones(2)).dtype == np.float32


def test_in_place_operators_keep_the_memory(backend_in_use):
    x = nanonet.tensor([1.0, 2.0])
    same = x.detach()
    x += 1
    x *= 3
    x -= nanonet.tensor([1.0, 0.0])
    x /= 5
    np.testing.assert_allclose(same.numpy(), [1, 1.8])
    leaf = nanonet.tensor([1.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="no_grad"):
        leaf += 1


def test_dtypes_are_kept_or_named(backend_in_use):
    assert nanonet.tensor([1.0]).dtype == nanonet.tensor(np.zeros(2)).dtype == np.float32
    assert nanonet.tensor([1]).dtype == nanonet.tensor(np.zeros(2, np.uint8)).dtype == np.int64
    assert nanonet.tensor([True]).dtype == np.bool_
    assert nanonet.tensor([1], dtype="float64").float().double().long().dtype == np.int64
    assert nanonet.tensor([1, 2]).mean().item() == 1.5
    assert nanonet.tensor([0, 3]).eq(nanonet.tensor([0, 2])).tolist() == [True, False]


def test_int32_is_taken_where_int64_is(backend_in_use):
    x = nanonet.tensor([1, 0], dtype="int32")
    assert x.dtype == np.int32 and x.long().dtype == np.int64 and x.float().tolist() == [1, 0]
    assert x.eq(nanonet.tensor([1, 2])).tolist() == [True, False]
    rows = nanonet.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert rows[x].tolist() == [[3, 4], [1, 2]]
    assert F.one_hot(x, 2).tolist() == [[0, 1], [1, 0]]
    assert F.cross_entropy(rows, x).item() == F.cross_entropy(rows, [1, 0]).item()


# --------------------------------------------------------------------------------- errors

ERRORS = [
    (lambda x: x + F.rand(4), ShapeError, r"add: shapes \(2, 3\) and \(4,\)"),
    (lambda x: x + x.double(), DtypeError, "add: got float32 and float64"),
    (lambda x: F.exp(nanonet.tensor([1])), DtypeError, "exp: got int64"),
    (lambda x: x @ x, ShapeError, r"matmul: a \(2, 3\) has inner size 3, b \(2, 3\) has 2"),
    (lambda x: x @ x.double().mT, DtypeError, "matmul: a is float32, b is float64"),
    (lambda x: x @ nanonet.tensor(1.0), ShapeError, "matmul: .* at least one axis"),
    (lambda x: F.rand(2, 3, 4) @ F.rand(3, 4, 2), ShapeError, "matmul: leading axes"),
    (lambda x: F.linear(x, F.rand(4, 2)), ShapeError, r"linear: x \(2, 3\) has 3 features, weight \(4, 2\) wants 4"),
    (lambda x: F.linear(x, F.rand(3, 2), F.rand(3)), ShapeError, r"linear: bias \(3,\), wanted \(2,\)"),
    (lambda x: F.linear(x, F.rand(3, 2), activation="gelu"), OptionError, "linear: activation 'gelu', wanted None"),
    (lambda x: F.linear(x.double(), F.rand(3, 2)), DtypeError, "linear: x is float64, weight is float32"),
    (lambda x: F.linear(x, F.rand(3, 2), F.rand(2).double()), DtypeError, "linear: .*bias"),
    (lambda x: F.sum(x, 2), ShapeError, "sum: axis 2 is out of range for 2 axes"),
    (lambda x: F.sum(x, (0, 0)), ShapeError, "sum: axes .* twice"),
    (lambda x: F.max(F.rand(0)), ShapeError, "max: there is no max of no values"),
    (lambda x: F.argmax(F.rand(0, 2)), ShapeError, "argmax: there is no maximum"),
    (lambda x: F.softmax(x.long()), DtypeError, "softmax: got int64"),
    (lambda x: F.softmax(F.rand(2, 0)), ShapeError, "softmax: axis -1 .* is empty"),
    (lambda x: F.reshape(x, 4), ShapeError, r"reshape: \(2, 3\) has 6 values, \(4,\) has 4"),
    (lambda x: F.reshape(x, -1, 4), ShapeError, "reshape: .* does not fit"),
    (lambda x: F.permute(x, 0, 0), ShapeError, "permute: axes"),
    (lambda x: F.broadcast_to(x, 3, 3), ShapeError, "broadcast_to: .* does not broadcast"),
    (lambda x: F.concatenate([]), ShapeError, "concatenate: no tensors"),
    (lambda x: F.concatenate([x, F.rand(2, 4)]), ShapeError, "concatenate: tensor 1"),
    (lambda x: F.concatenate([x, x.double()]), DtypeError, "concatenate: tensor 1 is float64"),
    (lambda x: F.stack([x, F.rand(2, 4)]), ShapeError, "tensor 1 is"),
    (lambda x: F.take(x, [2]), IndexError, "take: index 2 is out of range for 2 rows"),
    (lambda x: F.take(x, [0.0]), DtypeError, "take: index is float32"),
    (lambda x: x[5], IndexError, "getitem: .*out of bounds"),
    (lambda x: x[nanonet.tensor([True])], ShapeError, "getitem: mask"),
    (lambda x: F.one_hot([3], 3), IndexError, "one_hot: .*3"),
    (lambda x: F.one_hot([0.5], 3), DtypeError, "one_hot: .*float32"),
    (lambda x: F.dropout(x, 1.0), OptionError, "dropout: p is 1.0, wanted 0 <= p < 1"),
    (lambda x: nanonet.tensor([[1], [1, 2]]), ShapeError, "different lengths"),
    (lambda x: nanonet.tensor(["a"]), DtypeError, "wanted numbers"),
    (lambda x: nanonet.tensor([1.0], dtype="float16"), DtypeError, "dtype: 'float16'"),
    (lambda x: x.to("cuda"), nanonet.errors.BackendUnavailable, "device: 'cuda' is not available"),
    (lambda x: nanonet.tensor([1], requires_grad=True), DtypeError, "only float tensors have gradients"),
    (lambda x: x.copy_(F.rand(4)), ShapeError, "copy_"),
    (lambda x: x.item(), ValueError, "size 1|exactly one"),
    (lambda x: bool(x), ValueError, "ambiguous"),
]


@pytest.mark.parametrize("call, error, message", ERRORS, ids=[message[:30] for _, _, message in ERRORS])
def test_errors_name_the_operation_and_what_is_wanted(call, error, message):
    with pytest.raises(error, match=message):
        call(F.rand(2, 3))
