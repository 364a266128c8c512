"""IPSlots that are of no use any more are removed; what is missing of one is put right. I/O: `ports.Objects`.

A node writes a replica's IPSlot before it claims what that names, so one without allocations may be about to get some.
It goes when it has stayed the same for ten minutes of our own watching, by a removal of exactly that version; and
whoever relies on one writes it first (docs/protocol.md, P6). It never lacks a place of its slot (P7).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
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
_AT_ONCE = 50


class _Unused(msgspec.Struct, frozen=True):
    """An IPSlot without allocations, its version ("" is not known yet) and since when it has had both."""

    version: str
    since: float


class SlotKeeper:
    """To be stepped once all allocations are known. `noted` is for their watch's thread, `step` for the worker's."""

    def __init__(
        self, objects: Objects, cache: AllocationCache, clock: Clock, reporter: Reporter, wake: Callable[[], None]
    ) -> None:
        self._objects, self._cache, self._clock, self._reporter = objects, cache, clock, reporter
        self._wake = wake
        self._lock = threading.Lock()
        self._unused: dict[str, _Unused] = {}
        self._lacking: dict[Slot, None] = {}
        self._watch: Watching | None = None
        self._seen: set[str] | None = set()  # the names in the first list, until they are compared
        self._listed = False
        self._vanished: set[str] = set()  # names whose slots are not known

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

    def due_in(self) -> float | None:
        """Seconds until there is something to look at; None when there is nothing."""
        with self._lock:
            if self._watch is None or self._lacking or self._vanished or (self._listed and self._seen is not None):
                return 0.0
            oldest = min((u.since for u in self._unused.values()), default=None)
        return None if oldest is None else max(0.0, oldest + UNUSED_SECONDS - self._clock.monotonic())

    def step(self) -> None:
        """Looks at what is due. Raises what the API server raises."""
        if self._watch is None:
            self._watch = self._objects.watch(
                IPSLOTS, on_change=self._stored, on_gone=self._gone, on_listed=self._told_all
            )
        self._find_missing()
        now = self._clock.monotonic()
        with self._lock:
            lacking = list(self._lacking)[:_AT_ONCE]
            due = [name for name, unused in self._unused.items() if now - unused.since >= UNUSED_SECONDS][:_AT_ONCE]
        for slot in lacking:
            self._complete(slot)
            with self._lock:
                self._lacking.pop(slot, None)
        for name in due:
            self._remove(name, now)

    def is_listed(self) -> bool:
        """Whether every IPSlot has been looked at once."""
        return self._seen is None

    def stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    # --- what the watch tells ---

    def _stored(self, stored: ApiObject) -> None:
        with self._lock:
            if self._seen is not None:
                self._seen.add(stored.name)
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
                    self._lacking[record.slot] = None
            elif self._unused.get(stored.name, _Unused("", 0.0)).version != stored.version:
                self._unused[stored.name] = _Unused(stored.version, self._clock.monotonic())
            to_do = bool(self._lacking)
        if to_do:
            self._wake()

    def _gone(self, stored: ApiObject) -> None:
        """By our own hand, or somebody's who may not have known what it is for."""
        try:
            slot = decode_slot(stored).slot if stored.body else None
        except DecodeFailure:
            slot = None
        with self._lock:
            self._unused.pop(stored.name, None)
            if slot is None:
                self._vanished.add(stored.name)
            elif self._cache.of_slot(slot):
                self._lacking[slot] = None
        self._wake()

    def _told_all(self, _version: str) -> None:
        self._listed = True
        self._wake()

    # --- what is put right ---

    def _find_missing(self) -> None:
        """Every slot of a replica that has allocations has a record."""
        with self._lock:
            vanished, self._vanished = self._vanished, set()
            seen = None
            if self._listed:
                seen, self._seen = self._seen, None
        if seen is None and not vanished:
            return
        for slot in {a.slot for _, a in self._cache.items() if isinstance(a.slot.owner, Replica)}:
            name = names.slot_name(slot)
            if name in vanished or (seen is not None and name not in seen):
                with self._lock:
                    self._lacking[slot] = None

    def _complete(self, slot: Slot) -> None:
        """Adds what the record lacks, of what the caches say now; a place too many does no harm."""
        stored = self._objects.get(IPSLOTS, names.slot_name(slot))
        record = decode_slot(stored) if stored is not None else SlotRecord(slot=slot, places=())
        whole = record
        for allocation in self._cache.of_slot(slot):
            if (allocation.scope, allocation.address) not in whole.places:
                whole = with_place(whole, (allocation.scope, allocation.address))
        if whole == record:
            return
        with suppress(ObjectChanged, ObjectExists):  # its node is at work on it, and names what it claims itself
            if stored is None:
                self._objects.create(IPSLOTS, slot_body(whole))
            else:
                self._objects.patch(IPSLOTS, stored.name, slot_body(whole), version=stored.version)

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
