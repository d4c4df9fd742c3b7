"""What a convolution tells a kernel about the image that its operand is gathered from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NO_IMAGE", "Image", "divisor"]


@dataclass(frozen=True)
class Image:
    """What a convolution tells a kernel: Image (in two parts), the steps of the other operand, Places and Taps of
    image.cuh."""

    strides: tuple[int, ...]
    window: tuple[int, ...]
    steps: tuple[int, int, int]
    divisors: tuple[int, ...]


NO_IMAGE = Image((0,) * 4, (0,) * 8, (0,) * 3, (0,) * 12)


def divisor(n: int) -> tuple[int, int, int]:
    """struct Divisor of image.cuh."""
    shift = max(n - 1, 0).bit_length()
    return n, (((1 << shift) - n) << 32) // n + 1, shift
