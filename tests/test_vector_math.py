"""The vector functions of the Numba backend: accuracy over all floats, and the special values of IEEE 754."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba")
special = pytest.importorskip("scipy.special")

from kernels.formula import Formula  # noqa: E402
from kernels.numba_cpu.elementwise import elementwise  # noqa: E402

#: Wider than any double where the platform has it.
WIDE = np.longdouble


def gelu(x: np.ndarray) -> np.ndarray:
    """x Phi(x) = max(x, 0) - a Phi(-a), a = |x|, and -0 at minus infinity. The C library's erfc, corrected for the
    rounding of its argument."""
    a = np.minimum(np.abs(x), 1e3)
    exact = a.astype(WIDE) * np.sqrt(WIDE(0.5))
    z = exact.astype(np.float64)
    erfc = np.array([math.erfc(v) for v in z]) - 2 / np.sqrt(np.pi) * np.exp(-z * z) * (exact - z)
    return np.maximum(x, 0) - a * erfc / 2


FUNCTIONS = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": lambda x: special.erf(x.astype(np.float64)),
    "gelu": lambda x: gelu(x),
    "sin": np.sin,
    "cos": np.cos,
}
#: Units in the last place. scipy's erf of doubles is itself off by about one.
ULP = {np.float32: 4.0, np.float64: 4.0}


def apply(text: str, *inputs: np.ndarray) -> np.ndarray:
    formula = Formula.of(text, *["x", "y"][: len(inputs)])
    out = np.full(np.broadcast_shapes(*[x.shape for x in inputs]), np.nan, inputs[0].dtype)
    elementwise(formula, *inputs, out=out)
    return out


def worst(got: np.ndarray, want: np.ndarray) -> float:
    """The largest error in units of the last place of `want`. Results that are denormal may also be 0."""
    dtype = got.dtype.type
    with np.errstate(all="ignore"):
        rounded = want.astype(dtype)
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
        unit = np.maximum(np.spacing(np.abs(rounded)), np.finfo(dtype).tiny * np.finfo(dtype).eps).astype(WIDE)
        tiny = np.finfo(dtype).tiny
        flushed = (np.abs(got) <= tiny) & (np.abs(want) <= tiny * (1 + 4 * np.finfo(dtype).eps))
        error = np.abs(got.astype(WIDE) - want.astype(WIDE)) / unit
    error[same | flushed] = 0
    error[np.isnan(error)] = np.inf
    return float(error.max())


def every_float(count: int, seed: int) -> np.ndarray:
    """float32 values spread evenly over all bit patterns, without denormal ones."""
    step = 2**32 // count
    patterns = np.arange(count, dtype=np.uint64) * step + np.random.default_rng(seed).integers(0, step, count)
    x = patterns.astype(np.uint32).view(np.float32)
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.float32(0), x)


def many_doubles(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    any_bits = rng.integers(-(2**63), 2**63, count // 2, dtype=np.int64).view(np.float64)
    usual = rng.standard_normal(count // 4) * 10.0 ** rng.integers(-3, 3, count // 4)
    x = np.concatenate([any_bits, usual, rng.uniform(-800, 800, count // 4)])
    return np.where(np.abs(x) < np.finfo(np.float64).tiny, 0.0, x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_is_within_4_ulp_over_all_floats(name):
    x = every_float(2**21, seed=1)
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name](x.astype(np.float64))
    assert worst(apply(f"{name}(x)", x), want) <= ULP[np.float32]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_is_within_4_ulp(name):
    x = many_doubles(2**18, seed=2)
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name](x.astype(WIDE))
    assert worst(apply(f"{name}(x)", x), want) <= (6.0 if name == "gelu" else ULP[np.float64])


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_near_zero_and_near_one(name, dtype):
    """Where cancellation would show."""
    rng = np.random.default_rng(3)
    steps = rng.uniform(-1, 1, 2**15) * 2.0 ** rng.integers(-60, 1, 2**15)
    x = np.concatenate([steps, 1 + steps, np.pi / 2 * rng.integers(-1000, 1000, 2**15) + steps * 1e-3]).astype(dtype)
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name](x.astype(np.float64 if dtype == np.float32 else WIDE))
    assert worst(apply(f"{name}(x)", x), want) <= ULP[dtype]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(name, dtype):
    info = np.finfo(dtype)
    x = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, info.max, info.min, info.tiny, -info.tiny, info.eps], dtype)
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name](x.astype(WIDE))
    got = apply(f"{name}(x)", x)
    assert np.array_equal(np.isnan(got), np.isnan(want))
    assert np.array_equal(np.isinf(got), np.isinf(want.astype(dtype)))
    assert worst(got, want) <= ULP[dtype]


# -------------------------------------------------------------------------------------------- powers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_power(dtype):
    rng = np.random.default_rng(4)
    n = 2**18
    x = np.exp(rng.uniform(-80, 80, n)) if dtype == np.float32 else np.exp(rng.uniform(-700, 700, n))
    limit = 80 if dtype == np.float32 else 700
    y = rng.uniform(-limit, limit, n) / np.log(x)
    near_one = 1 + rng.uniform(-0.5, 0.5, n) * 2.0 ** rng.integers(-20, 1, n)
    exponents = rng.uniform(-limit, limit, n) / np.log(near_one)
    x, y = np.concatenate([x, near_one]).astype(dtype), np.concatenate([y, exponents]).astype(dtype)
    with np.errstate(all="ignore"):
        want = np.power(x.astype(WIDE), y.astype(WIDE))
    assert worst(apply("x ** y", x, y), want) <= ULP[dtype]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_power_of_any_bits(dtype):
    if dtype == np.float32:
        x, y = every_float(2**18, seed=5), np.random.default_rng(5).permutation(every_float(2**18, seed=6))
    else:
        x, y = many_doubles(2**18, seed=5), np.random.default_rng(5).permutation(many_doubles(2**18, seed=6))
    with np.errstate(all="ignore"):
        want = np.power(x.astype(WIDE), y.astype(WIDE))
    assert worst(apply("x ** y", x, y), want) <= ULP[dtype]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_powers(dtype):
    values = [0, -0.0, 0.5, -0.5, 1, -1, 1.5, 2, -2, 3, -3, 4, 1e9, 2.0**24 + 2, 2.0**25, np.inf, -np.inf, np.nan]
    values = np.array(values, dtype)
    x, y = (grid.ravel() for grid in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        want = np.power(x, y)
    got = apply("x ** y", x, y)
    assert np.array_equal(np.isnan(got), np.isnan(want))
    finite = ~np.isnan(want)
    assert np.array_equal(np.signbit(got[finite]), np.signbit(want[finite]))
    assert worst(got, want.astype(WIDE)) <= ULP[dtype]


@pytest.mark.parametrize("power", [0, 1, 2, 3, 4, 5, -1, -2, 0.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_powers(power, dtype):
    x = np.random.default_rng(7).uniform(0.01, 10, 1000).astype(dtype)
    if power == int(power):
        x[::2] *= -1
    assert worst(apply(f"x ** {power}", x), np.power(x.astype(WIDE), power)) <= ULP[dtype]


# --------------------------------------------------------------------------------- what else must hold


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40), st.sampled_from(sorted(FUNCTIONS)))
def test_a_value_has_the_same_bits_in_any_lane(values, name):
    x = np.array(values, np.float32)
    alone = np.concatenate([apply(f"{name}(x)", x[i : i + 1]) for i in range(len(x))])
    assert np.array_equal(apply(f"{name}(x)", x), alone, equal_nan=True)


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "erf", "expm1"])
def test_never_beyond_its_range(name):
    x = np.linspace(-30, 30, 2**17).astype(np.float32)
    low, high = {"exp": (0, np.inf), "sigmoid": (0, 1), "expm1": (-1, np.inf)}.get(name, (-1, 1))
    y = apply(f"{name}(x)", x)
    assert y.min() >= low
    assert y.max() <= high
