"""Studies in one SQLite file, shared by any number of processes on one machine.

Every change is one transaction that takes the write lock at its beginning (BEGIN IMMEDIATE), so trial numbers are
distinct and a trial is handed out once. The end of a trial is flushed to disk before it is acknowledged; smaller steps
survive the death of a process, and a loss of power costs at most steps of trials that were still running. Values are
JSON text. A trial's `revision` grows with each change, so a reader fetches only what is new to it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import DuplicatedStudyError, StorageError, TrialLost
from ..space import Domain, domain_from_json, from_jsonable, to_jsonable
from ..trial import FrozenTrial, TrialState
from .base import MAX_CRASHES, Claim, Storage, StudyRecord, same_settings
from .checkpoints import FileCheckpoints
from .owner import BEAT, is_dead, process_of, this_process

__all__ = ["SqliteStorage"]

APPLICATION = 0x6E6E7475  # "nntu"; SQLite keeps it in the file's header
VERSION = 1
LOCK_TIMEOUT = 60.0  # seconds to wait for another process's transaction

SCHEMA = """
CREATE TABLE studies (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, directions TEXT NOT NULL, seed TEXT NOT NULL, space TEXT,
    attrs TEXT NOT NULL DEFAULT '{}');
CREATE TABLE trials (
    study INTEGER NOT NULL REFERENCES studies, number INTEGER NOT NULL, state INTEGER NOT NULL,
    "values" TEXT, params TEXT NOT NULL DEFAULT '{}', distributions TEXT NOT NULL DEFAULT '{}',
    user_attrs TEXT NOT NULL DEFAULT '{}', fixed TEXT NOT NULL DEFAULT '{}', enqueued INTEGER NOT NULL DEFAULT 0,
    started REAL, completed REAL, error TEXT, steps INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0, crashes INTEGER NOT NULL DEFAULT 0, owner TEXT, revision INTEGER NOT NULL,
    PRIMARY KEY (study, number)) WITHOUT ROWID;
CREATE INDEX trials_by_revision ON trials (study, revision);
CREATE INDEX trials_by_state ON trials (study, state);
CREATE TABLE reports (
    study INTEGER NOT NULL, number INTEGER NOT NULL, step INTEGER NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (study, number, step)) WITHOUT ROWID;
