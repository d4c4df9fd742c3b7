"""Kernels: computing on arrays, without gradients or layers. The contract is `kernels.contract.Backend`."""

from kernels.contract import SLOTS, Backend
from kernels.errors import BackendUnavailable, DtypeError, ShapeError
from kernels.registry import available, backend_of, get, use

#: Tells this package from others that import as `kernels`.
OWNER = "nanonet"

__all__ = [
    "OWNER",
    "SLOTS",
    "Backend",
    "BackendUnavailable",
    "DtypeError",
    "ShapeError",
    "available",
    "backend_of",
    "get",
    "use",
]
