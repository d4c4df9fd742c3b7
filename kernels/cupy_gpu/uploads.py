"""Tables of integers that the host makes and kernels read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from kernels import plan
from kernels.cupy_gpu.device import Device

__all__ = ["Uploads"]


class Uploads(threading.local):
    """Copies of int64 arrays on the device: one for each content, the last used of them are kept.

    Each thread has its own, for nothing orders what threads do on a device if each has its own stream.
    """

    def __init__(self, device: Device, most: int = 256):
        self.device, self.most = device, most
        self._copies: OrderedDict[bytes, Any] = OrderedDict()

    def copy_of(self, table: np.ndarray) -> Any:
        """The table on the device, as a vector. While a plan is recorded, the plan keeps it alive."""
        key = table.tobytes()
        if key not in self._copies:
            with plan.paused():
                self._copies[key] = self.device.memory.from_host(np.frombuffer(key, np.int64))
            if len(self._copies) > self.most:
                self._copies.popitem(last=False)
        self._copies.move_to_end(key)
        return self._copies[key]
