"""The folder in which kernels keep what took time to make or to find out."""

import os
import sys
from pathlib import Path

__all__ = ["kernel_cache"]


def kernel_cache() -> Path:
    """$NANONET_CACHE_DIR/kernels, else in the user's cache. It need not exist yet."""
    wanted = os.environ.get("NANONET_CACHE_DIR")
    return (Path(wanted) if wanted else _user_cache() / "nanonet") / "kernels"


def _user_cache() -> Path:
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"])
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"])
    home = Path(os.path.expanduser("~"))
    return home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
