"""Where studies are kept: in memory, or in a SQLite file that several processes share."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import StorageError
from .base import Claim, Storage, StudyRecord
from .memory import MemoryStorage
from .sqlite import SqliteStorage

__all__ = ["STORAGES", "Claim", "MemoryStorage", "SqliteStorage", "Storage", "StudyRecord", "open_storage"]

STORAGES: dict[str, type[Storage]] = {storage.__name__: storage for storage in (MemoryStorage, SqliteStorage)}
"""Every storage by name."""


def open_storage(storage: str | os.PathLike[str] | Storage | None) -> Storage:
    """A storage from what a user gives: a Storage, a URL, a file name, or None or ":memory:" for memory.

    "sqlite:///study.db" is a file in the current folder, "sqlite:////data/study.db" one with an absolute path.
    StorageError for any other URL.
    """
    if isinstance(storage, Storage):
        return storage
    if storage is None or storage in (":memory:", "sqlite://", "sqlite:///:memory:"):
        return MemoryStorage()
    if isinstance(storage, str) and storage.startswith("sqlite:///"):
        return SqliteStorage(storage.removeprefix("sqlite:///"))
    if isinstance(storage, str) and "://" in storage:
        raise StorageError(f"storage={storage!r} is not known; wanted is 'sqlite:///FILE', a file name or ':memory:'")
    if isinstance(storage, (str, os.PathLike)):
        return SqliteStorage(Path(storage))
    raise TypeError(f"storage must be a URL, a path, a Storage or None, got {type(storage).__name__}")
