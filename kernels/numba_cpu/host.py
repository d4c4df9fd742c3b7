"""The processor that kernels are generated for: its name, its features and its vector registers."""

import os
from dataclasses import dataclass
from functools import cache

from llvmlite import binding

#: Processors that $NANONET_CPU may name: (float32 lanes of a register, number of vector registers, triple or None).
_X86 = {
    **dict.fromkeys(("x86-64", "x86-64-v2", "core2", "nehalem", "westmere"), (4, 16, None)),
    **dict.fromkeys(("x86-64-v3", "haswell", "broadwell", "skylake", "znver1", "znver2", "znver3"), (8, 16, None)),
    **dict.fromkeys(
        ("x86-64-v4", "skylake-avx512", "cascadelake", "icelake-server", "sapphirerapids", "znver4", "znver5"),
        (16, 32, None),
    ),
}
_ARM = dict.fromkeys(("cortex-a72", "neoverse-n1", "neoverse-v2", "apple-m1"), (4, 32, "aarch64-unknown-linux-gnu"))
KNOWN = {**_X86, **_ARM}


@dataclass(frozen=True)
class Host:
    """A processor as LLVM names it. lanes are elements of one vector register."""

    name: str
    features: str
    triple: str
    lanes_f32: int
    lanes_f64: int
    vector_registers: int

    def lanes(self, dtype: str) -> int:
        """Lanes of one register for "float32" or "float64"."""
        return self.lanes_f32 if dtype == "float32" else self.lanes_f64

    @property
    def foreign(self) -> bool:
        """Whether this machine can only make code for it, not run it."""
        return self.triple.split("-")[0] != binding.get_process_triple().split("-")[0]

    @property
    def has_masked_store(self) -> bool:
        """Whether a store of some lanes is one fast instruction (AVX-512)."""
        return self.lanes_f32 == 16

    @property
    def has_masked_load(self) -> bool:
        """Whether a load of some lanes is one fast instruction (AVX and later)."""
        return self.lanes_f32 >= 8

    @property
    def arch(self) -> str:
        """ "x86", "arm" or "other": which control register flushes denormals."""
        head = self.triple.split("-")[0]
        return "x86" if head in ("x86_64", "amd64") else "arm" if head in ("aarch64", "arm64") else "other"


@cache
def initialize() -> None:
    """Make LLVM know this machine. Newer llvmlite does the first step alone and objects to being asked."""
    for step in (binding.initialize, binding.initialize_native_target, binding.initialize_native_asmprinter):
        try:
            step()
        except RuntimeError as error:
            if "deprecated" not in str(error):
                raise


@cache
def host() -> Host:
    """The processor in use: $NANONET_CPU, one of KNOWN, else this machine's own."""
    initialize()
    wanted = os.environ.get("NANONET_CPU")
    return forced(wanted) if wanted else _native()


def forced(name: str) -> Host:
    """A processor by its LLVM name, with the features that the name implies."""
    if name not in KNOWN:
        raise ValueError(f"NANONET_CPU: {name!r} is not known; known are {', '.join(KNOWN)}")
    lanes, registers, triple = KNOWN[name]
    if triple and triple.split("-")[0] != binding.get_process_triple().split("-")[0]:
        binding.initialize_all_targets()
        binding.initialize_all_asmprinters()
    return Host(name, "", triple or binding.get_process_triple(), lanes, lanes // 2, registers)


def _native() -> Host:
    triple = binding.get_process_triple()
    try:
        features = binding.get_host_cpu_features()
    except RuntimeError:  # LLVM cannot tell on this platform
        features = {}
    flags = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(features.items()))
    if features.get("avx512f"):
        lanes, registers = 16, 32
    elif features.get("avx2") and features.get("fma"):
        lanes, registers = 8, 16
    else:
        lanes, registers = 4, 16 if triple.startswith(("x86", "amd64", "i")) else 32
    return Host(binding.get_host_cpu_name(), flags, triple, lanes, lanes // 2, registers)
