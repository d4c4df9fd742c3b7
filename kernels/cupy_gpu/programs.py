"""The text of CUDA programs: files of the folder `cuda`, or generated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["CUDA", "Program", "program"]

CUDA = Path(__file__).parent / "cuda"


@dataclass(frozen=True)
class Program:
    """CUDA C++ text and the macros that it is compiled with, as "NAME=value".

    contract: whether a product and a sum may be rounded once, as one operation.
    """

    text: str
    macros: tuple[str, ...] = ()
    contract: bool = True
    #: The one architecture that it is for, such as "sm_90a"; None: any.
    architecture: str | None = None

    @property
    def source(self) -> str:
        """The whole text: macros, what all programs share, and the program itself."""
        lines = [f"#define {name} {value}" for name, _, value in (macro.partition("=") for macro in self.macros)]
        return "\n".join([*lines, _text("common.cuh"), self.text])

    @property
    def options(self) -> tuple[str, ...]:
        """What NVRTC is told. The architecture stands beside that of the GPU, which CuPy gives as `-arch`, and is the
        one that counts."""
        whole = [] if self.contract else ["--fmad=false"]
        return "--std=c++17", *whole, *([f"--gpu-architecture={self.architecture}"] if self.architecture else [])


@cache
def program(file: str, *macros: str, architecture: str | None = None) -> Program:
    """The program in a file of the folder `cuda`, such as "softmax.cu", with macros such as "REAL=float"."""
    return Program(_text(file), macros, architecture=architecture)


@cache
def _text(file: str) -> str:
    """The text of a file of the folder `cuda`, with the files that it includes from there in their places."""
    return re.sub(r'#include "([^"]+)"', lambda found: _text(found[1]), (CUDA / file).read_text())
