"""Where allocations are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import Owner, Slot, Workload
from homeport.ipam.ranges import Span
from homeport.model.addresses import IPAddress

Place = tuple[str, IPAddress]
"""Where an allocation is: scope and address."""


class AlreadyExists(Exception):
    """`AllocationStore.create`: the address is allocated; `present` is what stands there."""

    def __init__(self, present: Allocation) -> None:
        super().__init__(f"{present.address} in scope {present.scope!r} is held by {present.slot}")
        self.present = present


class Conflict(Exception):
    """`replace` or `delete`: the stored version is another one, or the allocation is gone."""


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one allocation (R15). None before a creation and after a deletion."""

    at: datetime
    cause: str
    before: Allocation | None
    after: Allocation | None


class AllocationStore(Protocol):
    """Allocations by address. One write is atomic and is in the ledger or did not happen.

    Every method raises `TryAgainLater` when the store cannot be reached, `StoreFull` when it has no room and
    `IOFailure` for anything else; never "looks empty".
    """

    def get(self, scope: str, address: IPAddress) -> Allocation | None: ...
    def create(self, allocation: Allocation, *, cause: str) -> Allocation:
        """The claim: returns it with its version, or raises `AlreadyExists`. R1 is decided here and nowhere else."""

    def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
        """Overwrites the version that `allocation` carries; raises `Conflict` if another is stored."""

    def delete(self, allocation: Allocation, *, cause: str) -> None:
        """Removes the version that `allocation` carries; raises `Conflict` if another is stored."""

    def of_slot(self, slot: Slot, *, likely: Sequence[Place] = ()) -> tuple[Allocation, ...]:
        """All of the slot's allocations. Where each of the places `likely` is the slot's own, a store that has to ask
        for every address may stop there.
        """

    def of_owner(self, owner: Owner) -> tuple[Allocation, ...]: ...
    def of_workload(self, workload: Workload) -> tuple[Allocation, ...]: ...
    def of_holder(self, container_id: str, ifname: str) -> tuple[Allocation, ...]: ...
    def of_node(self, node: str) -> tuple[Allocation, ...]:
        """What holders on that node have."""

    def all(self, scope: str | None = None) -> Iterable[Allocation]: ...
    def lowest_free(
        self, scope: str, span: Span, excluding: Sequence[Span], *, count: int = 1, near: IPAddress | None = None
    ) -> tuple[IPAddress, ...]:
        """Up to `count` addresses of `span` without an allocation; none only where the store itself was asked, and not
        what a caller remembers of it. A hint: only `create` decides. Ascending, from `near` on where that is in the
        span, and then from the span's first. A store that many nodes use may choose among the lowest ones at random, so
        that not all of them try the same.
        """

    def ledger(
        self, *, address: IPAddress | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> Iterable[LedgerEntry]: ...


class FileAllocations(Protocol):
    """host-local's directory of one network: a file an address, under one lock (its own on-disk format)."""

    def lock(self) -> AbstractContextManager[None]: ...
    def reserve(self, address: IPAddress, container_id: str, ifname: str, range_set: int) -> bool:
        """Creates the file and notes the address as last reserved of that range set; False when it exists."""

    def last_reserved(self, range_set: int) -> IPAddress | None: ...
    def of(self, container_id: str, ifname: str) -> tuple[IPAddress, ...]:
        """Raises `IOFailure` for a file it cannot read, for that is not "nothing allocated"."""

    def release(self, container_id: str, ifname: str) -> None: ...
    def entries(self) -> tuple[tuple[IPAddress, str, str], ...]:
        """(address, container ID, ifname) of all."""
