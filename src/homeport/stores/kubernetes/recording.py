"""Keeping IPSlots: a place is named in its slot's record before it is claimed (R2). I/O: the `Objects` given."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import Slot
from homeport.model.errors import TryAgainLater
from homeport.ports import ApiObject, ObjectChanged, ObjectExists, Objects, Place
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.resources import IPSLOTS
from homeport.stores.kubernetes.slots import SlotRecord, decode_slot, slot_body, with_place, without_places

_NAME_SECONDS = 10.0
_REMEMBERED_MAX = 1024
_SEEN_MAX = 4096
_PLACES_MAX = 32  # beyond it, places that are proven not to be the slot's are struck


class SlotRecords:
    """Safe with many threads. What it remembers of records spares questions, and is corrected by the API server."""

    def __init__(
        self, objects: Objects, *, owns: Callable[[Slot, Place], bool], monotonic: Callable[[], float]
    ) -> None:
        self._objects, self._owns, self._monotonic = objects, owns, monotonic
        self._lock = threading.Lock()
        self._remembered: OrderedDict[str, SlotRecord] = OrderedDict()
        self._seen: OrderedDict[Place, tuple[int, Slot]] = OrderedDict()

    def places_of(self, slot: Slot) -> tuple[Place, ...]:
        """Everywhere the slot may have an address."""
        record = self._read(slot)
        return record.places if record is not None else ()

    def saw(self, allocation: Allocation) -> None:
        """An allocation as it is stored: so its slot's record names it."""
        place = allocation.scope, allocation.address
        with self._lock:
            self._seen.pop(place, None)
            self._seen[place] = allocation.version, allocation.slot
            if len(self._seen) > _SEEN_MAX:
                self._seen.popitem(last=False)

    def slot_seen(self, place: Place, version: int) -> Slot | None:
        """Whose the place was at that version; None where this process has not seen it, or forgot."""
        with self._lock:
            seen = self._seen.get(place)
        return seen[1] if seen is not None and seen[0] == version else None

    def name(self, slot: Slot, place: Place) -> None:
        """Makes sure that the record names the place, and that it is of a new version.

        The latter keeps a record, which is removed when it has been of no use for long, from being removed just now.
        """
        with self._lock:
            record = self._remembered.get(names.slot_name(slot))
        deadline = self._monotonic() + _NAME_SECONDS
        while self._monotonic() <= deadline:
            try:
                stored = self._write(slot, record, place)
            except (ObjectExists, ObjectChanged):
                record = self._read(slot)
            else:
                self._remember(slot, decode_slot(stored))
                return
        raise TryAgainLater(f"note {place[1]} for {slot}: the record changes all the time")

    def _write(self, slot: Slot, record: SlotRecord | None, place: Place) -> ApiObject:
        if record is None:
            return self._objects.create(IPSLOTS, slot_body(with_place(SlotRecord(slot=slot), place)))
        if len(record.places) >= _PLACES_MAX:
            # The newest stay: another attempt at the slot may have named one of them, and be about to claim it.
            old = record.places[: _PLACES_MAX // 2]
            record = without_places(record, [p for p in old if not self._owns(slot, p)])
        body = slot_body(with_place(record, place))
        return self._objects.patch(IPSLOTS, names.slot_name(slot), body, version=record.version)

    def _read(self, slot: Slot) -> SlotRecord | None:
        stored = self._objects.get(IPSLOTS, names.slot_name(slot))
        record = None if stored is None else decode_slot(stored)
        self._remember(slot, record)
        return record

    def _remember(self, slot: Slot, record: SlotRecord | None) -> None:
        name = names.slot_name(slot)
        with self._lock:
            self._remembered.pop(name, None)
            if record is not None:
                self._remembered[name] = record
            if len(self._remembered) > _REMEMBERED_MAX:
                self._remembered.popitem(last=False)
