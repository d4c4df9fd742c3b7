"""What every test shares: hypothesis profiles, and fixtures that run a test on each kernel backend."""

import os
from functools import cache

import pytest
from hypothesis import HealthCheck, settings

#: Two processes with as many threads of BLAS each would be in each other's way. (Before NumPy is imported.)
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

#: With $NANONET_FAKE_CUDA set, the GPU is `fake_cuda`. (Before anything asks for one.)
if os.environ.get("NANONET_FAKE_CUDA"):
    import fake_cuda

    if fake_cuda.reason() is not None:
        raise RuntimeError(fake_cuda.reason())
    fake_cuda.install()

#: `backend_in_use` is meant to stay as it is from one example to the next.
COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
}
settings.register_profile("quick", max_examples=15, derandomize=True, **COMMON)
settings.register_profile("thorough", max_examples=500, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

HOST_BACKENDS = ("reference", "numba_cpu")
BACKENDS = (*HOST_BACKENDS, "cupy_gpu")


#: The kernels of cupy_gpu, run on the host by `emulator`.
EMULATED = "cupy_gpu-emulated"


@pytest.fixture(scope="session", params=[*HOST_BACKENDS, EMULATED])
def backend(request):
    """Each backend that computes on NumPy arrays in turn, as a kernels.Backend; that for the GPU on the host."""
    return emulated_backend("Emulator") if request.param == EMULATED else real_backend(request.param)


def real_backend(name):
    """The backend of that name; skips with the reason where it does not work."""
    registry = pytest.importorskip("kernels.registry")
    reason = registry.reason(name)
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    return registry.get(name)


@cache
def emulated_backend(device):
    """The GPU backend on the device of that name; skips where there is no C++ compiler."""
    import apart
    import emulator

    from kernels.cupy_gpu.backend import backend

    if emulator.COMPILER is None:
        pytest.skip("no C++ compiler, which the emulator of the GPU needs")
    return backend({"Emulator": emulator.Emulator, "ApartEmulator": apart.ApartEmulator}[device]())


@pytest.fixture(params=HOST_BACKENDS)
def backend_in_use(request):
    """Each backend in turn; during the test, it computes for every tensor on the CPU."""
    from kernels import registry

    before = registry.cpu()
    yield registry.use(real_backend(request.param))
    registry.use(before)
