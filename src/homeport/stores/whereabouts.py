"""Whereabouts' objects, both of which decide about an address: the entry in its pool, and its reservation.

I/O: `ports.Objects`.

Whatever is written here carries a mark, which tells whose writing it is. Every write is conditional on what was there:
a pool's entry by a JSON patch that tests it, a reservation by its name or version. So a race is decided by the API
server, and nothing is overwritten or removed that somebody else put there in between.

An entry of ours has no podref: Whereabouts' reconciler leaves such entries alone, its ADD finds the address taken, and
its DEL, which looks for a container ID, never finds them. A reservation's podref is no pod's, so that no pod takes it
for its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from homeport.ipam.ranges import Span
from homeport.ipam.whereabouts import (
    ForeignPool,
    NodeSlice,
    PoolEntry,
    Reservation,
    decode_pool,
    decode_reservation,
    decode_slices,
    is_of_network,
    is_ours,
    pool_name,
    reservation_name,
    split_scope,
)
from homeport.model.addresses import IPAddress, IPNetwork
from homeport.model.errors import CniError, TryAgainLater, UnsupportedField
from homeport.model.names import is_subdomain
from homeport.ports import ObjectChanged, ObjectExists, Objects, PatchRefused, Place, Resource

GROUP, VERSION = "whereabouts.cni.cncf.io", "v1alpha1"
POOLS = Resource(group=GROUP, version=VERSION, plural="ippools", kind="IPPool", namespaced=True)
RESERVATIONS = Resource(
    group=GROUP,
    version=VERSION,
    plural="overlappingrangeipreservations",
    kind="OverlappingRangeIPReservation",
    namespaced=True,
)
SLICES = Resource(group=GROUP, version=VERSION, plural="nodeslicepools", kind="NodeSlicePool", namespaced=True)

PODREF = "homeport"
MayTake = Callable[[PoolEntry], bool]
"""Whether an entry of Whereabouts' may be made ours: it is of the very holder that has or had the allocation."""

_ATTEMPTS = 50  # at one object that others change at the same time


class HeldByWhereabouts(Exception):
    """An address is one of Whereabouts' own; `where` names the object that says so."""

    def __init__(self, entry: PoolEntry, where: str) -> None:
        owner = entry.podref or "no pod"
        super().__init__(f"{where} has it for {owner}" + (f", container {entry.id}" if entry.id else ""))
        self.entry = entry
        self.where = where


