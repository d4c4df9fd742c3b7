"""The fake CUDA answers as CUDA does where a call is wrong. (They run within test_fake_cuda.py.)"""

import os

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not os.environ.get("NANONET_FAKE_CUDA"), reason="$NANONET_FAKE_CUDA is not set")

SOURCE = """
extern "C" __global__ void __launch_bounds__(64) few(float* x) { x[threadIdx.x] = 1; }
extern "C" __global__ void shared(float* x, int n) {
    DYNAMIC_SHARED(float, cells);
    for (int i = threadIdx.x; i < n; i += blockDim.x) cells[i] = float(i);
    __syncthreads();
    if (!threadIdx.x) x[0] = cells[n - 1];
}
"""


@pytest.fixture(scope="module")
def cupy():
    return pytest.importorskip("cupy")


@pytest.fixture(scope="module")
def device(cupy):
    from kernels.cupy_gpu.gpu import Cuda

    return Cuda()


@pytest.fixture(scope="module")
def program():
    from kernels.cupy_gpu.programs import Program

    return Program(SOURCE)


def refused(match="INVALID_VALUE"):
    from cupy_backends.cuda.api.driver import CUDADriverError

    return pytest.raises(CUDADriverError, match=match)


def unlawful(match):
    from cupy_backends.cuda.api.runtime import CUDARuntimeError

    return pytest.raises(CUDARuntimeError, match=match)


def test_sizes_of_launches_have_limits(device, program):
    x = device.memory.empty((1024,), np.float32)
    device.launch(program, "few", (1, 65535), 64, x)
    for grid, block in [((1, 65536), 64), (2**31, 64), (1, 65), (1, (1, 1, 65))]:
        with refused():
            device.launch(program, "few", grid, block, x)
    with refused():
        device.launch(program, "shared", 1, 1025, x, np.int32(1), shared=4)


def test_shared_memory_has_limits(device, program):
    x = device.memory.empty((1,), np.float32)
    for size in (48 << 10, 227 << 10):
        device.launch(program, "shared", 1, 32, x, np.int32(size // 4), shared=size)
        assert device.memory.to_host(x) == size // 4 - 1
    with refused():
        device.function(program, "shared", (227 << 10) + 16)
    kernel = device.xp.RawModule(code=program.source + "// anew", options=("--std=c++17",)).get_function("shared")
    with refused():
        kernel((1,), (32,), (x, np.int32(1)), shared_mem=(48 << 10) + 16)


def test_arguments_are_those_of_the_kernel(device, program):
    x = device.memory.empty((1,), np.float32)
    for arguments in [(x,), (x, 1), (x, np.int32(1), np.int32(1))]:
        with pytest.raises(AssertionError, match="shared has parameters of"):
            device.launch(program, "shared", 1, 32, *arguments, shared=64)


def test_kernels_that_are_not_ours_are_named(cupy, capfd):
    with refused("the emulator cannot run this kernel"):
        cupy.arange(3)
    assert "cannot run cupy_arange" in capfd.readouterr().err
    with refused("NOT_FOUND"):
        cupy.RawModule(code='extern "C" __global__ void f() {}').get_function("g").kernel  # noqa: B018


def test_memory_ends(cupy):
    import fake_cuda

    library = fake_cuda.install()
    pool = cupy.cuda.MemoryPool()
    pool.free_all_blocks()
    free, total = cupy.cuda.runtime.memGetInfo()
    try:
        library.fake_limit(total - free + (1 << 20))
        with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
            pool.malloc((1 << 20) + 1)
        assert pool.malloc(1 << 20).mem.size == 1 << 20
    finally:
        library.fake_limit(total)


def test_a_capture_does_not_wait(cupy):
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    with unlawful("cudaErrorStreamCaptureUnsupported"):
        stream.synchronize()
    with unlawful("cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()
    stream.begin_capture(cupy.cuda.runtime.streamCaptureModeGlobal)
    with unlawful("cudaErrorStreamCaptureUnsupported"):
        cupy.cuda.runtime.malloc(512)
    with unlawful("cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()
    blocking = cupy.cuda.Stream()
    blocking.begin_capture()
    with unlawful("cudaErrorStreamCaptureImplicit"):
        cupy.empty(4, np.float32).set(np.ones(4, np.float32))
    with unlawful("cudaErrorStreamCaptureInvalidated"):
        blocking.end_capture()


def test_work_is_done_for_those_who_wait(cupy, device, program):
    x, streams = device.memory.empty((64,), np.float32), [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    device.memory.write(x, np.zeros(64))
    cupy.cuda.Device().synchronize()
    with streams[0]:
        device.launch(program, "few", 1, 64, x)
        event = streams[0].record()
    with streams[1]:
        assert device.memory.to_host(x).tolist() == [0] * 64
        streams[1].wait_event(event)
        assert device.memory.to_host(x).tolist() == [1] * 64
