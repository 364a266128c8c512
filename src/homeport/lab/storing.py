"""The lab's objects and events in one SQLite file. I/O: that file.

Each write is durable on its own, so that a command killed anywhere leaves a state the next one can go on from.
Commands exclude each other with the lab's lock, so there is one writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from homeport.lab.objects import Event, Network, NodeObject, PodObject, Sandbox, WorkloadObject
from homeport.model.errors import CniError, IOFailure, StoreFull

StateObject = Network | WorkloadObject | PodObject | Sandbox | NodeObject
T = TypeVar("T", Network, WorkloadObject, PodObject, Sandbox, NodeObject)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (kind TEXT, key TEXT, body BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, regarding TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_EVENTS_KEPT = 2000


def key(obj: StateObject) -> str:
    """What makes an object unique among its kind."""
    match obj:
        case WorkloadObject():
            return str(obj.spec.workload)
        case PodObject():
            return str(obj.ref)
        case Sandbox():
            return obj.container_id
        case Network():
            return str(obj)
        case NodeObject():
            return obj.name


class State:
    """Objects by kind and key. Used by one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._errors("open"):
            # Autocommit: a statement is a transaction unless `transaction` spans several.
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside, or none of them. Does not nest."""
        with self._errors("write"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def all(self, kind: type[T]) -> list[T]:
        """Every object of a kind, in the order of its keys."""
        with self._errors("read"):
            rows = self._db.execute("SELECT body FROM objects WHERE kind = ? ORDER BY key", (kind.__name__,)).fetchall()
            return [msgspec.json.decode(body, type=kind) for (body,) in rows]

    def get(self, kind: type[T], name: str) -> T | None:
        with self._errors("read"):
            found = self._db.execute("SELECT body FROM objects WHERE kind = ? AND key = ?", (kind.__name__, name))
            row = found.fetchone()
            return msgspec.json.decode(row[0], type=kind) if row else None

    def put(self, *objects: StateObject) -> None:
        with self._errors("write"):
            self._db.executemany(
                "INSERT INTO objects VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body",
                [(type(o).__name__, key(o), msgspec.json.encode(o)) for o in objects],
            )

    def remove(self, *objects: StateObject) -> None:
        """A missing object is success."""
        with self._errors("write"):
            self._db.executemany(
                "DELETE FROM objects WHERE kind = ? AND key = ?", [(type(o).__name__, key(o)) for o in objects]
            )

    def setting(self, name: str) -> str | None:
        with self._errors("read"):
            row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
            return str(row[0]) if row else None

    def set_setting(self, name: str, value: str) -> None:
        with self._errors("write"):
            self._db.execute(
                "INSERT INTO settings VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value)
            )

    def record(self, event: Event) -> None:
        """Adds an event; one that says what the object's last one said raises that one's count instead."""
        with self._errors("write"):
            row = self._db.execute(
                "SELECT id, body FROM events WHERE regarding = ? ORDER BY id DESC LIMIT 1", (event.regarding,)
            ).fetchone()
            last = msgspec.json.decode(row[1], type=Event) if row else None
            if last and (last.type, last.reason, last.message) == (event.type, event.reason, event.message):
                again = msgspec.structs.replace(event, count=last.count + 1)
                self._db.execute("UPDATE events SET body = ? WHERE id = ?", (msgspec.json.encode(again), row[0]))
                return
            added = self._db.execute(
                "INSERT INTO events (regarding, body) VALUES (?, ?)", (event.regarding, msgspec.json.encode(event))
            )
            self._db.execute("DELETE FROM events WHERE id <= ?", ((added.lastrowid or 0) - _EVENTS_KEPT,))

    def events(self) -> list[Event]:
        """Oldest first, by the time each was last seen."""
        with self._errors("read"):
            rows = self._db.execute("SELECT body FROM events ORDER BY id").fetchall()
            return sorted((msgspec.json.decode(body, type=Event) for (body,) in rows), key=lambda e: e.at)

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except CniError:
            raise
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise StoreFull(f'{doing} lab state "{self._path}": disk full') from e
            raise IOFailure(f'{doing} lab state "{self._path}": {e}') from e
        except (sqlite3.Error, msgspec.MsgspecError) as e:
            raise IOFailure(f'{doing} lab state "{self._path}": {e}') from e
