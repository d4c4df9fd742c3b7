"""Errors that kernels raise. `nanonet.errors` re-exports them."""


class ShapeError(ValueError):
    """An array's shape does not fit the operation. The message names the argument and both shapes."""


class DtypeError(TypeError):
    """An array's dtype is not one that the operation takes."""


class BackendUnavailable(RuntimeError):
    """The backend cannot be used on this machine; the message gives the reason."""


class DeviceError(ValueError):
    """Arrays of one operation lie on different devices, or a device is not known. The message names both."""


class OutOfMemory(MemoryError):
    """A device has not enough free memory; the message says how much is wanted and how much is free."""
