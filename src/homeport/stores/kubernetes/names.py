"""Names and labels of our objects. No I/O.

The name of an IPAllocation is made of its scope and address alone and of no other pair: the API server's own uniqueness
of names is R1. Labels are for finding: where they can hold no more than 63 characters of a few kinds, they are hashes.
"""

from __future__ import annotations

import re
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import ContainerOwner, Owner, PodOwner, Replica, Slot, Workload
from homeport.model.addresses import IPAddress
from homeport.model.names import is_label

SCOPE = "homeport.dev/scope"
SLOT = "homeport.dev/slot"
OWNER = "homeport.dev/owner"
WORKLOAD = "homeport.dev/workload"
HOLDER = "homeport.dev/holder"
NODE = "homeport.dev/node"

_HASHED_SCOPE = "scope-"
_LEDGER = "ledger-"
_SCOPE_MAX = 40
_POD_MAX = 40
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_HASH = 32  # hex digits
_SLOT_HASH = 20


def allocation_name(scope: str, address: IPAddress) -> str:
    """`10.93.97.12`, or with a scope `blue.10.93.97.12`; IPv6 as `fd00-10-0-0-0-0-0-1`."""
    return f"{_scope_part(scope)}{_address_part(address)}"


def address_in(name: str, scope: str) -> IPAddress | None:
    """The address whose allocation in that scope has this name; None for a name that is of none."""
    prefix = _scope_part(scope)
    text = name.removeprefix(prefix)
    if prefix and text == name:
        return None
    try:
        address = IPv6Address(text.replace("-", ":")) if "-" in text else IPv4Address(text)
    except ValueError:
        return None
    return address if _address_part(address) == text else None


def slot_name(slot: Slot) -> str:
    """Of a replica's slot: the pod's name, as far as it fits, and a hash of everything."""
    owner = slot.owner
    assert isinstance(owner, Replica)
    hashed = _hash("slot", *_owner_key(owner), slot.network, slot.ifname)[:_SLOT_HASH]
    return f"{owner.pod.name[:_POD_MAX].rstrip('-.')}-{hashed}"


def range_name(scope: str, first: IPAddress, last: IPAddress) -> str:
    """Of the addresses `first`..`last` of a scope."""
    return f"{_scope_part(scope)}{_address_part(first)}.{_address_part(last)}"


def ledger_name(number: int) -> str:
    """Of the chunk `number`; names sort as numbers do."""
    return f"{_LEDGER}{number:020d}"


def ledger_number(name: str) -> int | None:
    """The number of the chunk of this name; None for a name that is of none."""
    digits = name.removeprefix(_LEDGER)
    return int(digits) if digits.isascii() and digits.isdigit() and ledger_name(int(digits)) == name else None


def allocation_labels(allocation: Allocation) -> dict[str, str | None]:
    """All labels of an allocation; None for one that it is not to have.

    The node's is left out where nobody holds the address: it goes on naming the last holder's.
    """
    slot, holder = allocation.slot, allocation.holder
    labels = {
        SCOPE: scope_label(allocation.scope),
        SLOT: slot_label(slot),
        OWNER: owner_label(slot.owner),
        WORKLOAD: workload_label(slot.workload) if slot.workload is not None else None,
        HOLDER: holder_label(holder.container_id, holder.ifname) if holder is not None else None,
    }
    if holder is not None:
        labels[NODE] = node_label(holder.node)
    return labels


def scope_label(scope: str) -> str:
    """Of all allocations of a scope."""
    return _digest(scope.encode())


def slot_label(slot: Slot) -> str:
    """Of all allocations of a slot."""
    return _hash("slot", *_owner_key(slot.owner), slot.network, slot.ifname)


def owner_label(owner: Owner) -> str:
    """Of all allocations of an owner."""
    return _hash("owner", *_owner_key(owner))


def workload_label(workload: Workload) -> str:
    """Of all allocations of a workload's replicas."""
    return _hash("workload", *_workload_key(workload))


def holder_label(container_id: str, ifname: str) -> str:
    """Of what an interface holds."""
    return _digest(f"{container_id}/{ifname}".encode())


def node_label(node: str) -> str:
    """The node's own name, for whoever reads labels; hashed where a label cannot hold it."""
    return node if _LABEL_VALUE.fullmatch(node) else _hash("node", node)


def _scope_part(scope: str) -> str:
    if not scope:
        return ""
    if len(scope) <= _SCOPE_MAX and is_label(scope) and not scope.startswith(_HASHED_SCOPE):
        return f"{scope}."
    return f"{_HASHED_SCOPE}{scope_label(scope)}."


def _address_part(address: IPAddress) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    packed = address.packed
    return "-".join(f"{packed[n] << 8 | packed[n + 1]:x}" for n in range(0, 16, 2))


def _owner_key(owner: Owner) -> tuple[str | int, ...]:
    match owner:
        case Replica(workload, ordinal):
            return ("Replica", *_workload_key(workload), ordinal)
        case PodOwner(namespace, name, uid):
            return ("Pod", namespace, name, uid)
        case ContainerOwner(container_id):
            return ("Container", container_id)


def _workload_key(workload: Workload) -> tuple[str, str, str]:
    return (workload.namespace, workload.kind, workload.name)


def _hash(*parts: str | int) -> str:
    return _digest(msgspec.json.encode(parts))


def _digest(raw: bytes) -> str:
    return sha256(raw).hexdigest()[:_HASH]