CREATE TABLE domains (id INTEGER PRIMARY KEY, domain TEXT NOT NULL UNIQUE);
CREATE TABLE owners (owner TEXT PRIMARY KEY, beat REAL NOT NULL) WITHOUT ROWID;
"""

COLUMNS = (
    'number, state, "values", params, distributions, user_attrs, fixed, enqueued, started, completed, error, steps, '
    "attempt"
)
UNFINISHED = [int(state) for state in TrialState if not state.is_finished()]
NEXT_REVISION = "(SELECT coalesce(max(revision), 0) + 1 FROM trials WHERE study = :study)"


class SqliteStorage(Storage):
    """path: the file, made if it is missing; its folder must be there. StorageError names the path and the reason.

    In another process it opens the file when it first needs it, so a worker on a machine without that file can still
    run what asks nothing of the storage: the segments of a study with a fixed space.
    """

    def __init__(self, path: str | os.PathLike[str], *, _open: bool = True):
        self.path = Path(path).absolute()
        self._lock = threading.RLock()
        self._open: tuple[int, sqlite3.Connection] | None = None
        self._relaxed = "NORMAL"
        self._cache: dict[int, tuple[int, list[FrozenTrial]]] = {}
        self._domains: dict[int, Domain] = {}
        self._domain_ids: dict[str, int] = {}
        self._checkpoints: dict[int, FileCheckpoints] = {}
        if _open:
            self._connection()
        _STORAGES.add(self)

    def __reduce__(self) -> Any:
        return _arrived, (str(self.path), _identity(self.path))

    # ----------------------------------------------------------------------------------------- studies

    def create_study(self, name: str, directions: Sequence[str], seed: int, space: str | None) -> StudyRecord:
        with self._write(durable=True) as db:
            if db.execute("SELECT 1 FROM studies WHERE name = ?", (name,)).fetchone():
                raise DuplicatedStudyError(
                    f"{self.path} holds a study named {name!r} already; load_if_exists=True goes on with it"
                )
            db.execute(
                "INSERT INTO studies (name, directions, seed, space) VALUES (?, ?, ?, ?)",
                (name, json.dumps(list(directions)), str(seed), space),
            )
        record = self.study(name)
        assert record is not None
        return record

    def study(self, name: str) -> StudyRecord | None:
        with self._read() as db:
            row = db.execute("SELECT id, name, directions, seed, space FROM studies WHERE name = ?", (name,)).fetchone()
        return row and StudyRecord(row[0], row[1], tuple(json.loads(row[2])), int(row[3]), row[4])

    def study_names(self) -> list[str]:
        with self._read() as db:
            return [name for (name,) in db.execute("SELECT name FROM studies ORDER BY id")]

    def study_attrs(self, study_id: int) -> dict[str, Any]:
        with self._read() as db:
            (text,) = db.execute("SELECT attrs FROM studies WHERE id = ?", (study_id,)).fetchone()
        return _load(text)

    def set_study_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._write(durable=True) as db:
            (text,) = db.execute("SELECT attrs FROM studies WHERE id = ?", (study_id,)).fetchone()
            db.execute("UPDATE studies SET attrs = ? WHERE id = ?", (_dump(_load(text) | {key: value}), study_id))

    def set_space(self, study_id: int, space: str | None) -> None:
        with self._write(durable=True) as db:
            db.execute("UPDATE studies SET space = ? WHERE id = ?", (space, study_id))

    # ------------------------------------------------------------------------------- handing out trials

    def create_trial(
        self,
        study_id: int,
        owner: str | None = None,
        at_most: int | None = None,
        proposals_at_most: int | None = None,
    ) -> Claim | None:
        with self._write() as db:
            if at_most is not None and self._started(db, study_id) >= at_most:
                return None
            if proposals_at_most is not None:
                count = "SELECT count(*) FROM trials WHERE study = ? AND NOT enqueued"
                if db.execute(count, (study_id,)).fetchone()[0] >= proposals_at_most:
                    return None
            number = self._insert(db, study_id, state=TrialState.RUNNING, started=time.time(), attempt=1, owner=owner)
        return Claim(number, 1)

    def enqueue_trial(self, study_id: int, fixed: Mapping[str, Any], user_attrs: Mapping[str, Any]) -> int:
        row = {"fixed": _dump(dict(fixed)), "user_attrs": _dump(dict(user_attrs))}
        with self._write(durable=True) as db:
            return self._insert(db, study_id, state=TrialState.WAITING, enqueued=1, **row)

    def claim(
        self, study_id: int, number: int | None = None, owner: str | None = None, at_most: int | None = None
    ) -> Claim | None:
        first = "SELECT min(number) FROM trials WHERE study = ? AND state = ?"
        if number is None:  # to look first spares others the wait for a lock
            with self._read() as db:
                if db.execute(first, (study_id, TrialState.WAITING)).fetchone()[0] is None:
                    return None
        with self._write() as db:
            if number is None:
                (number,) = db.execute(first, (study_id, TrialState.WAITING)).fetchone()
            row = db.execute(
                "SELECT state, attempt FROM trials WHERE study = ? AND number = ?", (study_id, number)
            ).fetchone()
            if row is None or row[0] not in (TrialState.WAITING, TrialState.PAUSED):
                return None
            if row[0] == TrialState.WAITING and at_most is not None and self._started(db, study_id) >= at_most:
                return None
            db.execute(
                "UPDATE trials SET state = :state, attempt = attempt + 1, owner = :owner, "
                f"started = coalesce(started, :now), revision = {NEXT_REVISION} "
                "WHERE study = :study AND number = :number",
                {
                    "state": TrialState.RUNNING,
                    "owner": owner,
                    "now": time.time(),
                    "study": study_id,
                    "number": number,
                },
            )
        return Claim(number, row[1] + 1)

    def release_all(self, study_id: int, owner: str) -> None:
        mine = "SELECT number FROM trials INDEXED BY trials_by_state WHERE study = ? AND state = ? AND owner = ?"
        with self._write() as db:
            for (number,) in db.execute(mine, (study_id, TrialState.RUNNING, owner)).fetchall():
                self._release(db, study_id, number)

    def adopt_abandoned(self, study_id: int) -> list[int]:
        running = (
            "SELECT number, owner FROM trials INDEXED BY trials_by_state "
            "WHERE study = ? AND state = ? AND owner IS NOT NULL"
        )
        with self._read() as db:
            owners = {owner for _, owner in db.execute(running, (study_id, TrialState.RUNNING))}
            beats = dict(db.execute("SELECT owner, beat FROM owners"))
        dead = {owner for owner in owners if is_dead(owner, beats.get(process_of(owner)))}
        if not dead:
            return []
        with self._write(durable=True) as db:
            adopted = [n for n, owner in db.execute(running, (study_id, TrialState.RUNNING)) if owner in dead]
            for number in adopted:
                self._release(db, study_id, number)
                db.execute("UPDATE trials SET crashes = crashes + 1 WHERE study = ? AND number = ?", (study_id, number))
            db.execute(
                f"UPDATE trials SET state = :fail, completed = :now, error = :error, revision = {NEXT_REVISION} "
                "WHERE study = :study AND state IN (:waiting, :paused) AND crashes >= :crashes",
                {
                    "fail": TrialState.FAIL,
                    "now": time.time(),
                    "error": f"the process that ran this trial died {MAX_CRASHES} times",
                    "study": study_id,
                    "waiting": TrialState.WAITING,
                    "paused": TrialState.PAUSED,
                    "crashes": MAX_CRASHES,
                },
            )
        return adopted

    @contextmanager
    def alive(self) -> Iterator[None]:
        stop = threading.Event()

        def beat() -> None:
            while True:
                with suppress(StorageError), self._write() as db:
                    db.execute("INSERT OR REPLACE INTO owners VALUES (?, ?)", (this_process(), time.time()))
                if stop.wait(BEAT):
                    return

        thread = threading.Thread(target=beat, name="tuner-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    # ----------------------------------------------------------------------------- changing a running trial

    def set_params(
        self,
        study_id: int,
        number: int,
        attempt: int,
        params: Mapping[str, Any],
        distributions: Mapping[str, Domain],
        distinct: bool = False,
    ) -> bool:
        texts = {name: json.dumps(domain.to_json()) for name, domain in distributions.items()}
        with self._write() as db:
            trial = self._running(db, study_id, number, attempt)
            merged = _load(trial["params"]) | dict(params)
            if distinct and merged and self._is_taken(db, study_id, number, merged):
                return False
            ids = {name: self._domain_id(db, text) for name, text in texts.items()}
            self._update(
                db,
                study_id,
                number,
                params=_dump(merged),
                distributions=_dump(_load(trial["distributions"]) | ids),
            )
        return True

    def set_user_attr(self, study_id: int, number: int, attempt: int, key: str, value: Any) -> None:
        with self._write() as db:
            trial = self._running(db, study_id, number, attempt)
            self._update(db, study_id, number, user_attrs=_dump(_load(trial["user_attrs"]) | {key: value}))

    def report(self, study_id: int, number: int, attempt: int, step: int, value: float | list[float]) -> None:
        with self._write() as db:
            self._running(db, study_id, number, attempt)
            db.execute("INSERT OR REPLACE INTO reports VALUES (?, ?, ?, ?)", (study_id, number, step, _dump(value)))
            self._update(db, study_id, number)

    def add_segment(self, study_id: int, number: int, attempt: int, values: Sequence[Any]) -> None:
        with self._write() as db:
            done = self._running(db, study_id, number, attempt)["steps"]
            steps = self._append(db, study_id, number, done, values)
            self._update(db, study_id, number, state=int(TrialState.PAUSED), steps=steps, owner=None)

    def release(self, study_id: int, number: int, attempt: int) -> None:
        with self._write() as db:
            self._running(db, study_id, number, attempt)
            self._release(db, study_id, number)

    def finish(
        self,
        study_id: int,
        number: int,
        attempt: int,
        state: TrialState,
        values: Sequence[float] | None,
        error: str | None = None,
        segment: Sequence[Any] = (),
    ) -> None:
        with self._write(durable=True) as db:
            done = self._running(db, study_id, number, attempt, TrialState.PAUSED)["steps"]
            self._update(
                db,
                study_id,
                number,
                steps=self._append(db, study_id, number, done, segment),
                state=int(state),
                values=None if values is None else _dump([float(v) for v in values]),
                error=error,
                completed=time.time(),
                owner=None,
            )

    # ------------------------------------------------------------------------------------------ reading

    def trials(self, study_id: int) -> list[FrozenTrial]:
        with self._lock:
            return list(self._refresh(study_id))

    def trial(self, study_id: int, number: int) -> FrozenTrial:
        with self._lock:
            trials = self._refresh(study_id)
            if not 0 <= number < len(trials):
                raise KeyError(f"the study has no trial {number}")
            return trials[number]

    def checkpoints(self, study_id: int) -> FileCheckpoints:
        folder = self.path.with_name(f"{self.path.stem}.checkpoints")
        if study_id not in self._checkpoints:
            with self._read() as db:
                (seed,) = db.execute("SELECT seed FROM studies WHERE id = ?", (study_id,)).fetchone()
            self._checkpoints[study_id] = FileCheckpoints(folder, f"{study_id}_{int(seed) % 16**8:08x}", self.path)
        return self._checkpoints[study_id]

    def _refresh(self, study_id: int) -> list[FrozenTrial]:
        seen, trials = self._cache.get(study_id, (0, []))
        with self._read() as db:
            rows = db.execute(
                f"SELECT {COLUMNS}, revision FROM trials INDEXED BY trials_by_revision "
                "WHERE study = ? AND revision > ? ORDER BY number",
                (study_id, seen),
            ).fetchall()
            if not rows:
                return trials
            curves: dict[int, dict[int, Any]] = {row[0]: {} for row in rows}
            for number, step, value in db.execute(
                "SELECT number, step, value FROM reports WHERE study = :study AND number IN "
                "(SELECT number FROM trials WHERE study = :study AND revision > :seen)",
                {"study": study_id, "seen": seen},
            ):
                curves[number][step] = json.loads(value)
            for row in rows:
                trial = self._frozen(db, row, curves[row[0]])
                if trial.number < len(trials):
                    trials[trial.number] = trial
                else:
                    trials.append(trial)
        self._cache[study_id] = max(seen, *(row[-1] for row in rows)), trials
        return trials

    def _frozen(self, db: sqlite3.Connection, row: Sequence[Any], curve: dict[int, Any]) -> FrozenTrial:
        number, state, values, params, ids, user_attrs, fixed, enqueued, started, completed, error, *counts = row
        steps, attempt, _ = counts
        return FrozenTrial(
            number,
            TrialState(state),
            None if values is None else json.loads(values),
            _load(params),
            {name: self._domain(db, key) for name, key in _load(ids).items()},
            _load(user_attrs),
            curve,
            None if started is None else datetime.fromtimestamp(started),
            None if completed is None else datetime.fromtimestamp(completed),
            error,
            steps,
            _load(fixed),
            bool(enqueued),
            attempt,
        )

    # ---------------------------------------------------------------------------------------- statements

    def _insert(self, db: sqlite3.Connection, study_id: int, **columns: Any) -> int:
        number = self._next_number(db, study_id)
        columns["state"] = int(columns["state"])
        db.execute(
            f"INSERT INTO trials (study, number, revision, {', '.join(columns)}) "
            f"VALUES (:study, :number, {NEXT_REVISION}, {', '.join(':' + name for name in columns)})",
            {"study": study_id, "number": number, **columns},
        )
        return number

    def _next_number(self, db: sqlite3.Connection, study_id: int) -> int:
        """How many trials the study has."""
        highest = "SELECT coalesce(max(number), -1) + 1 FROM trials WHERE study = ?"
        return db.execute(highest, (study_id,)).fetchone()[0]

    def _update(self, db: sqlite3.Connection, study_id: int, number: int, **columns: Any) -> None:
        changes = "".join(f', "{name}" = :{name}' for name in columns)
        db.execute(
            f"UPDATE trials SET revision = {NEXT_REVISION}{changes} WHERE study = :study AND number = :number",
            {"study": study_id, "number": number, **columns},
        )

    def _append(self, db: sqlite3.Connection, study_id: int, number: int, done: int, values: Sequence[Any]) -> int:
        """Add values to the curve after `done` steps; how many steps it has then."""
        rows = [(study_id, number, done + i, _dump(value)) for i, value in enumerate(values, 1)]
        db.executemany("INSERT OR REPLACE INTO reports VALUES (?, ?, ?, ?)", rows)
        return done + len(rows)

    def _release(self, db: sqlite3.Connection, study_id: int, number: int) -> None:
        where = {"study": study_id, "number": number}
        (steps,) = db.execute("SELECT steps FROM trials WHERE study = :study AND number = :number", where).fetchone()
        if not steps:
            db.execute("DELETE FROM reports WHERE study = :study AND number = :number", where)
        state = TrialState.PAUSED if steps else TrialState.WAITING
        self._update(db, study_id, number, state=int(state), owner=None)

    def _running(
        self, db: sqlite3.Connection, study_id: int, number: int, attempt: int, *also: TrialState
    ) -> dict[str, Any]:
        columns = ("state", "attempt", "steps", "params", "distributions", "user_attrs")
        row = db.execute(
            f"SELECT {', '.join(columns)} FROM trials WHERE study = ? AND number = ?", (study_id, number)
        ).fetchone()
        if row is None:
            raise KeyError(f"the study has no trial {number}")
        if row[0] not in (TrialState.RUNNING, *also) or row[1] != attempt:
            raise TrialLost(f"trial {number} is {TrialState(row[0]).name} in attempt {row[1]}, not yours ({attempt})")
        return dict(zip(columns, row, strict=True))

    def _is_taken(self, db: sqlite3.Connection, study_id: int, number: int, params: Mapping[str, Any]) -> bool:
        """Whether an unfinished trial other than `number` has these settings."""
        rows = db.execute(
            "SELECT params FROM trials INDEXED BY trials_by_state "
            f"WHERE study = ? AND state IN ({', '.join('?' * len(UNFINISHED))}) "
            "AND number != ? AND length(params) = ?",  # equal settings are equally long in any order
            (study_id, *UNFINISHED, number, len(_dump(params))),
        )
        return any(same_settings(_load(text), params) for (text,) in rows)

    def _started(self, db: sqlite3.Connection, study_id: int) -> int:
        waiting = "SELECT count(*) FROM trials WHERE study = ? AND state = ?"
        (count,) = db.execute(waiting, (study_id, TrialState.WAITING)).fetchone()
        return self._next_number(db, study_id) - count

    def _domain_id(self, db: sqlite3.Connection, text: str) -> int:
        if text not in self._domain_ids:
            db.execute("INSERT OR IGNORE INTO domains (domain) VALUES (?)", (text,))
            (key,) = db.execute("SELECT id FROM domains WHERE domain = ?", (text,)).fetchone()
            return key  # remembered once it is committed and read back
        return self._domain_ids[text]

    def _domain(self, db: sqlite3.Connection, key: int) -> Domain:
        if key not in self._domains:
            (text,) = db.execute("SELECT domain FROM domains WHERE id = ?", (key,)).fetchone()
            self._domains[key] = domain_from_json(json.loads(text))
            self._domain_ids[text] = key
        return self._domains[key]

    # ---------------------------------------------------------------------------------------- connection

    @contextmanager
    def _write(self, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction, with the write lock from its beginning; flushed to disk at its end if durable."""
        with self._lock, self._named():
            db = self._connection()
            if db.in_transaction:  # an interrupt came in the worst of moments
                db.execute("ROLLBACK")
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else self._relaxed}")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the file."""
        with self._lock, self._named():
            db = self._connection()
            if db.in_transaction:
                db.execute("ROLLBACK")
            db.execute("BEGIN")
            try:
                yield db
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn SQLite's errors into ones that name the file."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                raise StorageError(f"{self.path} is not a study: it is no SQLite file") from error
            if "malformed" in str(error) or "corrupt" in str(error):
                raise StorageError(f"{self.path} is damaged: {error}") from error
            raise StorageError(f"{self.path} cannot be used: {error}") from error

    def _connection(self) -> sqlite3.Connection:
        """This process's connection. A forked child opens its own and leaves its parent's alone."""
        pid = os.getpid()
        if self._open is None or self._open[0] != pid:
            if self._open is not None:
                _INHERITED.append(self._open[1])
            with self._named():
                connection = _connect(self.path)
                try:
                    self._relaxed = _prepare(connection, self.path)
                except BaseException:
                    connection.close()
                    raise
            self._open = pid, connection
            weakref.finalize(self, _close, pid, connection)
        return self._open[1]

    def close(self) -> None:
        with self._lock:
            if self._open is not None:
                _close(*self._open)
                self._open = None


