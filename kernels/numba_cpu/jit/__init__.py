"""Compile-time modules: the only ones that import Numba, and only when a kernel has to be compiled afresh."""
