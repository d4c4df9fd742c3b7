"""What every test shares: hypothesis profiles, and fixtures that run a test on each kernel backend."""

import os
from functools import cache

import pytest
from hypothesis import HealthCheck, settings

#: Two processes with as many threads of BLAS each would be in each other's way. (Before NumPy is imported.)
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

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


@pytest.fixture(params=[*BACKENDS, EMULATED])
def backend_in_use(request, monkeypatch):
    """Each backend in turn; during the test, it computes for every tensor that is made without a device.

    A host's backend does so for all tensors on the CPU; for those of the GPU, real or emulated, "cuda" is the default
    device. Of the rows of the emulated one most runs of the tests take a part, see `pytest_collection_modifyitems`.
    """
    name = request.param
    yield from in_use(emulated_backend("ApartEmulator") if name == EMULATED else real_backend(name), monkeypatch)


@pytest.fixture(params=HOST_BACKENDS)
def host_backend_in_use(request, monkeypatch):
    """As `backend_in_use`, for what concerns the host alone: views as arrays of NumPy, plans as machine code."""
    yield from in_use(real_backend(request.param), monkeypatch)


def in_use(backend, monkeypatch):
    import nanonet
    from kernels import registry

    if backend.memory.device == "cpu":
        before = registry.cpu()
        yield registry.use(backend)
        registry.use(before)
        return
    monkeypatch.setattr(registry, "others", {backend.memory.kind: backend})
    with nanonet.default_device("cuda"):
        yield backend
