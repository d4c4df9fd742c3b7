"""Every CUDA program compiles for the GPUs that are supported, where there is no GPU too."""

import re

import emulator
import numpy as np
import pytest

from kernels.cupy_gpu.convolution import Convolution
from kernels.cupy_gpu.device import CUDA, program
from kernels.cupy_gpu.elementwise import generated
from kernels.cupy_gpu.gemm import PRECISIONS, Gemm
from kernels.cupy_gpu.tiles import HOPPER, TILES, Cut
from kernels.cupy_gpu.updates import generated as generated_update
from kernels.elementwise import TABLE
from kernels.updates import TABLE as UPDATES

nvrtc = pytest.importorskip("cupy", reason="CuPy is not installed").cuda.nvrtc

ARCHITECTURES = ("sm_80", "sm_90")
#: They make sense with the macros that their slots give them.
WITH_MACROS = {"gemm.cu", "direct.cu", "hopper.cu", "rounded.cu"}
FILES = sorted({path.name for path in CUDA.glob("*.cu")} - WITH_MACROS)
#: Each file with the types it is compiled for; those that know no type once.
PROGRAMS = [
    (file, real)
    for file in FILES
    for real in ("float", "double")
    if real == "float" or re.search(r"\breal\b", (CUDA / file).read_text())
]
#: Macros that change more than a type.
VARIANTS = [
    *[
        (file, *row)
        for file in ("softmax.cu", "layer_norm.cu")
        for row in (("GROUP=4", "EACH=1"), ("GROUP=512", "EACH=8"))
    ],
    *[(file, "GROUP=1024", "EACH=0") for file in ("softmax.cu", "layer_norm.cu")],
    ("reduce.cu", "FROM=double", "TO=float", "SUM=double", "OP=Sum", "ELEMENT(x)=x * x"),
    ("reduce.cu", "FROM=float", "TO=float", "SUM=float", "OP=Max", "ELEMENT(x)=x"),
    ("layer_norm.cu", "GROUP=512", "EACH=8", "SUMS=1"),
    ("pool.cu", "PACK=4"),
    ("batch_norm.cu", "RELU=1"),
    ("take.cu", "WORD=unsigned char"),
]


def compiled(made, architecture):
    """The size of the machine code, compiled as CuPy does on that GPU. Raises the compiler's words, warnings too."""
    unit = nvrtc.createProgram(made.source, "program.cu", (), ())
    try:
        nvrtc.compileProgram(unit, (*made.options, "-ftz=true", f"-arch={architecture}"))
        if "Performance Loss" in nvrtc.getProgramLog(unit):
            raise AssertionError(nvrtc.getProgramLog(unit))
        return len(nvrtc.getCUBIN(unit))
    except nvrtc.NVRTCError as error:
        raise AssertionError(nvrtc.getProgramLog(unit)) from error
    finally:
        nvrtc.destroyProgram(unit)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file, real", PROGRAMS)
def test_a_program_compiles(file, real, architecture):
    assert compiled(program(file, f"REAL={real}"), architecture)


@pytest.mark.parametrize("variant", VARIANTS, ids=" ".join)
def test_a_variant_compiles(variant):
    file, *macros = variant
    assert compiled(program(file, "REAL=float", *macros), "sm_90")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("rule", UPDATES, ids=lambda rule: rule.name)
