"""Every CUDA program compiles for the GPUs that are supported, where there is no GPU too."""

import re

import pytest

from kernels.cupy_gpu.device import CUDA, program
from kernels.cupy_gpu.elementwise import generated
from kernels.cupy_gpu.updates import generated as generated_update
from kernels.elementwise import TABLE
from kernels.updates import TABLE as UPDATES

nvrtc = pytest.importorskip("cupy", reason="CuPy is not installed").cuda.nvrtc

ARCHITECTURES = ("sm_80", "sm_90")
FILES = sorted(path.name for path in CUDA.glob("*.cu"))
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
    """The size of the machine code. Raises the compiler's words."""
    unit = nvrtc.createProgram(made.source, "program.cu", (), ())
    try:
        nvrtc.compileProgram(unit, ("--std=c++17", f"--gpu-architecture={architecture}"))
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
