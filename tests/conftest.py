"""What every test shares: hypothesis profiles, and fixtures that run a test on each kernel backend."""

import os
from dataclasses import replace
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
settings.register_profile("few", max_examples=2, derandomize=True, **COMMON)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
settings.load_profile(PROFILE)

#: The emulated GPU, which is slow, is tested in full only where this is set.
ALL_ROWS = bool(os.environ.get("NANONET_ALL_ROWS"))

HOST_BACKENDS = ("reference", "numba_cpu")
BACKENDS = (*HOST_BACKENDS, "cupy_gpu")


#: The kernels of cupy_gpu, run on the host by `emulator`.
EMULATED = "cupy_gpu-emulated"
#: Those that are too slow for networks of some size.
SLOW = ("reference", EMULATED)


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
    device. Not all rows of the emulated one are run every time: see `pytest_collection_modifyitems`.
    """
    if request.param == EMULATED:
        emulated = replace(emulated_backend("ApartEmulator"), name=EMULATED)
        settings.load_profile(PROFILE if ALL_ROWS else "few")
        yield from in_use(emulated, monkeypatch)
        settings.load_profile(PROFILE)
    else:
        yield from in_use(real_backend(request.param), monkeypatch)


def pytest_collection_modifyitems(config, items):
    """Of a test on `backend_in_use`, the emulated GPU runs the first row for each thing only, that is for each value of
    `case` that has another name, with two examples each; $NANONET_ALL_ROWS makes it run all of them."""
    if ALL_ROWS:
        return
    seen, left_out = set(), set()
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if parameters.get("backend_in_use") == EMULATED:
            row = item.nodeid.partition("[")[0], getattr(parameters.get("case"), "name", "")
            if row in seen:
                left_out.add(item)
            seen.add(row)
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(params=["cupy_gpu", EMULATED])
def gpu_in_use(request, monkeypatch):
    """The backends of the GPU, as `backend_in_use` has them."""
    if request.param == EMULATED:
        yield from in_use(emulated_backend("ApartEmulator"), monkeypatch)
    else:
        yield from in_use(real_backend(request.param), monkeypatch)


@pytest.fixture
def host_too(monkeypatch):
    """For tests of a GPU that compute on the host as well. (To be asked for after the backend.)"""
    from kernels import registry

    if registry.cpu() is idle():
        monkeypatch.setattr(registry, "_cpu", registry.get("reference"))


def in_use(backend, monkeypatch):
    import nanonet
    from kernels import registry

    if backend.memory.device == "cpu":
        before = registry.cpu()
        yield registry.use(backend)
        registry.use(before)
        return
    monkeypatch.setattr(registry, "others", {backend.memory.kind: backend})
    monkeypatch.setattr(registry, "_cpu", idle())
    with nanonet.default_device("cuda"):
        yield backend


@cache
def idle():
    """A backend of the host that refuses to compute: what is tested on a GPU is not to be computed elsewhere."""
    import numpy as np

    from kernels import SLOTS
    from kernels.reference import reference

    def refuse(slot):
        def call(*_, **__):
            pytest.fail(f"{slot} was asked of the host, in a test of the GPU")

        return call

    return replace(reference(np), **{slot: refuse(slot) for slot in SLOTS})
