"""Runs of taken addresses: what is free, without looking at each that is taken. I/O: the connection given.

A run is as long as it can be, so the address after its last is free. `add` and `remove` belong to the transaction that
creates or deletes the allocation.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from homeport.ipam.ranges import Span, free_spans, merge_spans
from homeport.model.addresses import IPAddress
from homeport.stores.rows import packed, unpacked


def add(db: sqlite3.Connection, scope: str, address: IPAddress) -> None:
    """Counts `address` as taken: a run of its own, or the end, the start or the seam of others."""
    before = _run_at(db, scope, address)
    first = address
    if before is not None and int(before.last) + 1 == int(address):
        first = before.first
    last = address
    if after := _run_starting(db, scope, int(address) + 1, address):
        last = after.last
        _delete(db, scope, after.first)
    _put(db, scope, Span(first, last))


def remove(db: sqlite3.Connection, scope: str, address: IPAddress) -> None:
    """Counts `address` as free again; the run it was in loses an end or falls in two."""
    run = _run_at(db, scope, address)
    if run is None or address not in run:
        raise sqlite3.DatabaseError(f"{address} is in no run of taken addresses")
    if run.first == address:
        _delete(db, scope, run.first)
    else:
        _put(db, scope, Span(run.first, address - 1))
    if run.last != address:
        _put(db, scope, Span(address + 1, run.last))


def lowest_free(
    db: sqlite3.Connection, scope: str, span: Span, excluding: Sequence[Span], count: int
) -> tuple[IPAddress, ...]:
    """Up to `count` free addresses, ascending. The cost is that of the answer and of `excluding`."""
    free: list[IPAddress] = []
    for part in free_spans(span, merge_spans(excluding)):
        candidate = part.first
        while len(free) < count:
            run = _run_at(db, scope, candidate)
            if run is not None and candidate in run:
                if int(run.last) >= int(part.last):
                    break
                candidate = run.last + 1
            free.append(candidate)
            if candidate == part.last:
                break
            candidate += 1
        if len(free) == count:
            break
    return tuple(free)


def _run_at(db: sqlite3.Connection, scope: str, address: IPAddress) -> Span | None:
    """The run that starts at or closest below `address`."""
    row = db.execute(
        "SELECT first, last FROM runs WHERE scope = ? AND family = ? AND first <= ? ORDER BY first DESC LIMIT 1",
        (scope, address.version, packed(address)),
    ).fetchone()
    return None if row is None else Span(unpacked(row[0]), unpacked(row[1]))


def _run_starting(db: sqlite3.Connection, scope: str, number: int, like: IPAddress) -> Span | None:
    """The run that starts at exactly that number, in the family of `like`."""
    if number.bit_length() > like.max_prefixlen:
        return None
    first = type(like)(number)
    row = db.execute(
        "SELECT last FROM runs WHERE scope = ? AND family = ? AND first = ?", (scope, like.version, packed(first))
    ).fetchone()
    return None if row is None else Span(first, unpacked(row[0]))


def _put(db: sqlite3.Connection, scope: str, run: Span) -> None:
    db.execute(
        "INSERT OR REPLACE INTO runs (scope, family, first, last) VALUES (?, ?, ?, ?)",
        (scope, run.first.version, packed(run.first), packed(run.last)),
    )


def _delete(db: sqlite3.Connection, scope: str, first: IPAddress) -> None:
    db.execute("DELETE FROM runs WHERE scope = ? AND family = ? AND first = ?", (scope, first.version, packed(first)))
