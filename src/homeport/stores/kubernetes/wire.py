"""IPAllocations as JSON, and back. No I/O.

Whatever cannot be decoded, or contradicts its own name, raises `DecodeFailure` naming the object: that is no absence
(R12).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Annotated, Any, Literal

import msgspec

from homeport.cni import documents
from homeport.ipam.allocations import Allocation, Phase, Retention
from homeport.ipam.identities import ContainerOwner, Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.model.addresses import MacAddress, parse_mac
from homeport.model.errors import DecodeFailure
from homeport.ports import ApiObject
from homeport.stores.kubernetes import names
from homeport.stores.kubernetes.resources import IPALLOCATIONS

CAUSE_MAX = 1024
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_Rule = Literal["Retain", "Release"]


class _Workload(msgspec.Struct):
    kind: str
    name: str


class WireOwner(msgspec.Struct, rename="camel"):
    """`spec.owner`: which fields are given depends on `kind`."""

    kind: Literal["Replica", "Pod", "Container"]
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None
    workload: _Workload | None = None
    ordinal: int | None = None
    container_id: str | None = msgspec.field(default=None, name="containerID")


class _Retention(msgspec.Struct, rename="camel"):
    when_scaled: _Rule = "Retain"
    when_deleted: _Rule = "Release"
    retain_for: float | None = None  # seconds
    adopt: Literal["SameName", "Never"] = "SameName"


class _Holder(msgspec.Struct):
    container_id: str = msgspec.field(name="containerID")
    interface: str
    netns: str = ""
    node: str = ""
    pod_uid: str = msgspec.field(default="", name="podUID")
    mac: str | None = None


class WireSpec(msgspec.Struct):
    """Whose address it is."""

    address: str
    network: str
    interface: str
    owner: WireOwner
    scope: str = ""
    retention: _Retention = msgspec.field(default_factory=_Retention)
    workload_uid: str = msgspec.field(default="", name="workloadUID")


class WireStatus(msgspec.Struct):
    """Where it stands."""

    phase: Phase
    since: Instant
    mac: str | None = None
    holder: _Holder | None = None
    node: str = ""
    cause: str = ""
    changed: Instant | None = None
    write: str = ""


class _Metadata(msgspec.Struct):
    name: str
    version: str = msgspec.field(name="resourceVersion")


class _Object(msgspec.Struct):
    metadata: _Metadata
    spec: WireSpec
    status: WireStatus


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """An allocation as it is stored, and what is known of its last write.

    `node` is the holder's, or where nobody holds the address the last holder's, "" for none. `changed` is the writer's
    own time. `write` names the write: whoever repeats a request recognises what its lost one did.
    """

    allocation: Allocation
    cause: str = ""
    changed: datetime | None = None
    node: str = ""
    write: str = ""


_objects = msgspec.json.Decoder(_Object)


def decode(stored: ApiObject) -> Allocation:
    """The allocation in an IPAllocation."""
    return decode_record(stored).allocation


def decode_record(stored: ApiObject) -> Record:
    """The allocation in an IPAllocation, and its last write."""
    what = f"{IPALLOCATIONS.plural} {stored.name}"
    try:
        found = _objects.decode(stored.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise DecodeFailure(f"decode {what}: {e}") from e
    record = record_of(found.spec, found.status, version=stored.version, what=what)
    if stored.name != names.allocation_name(record.allocation.scope, record.allocation.address):
        raise DecodeFailure(
            f"decode {what}: found address {found.spec.address} in scope {documents.shown(found.spec.scope)},"
            " expected those of its name"
        )
    return record


def record_of(spec: WireSpec, status: WireStatus, *, version: str, what: str) -> Record:
    """The same of parts that are decoded already; `what` names them in the `DecodeFailure` of a contradiction."""
    try:
        _check(spec, status)
        allocation = Allocation(
            scope=spec.scope,
            address=ip_address(spec.address),
            slot=Slot(owner_of(spec.owner), spec.network, spec.interface),
            phase=status.phase,
            holder=_holder(status.holder) if status.holder is not None else None,
            mac=_mac(status.mac),
            since=status.since,
            retention=Retention(
                when_scaled=spec.retention.when_scaled,
                when_deleted=spec.retention.when_deleted,
                retain_for=_duration(spec.retention.retain_for),
                adopt=spec.retention.adopt,
            ),
            workload_uid=spec.workload_uid,
            version=int(version),
        )
    except (ValueError, OverflowError) as e:
        raise DecodeFailure(f"decode {what}: {e}") from e
    return Record(
        allocation=allocation, cause=status.cause, changed=status.changed, node=status.node, write=status.write
    )


def create_body(allocation: Allocation, *, cause: str, changed: datetime, write: str) -> dict[str, Any]:
    """The object of a new allocation."""
    body: dict[str, Any] = without_empty(patch_body(allocation, cause=cause, changed=changed, write=write))
    body["metadata"]["name"] = names.allocation_name(allocation.scope, allocation.address)
    return body


def patch_body(allocation: Allocation, *, cause: str, changed: datetime, write: str) -> dict[str, Any]:
    """The merge patch that makes any object of this name into that of the allocation.

    Only the last holder's node stays as it was where nobody holds the address now.
    """
    status: dict[str, Any] = msgspec.to_builtins(_status(allocation))
    status |= last_write(cause, changed, write)["status"]
    if allocation.holder is None:
        del status["node"]
    body: dict[str, Any] = {
        "metadata": {"labels": names.allocation_labels(allocation)},
        "spec": msgspec.to_builtins(wire_spec(allocation)),
        "status": status,
    }
    return emptied(body)


def last_write(cause: str, changed: datetime, write: str) -> dict[str, Any]:
    """The merge patch that changes nothing of the allocation, and says why it is about to."""
    return {"status": {"cause": cause[:CAUSE_MAX], "changed": instant(changed), "write": write}}


def wire_spec(allocation: Allocation) -> WireSpec:
    """Inverse, with `wire_status`, of `record_of`."""
    kept, slot = allocation.retention, allocation.slot
    return WireSpec(
        scope=allocation.scope,
        address=str(allocation.address),
        network=slot.network,
        interface=slot.ifname,
        owner=wire_owner(slot.owner),
        retention=_Retention(kept.when_scaled, kept.when_deleted, _seconds(kept.retain_for), kept.adopt),
        workload_uid=allocation.workload_uid,
    )


def wire_status(record: Record) -> WireStatus:
    """Inverse, with `wire_spec`, of `record_of`."""
    status = _status(record.allocation)
    status.cause, status.changed, status.write = record.cause, record.changed, record.write
    status.node = status.node or record.node
    return status


def wire_owner(owner: Owner) -> WireOwner:
    """Inverse of `owner_of`."""
    match owner:
        case Replica(workload, ordinal):
            return WireOwner(
                kind="Replica",
                namespace=workload.namespace,
                name=owner.pod.name,
                workload=_Workload(workload.kind, workload.name),
                ordinal=ordinal,
            )
        case PodOwner(namespace, name, uid):
            return WireOwner(kind="Pod", namespace=namespace, name=name, uid=uid)
        case ContainerOwner(container_id):
            return WireOwner(kind="Container", container_id=container_id)


def instant(at: datetime) -> str:
    """RFC 3339, UTC, with microseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def emptied(patch: Mapping[str, Any]) -> dict[str, Any]:
    """A merge patch that takes away what would be empty: old API servers take "" for null, and refuse that."""
    return {
        key: emptied(item) if isinstance(item, Mapping) else None if item == "" else item for key, item in patch.items()
    }