class WhereaboutsRecords:
    """Pools and reservations of one namespace."""

    def __init__(self, objects: Objects, namespace: str) -> None:
        self._objects = objects
        self._namespace = namespace

    def pools(self, scope: str) -> tuple[ForeignPool, ...]:
        """Every pool whose addresses are the scope's. Raises `DecodeFailure` when one cannot be read: nobody knows
        whose it is, and what is taken in it.
        """
        listed = self.all_pools()
        # Slices are asked for only where a pool's name leaves open whether it is one.
        in_doubt = any(p.prefix not in ("", split_scope(scope)[0]) for p in listed)
        return pools_of(scope, listed, self.slices() if in_doubt else ())

    def all_pools(self) -> tuple[ForeignPool, ...]:
        listed = self._objects.list(POOLS, namespace=self._namespace)
        return tuple(decode_pool(o.name, o.version, o.body) for o in listed)

    def slices(self) -> tuple[NodeSlice, ...]:
        """All slices that nodes have."""
        listed = self._objects.list(SLICES, namespace=self._namespace)
        return tuple(s for o in listed for s in decode_slices(o.name, o.body))

    def reservations(self) -> tuple[Reservation, ...]:
        listed = self._objects.list(RESERVATIONS, namespace=self._namespace)
        return tuple(decode_reservation(o.name, o.version, o.body) for o in listed)

    def claim(self, place: Place, mark: str, may_take: MayTake, *, among: Sequence[ForeignPool] | None = None) -> None:
        """Writes the mark into every pool that has the address, then into its reservation.

        What carries another mark is overwritten, and so is what `may_take` says of an entry. Raises
        `HeldByWhereabouts`, having taken back what it wrote. On any other error that stays: it keeps the address from
        being given out, and is written over by the next claim. `among` are the scope's pools where they were listed
        already; that they may have changed since does no harm.
        """
        scope, address = place
        writing = _Writing(self._objects, self._namespace, place, mark, may_take)
        try:
            for pool in self._of_address(scope, address, self.pools(scope) if among is None else among):
                writing.write_entry(pool)
            name = _reservation(place)
            if name is not None:
                writing.write_reservation(name)
        except HeldByWhereabouts:
            writing.undo()
            raise

    def is_marked(self, place: Place, mark: str) -> bool:
        """Whether the mark stands wherever `claim` would write it."""
        (scope, address), found = place, self.pools(place[0])
        entries = [pool.entries.get(address) for pool in found if address in pool.subnet]
        if not entries and split_scope(scope)[1] is not None:
            return False
        if not all(e is not None and e.id == mark for e in entries):
            return False
        name = _reservation(place)
        if name is None:
            return True
        reserved = self._objects.get(RESERVATIONS, name, namespace=self._namespace)
        return reserved is not None and decode_reservation(name, reserved.version, reserved.body).id == mark

    def hand_over(self, place: Place, mark: str, to_mark: str | None) -> None:
        """Replaces the mark by another one wherever it stands, or, for None, removes what carries it."""
        scope, address = place
        for pool in self.pools(scope):
            entry, key = pool.entries.get(address), pool.key(address)
            if entry is None or entry.id != mark or key is None:
                continue
            if to_mark is None:
                self.remove_entry(pool, address)
                continue
            path = _path(key)
            with suppress(PatchRefused):
                test = {"op": "test", "path": path, "value": entry.raw}
                self._patch(pool.name, test, {"op": "replace", "path": path, "value": _entry_of(to_mark)})
        name = _reservation(place)
        if name is not None:
            self._hand_over_reservation(name, mark, to_mark)

    def give_back(
        self,
        place: Place,
        pool: str,
        key: str,
        entry: Any,
        reserved: Mapping[str, str] | None,
        *,
        among: Sequence[ForeignPool],
    ) -> None:
        """Makes an address that is ours what it was: `entry` under the key of the pool, none of ours in others, and
        the reservation with the spec `reserved`, or none. What is not ours by now stays as it is. `among` are the
        scope's pools.
        """
        for found in among:
            address, present = place[1], found.entries.get(place[1])
            if present is None or not is_ours(present):
                continue
            if found.name != pool:
                self.remove_entry(found, address)
                continue
            with suppress(PatchRefused):
                test = {"op": "test", "path": _path(key), "value": present.raw}
                self._patch(pool, test, {"op": "replace", "path": _path(key), "value": entry})
        name = _reservation(place)
        held = self._objects.get(RESERVATIONS, name, namespace=self._namespace) if name is not None else None
        if held is None or not is_ours(reservation := decode_reservation(held.name, held.version, held.body)):
            return
        if reserved is None:
            self.remove_reservation(reservation)
            return
        with suppress(ObjectChanged):
            spec = {"containerid": None, "ifname": None, **reserved}
            self._objects.patch(
                RESERVATIONS, held.name, {"spec": spec}, namespace=self._namespace, version=held.version
            )

    def remove_entry(self, pool: ForeignPool, address: IPAddress) -> None:
        """Takes the pool's entry of an address away, unless it is another one by now."""
        entry, key = pool.entries[address], pool.key(address)
        if key is not None:
            path = _path(key)
            with suppress(PatchRefused):
                test = {"op": "test", "path": path, "value": entry.raw}
                self._patch(pool.name, test, {"op": "remove", "path": path})

    def remove_reservation(self, reservation: Reservation) -> None:
        """Takes a reservation away, unless it has changed."""
        with suppress(ObjectChanged):
            self._objects.delete(RESERVATIONS, reservation.name, namespace=self._namespace, version=reservation.version)

    def taken(self, scope: str) -> Iterator[Span]:
        """What Whereabouts has of a scope, and what cannot be written into its pools."""
        for pool in self.pools(scope):
            for address, entry in pool.entries.items():
                if not is_ours(entry):
                    yield Span(address, address)
            unwritable = pool.unwritable()
            if unwritable is not None:
                yield unwritable

    def _of_address(self, scope: str, address: IPAddress, listed: Sequence[ForeignPool]) -> Sequence[ForeignPool]:
        """The pools that have the address; where a pool alone decides, it is made if there is none yet."""
        found = [p for p in listed if address in p.subnet]
        network_name, subnet = split_scope(scope)
        if subnet is None or any(p.subnet == subnet for p in found):
            return found
        name = pool_name(network_name, subnet)
        body = {
            "metadata": {"name": name, "namespace": self._namespace},
            "spec": {"range": str(subnet), "allocations": {}},
        }
        with suppress(ObjectExists):
            self._objects.create(POOLS, body, namespace=self._namespace)
        return [p for p in self.pools(scope) if address in p.subnet]

    def _hand_over_reservation(self, name: str, mark: str, to_mark: str | None) -> None:
        found = self._objects.get(RESERVATIONS, name, namespace=self._namespace)
        if found is None:
            return
        present = decode_reservation(found.name, found.version, found.body)
        if present.id != mark:
            return
        if to_mark is None:
            self.remove_reservation(present)
            return
        with suppress(ObjectChanged):
            spec = {"spec": {"containerid": to_mark}}
            self._objects.patch(RESERVATIONS, name, spec, namespace=self._namespace, version=found.version)

    def _patch(self, pool: str, *operations: Mapping[str, Any]) -> None:
        self._objects.patch_json(POOLS, pool, operations, namespace=self._namespace)


