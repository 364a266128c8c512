"""What a node holds of a store elsewhere, and what that store has not been told yet. I/O: one small SQLite file.

A row an address. All rows are in memory, too: they are as many as the node's pods have interfaces, and the file has one
user, the node's daemon. A change is in the file before it is answered, so that a killed daemon's successor goes on from
it; a power cut may take the last ones back, and takes the containers they were about (docs/node.md).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from pathlib import Path

import msgspec

from homeport.ipam.allocations import Allocation, Phase, released
from homeport.ipam.identities import Holder
from homeport.model.addresses import IPAddress
from homeport.model.errors import IOFailure
from homeport.ports import Place
from homeport.stores.opening import open_database, read_only, translated
from homeport.stores.rows import decode_record, encode_record, packed, unpacked
from homeport.stores.schema import Schema

_BUSY_SECONDS = 5.0
_FIRST = """
CREATE TABLE claims (
  scope TEXT NOT NULL,
  address BLOB NOT NULL,
  version INTEGER NOT NULL,
  record TEXT NOT NULL,
  note TEXT NOT NULL,
  PRIMARY KEY (scope, address)
) WITHOUT ROWID;
CREATE TABLE links (
  network TEXT PRIMARY KEY,
  link TEXT NOT NULL
) WITHOUT ROWID;
"""
CLAIMS = Schema(
    name="claims of this node",
    application_id=0x48504E44,  # "HPND"
    migrations=(_FIRST,),
    synchronous="NORMAL",
)


class State(Enum):
    """How far a claim is. The first two hold the address, the last two have let it go."""

    CLAIMING = "Claiming"  # the store was asked, and has not answered; or its answer was lost
    BOUND = "Bound"
    RETAINING = "Retaining"  # to be told: the owner keeps it, without a holder
    DELETING = "Deleting"  # to be told: nobody keeps it


class HeldClaim(msgspec.Struct, frozen=True, kw_only=True):
    """One address that an interface of this node has, or had until its release is delivered.

    `allocation` always has that interface as its holder; its version is the last one known of the store elsewhere, 0
    when none is. `cause` and `at` are of what is to be told. `undelivered`: a bound one that is still to be told.
    `attempted`: one that was let go, and may have been told already.
    """

    allocation: Allocation
    state: State
    cause: str
    at: datetime
    undelivered: bool = False
    attempted: bool = False

    @property
    def place(self) -> Place:
        return self.allocation.scope, self.allocation.address

    @property
    def is_held(self) -> bool:
        """Whether the interface has the address, or is about to."""
        return self.state in (State.CLAIMING, State.BOUND)

    @property
    def is_pending(self) -> bool:
        """Whether there is something to deliver."""
        return self.undelivered or not self.is_held

    @property
    def kept(self) -> Allocation | None:
        """What the store elsewhere is told of one that was let go; None when it is to be deleted."""
        return None if self.state is State.DELETING else released(self.allocation, at=self.at)

    @property
    def shown(self) -> Allocation:
        """The allocation as its own slot may see it: one that was let go can be taken again until that is told."""
        if self.is_held:
            return self.allocation
        return msgspec.structs.replace(self.allocation, phase=Phase.RETAINED, holder=None, since=self.at)

    def is_of(self, present: Allocation) -> bool:
        """Whether `present` is this allocation with this very holder, whatever its version."""
        holder = self.allocation.holder
        return (
            holder is not None
            and present.phase is Phase.BOUND
            and present.is_held_by(holder.container_id, holder.ifname)
        )


class _Note(msgspec.Struct, omit_defaults=True):
    """A claim without its allocation."""

    state: State
    cause: str
    at: datetime
    undelivered: bool = False
    attempted: bool = False


def is_same_pod(one: Holder | None, other: Holder | None) -> bool:
    """Whether both are sandboxes of one pod, of which at most one runs."""
    return one is not None and other is not None and bool(one.pod_uid) and one.pod_uid == other.pod_uid


_notes = msgspec.json.Decoder(_Note)


class Claims:
    """The claims in the file `path`, made with its directories when it is missing. Safe with many threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._translated("open"):
            self._db = open_database(path, CLAIMS, busy_seconds=_BUSY_SECONDS)
        try:
            self._claims = {claim.place: claim for claim in self._read()}
            with self._translated("read"):
                self._links = dict(self._db.execute("SELECT network, link FROM links"))
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def find(self, scope: str, address: IPAddress) -> HeldClaim | None:
        return self._claims.get((scope, address))

    def all(self) -> tuple[HeldClaim, ...]:
        """By scope and address."""
        return self.having(lambda _claim: True)

    def having(self, wanted: Callable[[HeldClaim], bool]) -> tuple[HeldClaim, ...]:
        """Those that are wanted, by scope and address."""
        with self._lock:
            found = [claim for claim in self._claims.values() if wanted(claim)]
        return tuple(sorted(found, key=lambda c: (c.allocation.scope, c.allocation.address.version, int(c.place[1]))))

    def swap(self, before: HeldClaim | None, after: HeldClaim | None) -> bool:
        """Puts `after` in the place of `before`, the very object; None is no claim. False when another is there."""
        some = after or before
        if some is None:
            return True
        with self._lock:
            if self._claims.get(some.place) is not before:
                return False
            self._write(some.place, after)
            if after is None:
                del self._claims[some.place]
            else:
                self._claims[some.place] = after
        return True

    def link(self, network: str) -> str | None:
        """The link of this node that the network was last attached on."""
        return self._links.get(network)

    def note_link(self, network: str, link: str) -> None:
        """Writes only what is new."""
        with self._lock:
            if self._links.get(network) == link:
                return
            with self._translated("write"):
                self._db.execute("INSERT OR REPLACE INTO links (network, link) VALUES (?, ?)", (network, link))
            self._links[network] = link

    def _write(self, place: Place, claim: HeldClaim | None) -> None:
        scope, address = place
        with self._translated("write"):
            if claim is None:
                self._db.execute("DELETE FROM claims WHERE scope = ? AND address = ?", (scope, packed(address)))
                return
            note = _Note(claim.state, claim.cause, claim.at, claim.undelivered, claim.attempted)
            self._db.execute(
                "INSERT OR REPLACE INTO claims (scope, address, version, record, note) VALUES (?, ?, ?, ?, ?)",
                (
                    scope,
                    packed(address),
                    claim.allocation.version,
                    encode_record(claim.allocation),
                    msgspec.json.encode(note).decode(),
                ),
            )

    def _read(self) -> Iterator[HeldClaim]:
        """Raises `IOFailure` for a row that cannot be read: it is not an absent one."""
        with self._translated("read"):
            rows = _rows(self._db)
        return _decoded(rows, self._path)

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            raise translated(e, action, self._path, CLAIMS) from e


def read_claims(path: Path) -> tuple[HeldClaim, ...]:
    """Those in the file as they are now, beside the daemon that uses it and changing nothing.

    Raises `CniError` for a file that is not there, or not ours, or has a row that cannot be read.
    """
    with read_only(path, CLAIMS, action="read") as db:
        return tuple(_decoded(_rows(db), path))


_Row = tuple[str, bytes, int, str, str]


def _rows(db: sqlite3.Connection) -> list[_Row]:
    return db.execute("SELECT scope, address, version, record, note FROM claims").fetchall()


def _decoded(rows: Iterable[_Row], path: Path) -> Iterator[HeldClaim]:
    for scope, address, version, record, text in rows:
        allocation = decode_record(scope, unpacked(address), record, version)
        try:
            note = _notes.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise IOFailure(f"read {CLAIMS.name} {path}: the note of {allocation.address} is unreadable") from e
        yield HeldClaim(
            allocation=allocation,
            state=note.state,
            cause=note.cause,
            at=note.at,
            undelivered=note.undelivered,
            attempted=note.attempted,
        )
