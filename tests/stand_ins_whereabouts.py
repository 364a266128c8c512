"""A node that runs Whereabouts 0.9: the same requests in the same order, and what it does wrong as well.

Its pools are read, changed and written with a JSON patch that tests the resourceVersion and that what is added was not
there; a refused patch begins the attempt again, a hundred times at most. Its reservations come second. The lock it
takes around all of it (a Lease) is left out: it says nothing to those who do not take it, and without it more can race.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_interface, ip_network
from typing import Any

import msgspec

from homeport.model.addresses import IPAddress, IPNetwork
from homeport.ports import ApiObject, ObjectChanged, ObjectExists, Objects, PatchRefused
from homeport.stores.whereabouts import POOLS, RESERVATIONS

RETRIES = 100

Allocations = Mapping[str, Mapping[str, str]]


class StorageEngineError(Exception):
    """The ADD failed."""


class Reserved(msgspec.Struct, frozen=True):
    """An entry of a pool as Whereabouts handles it; `dummy` ones are addresses to pass over, not written back."""

    ip: IPAddress
    id: str = ""
    podref: str = ""
    ifname: str = ""
    dummy: bool = False


class WhereaboutsNode:
    """ADD and DEL for `ranges` (CIDRs) of one network. With `slice_of`, a node's name, its range is a node slice."""

    def __init__(
        self,
        objects: Objects,
        *ranges: str,
        namespace: str = "kube-system",
        network_name: str = "",
        overlapping: bool = True,
        exclude: Sequence[str] = (),
        slice_of: str = "",
    ) -> None:
        self._objects = objects
        self._ranges = [ip_network(r, strict=False) for r in ranges]
        self._namespace = namespace
        self._network_name = network_name
        self._overlapping = overlapping
        self._exclude = [ip_network(e) for e in exclude]
        self._node = slice_of

    def add(self, container_id: str, podref: str, ifname: str = "net1") -> list[IPAddress]:
        """The addresses it reports. Raises `StorageEngineError` where the plugin fails."""
        self._objects.list(POOLS, namespace=self._namespace)
        given: list[IPAddress] = []
        passed_over: list[Reserved] = []
        is_reserved = False  # never set back between ranges
        for range_ in self._ranges:
            chosen: IPAddress | None = None
            for _ in range(RETRIES):
                pool = self._pool(range_)
                if pool is None:
                    continue
                reserved = _reserved(pool)
                chosen, after = _assign(range_, [*reserved, *passed_over], self._exclude, container_id, podref, ifname)
                if self._overlapping:
                    found = self._objects.get(RESERVATIONS, self._name(chosen), namespace=self._namespace)
                    if found is not None and msgspec.json.decode(found.body)["spec"]["podref"] != podref:
                        passed_over.append(Reserved(chosen, dummy=True))
                        continue
                    is_reserved = is_reserved or found is not None
                if self._update(pool, after):
                    break
            if chosen is None:
                raise StorageEngineError("no pool")
            if self._overlapping and not is_reserved:
                self._reserve(chosen, podref, ifname)
            given.append(chosen)  # also when the pool never took it
        return given

    def delete(self, container_id: str, ifname: str = "net1") -> None:
        """Succeeds whatever happens, as long as the API server answers."""
        for range_ in self._ranges:
            freed: IPAddress | None = None
            for _ in range(RETRIES):
                pool = self._pool(range_)
                if pool is None:
                    continue
                reserved = _reserved(pool)
                own = [r for r in reserved if (r.id, r.ifname) == (container_id, ifname)]
                if not own:
                    return
                freed = own[0].ip
                if self._update(pool, [r for r in reserved if r is not own[0]]):
                    break
            if self._overlapping and freed is not None:
                try:
                    self._objects.delete(RESERVATIONS, self._name(freed), namespace=self._namespace)
                except ObjectChanged:
                    return

    def _pool(self, range_: IPNetwork) -> ApiObject | None:
        """None where the attempt begins again: the pool was made just now."""
        name = "-".join(p for p in (self._network_name, self._node, _dashed(str(range_))) if p)
        found = self._objects.get(POOLS, name, namespace=self._namespace)
        if found is not None:
            return found
        body = {"metadata": {"name": name}, "spec": {"range": str(range_), "allocations": {}}}
        try:
            self._objects.create(POOLS, body, namespace=self._namespace)
        except ObjectExists:
            return None
        return None

    def _update(self, pool: ApiObject, after: Sequence[Reserved]) -> bool:
        spec = msgspec.json.decode(pool.body)["spec"]
        base = ip_interface(spec["range"]).ip
        written = {str(int(r.ip) - int(base)): _entry(r) for r in after if not r.dummy}
        operations: list[Mapping[str, Any]] = []
        changes = list(_changes(spec["allocations"], written))
        operations.append({"op": "test", "path": "/metadata/resourceVersion", "value": pool.version})
        operations += [{"op": "test", "path": c["path"], "value": None} for c in changes if c["op"] == "add"]
        try:
            self._objects.patch_json(POOLS, pool.name, [*operations, *changes], namespace=self._namespace)
        except PatchRefused:
            return False
        return True

    def _reserve(self, address: IPAddress, podref: str, ifname: str) -> None:
        body = {"metadata": {"name": self._name(address)}, "spec": {"podref": podref, "ifname": ifname}}
        try:
            self._objects.create(RESERVATIONS, body, namespace=self._namespace)
        except ObjectExists as e:
            raise StorageEngineError(f"reservation of {address} exists") from e

    def _name(self, address: IPAddress) -> str:
        return f"{self._network_name}-{_dashed(str(address))}" if self._network_name else _dashed(str(address))


