"""The GPU backend: CUDA C++ on CuPy arrays."""
