"""nanonet: a deep-learning engine from scratch, with a tuner for its own training settings built in."""

import kernels as _kernels

if getattr(_kernels, "OWNER", None) != "nanonet":
    raise ImportError(
        f"nanonet needs its own package 'kernels', but another one is imported under that name: {_kernels.__file__}. "
        "Uninstall that one, or take its folder off sys.path"
    )

from nanonet import errors, losses, nn, ops, optim
from nanonet import functional as functional
from nanonet.autograd import (
    Function,
    detect_anomaly,
    enable_grad,
    grad,
    gradcheck,
    gradgradcheck,
    is_grad_enabled,
    no_grad,
)
from nanonet.determinism import (
    are_deterministic_algorithms_enabled,
    kernel_benchmark_enabled,
    set_kernel_benchmark,
    use_deterministic_algorithms,
)
from nanonet.device import default_device, get_default_device, set_default_device
from nanonet.jit import jit
from nanonet.ops.elementwise import maximum, minimum, where
from nanonet.ops.random import rand, randn
from nanonet.ops.shape import concatenate, stack
from nanonet.precision import autocast, get_float32_matmul_precision, set_float32_matmul_precision
from nanonet.random import seed
from nanonet.tensor import (
    Tensor,
    arange,
    as_tensor,
    bool_,
    eye,
    float32,
    float64,
    from_dlpack,
    full,
    int32,
    int64,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)
from nanonet.threads import get_num_threads, set_num_threads, single_thread
from nanonet.winograd import set_winograd, winograd_enabled

__version__ = "0.1.0"

#: Submodules that are imported when first used.
_LATER = ("callbacks", "checkpoint", "data", "doctor", "init", "metrics", "models", "predictor", "training")

cat = concatenate
manual_seed = seed


def __getattr__(name: str):
    import importlib

    if name in _LATER:
        return importlib.import_module(f"nanonet.{name}")
    if name == "Settings":
        from nanonet.settings import Settings

        return Settings
    if name == "lr_range_test":
        from nanonet.lr_range import lr_range_test

        return lr_range_test
    raise AttributeError(f"module 'nanonet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER, "Settings", "lr_range_test"])


__all__ = [
    "Function",
    "Tensor",
    "arange",
    "are_deterministic_algorithms_enabled",
    "as_tensor",
    "autocast",
    "bool_",
    "cat",
    "concatenate",
    "default_device",
    "detect_anomaly",
    "enable_grad",
    "errors",
    "eye",
    "float32",
    "float64",
    "from_dlpack",
    "full",
    "functional",
    "get_default_device",
    "get_float32_matmul_precision",
    "get_num_threads",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "int32",
    "int64",
    "is_grad_enabled",
    "jit",
    "kernel_benchmark_enabled",
    "losses",
    "manual_seed",
    "maximum",
    "minimum",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "ops",
    "optim",
    "rand",
    "randn",
    "seed",
    "set_default_device",
    "set_float32_matmul_precision",
    "set_kernel_benchmark",
    "set_num_threads",
    "set_winograd",
    "single_thread",
    "stack",
    "tensor",
    "use_deterministic_algorithms",
    "where",
    "winograd_enabled",
    "zeros",
    "zeros_like",
]