class _Writing:
    """One claim's writes, and how they are taken back."""

    def __init__(self, objects: Objects, namespace: str, place: Place, mark: str, may_take: MayTake) -> None:
        self._objects = objects
        self._namespace = namespace
        self._place = place
        self._mark = mark
        self._may_take = may_take
        self._undo: list[Callable[[], object]] = []

    def undo(self) -> None:
        """What another has changed since stays, and so does what the API server does not answer for."""
        for action in reversed(self._undo):
            with suppress(PatchRefused, ObjectChanged, CniError):
                action()

    def write_entry(self, pool: ForeignPool) -> None:
        address = self._place[1]
        key = pool.key(address)
        if key is None:
            raise UnsupportedField(
                f'claim {address} beside Whereabouts: its pool "{pool.name}" can hold addresses below '
                f"{pool.unwritable()} only"
            )
        path, tried = _path(key), False
        before: PoolEntry | None = None
        for _ in range(_ATTEMPTS):
            entry = pool.entries.get(address)
            if entry is not None and entry.id == self._mark:
                if tried:  # it was refused as its own lost first copy had been done
                    self._note_entry(pool.name, path, before)
                return
            self._require_ours(entry, f'IPPool "{pool.name}"')
            if self._try_entry(pool.name, path, entry):
                return
            before, tried = entry, True
            found = self._objects.get(POOLS, pool.name, namespace=self._namespace)
            if found is None:
                return  # the whole pool was removed, and with it what it could say of this address
            pool = decode_pool(found.name, found.version, found.body)
        raise TryAgainLater(f'claim {address}: IPPool "{pool.name}" changes all the time')

    def write_reservation(self, name: str) -> None:
        body = {
            "metadata": {"name": name, "namespace": self._namespace},
            "spec": {"podref": PODREF, "containerid": self._mark},
        }
        for _ in range(_ATTEMPTS):
            try:
                made = self._objects.create(RESERVATIONS, body, namespace=self._namespace)
            except ObjectExists:
                if self._overwrite_reservation(name):
                    return
                continue
            self._undo.append(partial(self._delete_reservation, name, made.version))
            return
        raise TryAgainLater(f'claim {self._place[1]}: OverlappingRangeIPReservation "{name}" changes all the time')

    def _require_ours(self, entry: PoolEntry | None, where: str) -> None:
        if entry is None or is_ours(entry):
            return
        if not self._may_take(entry):
            raise HeldByWhereabouts(entry, where)

    def _try_entry(self, pool: str, path: str, before: PoolEntry | None) -> bool:
        test = {"op": "test", "path": path, "value": before.raw if before is not None else None}
        try:
            self._patch(pool, test, {"op": "add", "path": path, "value": _entry_of(self._mark)})
        except PatchRefused:
            return False
        self._note_entry(pool, path, before)
        return True

    def _note_entry(self, pool: str, path: str, before: PoolEntry | None) -> None:
        """How the entry is taken back."""
        test = {"op": "test", "path": path, "value": _entry_of(self._mark)}
        back: Mapping[str, Any] = {"op": "remove", "path": path}
        if before is not None:
            back = {"op": "replace", "path": path, "value": before.raw}
        self._undo.append(partial(self._patch, pool, test, back))

    def _overwrite_reservation(self, name: str) -> bool:
        """False when it changed, or went, at the same time."""
        found = self._objects.get(RESERVATIONS, name, namespace=self._namespace)
        if found is None:
            return False
        present = decode_reservation(found.name, found.version, found.body)
        if present.id == self._mark:
            return True
        entry = PoolEntry(id=present.id, podref=present.podref, ifname=present.ifname)
        self._require_ours(entry, f'OverlappingRangeIPReservation "{name}"')
        try:
            spec = {"podref": PODREF, "containerid": self._mark, "ifname": None}
            written = self._patch_reservation(name, spec, found.version)
        except ObjectChanged:
            return False
        back = {"podref": present.podref, "containerid": present.id or None, "ifname": present.ifname or None}
        self._undo.append(partial(self._patch_reservation, name, back, written))
        return True

    def _patch_reservation(self, name: str, spec: Mapping[str, Any], version: str) -> str:
        body = {"spec": spec}
        return self._objects.patch(RESERVATIONS, name, body, namespace=self._namespace, version=version).version

    def _delete_reservation(self, name: str, version: str) -> None:
        self._objects.delete(RESERVATIONS, name, namespace=self._namespace, version=version)

    def _patch(self, pool: str, *operations: Mapping[str, Any]) -> None:
        self._objects.patch_json(POOLS, pool, operations, namespace=self._namespace)


def pools_of(scope: str, listed: Sequence[ForeignPool], slices: Sequence[NodeSlice]) -> tuple[ForeignPool, ...]:
    """Those of all pools whose addresses are the scope's: of its network_name, and where ranges may overlap only the
    one of its subnet and the slices of that.
    """
    network_name, subnet = split_scope(scope)
    found = [p for p in listed if is_of_network(p, network_name, slices)]
    if subnet is not None:
        found = [p for p in found if p.subnet == subnet or (p.prefix != network_name and _is_within(p.subnet, subnet))]
    return tuple(found)


def _entry_of(mark: str) -> Mapping[str, str]:
    return {"id": mark, "podref": ""}


def _reservation(place: Place) -> str | None:
    """The name of an address's reservation; None where there is none, or can be none: then Whereabouts' own ADD of the
    address fails.
    """
    network_name, subnet = split_scope(place[0])
    name = reservation_name(network_name, place[1])
    return name if subnet is None and is_subdomain(name) else None


def _path(key: str) -> str:
    return f"/spec/allocations/{key}"


def _is_within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.version == outer.version and (
        int(outer.network_address) <= int(inner.network_address)
        and int(inner.broadcast_address) <= int(outer.broadcast_address)
    )
