"""What a migration is planned from, and the plan. Values only; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import Workload
from homeport.ipam.objects import Pod, WorkloadState
from homeport.ipam.pools import Pool
from homeport.ipam.whereabouts import ForeignPool, NodeSlice, Reservation
from homeport.model.addresses import IPAddress
from homeport.model.names import PodRef


class Network(msgspec.Struct, frozen=True):
    """A network whose addresses are from pools; `definition` is NAMESPACE/NAME of its definition."""

    definition: str
    pool: Pool


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was read, each list whole. `present` are our own allocations. `unreadable` are objects that could
    not be decoded, with the reason: nobody knows what they say. `unread_networks` are definitions that have no pool, or
    none that could be read, with the reason.
    """

    pools: tuple[ForeignPool, ...] = ()
    reservations: Mapping[str, Reservation] = {}  # by name
    slices: tuple[NodeSlice, ...] = ()
    networks: tuple[Network, ...] = ()
    pods: Mapping[PodRef, Pod] = {}
    workloads: Mapping[Workload, WorkloadState] = {}
    present: tuple[Allocation, ...] = ()
    unreadable: tuple[str, ...] = ()
    unread_networks: tuple[str, ...] = ()
    now: datetime


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where an allocation comes from. `entry` is the pool's, as it stood; `reserved` the reservation's podref and
    ifname, or None where there was none.
    """

    pool: str
    key: str
    entry: Any
    reserved: Mapping[str, str] | None = None


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """An allocation to be made. `known` is ours that stands there already, of the same slot: then there is nothing to
    do. `why` is for people.
    """

    allocation: Allocation
    origin: Origin
    known: Allocation | None = None
    why: str = ""


class Reason(Enum):
    """Why an entry is not imported."""

    CONFLICT = "conflict"  # nobody can tell whose it is: a person must
    NO_POD = "no living pod"
    LEFT = "left to Whereabouts"  # its node still runs it


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """An entry, a reservation or an object that gives no allocation. `address` is None where it has none."""

    reason: Reason
    where: str
    told: str
    address: IPAddress | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What `apply` does. Imports are in the order of scope and address."""

    imports: tuple[Import, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def conflicts(self) -> tuple[Skipped, ...]:
        return tuple(s for s in self.skipped if s.reason is Reason.CONFLICT)

    @property
    def to_make(self) -> tuple[Import, ...]:
        return tuple(i for i in self.imports if i.known is None)


class Extent(msgspec.Struct, frozen=True, kw_only=True):
    """How much is taken over: everything, or, while nodes with Whereabouts remain (`coexist`), replicas everywhere and
    all pods of `nodes` alone.
    """

    coexist: bool = False
    nodes: frozenset[str] = frozenset()

    def covers(self, allocation: Allocation) -> bool:
        if not self.coexist or allocation.slot.workload is not None:
            return True
        return allocation.holder is not None and allocation.holder.node in self.nodes
