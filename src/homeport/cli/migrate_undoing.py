"""What a migration made, found again by its label, and the replicas' records it left. I/O: the objects given."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from homeport.ipam.allocations import Allocation
from homeport.migration.applying import Done
from homeport.migration.facts import Origin
from homeport.migration.marking import LABEL, WHEREABOUTS, Note, note_of
from homeport.ports import AllocationStore, ObjectChanged, Objects
from homeport.stores.kubernetes import wire
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPSLOTS
from homeport.stores.kubernetes.slots import decode_slot
from homeport.stores.whereabouts import WhereaboutsRecords, pools_of

_MADE = {LABEL: WHEREABOUTS}


def made(objects: Objects) -> Sequence[tuple[Allocation, Note]]:
    """The allocations that carry the label and the note. Raises `DecodeFailure` for one that cannot be read."""
    listed = ((wire.decode(stored), note_of(stored)) for stored in objects.list(IPALLOCATIONS, labels=_MADE))
    return [(allocation, note) for allocation, note in listed if note is not None]


def foretold(allocation: Allocation, note: Note) -> Done:
    """What a rollback would say now."""
    if note.still_holds(allocation):
        return Done(allocation=allocation, outcome="to be removed")
    return Done(allocation=allocation, outcome=f"kept: it is {allocation.phase.value} by Homeport", failed=True)


def give_back(records: WhereaboutsRecords, taken_over: Sequence[tuple[Allocation, Origin]]) -> None:
    """Makes addresses what they were in Whereabouts' objects; the pools are read once."""
    if not taken_over:
        return
    pools, slices = records.all_pools(), records.slices()
    for allocation, origin in taken_over:
        place = allocation.scope, allocation.address
        among = pools_of(allocation.scope, pools, slices)
        records.give_back(place, origin.pool, origin.key, origin.entry, origin.reserved, among=among)


def remove_records(objects: Objects, store: AllocationStore) -> None:
    """Removes the records of replicas' slots that the migration made and that name nothing of theirs any more."""
    for stored in objects.list(IPSLOTS, labels=_MADE):
        record = decode_slot(stored)
        present = (store.get(*place) for place in record.places)
        if not any(a is not None and a.slot == record.slot for a in present):
            with suppress(ObjectChanged):
                objects.delete(IPSLOTS, stored.name, version=stored.version)