def test_updates_compile(rule, architecture):
    for real in ("float", "double"):
        assert compiled(generated_update(rule, real), architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("real", ["float", "double"])
def test_elementwise_functions_compile(real, architecture):
    for row in TABLE:
        result = "bool" if row.result == "bool" else real
        for formula in (row.forward, *row.backward.values()):
            out = result if formula is row.forward else real
            assert compiled(generated(formula, (out, *[real] * len(formula.variables)), 2), architecture)


class Collector(emulator.Emulator):
    """Keeps the last program that it is given, and all by their kernels' names, and runs none."""

    def __init__(self, capability=(8, 0)):
        self.capability, self.programs = capability, {}

    def function(self, program, name, shared):
        self.program = self.programs[name] = program
        return lambda *launch: None


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def product_program(precision, tile, turned):
    """The program of a product in this tile, of operands as they are or turned."""
    device = Collector()
    gemm = Gemm(device, precision if precision in PRECISIONS else "float32")
    gemm.cut = lambda precision, size: Cut(tile, 1, size.k)
    a, b, out = (zeros(64, 64, dtype=np.float64 if precision == "float64" else np.float32) for _ in range(3))
    gemm.matmul(*((a.T, b.T) if turned else (a, b)), out)
    return device.program


#: precision, tile, whether turned; one of both for large tiles, which take seconds to compile.
PRODUCTS = [
    pytest.param(precision, tile, turned, id=f"{precision}-{tile.m}x{tile.n}{'-turned' * turned}")
    for precision in TILES
    for tile in TILES[precision]
    for turned in (False, True)
    if tile.m <= 64 or turned == (precision == "bf16")
]


@pytest.mark.parametrize(("precision", "tile", "turned"), PRODUCTS)
def test_products_compile(precision, tile, turned):
    assert compiled(product_program(precision, tile, turned), ARCHITECTURES[turned])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("channels", [(4, 4, 1), (8, 1, 8), (6, 1, 6)])
def test_convolutions_compile(precision, channels, architecture):
    c, inputs, groups = channels
    device = Collector()
    convolution = Convolution(Gemm(device, precision))
    x, w, constants = zeros(1, 8, 8, c), zeros(3, 3, inputs, c), ((1, 1), ((1, 1), (1, 1)), (1, 1), groups)
    for call in (
        lambda: convolution.conv2d(x, w, None, *constants, "tanh", zeros(*x.shape)),
        lambda: convolution.conv2d_transpose(x, w, None, *constants, None, zeros(*x.shape)),
        lambda: convolution.conv2d_weight_gradient(x, x, *constants, w),
    ):
        call()
        assert compiled(device.program, architecture)


def programs_for_hopper(precision, tile, kind):
    """What a product by hopper.cu launches, and k in parts where it is one of matrices."""
    device = Collector((9, 0))
    gemm = Gemm(device, precision)
    gemm.hopper.large = 0
    gemm.hopper.cut = lambda precision, size, elements: Cut(tile, 1 + (kind == "matmul"), tile.k, -1.0)
    convolution, x, w = Convolution(gemm), zeros(1, 8, 8, 32), zeros(3, 3, 32, 32)
    constants = ((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    calls = {
        "matmul": lambda: gemm.matmul(zeros(64, 64), zeros(64, 64), zeros(64, 64)),
        "linear": lambda: gemm.linear(zeros(64, 64).T, zeros(64, 64).T, zeros(64), "tanh", zeros(64, 64)),
        "conv2d": lambda: convolution.conv2d(x, w, None, *constants, None, zeros(*x.shape)),
        "conv2d_transpose": lambda: convolution.conv2d_transpose(x, w, None, *constants, "relu", zeros(*x.shape)),
        "conv2d_weight_gradient": lambda: convolution.conv2d_weight_gradient(x, x, *constants, w),
    }
    calls[kind]()
    return device.programs


#: Each tile with one kind of product.
KINDS = {
    "bf16": ("conv2d", "conv2d_transpose", "conv2d_weight_gradient", "linear", "matmul"),
    "tf32": ("conv2d", "conv2d_transpose", "linear", "matmul", "conv2d_weight_gradient"),
}


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("precision", KINDS)
def test_products_for_hopper_compile(precision, index):
    programs = programs_for_hopper(precision, HOPPER[precision][index], KINDS[precision][index])
    assert programs["hopper"].architecture == "sm_90a"
    for name in ("hopper", "rounded", "turned"):
        assert name not in programs or compiled(programs[name], "sm_90")