def reconcile(objects: Objects, live: Mapping[str, Sequence[str]], *, namespace: str = "kube-system") -> None:
    """One run of ip-reconciler. `live` are the pods with the addresses of their network-status: `ns/name` to texts."""
    for pool in objects.list(POOLS, namespace=namespace):
        spec = msgspec.json.decode(pool.body)["spec"]
        reserved = _reserved(pool)
        stale = {r.ip for r in reserved if r.podref and str(r.ip) not in live.get(r.podref, ())}
        if stale:
            written = {
                str(int(r.ip) - int(ip_interface(spec["range"]).ip)): _entry(r) for r in reserved if r.ip not in stale
            }
            test = {"op": "test", "path": "/metadata/resourceVersion", "value": pool.version}
            objects.patch_json(POOLS, pool.name, [test, *_changes(spec["allocations"], written)], namespace=namespace)
    for reservation in objects.list(RESERVATIONS, namespace=namespace):
        podref = msgspec.json.decode(reservation.body)["spec"]["podref"]
        # The object's name is taken for an address as it is, so that one with a network_name never is one.
        address = reservation.name.replace("-", ":")
        if address not in live.get(podref, ()):
            objects.delete(RESERVATIONS, reservation.name, namespace=namespace)


def _assign(
    range_: IPNetwork,
    reserved: Sequence[Reserved],
    exclude: Sequence[IPNetwork],
    container_id: str,
    podref: str,
    ifname: str,
) -> tuple[IPAddress, list[Reserved]]:
    for n, r in enumerate(reserved):
        if (r.podref, r.ifname) == (podref, ifname) and not r.dummy:
            again = msgspec.structs.replace(r, id=container_id)
            return r.ip, [*reserved[:n], again, *reserved[n + 1 :]]
    taken = {r.ip for r in reserved}
    for address in range_.hosts():
        if address == range_.broadcast_address:  # not of IPv6 either
            break
        if address not in taken and not any(address in e for e in exclude):
            return address, [*reserved, Reserved(address, container_id, podref, ifname)]
    raise StorageEngineError(f"no free address in {range_}")


def _reserved(pool: ApiObject) -> list[Reserved]:
    spec = msgspec.json.decode(pool.body)["spec"]
    base = ip_interface(spec["range"]).ip
    return [
        Reserved(type(base)(int(base) + int(key)), entry["id"], entry["podref"], entry.get("ifname", ""))
        for key, entry in spec["allocations"].items()
        if key.removeprefix("-").isdecimal() and int(key) < 1 << 63
    ]


def _entry(reserved: Reserved) -> Mapping[str, str]:
    entry = {"id": reserved.id, "podref": reserved.podref}
    return {**entry, "ifname": reserved.ifname} if reserved.ifname else entry


def _changes(before: Allocations, after: Allocations) -> list[Mapping[str, Any]]:
    changes: list[Mapping[str, Any]] = []
    for key in sorted({*before, *after}):
        path = f"/spec/allocations/{key}"
        if key not in after:
            changes.append({"op": "remove", "path": path})
        elif key not in before:
            changes.append({"op": "add", "path": path, "value": after[key]})
        else:
            changes += [
                {"op": "replace", "path": f"{path}/{field}", "value": value}
                for field, value in after[key].items()
                if before[key].get(field) != value
            ]
    return changes


def _dashed(text: str) -> str:
    return (text + "0" if text.endswith(":") else text).replace(":", "-").replace("/", "-")
