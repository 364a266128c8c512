"""Allocations in this process's memory: for tests and trials, gone with the process.

Passes the contract suite of every `AllocationStore`; safe with many threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from threading import Lock

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import Owner, Slot, Workload
from homeport.ipam.ranges import Span, free_spans, merge_spans, spans_from
from homeport.model.addresses import IPAddress
from homeport.ports import AlreadyExists, Conflict, LedgerEntry, Place

_UTC_NOW = partial(datetime.now, UTC)


class MemoryStore:
    """An `AllocationStore`."""

    def __init__(self, now: Callable[[], datetime] = _UTC_NOW) -> None:
        self._now = now
        self._lock = Lock()
        self._allocations: dict[tuple[str, IPAddress], Allocation] = {}
        self._ledger: list[LedgerEntry] = []

    def get(self, scope: str, address: IPAddress) -> Allocation | None:
        return self._allocations.get((scope, address))

    def create(self, allocation: Allocation, *, cause: str) -> Allocation:
        with self._lock:
            present = self._allocations.get((allocation.scope, allocation.address))
            if present is not None:
                raise AlreadyExists(present)
            return self._put(None, allocation, cause)

    def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
        with self._lock:
            return self._put(self._current(allocation), allocation, cause)

    def delete(self, allocation: Allocation, *, cause: str) -> None:
        with self._lock:
            before = self._current(allocation)
            del self._allocations[allocation.scope, allocation.address]
            self._note(cause, before, None)

    def of_slot(self, slot: Slot, *, likely: Sequence[Place] = ()) -> tuple[Allocation, ...]:  # noqa: ARG002 -- all at once
        return tuple(a for a in self.all() if a.slot == slot)

    def of_owner(self, owner: Owner) -> tuple[Allocation, ...]:
        return tuple(a for a in self.all() if a.slot.owner == owner)

    def of_workload(self, workload: Workload) -> tuple[Allocation, ...]:
        return tuple(a for a in self.all() if a.slot.workload == workload)

    def of_holder(self, container_id: str, ifname: str) -> tuple[Allocation, ...]:
        return tuple(a for a in self.all() if a.is_held_by(container_id, ifname))

    def of_node(self, node: str) -> tuple[Allocation, ...]:
        return tuple(a for a in self.all() if a.holder is not None and a.holder.node == node)

    def all(self, scope: str | None = None) -> Iterable[Allocation]:
        with self._lock:
            found = [a for a in self._allocations.values() if scope in (None, a.scope)]
        return sorted(found, key=lambda a: (a.scope, a.address.version, int(a.address)))

    def lowest_free(
        self, scope: str, span: Span, excluding: Sequence[Span], *, count: int = 1, near: IPAddress | None = None
    ) -> tuple[IPAddress, ...]:
        free: list[IPAddress] = []
        withheld = merge_spans(excluding)
        for part in chain.from_iterable(free_spans(s, withheld) for s in spans_from(span, near)):
            candidate = part.first
            while len(free) < count and candidate in part:
                if (scope, candidate) not in self._allocations:
                    free.append(candidate)
                if candidate == part.last:
                    break
                candidate += 1
        return tuple(free)

    def ledger(
        self, *, address: IPAddress | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> Iterable[LedgerEntry]:
        with self._lock:
            entries = list(self._ledger)
        return [
            entry
            for entry in entries
            if (address is None or address in (a.address for a in (entry.before, entry.after) if a is not None))
            and (since is None or entry.at >= since)
            and (until is None or entry.at <= until)
        ]

    def _current(self, allocation: Allocation) -> Allocation:
        current = self._allocations.get((allocation.scope, allocation.address))
        if current is None or current.version != allocation.version:
            raise Conflict
        return current

    def _put(self, before: Allocation | None, allocation: Allocation, cause: str) -> Allocation:
        stored = msgspec.structs.replace(allocation, version=len(self._ledger) + 1)
        self._allocations[stored.scope, stored.address] = stored
        self._note(cause, before, stored)
        return stored

    def _note(self, cause: str, before: Allocation | None, after: Allocation | None) -> None:
        self._ledger.append(LedgerEntry(at=self._now(), cause=cause, before=before, after=after))