def without_empty(value: Any) -> Any:
    """An object as the API server keeps it, without what is null or ""."""
    if isinstance(value, Mapping):
        return {key: without_empty(item) for key, item in value.items() if item not in (None, "")}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def _status(allocation: Allocation) -> WireStatus:
    holder = allocation.holder
    return WireStatus(
        phase=allocation.phase,
        since=allocation.since.astimezone(UTC),
        mac=allocation.mac,
        holder=None
        if holder is None
        else _Holder(
            container_id=holder.container_id,
            interface=holder.ifname,
            netns=holder.netns_path,
            node=holder.node,
            pod_uid=holder.pod_uid,
            mac=holder.mac,
        ),
        node=holder.node if holder is not None else "",
    )


def owner_of(found: WireOwner) -> Owner:
    """Raises `ValueError` for one that lacks what its kind has."""
    if found.kind == "Container" and found.container_id is not None:
        return ContainerOwner(found.container_id)
    if found.kind == "Pod" and found.namespace is not None and found.name is not None and found.uid is not None:
        return PodOwner(found.namespace, found.name, found.uid)
    workload = found.workload
    if found.kind == "Replica" and found.namespace is not None and workload is not None and found.ordinal is not None:
        replica = Replica(Workload(found.namespace, workload.kind, workload.name), found.ordinal)
        if found.name not in (None, replica.pod.name):
            raise ValueError(f'key "spec.owner.name": found "{found.name}", expected "{replica.pod.name}"')
        return replica
    raise ValueError(f'key "spec.owner": found too little for a {found.kind}')


def _check(spec: WireSpec, status: WireStatus) -> None:
    if (status.phase is Phase.BOUND) != (status.holder is not None):
        raise ValueError(f'key "status.holder": expected one in phase Bound alone, found phase {status.phase.value}')
    if "%" in spec.address:
        raise ValueError(f'key "spec.address": found {documents.shown(spec.address)}, expected an address without zone')


def _holder(found: _Holder) -> Holder:
    return Holder(
        container_id=found.container_id,
        ifname=found.interface,
        netns_path=found.netns,
        node=found.node,
        pod_uid=found.pod_uid,
        mac=_mac(found.mac),
    )


def _mac(text: str | None) -> MacAddress | None:
    return None if text is None else parse_mac(text)


def _seconds(duration: timedelta | None) -> float | None:
    if duration is None:
        return None
    seconds = duration.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
