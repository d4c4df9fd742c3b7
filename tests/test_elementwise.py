"""The elementwise slot of every backend, and of the Numba backend its loops: layouts, dtypes, threads, plans."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import plan
from kernels.elementwise import TABLE
from kernels.errors import DtypeError, ShapeError
from kernels.formula import Formula
from kernels.reference import reference

ORACLE = reference(np)
FORMULAS = {row.name: row.forward for row in TABLE}
FORMULAS |= {f"{row.name}' by {key}": formula for row in TABLE for key, formula in row.backward.items()}
BINARY = Formula.of("a - 2 * b", "a", "b")


def oracle(formula: Formula, inputs, shape, dtype) -> np.ndarray:
    """In float64, from the values that the inputs have."""
    out = np.empty(shape, np.float64 if np.dtype(dtype).kind == "f" else dtype)
    ORACLE.elementwise(formula, *[x.astype(np.float64) if x.dtype.kind == "f" else x for x in inputs], out=out)
    return out


def assert_close(got, want, dtype, scale=1.0):
    """Within a few units of the last place of a value, or of the largest operand where values cancel."""
    if np.dtype(dtype).kind != "f":
        np.testing.assert_array_equal(got, want)
        return
    eps = np.finfo(dtype).eps
    with np.errstate(over="ignore", under="ignore"):
        want = want.astype(dtype)
    np.testing.assert_allclose(got, want, rtol=16 * eps, atol=16 * eps * scale, equal_nan=True)


@st.composite
def views(draw, shape, dtype, rng, broadcast=True):
    """An array of `shape`, or one that broadcasts to it, with any memory layout."""
    shape = tuple(1 if broadcast and draw(st.integers(0, 4)) == 0 else side for side in shape)
    if broadcast and draw(st.integers(0, 4)) == 0:
        shape = shape[draw(st.integers(0, len(shape))) :]
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 1, 2, 3, -1, -2])) for _ in shape]
    margins = [draw(st.sampled_from([0, 0, 1, 3])) for _ in shape]
    whole = [abs(steps[axis]) * shape[axis] + margins[axis] for axis in order]
    base = random_values(rng, whole, dtype)
    view = base.transpose(np.argsort(order))
    index = tuple(
        slice(margin, margin + abs(step) * side, abs(step)) for side, step, margin in zip(shape, steps, margins)
    )
    view = view[(..., *index)][(..., *[slice(None, None, 1 if step > 0 else -1) for step in steps])]
    assert view.shape == shape
    return view


def random_values(rng, shape, dtype):
    if dtype == "bool":
        return np.asarray(rng.integers(0, 2, shape), bool)
    if dtype == "int64":
        return np.asarray(rng.integers(-3, 4, shape))
    return np.asarray(rng.uniform(-3, 3, shape), dtype)


# ------------------------------------------------------------------------------------- every formula


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FORMULAS)
def test_formula_equals_the_oracle(backend, name, dtype):
    formula = FORMULAS[name]
    rng = np.random.default_rng(0)
    result = "bool" if name in ("eq", "ne", "lt", "le", "gt", "ge") else dtype
    for shape in [(), (1,), (7,), (8,), (45,), (1000,), (3, 37)]:
        inputs = [rng.uniform(0.1, 3, shape) * rng.choice([-1, 1], shape) for _ in formula.variables]
        if name.startswith(("pow", "log", "sqrt")):
            inputs = [abs(x) for x in inputs]
        inputs = [np.asarray(x).astype(bool if v == "c" else dtype) for v, x in zip(formula.variables, inputs)]
        out = np.full(shape, np.nan).astype(result)
        backend.elementwise(formula, *inputs, out=out)
        assert_close(out, oracle(formula, inputs, shape, result), result)


@pytest.mark.parametrize("name", ["relu", "maximum", "minimum", "clip", "abs", "sign", "add", "where", "gelu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_and_infinity_propagate(backend, name, dtype):
    formula = FORMULAS[name]
    grid = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -2.0], dtype)
    inputs = np.meshgrid(*[grid] * len(formula.variables))
    inputs = [np.ascontiguousarray(x).astype(bool if v == "c" else dtype) for v, x in zip(formula.variables, inputs)]
    out = np.full(inputs[0].shape, 5, dtype)
    backend.elementwise(formula, *inputs, out=out)
    np.testing.assert_allclose(out, oracle(formula, inputs, out.shape, dtype), rtol=1e-6)


# ----------------------------------------------------------------------------- shapes, strides, dtypes


@given(data=st.data())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_layout(backend, dtype, data):
    shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, 8, 17, 33]), max_size=4)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    a, b = data.draw(views(shape, dtype, rng)), data.draw(views(shape, dtype, rng))
    out = data.draw(views(shape, dtype, rng, broadcast=False))
    out[...] = np.nan
    backend.elementwise(BINARY, a, b, out=out)
    assert_close(out, oracle(BINARY, [a, b], shape, dtype), dtype, scale=9)


@given(data=st.data())
def test_a_view_is_written_and_nothing_else(backend, data):
    base = np.full((6, 7, 40), 77.0, np.float32)
    axes = [slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))), step) for n, step in zip(
        base.shape, data.draw(st.tuples(*[st.sampled_from([1, 2, 3])] * 3)))]  # fmt: skip
    mask = np.zeros(base.shape, bool)
    mask[tuple(axes)] = True
    out = base[tuple(axes)]
    backend.elementwise(Formula.of("x * 0 + 1", "x"), np.zeros((), np.float32), out=out)
    np.testing.assert_array_equal(base, np.where(mask, 1, 77))


MIXED = [
    ("a + b", "float32", "int64", "float32"),
    ("a * b", "float64", "bool", "float64"),
    ("a + b", "int64", "int64", "float32"),
    ("where(a, b, 0)", "bool", "float32", "float32"),
    ("where(a, 1, b)", "int64", "float64", "float64"),
    ("(a > b) * a", "float32", "float32", "float32"),
    ("a == b", "int64", "int64", "bool"),
    ("a < b", "int64", "float32", "bool"),
    ("a >= b", "float64", "float64", "bool"),
    ("a != b", "bool", "bool", "bool"),
    ("a == b", "bool", "float32", "bool"),
    ("2 * a + 1 > b", "int64", "int64", "bool"),
]


@pytest.mark.parametrize("text,first,second,result", MIXED)
@given(data=st.data())
def test_dtypes_mix(backend, text, first, second, result, data):
    formula = Formula.of(text, "a", "b")
    shape = (data.draw(st.integers(1, 5)), data.draw(st.integers(1, 40)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    a, b = data.draw(views(shape, first, rng)), random_values(rng, shape, second)
    out = np.full(shape, np.nan).astype(result)
    backend.elementwise(formula, a, b, out=out)
    assert_close(out, oracle(formula, [a, b], shape, result), result, scale=9)


def test_large_integers_are_compared_exactly(backend):
    a = np.array([2**53, 2**53 + 1, -(2**62)] * 3)
    out = np.zeros(9, bool)
    backend.elementwise(Formula.of("a == b", "a", "b"), a, a.copy(), out=out)
    assert out.all()
    backend.elementwise(Formula.of("a < b", "a", "b"), a, a + 1, out=out)
    assert out.all()


@given(data=st.data())
def test_in_place(backend, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 20), max_size=3)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = data.draw(views(shape, "float32", rng, broadcast=False))
    b = data.draw(views(shape, "float32", rng))
    want = oracle(BINARY, [x.copy(), b], shape, "float32")
    backend.elementwise(BINARY, x, b, out=x)
    assert_close(x, want, "float32", scale=9)


def test_many_axes(backend):
    rng = np.random.default_rng(0)
    shape = (2, 3, 2, 3, 2, 3, 2, 3)
    a = rng.standard_normal(shape[::-1]).astype(np.float32).T
    b = rng.standard_normal((2, 1, 2, 1, 2, 1, 2, 1)).astype(np.float32)
    c = rng.standard_normal((1, 3, 1, 3, 1, 3, 1, 3)).astype(np.float32)
    formula = Formula.of("a * b + c", "a", "b", "c")
    out = np.full(shape, np.nan, np.float32)
    backend.elementwise(formula, a, b, c, out=out)
    assert_close(out, oracle(formula, [a, b, c], shape, "float32"), "float32", scale=9)


def test_a_constant_formula(backend):
    out = np.full((3, 5), np.nan, np.float32)
    backend.elementwise(Formula.of("2 ** 3 - 1", "x"), out.copy(), out=out)
    np.testing.assert_array_equal(out, 7)


# ------------------------------------------------------------------------------- the Numba backend alone


@pytest.fixture
def numba_elementwise():
    pytest.importorskip("numba")
    from kernels.numba_cpu.elementwise import elementwise

    return elementwise


@pytest.mark.parametrize("name", ["add", "gelu", "pow"])
def test_threads_do_not_change_a_bit(numba_elementwise, monkeypatch, name):
    from kernels.numba_cpu import threads

    formula, rng = FORMULAS[name], np.random.default_rng(1)
    for shape in [(300_001,), (2, 150_001), (1001, 301)]:
        inputs = [rng.uniform(0.1, 2, shape).astype(np.float32) for _ in formula.variables]
        inputs[0] = inputs[0][..., ::-1]
        results = []
        for parts in (1, 2, 3):
            monkeypatch.setattr(threads, "parts_for", lambda *_, parts=parts: parts)
            out = np.full(shape, np.nan, np.float32)
            numba_elementwise(formula, *inputs, out=out)
            flat = np.full(shape, np.nan, np.float32)
            numba_elementwise(formula, *[np.ascontiguousarray(x) for x in inputs], out=flat)
            np.testing.assert_array_equal(out, flat)
            results.append(out)
        for other in results[1:]:
            np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize("text", ["a * b + c", "a - b * b * c", "(a + b) * (a - c)"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arithmetic_has_numpys_bits(numba_elementwise, text, dtype):
    """Nothing is fused or reordered, so a vector, the rest of a row and one element are rounded alike."""
    rng, formula = np.random.default_rng(2), Formula.of(text, "a", "b", "c")
    for shapes in [((45,), (45,), (45,)), ((45,), (), ()), ((9, 7), (7,), (9, 1))]:
        a, b, c = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
        out = np.empty(a.shape, dtype)
        numba_elementwise(formula, a, b, c, out=out)
        np.testing.assert_array_equal(out, formula.evaluate({}, a, b, c))


def test_a_recorded_call_is_replayed(backend):
    x, bias = np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(4, np.float32)
    out = np.empty((4, 3), np.float32)
    with plan.recording(plan.Recorder()) as recorder:
        backend.elementwise(BINARY, x.T, bias[:, None], out=out)
        backend.elementwise(BINARY, out[::-1], x.T, out=out[::-1])
    recorded = recorder.plan()
    x += 5
    bias *= 3
    recorded.run()
    np.testing.assert_array_equal(out, x.T - 2 * bias[:, None] - (2 * x.T)[::-1])


def test_errors_name_the_operand(numba_elementwise):
    formula, x = FORMULAS["relu"], np.zeros((2, 3), np.float32)
    with pytest.raises(ShapeError, match=r"\(2, 3\).*\(4,\)"):
        numba_elementwise(formula, x, out=np.zeros(4, np.float32))
    with pytest.raises(DtypeError, match="x is complex64"):
        numba_elementwise(formula, x.astype(np.complex64), out=x)
    with pytest.raises(DtypeError, match="x is >f4"):
        numba_elementwise(formula, x.astype(">f4"), out=x)
