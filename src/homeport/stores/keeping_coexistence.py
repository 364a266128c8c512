"""What puts right, again and again, what Whereabouts' objects say of our allocations. I/O: the store's own.

Whereabouts' reconciler deletes our reservations, as no live pod has them; pools are made after we looked; a node that
dies leaves a mark that belongs to nothing. None of that lets an address have two users (docs/migration.md says what
protects it meanwhile), and one pass mends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.ipam.whereabouts import ForeignPool, Reservation, is_ours, reservation_name, split_scope
from homeport.model.addresses import IPAddress
from homeport.model.errors import UnsupportedField
from homeport.model.names import is_subdomain
from homeport.stores.coexisting import CoexistingStore, mark_of
from homeport.stores.whereabouts import HeldByWhereabouts, pools_of

ORPHAN_SECONDS = 600.0
"""How long a mark must have belonged to nothing before it is removed: far longer than any claim takes."""


class Contested(msgspec.Struct, frozen=True):
    """An allocation of ours whose address Whereabouts gave to somebody as well, and what says so."""

    allocation: Allocation
    reason: str


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass found and did. `contested` is never resolved here: one of the two must be restarted by hand."""

    protected: int = 0
    removed: int = 0
    contested: tuple[Contested, ...] = ()


class CoexistenceKeeper:
    """One for a cluster; a second one by accident does no harm. Not to be shared by threads."""

    def __init__(self, store: CoexistingStore, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._orphans: dict[tuple[str, str, str], float] = {}  # (object, key, mark): first seen

    def keep(self) -> Kept:
        """One pass: every allocation is seen by Whereabouts, and marks of nothing go. Raises as the store does, and
        `DecodeFailure` for a pool that cannot be read; what was done until then stays done.
        """
        records = self._store.records
        allocations = list(self._store.all())
        pools, reservations = records.all_pools(), records.reservations()
        slices = records.slices() if any(p.prefix for p in pools) else ()
        scopes = {a.scope for a in allocations} | _scopes_of(pools)
        of_scope = {scope: pools_of(scope, pools, slices) for scope in scopes}
        reserved = {r.name: r for r in reservations}
        protected, contested = 0, []
        for allocation in allocations:
            if _is_seen(allocation, of_scope[allocation.scope], reserved):
                continue
            try:
                protected += self._protect(allocation, of_scope[allocation.scope])
            except (HeldByWhereabouts, UnsupportedField) as e:
                contested.append(Contested(allocation, str(e)))
        removed = self._sweep(allocations, of_scope, reservations)
        return Kept(protected=protected, removed=removed, contested=tuple(contested))

    def _protect(self, allocation: Allocation, pools: Sequence[ForeignPool]) -> bool:
        now = self._store.get(allocation.scope, allocation.address)
        if now is None or mark_of(now) != mark_of(allocation):
            return False  # somebody is at work on it
        self._store.protect(now, among=pools)
        return True

    def _sweep(
        self,
        allocations: Iterable[Allocation],
        of_scope: Mapping[str, Sequence[ForeignPool]],
        reservations: Iterable[Reservation],
    ) -> int:
        """Removes what has belonged to no allocation for long enough."""
        places = {(a.scope, a.address) for a in allocations}
        belonging = {
            (pool.name, address) for scope, address in places for pool in of_scope[scope] if address in pool.entries
        }
        seen: dict[tuple[str, str, str], float] = {}
        removed = 0
        for pool in {p.name: p for pools in of_scope.values() for p in pools}.values():
            for address, entry in pool.entries.items():
                orphaned = is_ours(entry) and (pool.name, address) not in belonging
                if orphaned and self._is_due(seen, pool.name, str(address), entry.id):
                    self._store.records.remove_entry(pool, address)
                    removed += 1
        names = {_reservation_of(scope, address) for scope, address in places}
        for reservation in reservations:
            orphaned = is_ours(reservation) and reservation.name not in names
            if orphaned and self._is_due(seen, "", reservation.name, reservation.id):
                self._store.records.remove_reservation(reservation)
                removed += 1
        self._orphans = seen
        return removed

    def _is_due(self, seen: dict[tuple[str, str, str], float], where: str, key: str, mark: str) -> bool:
        now = self._monotonic()
        first = seen[where, key, mark] = self._orphans.get((where, key, mark), now)
        return now - first >= ORPHAN_SECONDS


def _scopes_of(pools: Iterable[ForeignPool]) -> set[str]:
    """Every scope that some pool could be of; a node's slice adds one that no network has, which does no harm."""
    return {""} | {p.prefix for p in pools}


def _is_seen(allocation: Allocation, pools: Iterable[ForeignPool], reserved: Mapping[str, Reservation]) -> bool:
    mark, address = mark_of(allocation), allocation.address
    for pool in pools:
        if address in pool.subnet:
            entry = pool.entries.get(address)
            if entry is None or entry.id != mark:
                return False
    if split_scope(allocation.scope)[1] is not None:
        return any(address in pool.subnet for pool in pools)
    name = _reservation_of(allocation.scope, address)
    return not is_subdomain(name) or (name in reserved and reserved[name].id == mark)


def _reservation_of(scope: str, address: IPAddress) -> str:
    return reservation_name(split_scope(scope)[0], address)
