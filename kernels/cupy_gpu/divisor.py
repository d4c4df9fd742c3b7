"""Division by a constant (cuda/divisor.cuh)."""

__all__ = ["divisor"]


def divisor(n: int) -> tuple[int, int, int]:
    """struct Divisor."""
    shift = max(n - 1, 0).bit_length()
    return n, (((1 << shift) - n) << 32) // n + 1, shift
