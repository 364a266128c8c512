"""IPSlots: where a replica's slot has its addresses, written before they are claimed (R2). No I/O.

A record may name places that are not, or no longer, the slot's: only the allocations say whose they are. It never lacks
one that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import msgspec

from homeport.ipam.identities import Slot
from homeport.model.errors import DecodeFailure
from homeport.ports import ApiObject, Place
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.resources import IPSLOTS
from homeport.stores.kubernetes.wire import WireOwner, owner_of, wire_owner, without_empty


class _Place(msgspec.Struct):
    address: str
    scope: str = ""


class _Spec(msgspec.Struct):
    owner: WireOwner
    network: str
    interface: str
    addresses: list[_Place]
    writes: int = 0


class _Object(msgspec.Struct):
    spec: _Spec


class SlotRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Of one version of an IPSlot. `writes` counts: each write makes a new version, even if it names nothing new."""

    slot: Slot
    places: tuple[Place, ...] = ()
    writes: int = 0
    version: str = ""


_objects = msgspec.json.Decoder(_Object)


def decode_slot(stored: ApiObject) -> SlotRecord:
    """Raises `DecodeFailure` naming the object, also when it is not the slot's that its name says."""
    what = f"{IPSLOTS.plural} {stored.name}"
    try:
        spec = _objects.decode(stored.body).spec
        slot = Slot(owner_of(spec.owner), spec.network, spec.interface)
        places = tuple((place.scope, ip_address(place.address)) for place in spec.addresses)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as e:
        raise DecodeFailure(f"decode {what}: {e}") from e
    if slot.workload is None or names.slot_name(slot) != stored.name:
        raise DecodeFailure(f"decode {what}: found {slot}, expected the slot of its name")
    return SlotRecord(slot=slot, places=places, writes=spec.writes, version=stored.version)


def slot_body(record: SlotRecord) -> dict[str, Any]:
    """The object of a new record, and the merge patch of one that is there."""
    slot = record.slot
    spec = _Spec(
        owner=wire_owner(slot.owner),
        network=slot.network,
        interface=slot.ifname,
        addresses=[_Place(str(address), scope) for scope, address in record.places],
        writes=record.writes,
    )
    labels = {names.SLOT: names.slot_label(slot)}
    if slot.workload is not None:
        labels[names.WORKLOAD] = names.workload_label(slot.workload)
    body: dict[str, Any] = without_empty(msgspec.to_builtins(spec))
    return {"metadata": {"name": names.slot_name(slot), "labels": labels}, "spec": body}


def with_place(record: SlotRecord, place: Place) -> SlotRecord:
    """The next write of the record: also this place."""
    places = record.places if place in record.places else (*record.places, place)
    return msgspec.structs.replace(record, places=places, writes=record.writes + 1)


def without_places(record: SlotRecord, gone: Sequence[Place]) -> SlotRecord:
    """The record less places that are proven not to be the slot's."""
    return msgspec.structs.replace(record, places=tuple(p for p in record.places if p not in gone))
