"""How a GPU multiplies matrices of float32: a switch of each thread."""

from __future__ import annotations

import threading

from kernels import plan

__all__ = ["PRODUCTS", "mode", "products"]

#: Exactly; or of operands rounded to 10 or 7 bits of mantissa, with sums in float32.
PRODUCTS = ("float32", "tf32", "bf16")


class Mode(threading.local):
    """products: one of PRODUCTS."""

    products = "float32"


mode = Mode()


def products() -> str:
    """The present one of PRODUCTS; a step that is being recorded then depends on it."""
    recorder = plan.current()
    if recorder is not None:
        recorder.guard(mode, "products")
    return mode.products
