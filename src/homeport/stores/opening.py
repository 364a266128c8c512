"""A SQLite file of ours: made whole or not at all, private, of a schema we know. I/O: files and SQLite."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from homeport.model.errors import CniError, IOFailure, StoreFull, TryAgainLater
from homeport.stores.schema import Schema

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_ROOMLESS = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
_READ_BUSY_SECONDS = 2.0
_LEAST_BYTES = 64 * 1024  # with less room than this, an I/O error is a full disk


def open_database(path: Path, schema: Schema, *, busy_seconds: float) -> sqlite3.Connection:
    """A connection to the file at `path`, created first when there is none. May be used from another thread.

    Raises `CniError` or `sqlite3.Error`; the caller translates the latter.
    """
    if not path.exists():
        _create(path, schema, busy_seconds)
    elif not path.is_file():  # a device's locks, for one, are shared with strangers
        raise IOFailure(f"open {schema.name} {path}: found no regular file, expected one")
    db = _connect(path, busy_seconds)
    try:
        _prepare(db, path, schema)
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def read_only(path: Path, schema: Schema, *, action: str) -> Iterator[sqlite3.Connection]:
    """A connection to a file of this schema that is there, to look at it beside whoever uses it.

    Raises `CniError`, also for what SQLite raises in the block.
    """
    if not path.is_file():
        raise IOFailure(f"{action} {schema.name} {path}: found no regular file, expected one")
    try:
        db = sqlite3.connect(_uri(path, "ro"), uri=True, timeout=_READ_BUSY_SECONDS)
        try:
            if _number(db, "application_id") != schema.application_id:
                raise IOFailure(f"{action} {schema.name} {path}: found another program's database, expected Homeport's")
            yield db
        finally:
            db.close()
    except sqlite3.Error as e:
        raise translated(e, action, path, schema) from e


def check_whole(path: Path, schema: Schema) -> None:
    """Raises `CniError` unless SQLite finds every page and index of the file as they should be."""
    with read_only(path, schema, action="check") as db:
        found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise IOFailure(f"check {schema.name} {path}: found damage: {'; '.join(found)}")


def translated(error: sqlite3.Error, action: str, path: Path, schema: Schema) -> CniError:
    """What SQLite reports, as one of our errors."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
    message = f"{action} {schema.name} {path}: {error}"
    if code in _BUSY:
        return TryAgainLater(message, name)
    if code == sqlite3.SQLITE_FULL or (code in _ROOMLESS and _is_full(path)):
        return StoreFull(message, name)
    return IOFailure(message, name)


def _create(path: Path, schema: Schema, busy_seconds: float) -> None:
    """Puts a complete file at `path`, unless another process was first: nobody ever sees half of one."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        os.close(descriptor)
        try:
            db = _connect(Path(draft), busy_seconds)
            try:
                _prepare(db, path, schema)
            finally:
                db.close()  # moves everything from the log into the file
            with suppress(FileExistsError):
                os.link(draft, path)
            _sync_directory(path.parent)
        finally:
            for leftover in (draft, f"{draft}-wal", f"{draft}-shm"):
                Path(leftover).unlink(missing_ok=True)
    except OSError as e:
        kind = StoreFull if e.errno in (errno.ENOSPC, errno.EDQUOT) else IOFailure
        raise kind(f"create {schema.name} {path}: {e.strerror or e}") from e


def _connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    uri = _uri(path, "rw")  # rw: never creates
    return sqlite3.connect(uri, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False)


def _uri(path: Path, mode: str) -> str:
    return f"file:{quote(str(path.absolute()))}?mode={mode}"


def _prepare(db: sqlite3.Connection, path: Path, schema: Schema) -> None:
    """Brings the file to our schema; one of a later Homeport, or of somebody else, is refused untouched."""
    db.execute(f"PRAGMA synchronous = {schema.synchronous}")
    latest = len(schema.migrations)
    version, application = _number(db, "user_version"), _number(db, "application_id")
    if version == latest and application == schema.application_id:
        return
    is_empty = not _number(db, "schema_version")
    if application != schema.application_id and not is_empty:
        raise IOFailure(f"open {schema.name} {path}: found another program's database, expected Homeport's")
    if version > latest:
        raise IOFailure(
            f"open {schema.name} {path}: found schema {version} of a later Homeport, expected {latest} at most"
        )
    db.execute("PRAGMA journal_mode = WAL")
    _migrate(db, schema)


def _migrate(db: sqlite3.Connection, schema: Schema) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        # Read again: another process may have migrated while this one waited.
        for step in schema.migrations[_number(db, "user_version") :]:
            for statement in step.split(";"):
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {schema.application_id}")
        db.execute(f"PRAGMA user_version = {len(schema.migrations)}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _number(db: sqlite3.Connection, pragma: str) -> int:
    return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_full(path: Path) -> bool:
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _LEAST_BYTES
