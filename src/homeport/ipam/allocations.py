"""An address bound to a slot, and its phases. No I/O.

docs/identity.md "An allocation's phases".
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum
from typing import Literal

import msgspec

from homeport.ipam.identities import Holder, Slot
from homeport.model.addresses import IPAddress, MacAddress


class Phase(Enum):
    """Where an allocation stands; only `BOUND` has a holder."""

    RESERVED = "Reserved"
    BOUND = "Bound"
    RETAINED = "Retained"
    QUARANTINED = "Quarantined"


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long a replica that is not wanted any more keeps its addresses (R11), in the words of PVC retention.

    `retain_for` limits either Retain; None is without limit.
    """

    when_scaled: Literal["Retain", "Release"] = "Retain"
    when_deleted: Literal["Retain", "Release"] = "Release"
    retain_for: timedelta | None = None
    adopt: Literal["SameName", "Never"] = "SameName"


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """One address of one scope, and whose it is. Unique by (scope, address): that uniqueness is R1.

    `mac` survives the holder so that it can move with the address (R9). `since` is when the phase began (UTC).
    `retention` and `workload_uid` are what a replica's workload asked for and which object it was when the address
    was last bound or reserved: once the workload is deleted there is nobody left to ask. `version` is the store's:
    compare-and-swap on it; 0 before the first write, and never the same twice, not even of another allocation.
    """

    scope: str
    address: IPAddress
    slot: Slot
    phase: Phase
    holder: Holder | None = None
    mac: MacAddress | None = None
    since: datetime
    retention: Retention = Retention()
    workload_uid: str = ""
    version: int = 0

    def is_held_by(self, container_id: str, ifname: str) -> bool:
        """Whether this very interface uses the address now (R7)."""
        return self.holder is not None and (self.holder.container_id, self.holder.ifname) == (container_id, ifname)


def released(allocation: Allocation, *, at: datetime) -> Allocation | None:
    """What is left when the holder lets go: a replica's address is retained, any other is None, to be deleted (R14)."""
    if allocation.slot.workload is None:
        return None
    return msgspec.structs.replace(allocation, phase=Phase.RETAINED, holder=None, since=at)
