"""The emulator shows what a GPU would do badly or not at all."""

import faulthandler
import os

import numpy as np
import pytest

from kernels.cupy_gpu.programs import Program

emulator = pytest.importorskip("emulator")
pytestmark = pytest.mark.skipif(emulator.COMPILER is None, reason="no C++ compiler")

PROGRAM = Program("""
struct alignas(16) Four { float v[4]; };

extern "C" __global__ void shifted(const float* x, float* out, int64 by) {
    out[threadIdx.x] = x[threadIdx.x + by];
}
extern "C" __global__ void fours(const float* x, float* out) {
    reinterpret_cast<Four*>(out)[threadIdx.x] = reinterpret_cast<const Four*>(x)[threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(64) narrow(float* out) { out[threadIdx.x] = 1; }
extern "C" __global__ void lanes(float* out) { out[threadIdx.x] = warp_reduce<Sum>(1.0f); }
extern "C" __global__ void large(float* out) {
    __shared__ float numbers[12289];
    numbers[threadIdx.x] = 1;
    out[threadIdx.x] = numbers[threadIdx.x];
}
extern "C" __global__ void dynamic(float* out, int64 at) {
    DYNAMIC_SHARED(float, numbers);
    numbers[at + threadIdx.x] = 1;
    out[threadIdx.x] = numbers[at + threadIdx.x];
}
extern "C" __global__ void early(float* out) {
    __shared__ float numbers[64];
    float local[2];
    out[threadIdx.x] = numbers[threadIdx.x] + 0 * local[blockIdx.x];
    __syncthreads();
    numbers[threadIdx.x] = 1;
}
extern "C" __global__ void product(const float* x, float* out) { out[threadIdx.x] = x[threadIdx.x] * 0.5f; }
extern "C" __global__ void order(int* counter, int* out) {
    out[blockIdx.x] = atomicAdd(counter, 1);
}
""")


def run(name, *arguments, threads=64, blocks=1, shared=0):
    emulator.Emulator().launch(PROGRAM, name, blocks, threads, *arguments, shared=shared)


def numbers(n):
    """At an address that 16 bytes are aligned to."""
    memory = np.zeros(n + 3, np.float32)
    first = -memory.ctypes.data % 16 // 4
    return memory[first : first + n]


def dies(call):
    """Whether a process that makes the call, twice, is ended by a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            faulthandler.disable()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            call()
            call()
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


#: What is right beside what is wrong.
CASES = {
    "within": (lambda: run("shifted", numbers(65), numbers(64), 1), False),
    "beyond the end": (lambda: run("shifted", numbers(64), numbers(64), 1), True),
    "before the beginning": (lambda: run("shifted", numbers(64), numbers(64), -1), True),
    "beyond a view": (lambda: run("shifted", numbers(128)[:64], numbers(64), 1), True),
    "aligned": (lambda: run("fours", numbers(256), numbers(256)), False),
    "not aligned": (lambda: run("fours", numbers(257)[1:], numbers(256)), True),
    "as many threads as promised": (lambda: run("narrow", numbers(64)), False),
    "more threads than promised": (lambda: run("narrow", numbers(96), threads=96), True),
    "more threads than there are registers for": (
        lambda: run("shifted", numbers(288), numbers(288), 0, threads=288),
        True,
    ),
    "full warps": (lambda: run("lanes", numbers(64)), False),
    "half a warp": (lambda: run("lanes", numbers(48), threads=48), True),
    "more than 48 KB of shared memory": (lambda: run("large", numbers(64)), True),
    "dynamic shared memory": (lambda: run("dynamic", numbers(64), 192, shared=1024), False),
    "beyond dynamic shared memory": (lambda: run("dynamic", numbers(64), 193, shared=1024), True),
    "more dynamic shared memory than there is": (lambda: run("dynamic", numbers(64), 0, shared=228 << 10), True),
}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the child starts no thread
@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_ends_the_process(case):
    call, wrong = CASES[case]
    assert dies(call) == wrong


def test_what_is_undefined_is_nan():
    out = np.zeros((3, 64), np.float32)
    run("early", out[0], blocks=2)
    assert np.isnan(out[0]).all()
    assert np.isnan(emulator.Emulator().empty((3, 5), np.float32)).all()


def test_blocks_run_in_any_order():
    counter, out = np.zeros(1, np.int32), np.full(64, -1, np.int32)
    run("order", counter, out, threads=1, blocks=64)
    assert sorted(out) == list(range(64))
    assert list(out) != list(range(64))


def test_denormal_numbers_are_zero():
    x, out = np.full(64, 2e-38, np.float32), numbers(64)
    run("product", x, out)
    assert (out == 0).all()
    assert (x * np.float32(0.5) > 0).all()
