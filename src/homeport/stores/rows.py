"""Allocations as rows of the SQLite store and back. No I/O.

Whatever cannot be decoded raises `IOFailure`: an unreadable row is not an absent one.
"""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import msgspec

from homeport.ipam.allocations import Allocation, Phase, Retention
from homeport.ipam.identities import Holder, Owner, Slot, Workload
from homeport.model.addresses import IPAddress, MacAddress
from homeport.model.errors import IOFailure


class _Record(msgspec.Struct, omit_defaults=True):
    """An allocation without its key and version."""

    owner: Owner
    network: str
    ifname: str
    phase: Phase
    since: datetime
    holder: Holder | None = None
    mac: MacAddress | None = None
    retention: Retention = Retention()
    workload_uid: str = ""


_records = msgspec.json.Decoder(_Record)


def packed(address: IPAddress) -> bytes:
    """The address in network order: its length tells the family, its bytes sort as addresses do."""
    return address.packed


def unpacked(raw: bytes) -> IPAddress:
    """The inverse of `packed`."""
    try:
        return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)
    except ValueError as e:
        raise IOFailure(f"read allocation store: found address {raw!r}, expected 4 or 16 bytes") from e


def encode_key(value: Owner | Workload) -> str:
    """An owner or workload as the text it is found by; the same for equal values."""
    return msgspec.json.encode(value).decode()


def encode_record(allocation: Allocation) -> str:
    """All of an allocation but scope, address and version."""
    slot = allocation.slot
    record = _Record(
        owner=slot.owner,
        network=slot.network,
        ifname=slot.ifname,
        phase=allocation.phase,
        since=allocation.since,
        holder=allocation.holder,
        mac=allocation.mac,
        retention=allocation.retention,
        workload_uid=allocation.workload_uid,
    )
    return msgspec.json.encode(record).decode()


def decode_record(scope: str, address: IPAddress, record: str, version: int) -> Allocation:
    """The inverse of `encode_record`."""
    try:
        found = _records.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise IOFailure(f"read allocation of {address} in scope {scope!r}: the record cannot be decoded", str(e)) from e
    return Allocation(
        scope=scope,
        address=address,
        slot=Slot(found.owner, found.network, found.ifname),
        phase=found.phase,
        holder=found.holder,
        mac=found.mac,
        since=found.since,
        retention=found.retention,
        workload_uid=found.workload_uid,
        version=version,
    )


def columns(allocation: Allocation) -> dict[str, Any]:
    """The row of `allocations`, its version left to the caller."""
    slot, holder = allocation.slot, allocation.holder
    return {
        "scope": allocation.scope,
        "family": allocation.address.version,
        "address": packed(allocation.address),
        "owner": encode_key(slot.owner),
        "workload": encode_key(slot.workload) if slot.workload is not None else None,
        "network": slot.network,
        "ifname": slot.ifname,
        "container_id": holder.container_id if holder is not None else None,
        "holder_ifname": holder.ifname if holder is not None else None,
        "record": encode_record(allocation),
    }
