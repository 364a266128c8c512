"""What a cluster says of itself, read and nothing changed. I/O: `ports.Objects`.

Each part is read by itself: what cannot be looked at is `Unseen` with the reason, and the others are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar

from homeport.doctor import cluster_decoding
from homeport.doctor.cluster_facts import (
    Chunk,
    ClusterFacts,
    Definition,
    Grant,
    Lease,
    Seen,
    Unreadable,
    Unseen,
    Webhook,
)
from homeport.doctor.looking import looked
from homeport.ipam.whereabouts import ForeignPool, decode_pool
from homeport.kube import decoding
from homeport.kube.resources import (
    CUSTOM_RESOURCES,
    DEFINITIONS,
    LEASES,
    NODES,
    PODS,
    ROLES,
    STATEFUL_SETS,
    WEBHOOKS,
    definition_of,
)
from homeport.model.errors import CniError, DecodeFailure
from homeport.ports import ApiObject, Objects, Resource
from homeport.stores.kubernetes import ledger, names, wire
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPLEDGERS, IPRANGES, IPSLOTS
from homeport.stores.whereabouts import POOLS

OURS = (IPALLOCATIONS, IPSLOTS, IPRANGES, IPLEDGERS, DEFINITIONS)
ROLE_NAMES = ("homeport-node", "homeport-controller")
CONTROLLER = "homeport-controller"  # its Lease
WEBHOOKS_NAME = "homeport"

T = TypeVar("T")


class Gatherer:
    """Reads one cluster, once. `namespace` is where the controllers run."""

    def __init__(self, objects: Objects, namespace: str) -> None:
        self._objects = objects
        self._namespace = namespace
        self._unreadable: list[Unreadable] = []
        self._manifests: list[ApiObject] = []

    def read(self, place: str, now: datetime) -> ClusterFacts:
        """Pods and nodes after the allocations: see `ClusterFacts`."""
        allocations = self._all(IPALLOCATIONS, wire.decode_record)
        slots = self._all(IPSLOTS, cluster_decoding.slot)
        nodes = self._all(NODES, lambda stored: decoding.decode_node(stored.body))
        return ClusterFacts(
            place=place,
            namespace=self._namespace,
            now=now,
            definitions=looked(self._definitions),
            roles=looked(self._roles),
            lease=looked(self._lease),
            allocations=allocations,
            slots=slots,
            nodes=nodes if isinstance(nodes, Unseen) else {node.name: node for node in nodes},
            pods=self._all(PODS, cluster_decoding.pod),
            networks=self._all(DEFINITIONS, lambda stored: decoding.decode_definition(self._kept(stored).body)),
            workloads=self._all(STATEFUL_SETS, lambda stored: self._kept(stored).name),
            ledger=looked(self._ledger),
            webhooks=looked(self._webhooks),
            foreign=looked(self._foreign),
            manifests=tuple(self._manifests),
            unreadable=tuple(self._unreadable),
        )

    def _all(self, resource: Resource, decode: Callable[[ApiObject], T]) -> Seen[tuple[T, ...]]:
        """Every object of a resource that can be decoded; the others are `unreadable`."""
        try:
            listed = self._objects.list(resource)
        except CniError as e:
            return Unseen(str(e))
        return tuple(self._decoded(resource, listed, decode))

    def _decoded(
        self, resource: Resource, listed: Iterable[ApiObject], decode: Callable[[ApiObject], T]
    ) -> Iterable[T]:
        for stored in listed:
            try:
                yield decode(stored)
            except DecodeFailure as e:
                name = f"{stored.namespace}/{stored.name}".removeprefix("/")
                self._unreadable.append(Unreadable(resource.plural, name, str(e)))

    def _kept(self, stored: ApiObject) -> ApiObject:
        self._manifests.append(stored)
        return stored

    def _definitions(self) -> dict[str, Definition | None]:
        return {
            name: cluster_decoding.definition(stored) if stored is not None else None
            for name in map(definition_of, OURS)
            for stored in (self._objects.get(CUSTOM_RESOURCES, name),)
        }

    def _roles(self) -> dict[str, frozenset[Grant] | None]:
        return {
            name: cluster_decoding.grants(stored) if stored is not None else None
            for name in ROLE_NAMES
            for stored in (self._objects.get(ROLES, name),)
        }

    def _lease(self) -> Lease | None:
        stored = self._objects.get(LEASES, CONTROLLER, namespace=self._namespace)
        return cluster_decoding.lease(stored) if stored is not None else None

    def _ledger(self) -> Chunk | None:
        """The part with the highest number. Whoever asks for its name may find it gone: then a younger one is there."""
        numbered = [n for n in self._objects.names(IPLEDGERS) if names.ledger_number(n) is not None]
        stored = self._objects.get(IPLEDGERS, max(numbered)) if numbered else None
        return Chunk(stored.name, ledger.decode_chunk(stored).end) if stored is not None else None

    def _webhooks(self) -> tuple[Webhook, ...]:
        stored = self._objects.get(WEBHOOKS, WEBHOOKS_NAME)
        return cluster_decoding.webhooks(stored) if stored is not None else ()

    def _foreign(self) -> tuple[ForeignPool, ...]:
        """Whereabouts' pools; none where its resource is not installed."""
        if self._objects.get(CUSTOM_RESOURCES, definition_of(POOLS)) is None:
            return ()
        listed = self._objects.list(POOLS)
        return tuple(self._decoded(POOLS, listed, lambda o: decode_pool(o.name, o.version, o.body)))
