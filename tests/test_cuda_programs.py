"""Every CUDA program compiles for the GPUs that are supported, where there is no GPU too."""

import re

import emulator
import numpy as np
import pytest

from kernels import plan
from kernels.cupy_gpu.backend import backend
from kernels.cupy_gpu.convolution import Convolution
from kernels.cupy_gpu.gemm import PRECISIONS, Gemm
from kernels.cupy_gpu.loop import TYPES, Loop, Step, generated, prepared
from kernels.cupy_gpu.programs import CUDA, Program, program
from kernels.cupy_gpu.signature import parameters
from kernels.cupy_gpu.tiles import HOPPER, TILES, Cut
from kernels.cupy_gpu.updates import generated as generated_update
from kernels.elementwise import TABLE
from kernels.formula import Formula
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
    return len(translated(made, architecture, nvrtc.getCUBIN))


def translated(made, architecture, result):
    unit = nvrtc.createProgram(made.source, "program.cu", (), ())
    try:
        nvrtc.compileProgram(unit, (*made.options, "-ftz=true", f"-arch={architecture}"))
        if "Performance Loss" in nvrtc.getProgramLog(unit):
            raise AssertionError(nvrtc.getProgramLog(unit))
        return result(unit)
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
@pytest.mark.parametrize("real", ["float32", "float64"])
def test_elementwise_functions_compile(real, architecture):
    """Packed for one architecture, of any strides for the other."""
    packed = architecture == ARCHITECTURES[0]
    for row in TABLE:
        result = "bool" if row.result == "bool" else real
        for formula in (row.forward, *row.backward.values()):
            loop = Loop.of(formula, result if formula is row.forward else real, *[real] * len(formula.variables))
            letters = "cx"[not packed] * len(loop.arrays)
            layout = (1, 16 // np.dtype(real).itemsize, 2, True) if packed else (3, 1, 1, False)
            assert compiled(generated(loop, letters, *layout), architecture)


@pytest.mark.parametrize("dtype", TYPES)
def test_copies_from_any_dtype_compile(dtype):
    copy = Formula.of("x", "x")
    steps = tuple(Step(copy, to, (len(TYPES),)) for to in TYPES)
    loop = Loop((*TYPES, dtype), steps, tuple(enumerate(range(len(TYPES)))))
    assert compiled(generated(loop, "c" * len(loop.arrays), 1, 2, 1, True), "sm_90")


CHAIN = Loop(
    ("float32", "float32", "bool", "float32"),
    (
        Step(Formula.of("a * b", "a", "b"), "float32", (1, 3)),
        Step(Formula.of("x + y", "x", "y"), "float32", (-1, 1)),
        Step(Formula.of("where(c, x, 0)", "c", "x"), "float32", (2, -2)),
    ),
    ((0, 2),),
)


def test_a_chain_reads_and_writes_16_bytes_at_a_time_and_rounds_each_result():
    size = 1 << 20
    made = prepared(CHAIN, (size,), ((1,), (1,), (1,), (0,)), (0,) * 4)
    assert made.grid * made.block * 2 * 4 == size
    text = translated(made.program, "compute_90", nvrtc.getPTX)
    text = text.decode() if isinstance(text, bytes) else text
    assert len(re.findall(r"ld\.global\S*\.v4\.[fbu]32", text)) == len(re.findall(r"st\.global\S*\.v4", text)) == 2
    assert "fma" not in text and "div.s64" not in text and "rem.s64" not in text
    contracted = translated(Program(made.program.text), "compute_90", nvrtc.getPTX)
    assert b"fma" in (contracted if isinstance(contracted, bytes) else contracted.encode())


@pytest.mark.parametrize("file", sorted(path.name for path in CUDA.glob("*.cu")))
def test_the_parameters_of_every_kernel_are_found(file):
    """What a launch may write is told by them (see `signature`)."""
    source = program(file).source
    names = [name for _, name in emulator.KERNEL.findall(source)]
    assert len(names) == source.count("__global__ void")
    for name in names:
        found = parameters(source, name)
        assert len(found) > 1 and all(
            re.fullmatch(r"(const )?\w+\s*\*?\s*\w+( PARAMETERS)?", text) for text in found
        ), found
        pointers = [text for text in found if "*" in text]
        assert (pointers and not all(text.startswith("const ") for text in pointers)) or name == "update"


class Collector(emulator.Emulator):
    """Keeps the last program that it is given, and all by their kernels' names, and runs none."""

    def __init__(self, capability=(8, 0)):
        super().__init__()
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


def test_reductions_with_formulas_compile():
    device = Collector()
    gpu = backend(device)
    x, total = zeros(6, 8), np.zeros((), np.float64)
    add, scale = Formula.of("a + b", "a", "b"), Formula.of("exp(x) * y", "x", "y")
    recorder = plan.Recorder()
    with plan.recording(recorder):
        product, sums, wide = plan.empty(np, (6, 8), np.float32), plan.empty(np, (), np.float32), zeros()
        gpu.elementwise(scale, x, x, out=product)
        gpu.reduce("square_sum", product, (0, 1), sums)
        gpu.elementwise(add, sums, wide, out=sums)
        gpu.elementwise(Formula.of("total + x", "total", "x"), total, sums, out=total)
        del product
    (one,) = recorder.plan().instructions
    assert one.name == "reduce" and compiled(one.call.program, "sm_90")


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
