"""What a cluster says of itself, as far as it could be looked at. Values only; no I/O."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias, TypeVar

import msgspec

from homeport.admission.rotating import Life
from homeport.ipam.identities import Slot
from homeport.ipam.objects import NodeState, Pod
from homeport.ipam.whereabouts import ForeignPool
from homeport.ports import ApiObject, NetworkDefinition, Place
from homeport.stores.kubernetes.wire import Record

T = TypeVar("T")


class Unseen(msgspec.Struct, frozen=True):
    """Something that could not be looked at, and why: nothing is concluded from it."""

    why: str


Seen: TypeAlias = T | Unseen


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """A CustomResourceDefinition. `keys` are the dotted paths of the served version's schema, empty without one."""

    served: tuple[str, ...]
    stored: str
    is_established: bool
    keys: frozenset[str] = frozenset()


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who leads the controllers. `holder` is "" where the last one stepped down."""

    holder: str
    renewed: datetime | None
    duration_seconds: int


class Grant(msgspec.Struct, frozen=True):
    """What a rule of a role allows: one verb on one resource."""

    group: str
    resource: str
    verb: str


class SeenPod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod. `networks` is its selection, "" without one; `app` its label app.kubernetes.io/name."""

    pod: Pod
    networks: str = ""
    app: str = ""
    images: tuple[str, ...] = ()
    on_host_network: bool = False
    is_running: bool = False
    started: datetime | None = None


class SeenSlot(msgspec.Struct, frozen=True, kw_only=True):
    """An IPSlot."""

    name: str
    slot: Slot
    places: tuple[Place, ...]
    created: datetime | None


class Chunk(msgspec.Struct, frozen=True):
    """The last part of the ledger: when its last change was made."""

    name: str
    end: datetime


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """One webhook of our ValidatingWebhookConfiguration. `authorities` are the lives of its caBundle's certificates;
    None for a bundle that cannot be read.
    """

    name: str
    failure_policy: str
    authorities: tuple[Life, ...] | None


class Unreadable(msgspec.Struct, frozen=True):
    """An object that is there and cannot be decoded."""

    kind: str
    name: str
    why: str


class ClusterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was read, each list whole, or `Unseen`.

    Pods and nodes were read after the allocations: a pod that is not among them was gone after its allocation had been
    there. A value None, or a key that is missing, is the API server's word that there is no such object.
    """

    place: str
    namespace: str  # of the controllers
    now: datetime
    definitions: Seen[dict[str, Definition | None]]
    roles: Seen[dict[str, frozenset[Grant] | None]]
    lease: Seen[Lease | None]
    allocations: Seen[tuple[Record, ...]]
    slots: Seen[tuple[SeenSlot, ...]]
    networks: Seen[tuple[NetworkDefinition, ...]]
    workloads: Seen[tuple[str, ...]]
    nodes: Seen[dict[str, NodeState]]
    pods: Seen[tuple[SeenPod, ...]]
    ledger: Seen[Chunk | None]
    webhooks: Seen[tuple[Webhook, ...]]
    foreign: Seen[tuple[ForeignPool, ...]]
    manifests: tuple[ApiObject, ...] = ()  # of networks and workloads, for lint
    unreadable: tuple[Unreadable, ...] = ()
