"""Products and convolutions of the GPU backend, where the conformance rows do not reach: every tile and precision,
sides that are no multiples of tiles, operands that cannot be copied 16 bytes at a time, k in parts, few channels."""

import itertools

import emulator
import numpy as np
import pytest
from views import replayed, unset

from kernels.cupy_gpu import direct
from kernels.cupy_gpu.convolution import Convolution
from kernels.cupy_gpu.divisor import divisor
from kernels.cupy_gpu.gemm import PRECISIONS, Gemm
from kernels.cupy_gpu.operand import Product
from kernels.cupy_gpu.tiles import TILES, Cut, cut, cuts
from kernels.reference import reference

pytestmark = pytest.mark.skipif(
    emulator.COMPILER is None, reason="no C++ compiler, which the emulator of the GPU needs"
)

ORACLE = reference(np)
NONE = ((0, 0), (0, 0))


class Cutting(Gemm):
    """Products in a given tile, and k in a given number of parts."""

    def __init__(self, precision, tile, splits=1):
        super().__init__(emulator.Emulator(), precision if precision in PRECISIONS else "float32")
        self.tile, self.splits = tile, splits

    def cut(self, precision, size):
        span = max(1, -(-size.k // (self.splits * self.tile.k))) * self.tile.k
        return Cut(self.tile, max(1, -(-size.k // span)), span)


def dtype_of(precision):
    return np.float64 if precision == "float64" else np.float32


def rounded(x, precision):
    """x as the tensor cores take it, in float64."""
    if precision == "tf32":
        x = ((x.view(np.uint32) + np.uint32(0x1000)) & ~np.uint32(0x1FFF)).view(np.float32)
    if precision == "bf16":
        bits = x.view(np.uint32)
        x = ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) & ~np.uint32(0xFFFF)).view(np.float32)
    return x.astype(np.float64)


def numbers(shape, precision, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype_of(precision))


def product(gemm, a, b):
    out = unset((a.shape[0], b.shape[1]), a.dtype)
    gemm.matmul(a, b, out)
    return out


def assert_close(found, expected, magnitude, k):
    """To the error of a sum of k terms whose sizes add up to `magnitude`."""
    unit = np.finfo(found.dtype).eps
    assert np.all(np.abs(found - expected) <= unit * (k**0.5 + 2) * magnitude + 1e-30)


CUTS = [(precision, tile) for precision in TILES for tile in TILES[precision]]


def name_of(value):
    return value if isinstance(value, str) else f"{value.m}x{value.n}"


@pytest.mark.parametrize(("precision", "tile"), CUTS, ids=name_of)
def test_every_tile_in_every_layout_gives_one_result(precision, tile):
    m, n, k = tile.m + 12, 2 * tile.n - 4, 3 * tile.k + 4
    a, b = numbers((m, k), precision), numbers((k, n), precision, 1)
    exact, magnitude = rounded(a, precision) @ rounded(b, precision), np.abs(a) @ np.abs(b)
    gemm = Cutting(precision, tile)
    first = product(gemm, a, b)
    assert_close(first, exact, magnitude, k)
    across = product(gemm, np.asfortranarray(a), np.asfortranarray(b))
    np.testing.assert_array_equal(across, first)
    loose_a, loose_b = np.zeros((m, k + 4), a.dtype)[:, 1:-3], np.zeros((k, n + 4), b.dtype)[:, 1:-3]
    loose_a[...], loose_b[...] = a, b
    np.testing.assert_array_equal(product(gemm, loose_a, loose_b), first)


@pytest.mark.parametrize(("precision", "tile"), CUTS, ids=name_of)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 19), (37, 41, 70)], ids=str)
def test_sides_that_are_no_multiples_of_anything(precision, tile, shape):
    m, n, k = shape
    a, b = numbers((m, k), precision), numbers((k, n), precision, 1)
    found = product(Cutting(precision, tile), a.T.copy().T, b)
    assert_close(found, rounded(a, precision) @ rounded(b, precision), np.abs(a) @ np.abs(b), k)


