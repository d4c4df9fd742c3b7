"""Every error that the tuner raises by name."""

__all__ = [
    "DuplicatedStudyError",
    "SpaceError",
    "SpaceExhausted",
    "StorageError",
    "TrialLost",
    "TrialPruned",
]


class SpaceError(ValueError):
    """A search space, one of its parameters or a value for it makes no sense. The message names it."""


class SpaceExhausted(RuntimeError):
    """The sampler has proposed everything there is. `Study.optimize` ends on it, `Study.ask` raises it."""


class StorageError(RuntimeError):
    """The study's file or folder cannot be used. The message names its path and the reason."""


class DuplicatedStudyError(StorageError):
    """The storage holds a study of that name already; `load_if_exists=True` goes on with it."""


class TrialPruned(Exception):
    """An objective raises this to end its trial early; the last reported value becomes the trial's."""


class TrialLost(RuntimeError):
    """The trial no longer belongs to the caller: it was ended, released or handed to another process."""
