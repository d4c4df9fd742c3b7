"""Whether a GPU may take the fastest kernel of several, or only what is the same everywhere."""

from __future__ import annotations

from typing import Any

from kernels.determinism import mode as switches
from nanonet.errors import OptionError

__all__ = [
    "are_deterministic_algorithms_enabled",
    "kernel_benchmark_enabled",
    "set_kernel_benchmark",
    "use_deterministic_algorithms",
]


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Products and convolutions on a GPU by our own kernels alone, in parts that follow from the shapes: then one seed
    gives the same bits on all GPUs of one compute capability, with one version of CUDA's compiler.

    Without it too they are the same from run to run on one machine, until libraries, the driver or what
    `set_kernel_benchmark` has found change. Everything else is the same bits in any case: no kernel adds in an order
    that differs from run to run, and on the CPU results do not depend on the number of threads. So no operation has to
    be refused, and `warn_only`, an argument of PyTorch's function, has no effect.

    For all threads of the process. A step recorded without it is recorded again. The environment variable
    NANONET_DETERMINISTIC=1 sets it from the start, for worker processes too. Raises OptionError unless mode is a bool.
    """
    switches.deterministic = _flag("mode", mode)


def are_deterministic_algorithms_enabled() -> bool:
    """What `use_deterministic_algorithms` has set."""
    return switches.deterministic


def set_kernel_benchmark(enabled: bool) -> None:
    """Find out which kernel is fastest for each large product and convolution on the GPU, at its first use: some of our
    own, cuBLASLt's, and cuDNN's where `nvidia-cudnn-frontend` is installed; one that does not give our result is left.

    Off at first, as `torch.backends.cudnn.benchmark` is: the first use takes longer, and what wins by a hair on one day
    may lose on another, which changes the last bits of results. What was found is kept in a file for this GPU, driver
    and version, and used from then on whether this is on or off (NANONET_TUNED=0 leaves it aside, and deterministic
    mode too): so later runs give the same bits as each other.

    For all threads of the process; without effect on the CPU. The environment variable NANONET_BENCHMARK=1 sets it
    from the start. Raises OptionError unless enabled is a bool.
    """
    switches.benchmark = _flag("enabled", enabled)


def kernel_benchmark_enabled() -> bool:
    """What `set_kernel_benchmark` has set."""
    return switches.benchmark


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"{name} is {value!r}; wanted True or False")
    return value
