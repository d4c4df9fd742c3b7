"""Who runs a trial, and whether that process still lives.

An owner is a line of text "place|pid|start|session". `place` names the host, its boot and the process-id namespace;
`start` is when the process began, so that a number which the system has given out again is not mistaken for the old
process; `session` tells apart what one process does at a time. Within one place the system is asked whether the
process lives; for other places only the heartbeat tells.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from functools import lru_cache
from pathlib import Path

__all__ = ["BEAT", "PATIENCE", "is_dead", "new_owner", "process_of", "this_process"]

BEAT = 15.0
"""Seconds between two heartbeats."""
PATIENCE = 150.0
"""Seconds without a heartbeat after which a process in another place counts as dead."""


def this_process() -> str:
    """This process, without a session; after a fork, the child."""
    return _process(os.getpid())


def new_owner() -> str:
    """An owner for a new session of this process."""
    return f"{this_process()}|{uuid.uuid4().hex[:12]}"


def process_of(owner: str) -> str:
    """The owner without its session."""
    return owner.rsplit("|", 1)[0]


def is_dead(owner: str, last_beat: float | None, now: float | None = None) -> bool:
    """Whether the process is gone. last_beat: seconds since the epoch, None if it never beat."""
    place, pid, start, _ = owner.rsplit("|", 3)
    if place == _place():
        return _start(int(pid)) != start
    return last_beat is None or (time.time() if now is None else now) - last_beat > PATIENCE


@lru_cache(maxsize=8)
def _process(pid: int) -> str:
    return f"{_place()}|{pid}|{_start(pid)}"


@lru_cache(maxsize=1)
def _place() -> str:
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        pass  # no Linux: the host's name has to do, and `_start` is less sure
    return " ".join(parts)


def _start(pid: int) -> str:
    """When that process began, as the system tells it; "" if there is no such process (a zombie is none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return "" if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if sys.platform == "linux":
            return ""
    except OSError:
        pass
    return "alive" if _exists(pid) else ""


def _exists(pid: int) -> bool:
    if os.name == "nt":
        return _exists_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it exists, but is somebody else's
    return True


def _exists_on_windows(pid: int) -> bool:
    import ctypes

    query_limited_information, still_active = 0x1000, 259
    kernel32 = ctypes.windll.kernel32
    handle = kernel32.OpenProcess(query_limited_information, False, pid)
    if not handle:
        return False
    code = ctypes.c_ulong()
    kernel32.GetExitCodeProcess(handle, ctypes.byref(code))
    kernel32.CloseHandle(handle)
    return code.value == still_active