_ARRIVED: dict[tuple[str, tuple[int, int] | None], SqliteStorage] = {}
_ARRIVED_LOCK = threading.Lock()


def _arrived(path: str, identity: tuple[int, int] | None) -> SqliteStorage:
    """The storage that came from another process: one for each file, however many tasks bring it along."""
    with _ARRIVED_LOCK:
        for key in [key for key in _ARRIVED if key[0] == path and key[1] != identity]:
            _ARRIVED.pop(key)
        return _ARRIVED.setdefault((path, identity), SqliteStorage(path, _open=False))


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one that later has its name."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


_INHERITED: list[sqlite3.Connection] = []
_STORAGES: weakref.WeakSet[SqliteStorage] = weakref.WeakSet()


def _after_fork() -> None:
    """A lock that some thread of the parent held would never be released in the child."""
    for storage in _STORAGES:
        storage._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _connect(path: Path) -> sqlite3.Connection:
    if not path.parent.is_dir():
        raise StorageError(f"{path} cannot be made: there is no folder {path.parent}")
    if path.is_dir():
        raise StorageError(f"{path} is a folder; give the name of a file in it")
    return sqlite3.connect(path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)


def _prepare(db: sqlite3.Connection, path: Path) -> str:
    """Check that the file is ours and whole, making the tables if it is new. The PRAGMA for relaxed writes."""
    new = _check(db, path)
    mode = _patiently(lambda: db.execute("PRAGMA journal_mode = WAL").fetchone()[0])
    if new:
        db.execute("BEGIN IMMEDIATE")
        try:
            if _check(db, path):  # nobody was faster
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION}")
                db.execute(f"PRAGMA user_version = {VERSION}")
        finally:
            db.execute("COMMIT")
    return "NORMAL" if mode == "wal" else "FULL"


