"""What every test shares: hypothesis profiles, and fixtures that run a test on each kernel backend."""

import os
from functools import cache

import pytest
from hypothesis import HealthCheck, settings

#: `backend_in_use` is meant to stay as it is from one example to the next.
COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
}
settings.register_profile("quick", max_examples=15, derandomize=True, **COMMON)
settings.register_profile("thorough", max_examples=500, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

BACKENDS = ("reference", "numba_cpu", "cupy_gpu")


#: The kernels of cupy_gpu, run on the host by `emulator`.
EMULATED = "cupy_gpu-emulated"


@pytest.fixture(scope="session", params=[*BACKENDS, EMULATED])
def backend(request):
    """Each backend in turn, as a kernels.Backend; that for the GPU a second time on the host."""
    return emulated_backend() if request.param == EMULATED else _real(request.param)


def _real(name):
    registry = pytest.importorskip("kernels.registry")
    reason = registry.available()[name]
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    return registry.get(name)


@cache
def emulated_backend():
    """The GPU backend on NumPy arrays; skips where there is no C++ compiler."""
    import emulator

    from kernels.cupy_gpu.backend import backend

    if emulator.COMPILER is None:
        pytest.skip("no C++ compiler, which the emulator of the GPU needs")
    return backend(emulator.ApartEmulator())


@pytest.fixture(params=BACKENDS)
def backend_in_use(request):
    """Each backend in turn; during the test, it computes for every tensor on the CPU."""
    from kernels import registry

    before = registry.cpu()
    yield registry.use(_real(request.param))
    registry.use(before)