@pytest.mark.parametrize("precision", TILES)
def test_k_in_parts_and_the_order_of_threads(precision):
    """The threads of the emulator take turns in another order in each call."""
    tile = TILES[precision][-1]
    m, n, k = 33, 20, 5 * tile.k + 3
    a, b, bias = (numbers(shape, precision) for shape in ((m, k), (k, n), (n,)))
    gemm = Cutting(precision, tile, 3)
    results = []
    for _ in range(3):
        out = unset((m, n), a.dtype)
        gemm.linear(a, b, bias, "relu", out)
        results.append(out)
    exact = np.maximum(rounded(a, precision) @ rounded(b, precision) + bias.astype(np.float64), 0)
    assert_close(results[0], exact, np.abs(a) @ np.abs(b) + np.abs(bias), k)
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()


def test_rounding_of_halfway_cases_and_infinity():
    """tf32 takes ties away from zero, bf16 to even; large numbers become infinite, NaN stays."""
    x = np.array([1 + 2**-11, -1 - 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, np.inf, np.nan], np.float32)
    one, kept = np.ones((1, 1), np.float32), x[:, None]
    tf32, bf16 = (product(Gemm(emulator.Emulator(), precision), kept, one)[:, 0] for precision in ("tf32", "bf16"))
    assert tf32[:4].tolist() == [1 + 2**-10, -1 - 2**-10, 1 + 2**-8, 1 + 3 * 2**-8]
    assert bf16[:4].tolist() == [1, -1, 1, 1 + 2**-6]
    assert np.isposinf(bf16[4:6]).all() and np.isposinf(tf32[5]) and np.isnan(tf32[6]) and np.isnan(bf16[6])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3, 4, 5, 6), (2, 1, 4, 6, 3)),
        ((3, 1, 5, 6), (1, 4, 6, 7)),
        ((4, 1, 6), (4, 6, 7)),
        ((6, 5), (2, 3, 5, 4)),
        ((0, 5, 6), (6, 7)),
        ((2, 5, 0), (0, 7)),
    ],
    ids=str,
)
def test_batches_broadcast(a, b):
    a, b = numbers(a, "float64"), numbers(b, "float64", 1)
    expected = a @ b
    out = unset(expected.shape, np.float64)
    replayed(lambda: Gemm(emulator.Emulator()).matmul(a, b, out), out)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)


def test_a_product_depends_on_its_shape_alone():
    few, many = emulator.Emulator(), emulator.Emulator()
    many.multiprocessors = 100
    a, b = numbers((8, 600), "float32"), numbers((600, 8), "float32", 1)
    assert product(Gemm(few), a, b).tobytes() == product(Gemm(many), a, b).tobytes()


def test_how_products_are_cut():
    assert cut("float32", 32, 128, 64, 1).tile.m == 32
    assert cut("float32", 4096, 4096, 4096, 1) == Cut(TILES["float32"][0], 1, 4096)
    deep = cut("tf32", 64, 64, 100_000, 1)
    assert deep.splits > 8 and deep.span % deep.tile.k == 0
    assert (deep.splits - 1) * deep.span < 100_000 <= deep.splits * deep.span
    assert cut("bf16", 3, 5, 0, 2).splits == 1
    for shape in ((4096, 4096, 4096, 1), (64, 64, 100_000, 1), (3, 5, 7, 2)):
        several = cuts("tf32", *shape, 3)
        assert several[0] == cut("tf32", *shape) and len({one.tile for one in several}) == 3


#: Bytes of shared memory of a block: of Ampere's and Ada's smaller GPUs, of A100, of H100.
@pytest.mark.parametrize("room", [99 << 10, 163 << 10, 227 << 10])
@pytest.mark.parametrize("precision", TILES)
def test_tiles_are_as_large_as_a_block_has_memory_for(precision, room):
    device = emulator.Emulator()
    device.shared_memory = room
    gemm = Gemm(device, precision if precision != "float64" else None)
    for m, n, k in itertools.product((16, 100, 700, 5000), (16, 300, 4096), (1, 900, 20_000)):
        found, best = gemm.cut(precision, Product(m, n, k)), cut(precision, m, n, k, 1)
        assert found.tile.fits(precision, room)
        assert (found.splits, found.span) == (best.splits, best.span)
        assert found.span % found.tile.k == 0
        assert found == best or (room < 227 << 10 and not best.tile.fits(precision, room))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 641, 2**20 + 7, 2**31 - 1])
def test_division_by_a_constant(n):
    _, factor, shift = divisor(n)
    for x in (0, 1, n - 1, n, min(2 * n + 1, 2**31 - 1), 10**9, 2**31 - 1):
        assert (((x * factor) >> 32) + x) >> shift == x // n
    assert factor < 2**32


