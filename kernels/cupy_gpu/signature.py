"""What a kernel may write, by its own declaration: pointers that are not to const."""

from __future__ import annotations

import re

__all__ = ["parameters", "written"]


def written(source: str, name: str) -> frozenset[int] | None:
    """The places of the parameters through which a kernel may write; None if its declaration is not found."""
    found = parameters(source, name)
    if found is None:
        return None
    return frozenset(i for i, text in enumerate(found) if "*" in text and not re.search(r"\bconst\b[^*]*\*", text))


def parameters(source: str, name: str) -> tuple[str, ...] | None:
    """The declarations of a kernel's parameters, or None if there is no such kernel."""
    text = re.sub(r"//[^\n]*|\\\n", " ", source)
    found = re.search(rf"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?{name}\s*\(([^)]*)\)", text)
    if found is None:
        return None
    listed = found[1].strip()
    macro = re.search(rf"#define {listed}\s([^\n]*)", text) if re.fullmatch(r"\w+", listed) else None
    return tuple(part.strip() for part in (macro[1] if macro else listed).split(","))
