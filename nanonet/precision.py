"""How exactly a GPU multiplies: TF32 and bfloat16 for products and convolutions of float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kernels.precision import mode
from nanonet.errors import OptionError

__all__ = ["autocast", "get_float32_matmul_precision", "set_float32_matmul_precision"]

_PRECISIONS = {"highest": "float32", "high": "tf32"}


def set_float32_matmul_precision(precision: str) -> None:
    """Products and convolutions of float32 on a GPU, in this thread: "highest", in float32 (as it is at first), or
    "high", of operands rounded to TF32 (10 bits of mantissa), with sums in float32, on tensor cores.

    Without effect on the CPU and on float64. Raises OptionError for another name.
    """
    if precision not in _PRECISIONS:
        raise OptionError(f"precision is {precision!r}; wanted 'highest' or 'high'")
    mode.products = _PRECISIONS[precision]


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` has set."""
    return "highest" if mode.products == "float32" else "high"


@contextmanager
def autocast(dtype: str = "bf16", enabled: bool = True) -> Iterator[None]:
    """Within it, products and convolutions of float32 on a GPU take operands rounded to bfloat16, with sums in float32
    (mixed precision: Micikevicius et al. 2018). Tensors stay float32, the weights that the optimizer updates too; so
    no loss is scaled, and nothing else changes. A step recorded inside is not replayed outside.

    Without effect on the CPU and on float64. Raises OptionError for another dtype.
    """
    if dtype not in ("bf16", "bfloat16"):
        raise OptionError(f"autocast: dtype is {dtype!r}; wanted 'bf16'")
    before = mode.products
    if enabled:
        mode.products = "bf16"
    try:
        yield
    finally:
        mode.products = before
