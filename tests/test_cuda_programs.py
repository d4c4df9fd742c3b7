"""Every CUDA program compiles for the GPUs that are supported, where there is no GPU too."""

import pytest

from kernels.cupy_gpu.device import CUDA, program
from kernels.cupy_gpu.elementwise import generated
from kernels.elementwise import TABLE

nvrtc = pytest.importorskip("cupy", reason="CuPy is not installed").cuda.nvrtc

ARCHITECTURES = ("sm_80", "sm_90")
FILES = sorted(path.name for path in CUDA.glob("*.cu"))


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
@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("file", FILES)
def test_a_program_compiles(file, real, architecture):
    assert compiled(program(file, f"REAL={real}"), architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("real", ["float", "double"])
def test_elementwise_functions_compile(real, architecture):
    for row in TABLE:
        result = "bool" if row.result == "bool" else real
        for formula in (row.forward, *row.backward.values()):
            out = result if formula is row.forward else real
            assert compiled(generated(formula, (out, *[real] * len(formula.variables)), 2), architecture)
