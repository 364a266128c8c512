"""What the ledger says of an address at a time: its allocation then, or how far nobody can tell. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.ports import LedgerEntry


class Then(msgspec.Struct, frozen=True, kw_only=True):
    """One scope's answer for an address at a time.

    `allocation` None: it was nobody's. `certain` False: nothing is known of that time, `why` says so. `entry` is the
    last change before, None where there is none.
    """

    allocation: Allocation | None
    certain: bool = True
    why: str = ""
    entry: LedgerEntry | None = None


def scope_of(entry: LedgerEntry) -> str:
    """The scope an entry is about."""
    subject = entry.after or entry.before
    assert subject is not None
    return subject.scope


def at_time(entries: Sequence[LedgerEntry], present: Allocation | None, at: datetime, reaches: datetime | None) -> Then:
    """`entries` are all of one address and scope, oldest first; `present` is what stands there now.

    `reaches` is the time of the oldest entry of the whole ledger, None of an empty one. Between the ledger's start and
    the first entry of an address nothing has changed, so that the entry's `before` held all that time.
    """
    earlier = [entry for entry in entries if entry.at <= at]
    if earlier and len(earlier) < len(entries):
        return Then(allocation=earlier[-1].after, entry=earlier[-1])
    if earlier:
        return _since_last(earlier[-1], present, at)
    first = entries[0].before if entries else present
    if reaches is not None and reaches <= at:
        return Then(allocation=first)
    if first is not None and first.since <= at:
        # Its phase began before that time and lasted until the first change that is known.
        return Then(allocation=first)
    begins = f"begins at {reaches:%Y-%m-%dT%H:%M:%SZ}" if reaches is not None else "is empty"
    return Then(allocation=None, certain=False, why=f"the ledger {begins}, and does not reach back to then")


def _since_last(last: LedgerEntry, present: Allocation | None, at: datetime) -> Then:
    """Behind the last entry. What stands there now may be newer than it: a ledger is written a little later."""
    then, now = last.after, present
    if (then.version if then is not None else 0) == (now.version if now is not None else 0):
        return Then(allocation=then, entry=last)
    if now is not None and now.since <= at:
        return Then(allocation=now)
    why = "it has changed since the ledger's last entry, and when is not in there yet"
    return Then(allocation=None, certain=False, why=why, entry=last)
