"""The decorator for functions that kernels call."""

import numba

#: @helper: compiled into the kernels that call it; not callable from Python. Cheaper to compile than a plain `njit`.
helper = numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath={"contract"})
