"""An address bound to a slot, and its phases. No I/O.

docs/identity.md "An allocation's phases".
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import msgspec

from homeport.ipam.identities import Holder, Slot
from homeport.model.addresses import IPAddress, MacAddress


class Phase(Enum):
    """Where an allocation stands; only `BOUND` has a holder."""

    RESERVED = "Reserved"
    BOUND = "Bound"
    RETAINED = "Retained"
    QUARANTINED = "Quarantined"


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """One address of one scope, and whose it is. Unique by (scope, address): that uniqueness is R1.

    `mac` survives the holder so that it can move with the address (R9). `since` is when the phase began (UTC).
    `version` is the store's: compare-and-swap on it; 0 before the first write.
    """

    scope: str
    address: IPAddress
    slot: Slot
    phase: Phase
    holder: Holder | None = None
    mac: MacAddress | None = None
    since: datetime
    version: int = 0
