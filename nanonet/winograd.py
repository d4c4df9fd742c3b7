"""Whether wide 3 x 3 convolutions on the CPU may use Winograd's algorithm: faster, and a little less exact."""

from typing import Any

from kernels import registry


def _switch() -> Any:
    """The CPU backend's switch, or None where the reference serves, which has no such algorithm."""
    if registry.reason("numba_cpu") is not None:
        return None
    from kernels.numba_cpu import winograd

    return winograd


def set_winograd(enabled: bool) -> None:
    """Allow (the default) or forbid Winograd's algorithm F(2 x 2, 3 x 3) and F(4 x 4, 3 x 3) (Lavin & Gray 2016).

    It serves float32 convolutions with a 3 x 3 kernel, stride 1, dilation 1, one group, and their gradients, where the
    shapes make it faster: from about 32 channels on, by a factor of 1.5 to 2.5. On random normals its error is at most
    16 * 2^-23 * conv2d(|x|, |w|), where the sum over taps has 1 * 2^-23; in general it is bounded by (channels + 32) *
    88 * 2^-23 * S, with S = the sum over channels of max |x| in a 6 x 6 neighbourhood * sum |w|. A NaN or an infinity
    in x makes up to 4 x 4 outputs more NaN. The results are the same bits for any number of threads.

    The environment variable NANONET_WINOGRAD=0 forbids it from the start. Steps that are recorded already keep what
    they were recorded with. Raises ValueError unless `enabled` is a bool.
    """
    if not isinstance(enabled, bool):
        raise ValueError(f"enabled: got {enabled!r}, want True or False")
    switch = _switch()
    if switch is not None:
        switch.set_winograd(enabled)


def winograd_enabled() -> bool:
    """Whether convolutions may use Winograd's algorithm; False where the backend has none."""
    switch = _switch()
    return False if switch is None else switch.winograd_enabled()
