"""Allocations in one SQLite file: the embedded default, for one machine and any number of its processes and threads.

A change is answered only when it is on the disk (WAL, synchronous=FULL), together with its ledger entry, or it did not
happen: neither SIGKILL nor a full disk loses or doubles an address. Every foreign exception ends here.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import Owner, Slot, Workload
from homeport.ipam.ranges import Span, spans_from
from homeport.model.addresses import IPAddress
from homeport.model.errors import IOFailure
from homeport.ports import AlreadyExists, Conflict, LedgerEntry, Place
from homeport.stores import runs
from homeport.stores.opening import open_database, read_only, translated
from homeport.stores.rows import columns, decode_record, encode_key, encode_record, packed, unpacked
from homeport.stores.schema import ALLOCATIONS

BUSY_SECONDS = 10.0
_UTC_NOW = partial(datetime.now, UTC)
_SELECT = "SELECT scope, address, record, version FROM allocations"


class SqliteStore:
    """An `AllocationStore` in the file `path`, made with its directories on first use and readable by its owner only.

    Each thread has a connection of its own, and a forked child opens new ones.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        now: Callable[[], datetime] = _UTC_NOW,
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        self._path = Path(path)
        self._now = now
        self._busy_seconds = busy_seconds
        self._local = threading.local()
        self._connections: dict[threading.Thread, sqlite3.Connection] = {}
        # Threads of one process queue here, fairly; SQLite's own waiting is a sleep of growing length.
        self._writing = threading.Lock()

    def close(self) -> None:
        """Closes the connections of all threads, which must not be using them; the next call opens them again."""
        self._local = threading.local()
        while self._connections:
            self._connections.popitem()[1].close()

    # --- reading ---

    def get(self, scope: str, address: IPAddress) -> Allocation | None:
        found = self._select(
            "WHERE scope = ? AND family = ? AND address = ?", (scope, address.version, packed(address))
        )
        return found[0] if found else None

    def of_slot(self, slot: Slot, *, likely: Sequence[Place] = ()) -> tuple[Allocation, ...]:  # noqa: ARG002 -- all at once
        return self._select(
            "WHERE owner = ? AND network = ? AND ifname = ?", (encode_key(slot.owner), slot.network, slot.ifname)
        )

    def of_owner(self, owner: Owner) -> tuple[Allocation, ...]:
        return self._select("WHERE owner = ?", (encode_key(owner),))

    def of_workload(self, workload: Workload) -> tuple[Allocation, ...]:
        return self._select("WHERE workload = ?", (encode_key(workload),))

    def of_holder(self, container_id: str, ifname: str) -> tuple[Allocation, ...]:
        return self._select("WHERE container_id = ? AND holder_ifname = ?", (container_id, ifname))

    def of_node(self, node: str) -> tuple[Allocation, ...]:
        return tuple(a for a in self.all() if a.holder is not None and a.holder.node == node)

    def all(self, scope: str | None = None) -> Iterable[Allocation]:
        return self._select("", ()) if scope is None else self._select("WHERE scope = ?", (scope,))

    def lowest_free(
        self, scope: str, span: Span, excluding: Sequence[Span], *, count: int = 1, near: IPAddress | None = None
    ) -> tuple[IPAddress, ...]:
        free: tuple[IPAddress, ...] = ()
        with self._connection("read") as db:
            for part in spans_from(span, near):
                free += runs.lowest_free(db, scope, part, excluding, count - len(free))
        return free

    def ledger(
        self, *, address: IPAddress | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> Iterable[LedgerEntry]:
        conditions = {
            "address = ?": None if address is None else packed(address),
            "at >= ?": None if since is None else _instant(since),
            "at <= ?": None if until is None else _instant(until),
        }
        given = {text: value for text, value in conditions.items() if value is not None}
        where = f"WHERE {' AND '.join(given)}" if given else ""
        with self._connection("read") as db:
            rows = db.execute(
                "SELECT at, cause, scope, address, before, before_version, after, version"  # noqa: S608 fixed texts only
                f" FROM ledger {where} ORDER BY version",
                tuple(given.values()),
            ).fetchall()
        return tuple(_ledger_entry(*row) for row in rows)

    # --- writing ---

    def create(self, allocation: Allocation, *, cause: str) -> Allocation:
        with self._transaction() as db:
            present = _stored(db, allocation)
            if present is not None:
                raise AlreadyExists(present)
            runs.add(db, allocation.scope, allocation.address)
            return self._put(db, None, allocation, cause)

    def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
        with self._transaction() as db:
            return self._put(db, _require_version(db, allocation), allocation, cause)

    def delete(self, allocation: Allocation, *, cause: str) -> None:
        with self._transaction() as db:
            before = _require_version(db, allocation)
            db.execute(
                "DELETE FROM allocations WHERE scope = ? AND family = ? AND address = ?",
                (allocation.scope, allocation.address.version, packed(allocation.address)),
            )
            runs.remove(db, allocation.scope, allocation.address)
            self._note(db, cause, before, None)

    def _put(self, db: sqlite3.Connection, before: Allocation | None, allocation: Allocation, cause: str) -> Allocation:
        version = self._note(db, cause, before, allocation)
        row = {**columns(allocation), "version": version}
        names = ", ".join(row)
        marks = ", ".join("?" * len(row))
        db.execute(f"INSERT OR REPLACE INTO allocations ({names}) VALUES ({marks})", tuple(row.values()))  # noqa: S608
        return msgspec.structs.replace(allocation, version=version)

    def _note(self, db: sqlite3.Connection, cause: str, before: Allocation | None, after: Allocation | None) -> int:
        """Writes the ledger entry (R15); its number is the version of what it made."""
        subject = after or before
        assert subject is not None
        cursor = db.execute(
            "INSERT INTO ledger (at, cause, scope, address, before, before_version, after)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                _instant(self._now()),
                cause,
                subject.scope,
                packed(subject.address),
                None if before is None else encode_record(before),
                None if before is None else before.version,
                None if after is None else encode_record(after),
            ),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _select(self, where: str, values: tuple[Any, ...]) -> tuple[Allocation, ...]:
        with self._connection("read") as db:
            rows = db.execute(f"{_SELECT} {where} ORDER BY scope, family, address", values).fetchall()
        return tuple(_allocation(row) for row in rows)

    # --- connections ---

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A write, whole or not at all: any exception rolls back."""
        with self._writing, self._connection("write") as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    @contextmanager
    def _connection(self, action: str) -> Iterator[sqlite3.Connection]:
        """This thread's connection; what SQLite raises inside comes out as one of our errors."""
        try:
            yield self._own_connection()
        except sqlite3.Error as e:
            raise translated(e, action, self._path, ALLOCATIONS) from e

    def _own_connection(self) -> sqlite3.Connection:
        # A connection must not cross a fork, nor outlive its file: both would write where nobody reads.
        place = (os.getpid(), _file_identity(self._path))
        if getattr(self._local, "place", None) != place:
            db = open_database(self._path, ALLOCATIONS, busy_seconds=self._busy_seconds)
            self._local.db, self._local.place = db, (os.getpid(), _file_identity(self._path))
            # Of a thread that ended. Another thread may be at the same clearing up.
            for thread in [t for t in tuple(self._connections) if not t.is_alive()]:
                if (left := self._connections.pop(thread, None)) is not None:
                    left.close()
            self._connections[threading.current_thread()] = db
        connection: sqlite3.Connection = self._local.db
        return connection


def read_allocations(path: Path) -> tuple[Allocation, ...]:
    """All in the file as they are now, beside whoever uses it and changing nothing. Raises `CniError`."""
    with read_only(path, ALLOCATIONS, action="read") as db:
        return tuple(_allocation(row) for row in db.execute(_SELECT).fetchall())


def _stored(db: sqlite3.Connection, allocation: Allocation) -> Allocation | None:
    row = db.execute(
        f"{_SELECT} WHERE scope = ? AND family = ? AND address = ?",
        (allocation.scope, allocation.address.version, packed(allocation.address)),
    ).fetchone()
    return None if row is None else _allocation(row)


def _require_version(db: sqlite3.Connection, allocation: Allocation) -> Allocation:
    stored = _stored(db, allocation)
    if stored is None or stored.version != allocation.version:
        raise Conflict
    return stored


def _allocation(row: tuple[str, bytes, str, int]) -> Allocation:
    scope, address, record, version = row
    return decode_record(scope, unpacked(address), record, version)


def _ledger_entry(
    at: str,
    cause: str,
    scope: str,
    raw_address: bytes,
    before: str | None,
    before_version: int,
    after: str | None,
    version: int,
) -> LedgerEntry:
    address = unpacked(raw_address)
    return LedgerEntry(
        at=datetime.fromisoformat(at),
        cause=cause,
        before=None if before is None else decode_record(scope, address, before, before_version),
        after=None if after is None else decode_record(scope, address, after, version),
    )


def _instant(at: datetime) -> str:
    """UTC in a form of fixed width, which sorts as time does."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _file_identity(path: Path) -> tuple[int, int] | None:
    """Which file is at `path` now, None for none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise IOFailure(f"look up allocation store {path}: {e.strerror}") from e
    return found.st_dev, found.st_ino
