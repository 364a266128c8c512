"""Allocations as objects of the API server. I/O: the `Objects` given.

Creating an IPAllocation is the claim, for its name is its scope and address (R1); every other write names the version
it has seen. A replica's slot has a record of its own, written first, so that its addresses are found by name (R2). No
method lists to find one slot of a replica, and none waits for a lock or for another node. docs/ipallocation.md.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import Owner, Replica, Slot, Workload
from homeport.ipam.ranges import Span
from homeport.model.addresses import IPAddress
from homeport.model.errors import TryAgainLater
from homeport.ports import AlreadyExists, ApiObject, Conflict, LedgerEntry, ObjectChanged, ObjectExists, Objects, Place
from homeport.stores.kubernetes import names, wire
from homeport.stores.kubernetes.hints import Hints
from homeport.stores.kubernetes.ledger import PLAIN_DELETION, decode_chunk, decode_entries
from homeport.stores.kubernetes.recording import SlotRecords
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPLEDGERS
from homeport.stores.kubernetes.searching import Searcher

CLAIM_SECONDS = 10.0
_UTC_NOW = partial(datetime.now, UTC)


class KubernetesStore:
    """An `AllocationStore`, safe with many threads. A program that claims often calls `start`, and `close` in the end.

    A write that raised `TryAgainLater` may have been done: nothing here takes it for either.
    """

    def __init__(
        self,
        objects: Objects,
        *,
        now: Callable[[], datetime] = _UTC_NOW,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._objects, self._now, self._monotonic = objects, now, monotonic
        self._search = Searcher(
            objects,
            Hints(objects),
            monotonic=monotonic,
            rng=rng or random.Random(),  # noqa: S311 -- spreads claims, keeps no secret
        )
        self._records = SlotRecords(objects, owns=self._owns, monotonic=monotonic)

    def start(self) -> None:
        """Begins to watch the hints; without it the first search of each range lists."""
        self._search.hints.start()

    def close(self) -> None:
        """Ends the watch."""
        self._search.hints.stop()

    # --- reading ---

    def get(self, scope: str, address: IPAddress) -> Allocation | None:
        record = self._read(scope, address)
        return record.allocation if record is not None else None

    def of_slot(self, slot: Slot, *, likely: Sequence[Place] = ()) -> tuple[Allocation, ...]:
        if not isinstance(slot.owner, Replica):
            return self._listed({names.SLOT: names.slot_label(slot)}, lambda a: a.slot == slot)
        found = {place: self.get(*place) for place in dict.fromkeys(likely)}
        if not found or any(a is None or a.slot != slot for a in found.values()):
            for place in self._records.places_of(slot):
                if place not in found:
                    found[place] = self.get(*place)
        return _sorted(a for a in found.values() if a is not None and a.slot == slot)

    def of_owner(self, owner: Owner) -> tuple[Allocation, ...]:
        return self._listed({names.OWNER: names.owner_label(owner)}, lambda a: a.slot.owner == owner)

    def of_workload(self, workload: Workload) -> tuple[Allocation, ...]:
        return self._listed({names.WORKLOAD: names.workload_label(workload)}, lambda a: a.slot.workload == workload)

    def of_holder(self, container_id: str, ifname: str) -> tuple[Allocation, ...]:
        label = names.holder_label(container_id, ifname)
        return self._listed({names.HOLDER: label}, lambda a: a.is_held_by(container_id, ifname))

    def of_node(self, node: str) -> tuple[Allocation, ...]:
        label = names.node_label(node)
        return self._listed({names.NODE: label}, lambda a: a.holder is not None and a.holder.node == node)

    def all(self, scope: str | None = None) -> Iterable[Allocation]:
        if scope is None:
            return self._listed({}, lambda _: True)
        return self._listed({names.SCOPE: names.scope_label(scope)}, lambda a: a.scope == scope)

    def lowest_free(
        self, scope: str, span: Span, excluding: Sequence[Span], *, count: int = 1, near: IPAddress | None = None
    ) -> tuple[IPAddress, ...]:
        return self._search.lowest_free(scope, span, excluding, count=count, near=near)

    def ledger(
        self, *, address: IPAddress | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> Iterable[LedgerEntry]:
        found: list[LedgerEntry] = []
        for stored in self._objects.list(IPLEDGERS):
            chunk = decode_chunk(stored)
            if (since is not None and chunk.end < since) or (until is not None and chunk.begin > until):
                continue
            found += (e for e in decode_entries(stored) if _is_asked(e, address, since, until))
        return tuple(found)

    # --- writing ---

    def create(self, allocation: Allocation, *, cause: str) -> Allocation:
        scope, address = allocation.scope, allocation.address
        if isinstance(allocation.slot.owner, Replica):
            self._records.name(allocation.slot, (scope, address))
        write = _new_write()
        body = wire.create_body(allocation, cause=cause, changed=self._now(), write=write)
        deadline = self._monotonic() + CLAIM_SECONDS
        while True:
            try:
                created = self._seen(self._objects.create(IPALLOCATIONS, body)).allocation
            except ObjectExists:
                present = self._read(scope, address)
            else:
                self._search.claimed(scope, address)
                return created
            if present is not None and present.write == write:  # our own, whose answer was lost
                self._search.claimed(scope, address)
                return present.allocation
            if present is not None:
                self._search.taken(scope, address)
                raise AlreadyExists(present.allocation)
            if self._monotonic() > deadline:
                raise TryAgainLater(f"claim {address}: comes and goes for {CLAIM_SECONDS:g} s")

    def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
        if allocation.version == 0:
            raise Conflict
        self._name_other_slot(allocation)
        write = _new_write()
        body = wire.patch_body(allocation, cause=cause, changed=self._now(), write=write)
        return self._patch(allocation, body, write).allocation

    def delete(self, allocation: Allocation, *, cause: str) -> None:
        if allocation.version == 0:
            raise Conflict
        version = str(allocation.version)
        if cause != PLAIN_DELETION:  # what a watch is told last is the object, so it must say why
            write = _new_write()
            noted = self._patch(allocation, wire.last_write(cause, self._now(), write), write)
            version = str(noted.allocation.version)
        try:
            self._objects.delete(IPALLOCATIONS, _name(allocation), version=version)
        except ObjectChanged as e:
            raise Conflict from e
        self._search.freed(allocation.scope, allocation.address)

    # --- inside ---

    def _name_other_slot(self, allocation: Allocation) -> None:
        """Where the address was another slot's, as when a map gives it to another replica, its record says so first."""
        place = allocation.scope, allocation.address
        if not isinstance(allocation.slot.owner, Replica):
            return
        former = self._records.slot_seen(place, allocation.version)
        if former is None:
            present = self.get(*place)
            if present is None or present.version != allocation.version:
                raise Conflict
            former = present.slot
        if former != allocation.slot:
            self._records.name(allocation.slot, place)

    def _patch(self, allocation: Allocation, body: Mapping[str, object], write: str) -> wire.Record:
        """Overwrites the version that `allocation` carries, or finds that it has done so already."""
        version = str(allocation.version)
        try:
            return self._seen(self._objects.patch(IPALLOCATIONS, _name(allocation), body, version=version))
        except ObjectChanged as e:
            present = self._read(allocation.scope, allocation.address)
            if present is None or present.write != write:
                raise Conflict from e
            return present

    def _read(self, scope: str, address: IPAddress) -> wire.Record | None:
        stored = self._objects.get(IPALLOCATIONS, names.allocation_name(scope, address))
        return None if stored is None else self._seen(stored)

    def _seen(self, stored: ApiObject) -> wire.Record:
        record = wire.decode_record(stored)
        self._records.saw(record.allocation)
        return record

    def _owns(self, slot: Slot, place: Place) -> bool:
        present = self.get(*place)
        return present is not None and present.slot == slot

    def _listed(self, labels: Mapping[str, str], wanted: Callable[[Allocation], bool]) -> tuple[Allocation, ...]:
        """Labels narrow the list; what an allocation says itself decides."""
        stored = self._objects.list(IPALLOCATIONS, labels=labels)
        return _sorted(a for a in map(wire.decode, stored) if wanted(a))


def _name(allocation: Allocation) -> str:
    return names.allocation_name(allocation.scope, allocation.address)


def _new_write() -> str:
    return secrets.token_hex(8)


def _sorted(allocations: Iterable[Allocation]) -> tuple[Allocation, ...]:
    return tuple(sorted(allocations, key=lambda a: (a.scope, a.address.version, int(a.address))))


def _is_asked(entry: LedgerEntry, address: IPAddress | None, since: datetime | None, until: datetime | None) -> bool:
    subject = entry.after or entry.before
    return (
        (address is None or (subject is not None and subject.address == address))
        and (since is None or entry.at >= since)
        and (until is None or entry.at <= until)
    )