def _check(db: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is new and empty. StorageError if it is foreign, newer than this program, or damaged."""
    application, version, tables = _patiently(lambda: _header(db))
    if tables == 0 and application in (0, APPLICATION):
        return True
    if application != APPLICATION:
        raise StorageError(f"{path} is a SQLite file of another program, not a study of this tuner")
    if version > VERSION:
        raise StorageError(f"{path} was written by a newer version (format {version}, this one reads {VERSION})")
    complaint = _patiently(lambda: db.execute("PRAGMA quick_check(1)").fetchone()[0])
    if complaint != "ok":
        raise StorageError(f"{path} is damaged: {complaint}")
    return False


def _header(db: sqlite3.Connection) -> list[int]:
    """(application, version, number of tables), as of one moment."""
    alone = not db.in_transaction
    if alone:
        db.execute("BEGIN")
    try:
        queries = ("SELECT count(*) FROM sqlite_master", "PRAGMA user_version", "PRAGMA application_id")
        return [db.execute(query).fetchone()[0] for query in queries][::-1]
    finally:
        if alone and db.in_transaction:
            db.execute("ROLLBACK")


def _patiently(action: Any) -> Any:
    """Repeat while another process holds a lock that SQLite does not wait for by itself."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _close(pid: int, connection: sqlite3.Connection) -> None:
    if os.getpid() == pid:
        connection.close()


def _dump(value: Any) -> str:
    return json.dumps(to_jsonable(value))


def _load(text: str) -> Any:
    return from_jsonable(json.loads(text))