def test_an_unknown_precision():
    with pytest.raises(ValueError, match="precision is 'fp8', want one of float32, tf32, bf16"):
        Gemm(emulator.Emulator(), "fp8")


# ------------------------------------------------------------------------------------ convolution

#: x, w, and stride, padding, dilation, groups.
CONVOLUTIONS = {
    "channels copied 16 bytes at a time": ((2, 9, 7, 8), (3, 3, 8, 12), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "strides and dilation": ((2, 9, 8, 5), (3, 2, 5, 7), (2, 3), ((1, 2), (0, 3)), (3, 1), 1),
    "groups": ((1, 6, 6, 32), (3, 3, 16, 40), (2, 1), ((1, 0), (1, 1)), (1, 2), 2),
    "one place each": ((2, 5, 4, 20), (1, 1, 20, 9), (1, 1), NONE, (1, 1), 1),
}


def all_three(convolution, x, w, g, bias, constants, activation="relu"):
    """conv2d, conv2d_transpose and conv2d_weight_gradient."""
    y, back, dw = unset(g.shape, x.dtype), unset(x.shape, x.dtype), unset(w.shape, x.dtype)
    convolution.conv2d(x, w, bias, *constants, activation, y)
    convolution.conv2d_transpose(g, w, None, *constants, None, back)
    convolution.conv2d_weight_gradient(x, g, *constants, dw)
    return y, back, dw


def shape_of_result(x, w, stride, padding, dilation, groups):
    sizes = [(x[1 + i] + sum(padding[i]) - dilation[i] * (w[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    return (x[0], *sizes, w[3])


@pytest.mark.parametrize("precision", TILES)
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("splits", [1, 3])
def test_convolutions_in_every_precision(precision, name, splits):
    x_shape, w_shape, *constants = CONVOLUTIONS[name]
    x, w = numbers(x_shape, precision), numbers(w_shape, precision, 1)
    g, bias = numbers(shape_of_result(x_shape, w_shape, *constants), precision, 2), numbers(w_shape[3:], precision, 3)
    found = all_three(Convolution(Cutting(precision, TILES[precision][-2], splits)), x, w, g, bias, constants)
    operands = [rounded(array, precision) for array in (x, w, g)]
    expected = all_three(ORACLE, *operands, bias.astype(np.float64), constants)
    magnitudes = all_three(ORACLE, *map(np.abs, operands), np.abs(bias), constants)
    for ours, theirs, magnitude in zip(found, expected, magnitudes, strict=True):
        assert_close(ours, theirs, magnitude, 400)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [8, 6])
@pytest.mark.parametrize("aligned", [True, False])
def test_a_group_for_each_channel(dtype, channels, aligned, monkeypatch):
    """Copied 16 bytes at a time where that can be; the weight gradient in several parts."""
    monkeypatch.setattr(direct, "SUMMED", 2)
    constants = ((2, 1), ((1, 1), (2, 0)), (1, 2), channels)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 9, 8, channels + 1)).astype(dtype)[..., :-1]
    x = np.ascontiguousarray(x) if aligned else x
    w, bias = rng.normal(size=(3, 2, 1, channels)).astype(dtype), rng.normal(size=channels).astype(dtype)
    g = rng.normal(size=shape_of_result(x.shape, w.shape, *constants)).astype(dtype)
    found = all_three(Convolution(Gemm(emulator.Emulator())), x, w, g, bias, constants)
    expected = all_three(ORACLE, *(array.astype(np.float64) for array in (x, w, g, bias)), constants)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_long_kernel_for_each_channel():
    """More taps in a row than the shared memory of a block has room for."""
    constants = ((1, 1), ((0, 0), (3, 0)), (1, 1), 4)
    rng = np.random.default_rng(0)
    x, w, bias = rng.normal(size=(2, 2, 60, 4)), rng.normal(size=(1, 50, 1, 4)), rng.normal(size=4)
    g = rng.normal(size=shape_of_result(x.shape, w.shape, *constants))
    found = all_three(Convolution(Gemm(emulator.Emulator())), x, w, g, bias, constants)
    for ours, theirs in zip(found, all_three(ORACLE, x, w, g, bias, constants), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
