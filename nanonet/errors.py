"""Every error that nanonet raises by name."""

from kernels.errors import BackendUnavailable, DeviceError, DtypeError, OutOfMemory, ShapeError

__all__ = [
    "BackendUnavailable",
    "CheckpointError",
    "DataError",
    "DeviceError",
    "DtypeError",
    "OptionError",
    "OutOfMemory",
    "RecordingError",
    "ShapeError",
]


class OptionError(ValueError):
    """An option is unknown or out of range. The message names it, the value given and what is wanted."""


class DataError(ValueError):
    """Data or a data file cannot be used. The message names the file or argument and what is wanted."""


class CheckpointError(ValueError):
    """A checkpoint is damaged, incomplete or of another kind. Nothing of it has been loaded."""


class RecordingError(RuntimeError):
    """An operation cannot be part of a recorded step. The message names the operation and the line."""
