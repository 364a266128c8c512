"""IPSlots that are of no use any more are removed; what one lacks is added. I/O: `ports.Objects`.

A node writes a replica's IPSlot before it claims what that names, so one without allocations may be about to get some.
It goes when it has stayed the same for ten minutes of our own watching, by a removal of exactly that version; and
whoever relies on one writes it first (docs/protocol.md, P6). It never lacks a place of its slot (P7).
"""

from __future__ import annotations

import threading
from contextlib import suppress

import msgspec

from homeport.controller.caching import AllocationCache
from homeport.controller.reporting import Reporter
from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import Replica, Slot
from homeport.model.errors import DecodeFailure
from homeport.ports import ApiObject, Clock, ObjectChanged, ObjectExists, Objects, Watching
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPSLOTS
from homeport.stores.kubernetes.slots import SlotRecord, decode_slot, slot_body, with_place
from homeport.stores.kubernetes.wire import decode

UNUSED_SECONDS = 600.0
SCAN_SECONDS = 6 * 3600.0
_AT_ONCE = 50


class _Unused(msgspec.Struct, frozen=True):
    """An IPSlot without allocations, its version ("" is not known yet) and since when it has had both."""

    version: str
    since: float


class SlotKeeper:
    """`noted` is for the watch's thread, the rest for the controller's."""

    def __init__(self, objects: Objects, cache: AllocationCache, clock: Clock, reporter: Reporter) -> None:
        self._objects, self._cache, self._clock, self._reporter = objects, cache, clock, reporter
        self._lock = threading.Lock()
        self._unused: dict[str, _Unused] = {}
        self._lacking: dict[str, Slot] = {}
        self._scanned_names: set[str] = set()
        self._scan: Watching | None = None
        self._scan_ended = threading.Event()
        self._scanned_at: float | None = None

    def noted(self, before: Allocation | None, after: Allocation | None) -> None:
        """A change of one allocation."""
        was, is_ = _replica_slot(before), _replica_slot(after)
        if was == is_:
            return
        with self._lock:
            if is_ is not None:
                self._unused.pop(names.slot_name(is_), None)
            if was is not None and not self._cache.of_slot(was):
                self._unused.setdefault(names.slot_name(was), _Unused("", self._clock.monotonic()))

    def due_in(self) -> float:
        """Seconds until there is something to look at."""
        now = self._clock.monotonic()
        with self._lock:
            if self._lacking:
                return 0.0
            oldest = min((u.since for u in self._unused.values()), default=None)
        until_scan = 0.0 if self._scanned_at is None else self._scanned_at + SCAN_SECONDS - now
        return max(0.0, until_scan if oldest is None else min(until_scan, oldest + UNUSED_SECONDS - now))

    def step(self) -> None:
        """Scans when it is time, and looks at what is due. Raises what the API server raises."""
        now = self._clock.monotonic()
        if self._scan is not None and self._scan_ended.is_set():
            self.stop()
        if self._scanned_at is None or now - self._scanned_at >= SCAN_SECONDS:
            self._scanned_at = now
            self.stop()
            self._scan_ended.clear()
            self._scanned_names = set()
            # A watch tells page by page what a list would hold all at once; it ends with its first list.
            self._scan = self._objects.watch(
                IPSLOTS, on_change=self._scanned, on_gone=lambda _: None, on_listed=lambda _: self._end_scan()
            )
        with self._lock:
            lacking = list(self._lacking.items())[:_AT_ONCE]
            due = [name for name, unused in self._unused.items() if now - unused.since >= UNUSED_SECONDS][:_AT_ONCE]
        for name, slot in lacking:
            self._complete(name, slot)
            with self._lock:
                self._lacking.pop(name, None)
        for name in due:
            self._remove(name, now)

    def stop(self) -> None:
        """Ends a scan that is under way."""
        scan, self._scan = self._scan, None
        if scan is not None:
            scan.stop()

    def _end_scan(self) -> None:
        """Of the slots that have allocations, those without any record lack one: somebody has deleted it."""
        replicas = filter(None, (_replica_slot(allocation) for _, allocation in self._cache.items()))
        missing = {names.slot_name(slot): slot for slot in replicas}
        with self._lock:
            self._lacking |= {name: slot for name, slot in missing.items() if name not in self._scanned_names}
        self._scan_ended.set()

    def _scanned(self, stored: ApiObject) -> None:
        self._scanned_names.add(stored.name)
        try:
            record = decode_slot(stored)
        except DecodeFailure as e:
            self._reporter.tell_unreadable(IPSLOTS, "", stored.name, stored.uid, str(e))
            return
        held = self._cache.of_slot(record.slot)
        with self._lock:
            if held:
                self._unused.pop(stored.name, None)
                if any((a.scope, a.address) not in record.places for a in held):
                    self._lacking[stored.name] = record.slot
            elif self._unused.get(stored.name, _Unused("", 0.0)).version != stored.version:
                self._unused[stored.name] = _Unused(stored.version, self._clock.monotonic())

    def _complete(self, name: str, slot: Slot) -> None:
        """Adds what the record lacks, of what the caches say now; a place too many does no harm."""
        stored = self._objects.get(IPSLOTS, name)
        record = SlotRecord(slot=slot, places=()) if stored is None else decode_slot(stored)
        whole = record
        for allocation in self._cache.of_slot(slot):
            if (allocation.scope, allocation.address) not in whole.places:
                whole = with_place(whole, (allocation.scope, allocation.address))
        if whole == record:
            return
        with suppress(ObjectChanged, ObjectExists):  # its node is at work on it; the next scan looks again
            if stored is None:
                self._objects.create(IPSLOTS, slot_body(whole))
            else:
                self._objects.patch(IPSLOTS, name, slot_body(whole), version=record.version)

    def _remove(self, name: str, now: float) -> None:
        """Removes it if it is of the version that was seen ten minutes ago, and every place it names is not its own."""
        with self._lock:
            unused = self._unused.get(name)
        stored = self._objects.get(IPSLOTS, name)
        if unused is None or stored is None:
            with self._lock:
                self._unused.pop(name, None)
            return
        if stored.version != unused.version:
            with self._lock:
                self._unused[name] = _Unused(stored.version, now)
            return
        try:
            record = decode_slot(stored)
            owned = bool(self._cache.of_slot(record.slot)) or any(
                self._is_of(record.slot, names.allocation_name(*place)) for place in record.places
            )
        except DecodeFailure:
            owned = True  # what cannot be read is not absent
        if owned:
            with self._lock:
                self._unused[name] = _Unused(stored.version, now)
            return
        with suppress(ObjectChanged):  # somebody has just begun to rely on it
            self._objects.delete(IPSLOTS, name, version=stored.version)
        with self._lock:
            self._unused.pop(name, None)

    def _is_of(self, slot: Slot, name: str) -> bool:
        """By the API server's own word."""
        stored = self._objects.get(IPALLOCATIONS, name)
        return stored is not None and decode(stored).slot == slot


def _replica_slot(allocation: Allocation | None) -> Slot | None:
    slot = allocation.slot if allocation is not None else None
    return slot if slot is not None and isinstance(slot.owner, Replica) else None
