"""Benchmarks against the libraries that people would use instead. `python -m benchmarks --help` tells how."""

#: The modules of this package that hold a benchmark: TITLE, NOTE, ENVIRONMENT and run(quick) -> list[harness.Row].
BENCHMARKS = (
    "matmul",
    "conv",
    "elementwise",
    "normalization",
    "train_step",
    "breakdown",
    "overhead",
    "startup",
    "sampler_overhead",
)
