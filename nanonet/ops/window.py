"""How windows move over the axes of an image: what convolution and pooling share."""

from __future__ import annotations

from nanonet.errors import OptionError, ShapeError
from nanonet.options import sides

#: Padding as people give it: for all axes, for each axis, before and after each axis, or "same" or "valid".
Padding = int | str | tuple[int, ...] | tuple[tuple[int, int], ...]


def padding_of(
    name: str, padding: Padding, size: tuple[int, ...], span: tuple[int, ...], stride: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """(before, after) for each axis of an image. span: how far a window reaches, dilation counted.

    "valid" is none; "same" is as much as gives ceil(size / stride) outputs, the odd one after. Raises OptionError.
    """
    if padding == "valid":
        return ((0, 0),) * len(size)
    if padding == "same":
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, span, stride, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    try:
        if isinstance(padding, tuple) and any(isinstance(axis, tuple) for axis in padding):
            if len(padding) != len(size):
                raise OptionError
            return tuple(sides("", axis, 2, 0) for axis in padding)
        return tuple((side, side) for side in sides("", padding, len(size), 0))
    except OptionError:
        axes = len(size)
        forms = "an integer, " + (f"{axes} integers, " if axes > 1 else "")
        raise OptionError(
            f"{name}: padding is {padding!r}; wanted {forms}{axes} pair{'s' * (axes > 1)} (before, after) of integers "
            f"of at least 0, 'same' or 'valid'"
        ) from None


def channels_last(shape: tuple[int, ...], channels: int) -> str:
    """What to add to an error about x of that shape: a hint if its channels seem to come first, as in PyTorch."""
    if len(shape) not in (3, 4) or shape[1] != channels:
        return ""
    wanted, order = ("(n, h, w, c)", "(0, 2, 3, 1)") if len(shape) == 4 else ("(n, l, c)", "(0, 2, 1)")
    return f"; channels come last, {wanted}: x.transpose{order} in NumPy, .permute{order} of a tensor"


def outputs(
    name: str,
    size: tuple[int, ...],
    span: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
) -> tuple[int, ...]:
    """How many windows fit along each axis. Raises ShapeError if there is one along which none does."""
    found = []
    for n, k, s, (before, after) in zip(size, span, stride, padding, strict=True):
        if n + before + after < k:
            padded = f", {n + before + after} with padding" if before or after else ""
            raise ShapeError(f"{name}: x has size {n} along an axis of its {size}{padded}; the window wants {k}")
        found.append((n + before + after - k) // s + 1)
    return tuple(found)
