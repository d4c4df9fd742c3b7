"""Products and convolutions by the tensor cores of compute capability 9.0, run by the emulator in small tiles."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import apart
import emulator
import numpy as np
import pytest
from test_gpu_products import ORACLE, all_three, assert_close, numbers, rounded, shape_of_result
from views import replayed, unset

from kernels.cupy_gpu.convolution import Convolution
from kernels.cupy_gpu.gemm import Gemm
from kernels.cupy_gpu.tiles import HOPPER, Cut, Tile, cut, cut_for_hopper

pytestmark = pytest.mark.skipif(
    emulator.COMPILER is None, reason="no C++ compiler, which the emulator of the GPU needs"
)

PRECISIONS = ("bf16", "tf32")
DEEP = {"bf16": 64, "tf32": 32}


class Emulator(emulator.Emulator):
    capability = (9, 0)


class ApartEmulator(apart.ApartEmulator):
    capability = (9, 0)


def small(precision, stages=4):
    return Tile(128, 64, DEEP[precision], 384, 1, stages, (64, 64), rate=1)


def forced(precision, tile=None, splits=1, device=None):
    """Products that take hopper.cu whatever their size."""
    gemm = Gemm(device or Emulator(), precision)
    tile = tile or small(precision)

    def whole(precision, size, elements):
        span = -(-size.k // (splits * tile.k)) * tile.k
        return Cut(tile, -(-size.k // span), span, -1.0)

    gemm.hopper.large, gemm.hopper.cut = 0, whole
    return gemm


def check(gemm, precision, a, b, bias=None, activation=None):
    """The product by hopper.cu, checked against float64."""
    expected, size = rounded(a, precision) @ rounded(b, precision), np.abs(a) @ np.abs(b)
    out = unset(expected.shape, np.float32)
    names = replayed(lambda: gemm.linear(a, b, bias, activation, out), out).names
    assert "hopper" in names and "gemm" not in names
    if bias is not None:
        expected, size = expected + bias, size + np.abs(bias)
    if activation == "relu":
        expected = np.maximum(expected, 0)
    assert_close(out, expected, size, a.shape[-1])
    return out


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
def test_operands_in_every_layout(precision, turned):
    """Several tiles for a block, whose parts of k are no whole number of stages."""
    a, b = numbers((300, 136), precision), numbers((136, 200), precision, 1)
    a, b = np.asfortranarray(a) if "a" in turned else a, np.asfortranarray(b) if "b" in turned else b
    check(forced(precision), precision, a, b)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("index", range(5))
def test_every_tile(precision, index):
    tile = HOPPER[precision][index]
    turned = index % 2 == 1
    m, n, k = tile.m + 9, tile.n // 2 + 13, 3 * tile.k + 5
    a, b = numbers((k, m), precision).T if turned else numbers((m, k), precision), numbers((k, n), precision, 1)
    check(forced(precision, tile), precision, a, b)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 19), (37, 41, 70), (130, 65, 33)], ids=str)
def test_sides_that_are_no_multiples_of_anything(precision, shape):
    m, n, k = shape
    a, b = numbers((m, k), precision), numbers((k, n), precision, 1)
    check(forced(precision), precision, a, b, numbers((n,), precision, 2), "relu")
    check(forced(precision), precision, a.T.copy().T, b.T.copy().T)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_elements_that_are_apart_or_not_aligned(precision):
    a = numbers((70, 2 * 90 + 1), precision)[:, 1::2]
    b = numbers((91, 45), precision, 1)[1:, 1:]
    check(forced(precision), precision, a, b)
    check(forced(precision), precision, a[::-1], b[:, ::-1])
    check(forced(precision), precision, np.broadcast_to(a[0], (40, 90)), b)
    check(forced(precision), precision, numbers((20, 40), precision)[::-1], numbers((40, 24), precision, 1))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_k_in_parts_and_the_order_of_threads(precision):
    """The threads of the emulator take turns in another order in each call, and so do copies and products."""
    a, b, bias = (numbers(s, precision, i) for i, s in enumerate([(150, 7 * 64 + 3), (7 * 64 + 3, 70), (70,)]))
    gemm = forced(precision, splits=3)
    results = [check(gemm, precision, a, b, bias, "relu").tobytes() for _ in range(3)]
    assert len(set(results)) == 1


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stages", [3, 5])
def test_another_number_of_stages(precision, stages):
    a, b = numbers((20, 700), precision), numbers((700, 30), precision, 1)
    check(forced(precision, small(precision, stages)), precision, a, b)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("a", "b"), [((2, 3, 40, 36), (2, 1, 36, 24)), ((3, 1, 24, 40), (1, 2, 40, 20)), ((4, 1, 6), (4, 6, 7))], ids=str
)
def test_batches_broadcast(precision, a, b):
    a, b = numbers(a, precision), numbers(b, precision, 1)
    check(forced(precision), precision, a, b)
    check(forced(precision), precision, np.ascontiguousarray(a.mT).mT, np.ascontiguousarray(b.mT).mT)


def test_the_bits_do_not_depend_on_the_multiprocessors():
    few, many = Emulator(), Emulator()
    few.multiprocessors, many.multiprocessors = 1, 100
    a, b = numbers((300, 100), "bf16"), numbers((100, 150), "bf16", 1)
    assert (
        check(forced("bf16", device=few), "bf16", a, b).tobytes()
        == check(forced("bf16", device=many), "bf16", a, b).tobytes()
    )


def test_rounding_of_halfway_cases_and_infinity():
    """tf32 takes ties away from zero, bf16 to even; large numbers become infinite, NaN stays."""
    x = np.array([1 + 2**-11, -1 - 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, np.inf, np.nan], np.float32)
    found = {}
    for precision in PRECISIONS:
        for name, column in (("plain", x[:, None]), ("turned", np.asfortranarray(np.stack([x, x], 1)))):
            out = unset((7, 1), np.float32)
            forced(precision).matmul(column, np.eye(column.shape[1], 1, dtype=np.float32), out)
            found[precision, name] = out[:, 0]
    for name in ("plain", "turned"):
        tf32, bf16 = found["tf32", name], found["bf16", name]
        assert tf32[:4].tolist() == [1 + 2**-10, -1 - 2**-10, 1 + 2**-8, 1 + 3 * 2**-8]
        assert bf16[:4].tolist() == [1, -1, 1, 1 + 2**-6]
        if name == "plain":  # else an infinity meets a zero
            assert np.isposinf(bf16[4:6]).all() and np.isposinf(tf32[5]) and np.isnan(tf32[6]) and np.isnan(bf16[6])


#: x, w, and stride, padding, dilation, groups.
CONVOLUTIONS = {
    "as in ResNet": ((2, 9, 7, 8), (3, 3, 8, 12), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "strides and dilation": ((2, 9, 8, 16), (3, 2, 16, 24), (2, 3), ((1, 2), (0, 3)), (3, 1), 1),
    "groups": ((1, 6, 6, 32), (3, 3, 16, 48), (2, 1), ((1, 0), (1, 1)), (1, 2), 2),
    "more places than a tile": ((2, 12, 10, 16), (3, 3, 16, 72), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    "one place each": ((2, 5, 4, 24), (1, 1, 24, 8), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
}


class Noting(Emulator):
    """Notes the kernels that are launched."""

    def __init__(self):
        super().__init__()
        self.launched = []

    def launch(self, program, name, *rest, **more):
        self.launched.append(name)
        super().launch(program, name, *rest, **more)


def check_convolutions(precision, x, w, g, bias, constants, splits=1):
    """All three, in float32 and checked against float64; the kernels that they launch."""
    device = Noting()
    found = all_three(Convolution(forced(precision, splits=splits, device=device)), x, w, g, bias, constants)
    operands = [rounded(np.ascontiguousarray(array), precision) for array in (x, w, g)]
    expected = all_three(ORACLE, *operands, bias.astype(np.float64), constants)
    magnitudes = all_three(ORACLE, *map(np.abs, operands), np.abs(bias), constants)
    for ours, theirs, magnitude in zip(found, expected, magnitudes, strict=True):
        assert_close(ours, theirs, magnitude, 400)
    return device.launched


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("splits", [1, 2])
def test_convolutions(precision, name, splits):
    x_shape, w_shape, *constants = CONVOLUTIONS[name]
    x, w = numbers(x_shape, precision), numbers(w_shape, precision, 1)
    g, bias = numbers(shape_of_result(x_shape, w_shape, *constants), precision, 2), numbers(w_shape[3:], precision, 3)
    launched = check_convolutions(precision, x, w, g, bias, constants, splits)
    assert launched.count("hopper") >= (3 if g.shape[3] % 8 == 0 else 2)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_channels_that_are_no_multiple_of_16_bytes_take_other_kernels(precision):
    """But places of tf32 are copied one by one."""
    x, w, g, bias = (numbers(s, precision, i) for i, s in enumerate([(1, 5, 5, 6), (3, 3, 6, 6), (1, 5, 5, 6), (6,)]))
    launched = check_convolutions(precision, x, w, g, bias, ((1, 1), ((1, 1), (1, 1)), (1, 1), 1))
    assert (launched[:2], "hopper" in launched) == (["gemm", "gemm"], precision == "tf32")


@pytest.mark.parametrize("columns", [7, 8])
def test_places_that_are_apart(columns):
    """Rows of 7 places cannot be copied 16 bytes at a time where they do not follow each other."""
    x, w, bias = (numbers(s, "tf32", i) for i, s in enumerate([(2, 6, columns, 8), (3, 3, 8, 8), (8,)]))
    g = numbers((2, 6, columns + 2, 8), "tf32", 3)[:, :, 1:-1]
    launched = check_convolutions("tf32", x, w, g, bias, ((1, 1), ((1, 1), (1, 1)), (1, 1), 1))
    assert launched.count("hopper") == 3 - columns % 2


#: What a mistake in hopper.cu would leave out.
LEFT_OUT = {
    "the fence": "        show_to_tensor_cores();\n",
    "the wait for room": "            if (turn > 0) wait(&barriers.empty[stage], (turn - 1) & 1u);\n",
    "the wait for products": "        wait_for_products<0>();\n",
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_the_emulator_sees_what_is_left_out(what):
    """In a process of its own, which the emulator ends."""
    code = (
        "import numpy as np, test_gpu_hopper as t\n"
        "from kernels.cupy_gpu import programs\n"
        "text = programs._text\n"
        f"left_out = {LEFT_OUT[what]!r}\n"
        "def without(file):\n"
        "    whole = text(file)\n"
        "    assert file != 'hopper.cu' or left_out in whole\n"
        "    return whole.replace(left_out, '')\n"
        "programs._text = without\n"
        "t.check(t.forced('bf16'), 'bf16', np.ones((20, 600), 'f4'), np.ones((600, 20), 'f4'))\n"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent)])
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert ended.returncode in (1, -signal.SIGABRT)
    assert "emulator: wgmma reads what no fence has shown" in ended.stderr or "in assert_close" in ended.stderr


def test_what_takes_these_kernels():
    def chosen(device, precision, side):
        gemm = Gemm(device, precision)
        made = []
        gemm.device.launch = lambda program, name, *rest, **more: made.append(name)
        x = np.empty((side, side), np.float32)
        gemm.matmul(x, x, x)
        return made

    assert chosen(Emulator(), "bf16", 2048) == ["rounded", "rounded", "hopper"]
    assert chosen(Emulator(), "tf32", 2048) == ["turned", "hopper"]
    assert chosen(Emulator(), "float32", 2048) == ["gemm"]
    assert chosen(Emulator(), "bf16", 128) == ["gemm"]
    assert chosen(emulator.Emulator(), "bf16", 2048) == ["gemm"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_cut_depends_on_the_shape(precision):
    side = 8192
    large = cut_for_hopper(precision, side, side, side, 1, 2 * side * side)
    assert (large.tile, large.splits) == (HOPPER[precision][0], 1)
    assert large.cycles < cut(precision, side, side, side, 1).cycles
    deep = cut_for_hopper(precision, 128, 256, 100_000, 1, 384 * 100_000)
    assert deep.splits > 8 and deep.span % deep.tile.k == 0


def test_on_arrays_of_another_kind():
    """Scratch arrays are the device's."""
    device = ApartEmulator()
    a, b = (device.memory.from_host(numbers((40, 40), "bf16", i)) for i in range(2))
    out = device.memory.from_host(unset((40, 40), np.float32))
    forced("bf16", device=device).matmul(a, b, out)
    assert np.isfinite(device.memory.to_host(out)).all()
