"""What every test shares: hypothesis profiles, and fixtures that run a test on each kernel backend."""

import os

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


@pytest.fixture(scope="session", params=BACKENDS)
def backend_name(request):
    """The name of each backend in turn; one that does not work here is skipped with its reason."""
    registry = pytest.importorskip("kernels.registry")
    reason = registry.available()[request.param]
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return request.param


@pytest.fixture(scope="session")
def backend(backend_name):
    """Each backend in turn, as a kernels.Backend."""
    from kernels import registry

    return registry.get(backend_name)


@pytest.fixture
def backend_in_use(backend):
    """As `backend`; during the test, the backend computes for every tensor on the CPU."""
    from kernels import registry

    before = registry.cpu().name
    registry.use(backend.name)
    yield backend
    registry.use(before)
